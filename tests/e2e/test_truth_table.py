"""Who may do what, in every door: each kind of person, each kind of job, each action.

The answers of a whole service are held against `tests.permission_fixture.expected`, which knows
only the words of the contract. Every door is one test; each of its cells is one question.
"""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from jobbus.cli.main import run as jobbus
from tests.permission_fixture import (
    JOBS,
    PEOPLE,
    Job,
    PermissionService,
    Person,
    Run,
    Verdict,
    expected,
    expected_of_job,
    permission_service,
)
from tests.service import PATIENCE_S, eventually
from tests.socket_client import open_socket
from tests.tally import Kind, Tally

API = "/api/v1"
ALLOWED, REFUSED, HIDDEN = Verdict.ALLOWED, Verdict.REFUSED, Verdict.HIDDEN
BUSY = {"already_running", "execution_required", "not_ended", "already_ended", "disabled"}
"""What is said only to those who may: the state, not the permission, is in the way."""

Question = tuple[str, str, object, dict[str, str]]
"""Method, path, body and headers."""

Cell = tuple[str, object, object]
"""Whose question about what, what the contract says, what the service did."""


@pytest.fixture(scope="module")
def permissions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PermissionService]:
    with permission_service(tmp_path_factory.mktemp("table")) as made:
        yield made


class Asking:
    """One person's session with the service."""

    def __init__(
        self, permissions: PermissionService, person: Person, http: aiohttp.ClientSession
    ) -> None:
        self.permissions = permissions
        self.person = person
        self.http = http

    async def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, bytes]:
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, API + path, json=body, headers=spelled) as answer:
            return answer.status, await answer.read()

    async def verdict(self, method: str, path: str, body: object = None, **headers: str) -> Verdict:
        return verdict_of(*await self.ask(method, path, body, **headers))

    async def items(self, path: str, **headers: str) -> list[dict[str, Any]]:
        status, body = await self.ask("GET", path, **headers)
        assert status == 200, body
        found: list[dict[str, Any]] = json.loads(body)["items"]
        return found

    def cell(self, what: str, wanted: object, got: object) -> Cell:
        return f"{self.person.name}: {what}", wanted, got

    def sees(self, run: Run) -> bool:
        return expected(self.person, "view", run.job, run.owner) is ALLOWED

    def sees_job(self, job: Job) -> bool:
        return expected_of_job(self.person, "view", job) is ALLOWED


def verdict_of(status: int, body: bytes) -> Verdict:
    """What an answer says of the permission; anything else is no answer of the table."""
    if status in (200, 201, 202, 204):
        return ALLOWED
    code = json.loads(body)["code"]
    if status == 409 and code in BUSY:
        return ALLOWED
    assert status in (403, 404), (status, body)
    return REFUSED if status == 403 else HIDDEN


@asynccontextmanager
async def asking(permissions: PermissionService, person: Person) -> AsyncIterator[Asking]:
    headers = {"Authorization": f"Bearer {permissions.tokens[person.name]}"}
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(
        permissions.service.url, headers=headers, timeout=timeout
    ) as http:
        yield Asking(permissions, person, http)


# doors: each yields the cells of one person


async def job_pages(me: Asking) -> AsyncIterator[Cell]:
    for job in JOBS:
        got = await me.verdict("GET", f"/jobs/{job.id}")
        yield me.cell(f"page of {job.id}", expected_of_job(me.person, "view", job), got)


async def what_it_says_that_you_may(me: Asking) -> AsyncIterator[Cell]:
    for job in JOBS:
        status, body = await me.ask("GET", f"/jobs/{job.id}")
        if status == 404:
            continue
        for action, grant in json.loads(body)["may"].items():
            wanted = expected(me.person, action, job) is ALLOWED
            yield me.cell(f"said that {action} {job.id}", (wanted, wanted), (
                grant["allowed"], grant["why"] is None
            ))  # fmt: skip


async def job_list(me: Asking) -> AsyncIterator[Cell]:
    listed = [item["jobId"] for item in await me.items("/jobs")]
    for job in JOBS:
        yield me.cell(f"{job.id} in the list", me.sees_job(job), job.id in listed)


async def job_status_command(me: Asking) -> AsyncIterator[Cell]:
    for job in JOBS:
        wanted = expected_of_job(me.person, "view", job)
        body = {"command": "status", "jobId": job.id}
        yield me.cell(f"status of {job.id}", wanted, await me.verdict("POST", "/commands", body))
        call = await me.verdict("POST", "/jobs/status", {"jobId": job.id})
        yield me.cell(f"status call for {job.id}", wanted, call)


async def start_and_restart(me: Asking) -> AsyncIterator[Cell]:
    for job in JOBS:
        for action in ("start", "restart"):
            wanted = expected_of_job(me.person, action, job)
            body = {"command": action, "jobId": job.id}
            got = await me.verdict("POST", "/commands", body)
            yield me.cell(f"{action} {job.id}", wanted, got)
            call = await me.verdict("POST", f"/jobs/{action}", {"jobId": job.id})
            yield me.cell(f"call to {action} {job.id}", wanted, call)


async def stop_of_a_whole_job(me: Asking) -> AsyncIterator[Cell]:
    for job in JOBS:
        wanted = expected(me.person, "stop", job)
        body = {"command": "stop", "jobId": job.idle_id, "graceS": 86_400}
        yield me.cell(f"stop {job.idle_id}", wanted, await me.verdict("POST", "/commands", body))


async def execution_pages(me: Asking) -> AsyncIterator[Cell]:
    for run in me.permissions.runs:
        wanted = expected(me.person, "view", run.job, run.owner)
        path = f"/executions/{run.execution_id}"
        yield me.cell(f"page of {run}", wanted, await me.verdict("GET", path))
        poll = await me.verdict("GET", path, Prefer="wait=1", If_None_Match='"x"')
        yield me.cell(f"long poll of {run}", wanted, poll)


async def execution_lists(me: Asking) -> AsyncIterator[Cell]:
    everything = [item["executionId"] for item in await me.items("/executions?limit=500")]
    by_user = [item["executionId"] for item in await me.items("/executions?user=owen&limit=500")]
    for run in me.permissions.runs:
        sees = me.sees(run)
        yield me.cell(f"{run} in the list", sees, run.execution_id in everything)
        found = run.execution_id in by_user
        yield me.cell(f"{run} found by its user", sees and run.owner == "owen", found)


async def counts(me: Asking) -> AsyncIterator[Cell]:
    """Walked one by one: neither the number of pages nor a cursor reveals what is hidden."""
    for job in JOBS:
        wanted = sum(me.sees(run) for run in me.permissions.runs if run.job == job)
        walked, path = 0, f"/executions?job={job.id}&limit=1"
        following: str | None = ""
        while following is not None:
            status, body = await me.ask("GET", path + following)
            assert status == 200, body
            page = json.loads(body)
            walked += len(page["items"])
            following = f"&cursor={page['next']}" if page["next"] else None
            assert page["items"] or following is None, "an empty page with another behind it"
        yield me.cell(f"executions of {job.id}", wanted, walked)


async def executions_acted_on(me: Asking) -> AsyncIterator[Cell]:
    for run in me.permissions.ended:
        path = f"/executions/{run.execution_id}"
        wanted = expected(me.person, "stop", run.job, run.owner)
        yield me.cell(f"stop {run}", wanted, await me.verdict("POST", f"{path}/stop", {}))
        body = {"command": "stop", "executionId": run.execution_id}
        yield me.cell(f"command to stop {run}", wanted, await me.verdict("POST", "/commands", body))
    for run in me.permissions.live:
        path = f"/executions/{run.execution_id}"
        wanted = expected(me.person, "start", run.job, run.owner)
        yield me.cell(f"retry {run}", wanted, await me.verdict("POST", f"{path}/retry", {}))
        # Forgetting goes by the right to stop, the owner's too: docs/protocol.md says so.
        wanted = expected(me.person, "stop", run.job, run.owner)
        yield me.cell(f"delete {run}", wanted, await me.verdict("DELETE", path))


async def outputs(me: Asking) -> AsyncIterator[Cell]:
    for run in me.permissions.ended:
        wanted = expected(me.person, "output", run.job, run.owner)
        path = f"/executions/{run.execution_id}"
        for tail in ("/output", "/output?format=json&tail=1", "/output?grep=said", "/stream"):
            yield me.cell(f"{tail} of {run}", wanted, await me.verdict("GET", path + tail))
        status, body = await me.ask("GET", f"{path}/output", Range="bytes=0-1")
        got = ALLOWED if status == 206 else verdict_of(status, body)
        yield me.cell(f"range of {run}", wanted, got)


async def tickets(me: Asking) -> AsyncIterator[Cell]:
    for run in me.permissions.ended:
        path = f"/executions/{run.execution_id}/stream"
        status, body = await me.ask("POST", "/tickets", {"path": API + path})
        assert status == 201, body
        ticket = json.loads(body)["ticket"]
        async with aiohttp.ClientSession(me.permissions.service.url) as anonymous:
            headers = {"Accept": "text/event-stream"}
            async with anonymous.get(f"{API}{path}?ticket={ticket}", headers=headers) as answer:
                got = verdict_of(answer.status, await answer.read())
        yield me.cell(f"ticket for {run}", expected(me.person, "output", run.job, run.owner), got)


async def commands(me: Asking) -> AsyncIterator[Cell]:
    listed = [item["commandId"] for item in await me.items("/commands?limit=500&status=Completed")]
    for run in me.permissions.ended:
        wanted = expected(me.person, "view", run.job, run.owner)
        yield me.cell(f"command of {run} listed", wanted is ALLOWED, run.command_id in listed)
        path = f"/commands/{run.command_id}"
        yield me.cell(f"command of {run}", wanted, await me.verdict("GET", path))
        yield me.cell(f"wait for {run}", wanted, await me.verdict("GET", path, Prefer="wait=1"))
        # Who sent a command may take it back; else it takes the right to stop.
        wanted = expected(me.person, "stop", run.job, run.owner)
        got = await me.verdict("POST", f"{path}/cancel", {})
        yield me.cell(f"cancel command of {run}", wanted, got)


async def batches(me: Asking) -> AsyncIterator[Cell]:
    lines = [{"command": "start", "jobId": job.id} for job in JOBS]
    data = "\n".join(map(json.dumps, lines))
    kind = {"Content-Type": "application/x-ndjson"}
    async with me.http.post(f"{API}/commands", data=data, headers=kind) as answer:
        assert answer.status == 200
        answers = [json.loads(line) for line in (await answer.text()).splitlines()]
    for job, line in zip(JOBS, answers, strict=True):
        problem = line.get("problem")
        got = verdict_of(problem["status"], json.dumps(problem).encode()) if problem else ALLOWED
        yield me.cell(f"line to start {job.id}", expected_of_job(me.person, "start", job), got)


async def event_pages(me: Asking) -> AsyncIterator[Cell]:
    seen: set[str] = set()
    following = ""
    while True:
        path = f"/events?type=execution.*&limit=500{following}"
        status, body = await me.ask("GET", path, Accept="application/json")
        assert status == 200, body
        page = json.loads(body)
        seen |= {item["execution"] for item in page["items"]}
        if not page["items"] or page["next"] == page["asOf"]:
            break
        following = f"&last_event_id={page['next']}"
    for run in me.permissions.runs:
        yield me.cell(f"{run} in pages of events", me.sees(run), run.execution_id in seen)


async def event_streams(me: Asking) -> AsyncIterator[Cell]:
    """A snapshot, a replay of all there was, and a replay by filter; each to its bookmark."""
    for query in ("start=snapshot", "start=earliest", "start=earliest&job=P/Hidden"):
        seen = await _sent_by_stream(me, query)
        runs = [
            run for run in me.permissions.runs if "job=" not in query or run.job.name == "Hidden"
        ]
        for run in runs:
            yield me.cell(f"{run} in {query}", me.sees(run), run.execution_id in seen)


async def _sent_by_stream(me: Asking, query: str) -> set[str]:
    """The executions of all frames up to one that only this person can have caused."""
    seen: set[str] = set()
    headers = {"Accept": "application/x-ndjson"}
    async with me.http.get(f"{API}/events?{query}", headers=headers) as stream:
        assert stream.status == 200
        fence = await asyncio.to_thread(
            drop, me.permissions, me.person, "start", "P/Hidden", ("no",)
        )
        async for line in stream.content:
            frame = json.loads(line)
            if _is_about(frame, fence):
                return seen
            seen |= executions_in(frame)
    raise AssertionError("the stream ended by itself")


def _is_about(frame: dict[str, Any], command_id: str) -> bool:
    data = frame.get("data") or {}
    is_its: bool = data.get("subject") == f"commands/{command_id}"
    return is_its and data["type"] == "command.ended"


def executions_in(frame: dict[str, Any]) -> set[str]:
    """The executions that a frame of `/events` or of a socket says something of."""
    data = frame.get("data") or {}
    if frame["op"] == "snapshot":
        return {item["executionId"] for item in data["items"] if "executionId" in item}
    if frame["op"] == "change" and data["subject"].startswith("executions/"):
        return {data["execution"]}
    return set()


def drop(
    permissions: PermissionService,
    person: Person,
    command: str,
    job_id: str,
    roles: tuple[str, ...],
) -> str:
    """A file of the service's own account, as a host writes it: its user and roles are believed."""
    command_id = str(uuid4())
    fields = {
        "CommandID": command_id,
        "Command": command,
        "JobID": job_id,
        "UserID": person.name,
        "Roles": roles,
    }
    path = permissions.service.data / "JobCommandQueue" / f"{command_id}.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    return command_id


async def directory_files(me: Asking) -> AsyncIterator[Cell]:
    """`admin` in a file is not believed: such a file has its other roles only."""
    believed = Person(me.person.name, tuple(r for r in me.person.roles if r != "admin") or ("x",))
    dropped = {
        (job, action): drop(me.permissions, me.person, action, job.id, me.person.roles)
        for job in JOBS
        for action in ("start", "restart", "status")
    }
    for (job, action), command_id in dropped.items():
        result = await eventually(lambda i=command_id: me.permissions.service.result(i))  # type: ignore[misc]
        wanted = expected_of_job(believed, "view" if action == "status" else action, job)
        yield me.cell(f"file to {action} {job.id}", wanted, verdict_of_result(result))


def verdict_of_result(result: dict[str, Any]) -> Verdict:
    code = result["ErrorCode"]
    if result["Status"] == "Completed" or code in BUSY:
        return ALLOWED
    assert code in ("not_permitted", "unknown_job"), result
    return REFUSED if code == "not_permitted" else HIDDEN


async def sockets(me: Asking) -> AsyncIterator[Cell]:
    token = me.permissions.tokens[me.person.name]
    async with open_socket(me.permissions.service.url, token) as socket:
        await socket.say("subscribe", sub="all", topic="events", start="snapshot")
        frames = await socket.until("snapshot_end", "all")
        seen = {i for frame in frames for i in executions_in(frame.whole)}
        for run in me.permissions.runs:
            yield me.cell(f"{run} in a socket", me.sees(run), run.execution_id in seen)
        for number, run in enumerate(me.permissions.ended):
            sub = f"out{number}"
            execution_id = run.execution_id
            await socket.say("subscribe", sub=sub, topic="output", execution=execution_id)
            frame = (
                await socket.until_it(
                    lambda frame, sub=sub: frame.sub == sub and frame.op in ("hello", "problem")  # type: ignore[misc]
                )
            )[-1]
            got = ALLOWED if frame.op == "hello" else verdict_of(*_problem(frame.data))
            wanted = expected(me.person, "output", run.job, run.owner)
            yield me.cell(f"output of {run} in a socket", wanted, got)
        for job in JOBS:
            ref = job.name
            command = {"command": "start", "jobId": job.id}
            await socket.say("publish", ref=ref, command=command)
            frame = (await socket.until_it(lambda frame, ref=ref: frame.ref == ref))[-1]  # type: ignore[misc]
            got = ALLOWED if frame.op == "result" else verdict_of(*_problem(frame.data))
            yield me.cell(
                f"start {job.id} by socket", expected_of_job(me.person, "start", job), got
            )


def _problem(data: dict[str, Any]) -> tuple[int, bytes]:
    return data["status"], json.dumps(data).encode()


async def what_is_for_admins(me: Asking) -> AsyncIterator[Cell]:
    wanted = ALLOWED if "admin" in me.person.roles else REFUSED
    for path in ("/audit", "/audit?actor=root", "/system", "/tokens", "/../../metrics"):
        yield me.cell(path, wanted, await me.verdict("GET", path))
    maintenance = await me.verdict("POST", "/system/maintenance", {"on": False})
    yield me.cell("maintenance", wanted, maintenance)


ABSENT = (
    "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
    "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c",
    "P/Absent",
)

_CHANGING = re.compile(rb'"instance":"[0-9a-f]+"|[a-z0-9]{6,16}-\d+(?=")')
"""What differs between any two answers: the id of the request, the head of the feed."""


def questions(execution_id: str, command_id: str, job_id: str) -> Iterator[Question]:
    """All that can be asked about one execution, its command and its job."""
    execution, command = f"/executions/{execution_id}", f"/commands/{command_id}"
    for tail in ("", "/output", "/output?grep=said", "/output?from=1&tail=1", "/stream"):
        yield "GET", execution + tail, None, {}
        yield "HEAD", execution + tail, None, {}
    yield "GET", execution, None, {"If-None-Match": "*", "Prefer": "wait=1"}
    yield "GET", f"{execution}/output", None, {"Range": "bytes=0-1"}
    yield "GET", command, None, {}
    yield "GET", command, None, {"Prefer": "wait=1"}
    yield "GET", f"/jobs/{job_id}", None, {}
    for name, value in (("job", job_id), ("execution", execution_id)):
        yield "GET", f"/events?{name}={value}", None, {"Accept": "application/json"}
    for things in ("executions", "commands"):
        yield "GET", f"/{things}?job={job_id}", None, {}
    for at_ms in (0, 1 << 45):
        for things, one in (("executions", execution_id), ("commands", command_id)):
            made = base64.urlsafe_b64encode(f"{at_ms}.{one}".encode()).decode().rstrip("=")
            yield "GET", f"/{things}?job=P/None&cursor={made}", None, {}
    for body in ({}, {"nonsense": 1}):
        yield "POST", f"{execution}/stop", body, {}
        yield "POST", f"{execution}/retry", body, {}
        yield "POST", f"{command}/cancel", body, {}
    yield "DELETE", execution, None, {}
    for verb in ("start", "stop", "restart", "status"):
        yield "POST", f"/jobs/{verb}", {"jobId": job_id}, {}
        yield "POST", "/commands", {"command": verb, "jobId": job_id}, {}
    for verb in ("stop", "restart", "retry", "delete"):
        yield "POST", "/commands", {"command": verb, "executionId": execution_id}, {}
    yield "POST", "/commands", {"command": "cancel", "targetId": command_id}, {}
    wrong = {"command": "start", "jobId": job_id, "variables": {"Nonsense": []}}
    yield "POST", "/commands", wrong, {}


async def hidden_as_absent(me: Asking) -> AsyncIterator[Cell]:
    """Status, headers and words are those for what never was, whatever is asked about it."""
    seen = {run.job for run in me.permissions.runs if me.sees(run) or me.sees_job(run.job)}
    hidden = [run for run in me.permissions.ended if run.job not in seen]
    run = (hidden or [run for run in me.permissions.ended if me.sees(run)])[0]
    names = (run.execution_id, run.command_id, run.job.id)
    asked = zip(questions(*names), questions(*ABSENT), strict=True)
    for about, about_nothing in asked if hidden else [next(asked)]:
        to_hidden = await _comparable(me, about, names)
        to_nothing = await _comparable(me, about_nothing, ABSENT)
        what = f"{about[0]} {about[1]}: {to_hidden!s:.300} as {to_nothing!s:.300}"
        yield me.cell(what, bool(hidden), to_hidden == to_nothing)


async def _comparable(me: Asking, question: Question, names: tuple[str, ...]) -> tuple[object, ...]:
    """The answer without what differs between any two."""
    method, path, body, headers = question
    async with me.http.request(method, API + path, json=body, headers=headers) as answer:
        words = await answer.read()
    for name in names:
        words = words.replace(name.encode(), b"NAME")
    passing = ("date", "x-request-id", "content-length")
    kept = {name: value for name, value in answer.headers.items() if name.lower() not in passing}
    return answer.status, kept, _CHANGING.sub(b"", words)


Door = Callable[[Asking], AsyncIterator[Cell]]
DOORS: tuple[Door, ...] = (
    hidden_as_absent,  # first: later ones leave commands of these people, refused but their own
    job_pages,
    what_it_says_that_you_may,
    job_list,
    job_status_command,
    start_and_restart,
    stop_of_a_whole_job,
    execution_pages,
    execution_lists,
    counts,
    executions_acted_on,
    outputs,
    tickets,
    commands,
    batches,
    event_pages,
    event_streams,
    sockets,
    directory_files,
    what_is_for_admins,
)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
async def test_door_keeps_to_the_table(
    permissions: PermissionService, door: Door, tally: Tally
) -> None:
    async def of(person: Person) -> list[Cell]:
        async with asking(permissions, person) as me:
            return [cell async for cell in door(me)]

    judge(tally, door.__name__, await asyncio.gather(*map(of, PEOPLE)))


def judge(tally: Tally, door: str, asked: Iterable[list[Cell]]) -> None:
    """Every cell is as the contract says; the end of the run reports how many there were."""
    cells = [cell for of_one in asked for cell in of_one]
    wrong = [f"{what}: {got}, not {wanted}" for what, wanted, got in cells if wanted != got]
    tally.add(Kind.PERMISSIONS, door, len(cells), len(wrong))
    assert not wrong, f"{len(wrong)} of {len(cells)}:\n" + "\n".join(wrong)
    kinds = len({str(wanted) for _, wanted, _ in cells})
    assert kinds > 1, "a door that says the same to everybody tests nothing"


EXIT = {ALLOWED: {0, 6}, REFUSED: {4}, HIDDEN: {3}}
"""0, or 6 where only the state is in the way."""


def test_command_line_exits_as_the_table_says(
    permissions: PermissionService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tally: Tally,
) -> None:
    cells: list[Cell] = []
    monkeypatch.setenv("JOBBUS_URL", permissions.service.url)
    ended = [run for run in permissions.ended if run.owner == "owen"]
    for person in PEOPLE:
        monkeypatch.setenv("JOBBUS_TOKEN", permissions.tokens[person.name])
        for job in JOBS:
            wanted = expected_of_job(person, "start", job)
            cells.append((f"{person.name}: start {job.id}", *_exit(wanted, "start", job.id)))
        for run in ended:
            wanted = expected(person, "output", run.job, run.owner)
            what = f"{person.name}: logs of {run}"
            cells.append((what, *_exit(wanted, "logs", run.execution_id)))
    capsys.readouterr()
    judge(tally, "command_line", [cells])


def _exit(wanted: Verdict, *arguments: str) -> tuple[str, str]:
    code = jobbus(arguments)
    fits = code in EXIT[wanted]
    return wanted.value, wanted.value if fits else f"exit {code}"


async def test_live_changes_reach_only_those_who_may_see_them(
    permissions: PermissionService, tally: Tally
) -> None:
    """Last, since it forgets the ended executions: that is the change."""
    received = {person.name: set[str]() for person in PEOPLE}
    opened = {person.name: asyncio.Event() for person in PEOPLE}

    async def listen(person: Person) -> None:
        async with asking(permissions, person) as me:
            headers = {"Accept": "application/x-ndjson"}
            async with me.http.get(f"{API}/events?start=now", headers=headers) as stream:
                opened[person.name].set()
                async for line in stream.content:
                    frame = json.loads(line)
                    received[person.name] |= executions_in(frame)
                    if _is_about(frame, fences.get(person.name, "")):
                        return

    fences: dict[str, str] = {}
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for person in PEOPLE:
            group.create_task(listen(person), name=person.name)
        for event in opened.values():
            await event.wait()
        async with asking(permissions, PEOPLE[0]) as root:
            for run in permissions.ended:
                path = f"/executions/{run.execution_id}"
                assert await root.verdict("DELETE", path, Prefer="wait=20") is ALLOWED
        for person in PEOPLE:
            fences[person.name] = drop(permissions, person, "start", "P/None", ("no",))
    cells: list[Cell] = [
        (
            f"{person.name}: {run} forgotten",
            expected(person, "view", run.job, run.owner) is ALLOWED,
            run.execution_id in received[person.name],
        )
        for person in PEOPLE
        for run in permissions.ended
    ]
    judge(tally, "live_changes", [cells])
