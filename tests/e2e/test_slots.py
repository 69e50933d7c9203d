"""Slots across jobs from jobbus.toml and job.toml to every place where people look and act."""

import asyncio
import json
import re
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobbus.client.client import Client
from tests.command_line import Cli, in_this_process
from tests.jobs import WAITING, Apps
from tests.service import Http, Service, eventually, eventually_answered, kill

Content = dict[str, Any]

ONE = "[group.database]\nmax_running = 1\n"
WAITS = WAITING.format(name="go-$JOBBUS_JOB_ID")


def define(apps: Apps) -> None:
    (apps.board / "go-G").mkdir()  # job ids have a slash
    for name in ("One", "Two", "Three"):
        apps.shell(f"G/{name}", WAITS, groups=["database"])
    apps.shell("G/Urgent", WAITS, groups=["database"], priority=100)
    apps.shell("G/Free", "exit 0")
    limit = {"count": 2, "within_s": 3600}
    apps.shell("G/Limited", "exit 0", start_limit=limit)


class Configured:
    """A service with a jobbus.toml that is read again when it was written."""

    def __init__(self, root: Path) -> None:
        self.service = Service(root)
        self.file = root / "jobbus.toml"
        self.file.write_text(ONE, encoding="utf-8")
        define(self.service.apps)

    def start(self) -> None:
        self.service.start("--config", str(self.file))

    def reload(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")
        kill(self.service.pid, signal.SIGHUP)


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Configured]:
    made = Configured(tmp_path)
    try:
        made.start()
        yield made
        assert not made.service.complaints()
    finally:
        made.service.clear_away()


@pytest.fixture
def service(configured: Configured) -> Service:
    return configured.service


@pytest.fixture
async def http(service: Service) -> AsyncIterator[Http]:
    async with service.http() as session:
        yield session


@pytest.fixture
def jobbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_this_process(monkeypatch, capsys)


async def queued(http: Http, job_id: str) -> str:
    """A start that waits; the id of its execution."""
    command = await http.publish(command="start", jobId=job_id)

    async def look() -> str | None:
        found = await http.call("GET", f"/commands/{command['commandId']}")
        return found.json["executionId"] if found.status == 200 else None

    return await eventually_answered(look, f"an execution of {job_id}")


async def running(http: Http, execution_id: str) -> Content:
    async def look() -> Content | None:
        found = await http.execution(execution_id)
        return found if found["status"] == "Running" else None

    return await eventually_answered(look, f"{execution_id} runs")


async def group(http: Http, name: str = "database") -> Content:
    items = (await http.get("/groups"))["items"]
    found: Content = next(each for each in items if each["name"] == name)
    return found


async def test_who_waits_for_a_group_says_for_whom_and_the_higher_priority_goes_first(
    service: Service, http: Http, jobbus: Cli
) -> None:
    one = await http.start("G/One")
    two, urgent = await queued(http, "G/Two"), await queued(http, "G/Urgent")
    reason = (await http.execution(two))["waitingFor"]
    holder = r"waiting for group database: 1 of 1 running \(G/One since \d\d:\d\d UTC\), position"
    assert re.fullmatch(f"{holder} 2", reason)
    assert re.fullmatch(f"{holder} 1", (await http.execution(urgent))["waitingFor"])
    assert await group(http) == {
        "name": "database",
        "maxRunning": 1,
        "running": 1,
        "waiting": 2,
        "paused": None,
        "defined": True,
        "version": (await group(http))["version"],
    }
    assert (await http.execution(one))["groups"] == ["database"]
    assert (await http.get("/jobs/G/Urgent"))["priority"] == 100
    for line in ("slots", "running", "waiting"):
        count = 2.0 if line == "waiting" else 1.0
        assert f'jobbus_group_{line}{{group="database"}} {count}' in await metrics_of(http)
    out = (await asyncio.to_thread(jobbus, service.root, "groups")).out
    assert re.search(r"database +1 +1 +2", out), out
    listed = (await asyncio.to_thread(jobbus, service.root, "ps", "--job", "G/Two")).out
    assert "waiting for group database: 1 of 1 running (G/One since " in listed
    service.apps.put("go-G/One")
    await running(http, urgent)
    assert (await http.execution(two))["status"] == "Queued"
    service.apps.put("go-G/Urgent")
    await running(http, two)


async def metrics_of(http: Http) -> str:
    async with http.session.get("/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


async def test_groups_are_seen_by_who_may_view_a_job_of_them_and_held_by_operators(
    configured: Configured, http: Http
) -> None:
    service = configured.service
    hidden = {"view": ["boss"], "start": ["boss"]}
    configured.reload(ONE + "[group.secret]\nmax_running = 1\n")
    service.apps.shell("G/Hidden", "exit 0", groups=["secret"], roles=hidden)
    await eventually_answered(lambda: _is_there(http, "G/Hidden"), "the hidden job")
    seen = {}
    for role in ("viewer", "boss", "operator", "stranger"):
        made = await http.call("POST", "/tokens", {"userId": f"a-{role}", "roles": [role]})
        bearer = {"Authorization": f"Bearer {made.json['token']}"}
        items = (await http.call("GET", "/groups", **bearer)).json["items"]
        pause = {"command": "queue.pause", "group": "secret"}
        paused = await http.call("POST", "/commands", pause, **bearer)
        seen[role] = ([each["name"] for each in items], paused.status)
    assert seen == {
        "viewer": (["database"], 403),
        "boss": (["secret"], 403),
        "operator": (["database", "secret"], 202),
        "stranger": ([], 403),
    }


async def _is_there(http: Http, job_id: str) -> bool:
    found = await http.call("GET", f"/jobs/{job_id}")
    return found.status == 200 and bool(found.json["revision"])


async def test_slots_are_held_over_a_kill_and_given_out_once(
    configured: Configured, service: Service
) -> None:
    async with service.http() as http:
        one = await http.start("G/One")
        two, three = await queued(http, "G/Two"), await queued(http, "G/Three")
        await http.publish(20, command="queue.pause", group="database", reason="new disk")
    service.kill9()
    configured.start()
    async with service.http() as http:
        assert (await group(http))["running"] == 1
        service.apps.put("go-G/One")
        assert (await http.ended(one))["status"] == "Succeeded"
        held = (await http.execution(two))["waitingFor"]
        assert held.startswith("waiting for group database, which admin has paused since ")
        assert held.endswith(": new disk")
        assert (await group(http))["paused"]["reason"] == "new disk"
        assert await http.publish(20, command="queue.resume", group="database")
        await running(http, two)
        assert (await http.execution(three))["status"] == "Queued"
        service.apps.put("go-G/Two")
        await running(http, three)


async def test_a_limit_that_is_read_again_counts_at_once_and_ends_nothing(
    configured: Configured, http: Http
) -> None:
    await http.start("G/One")
    two, three = await queued(http, "G/Two"), await queued(http, "G/Three")
    configured.reload(ONE.replace("1", "3"))
    await running(http, two)
    await running(http, three)
    configured.reload(ONE)
    await eventually_answered(lambda: _limit_is(http, 1), "the lower limit")
    assert (await group(http))["running"] == 3
    last = await queued(http, "G/Urgent")
    configured.service.apps.put("go-G/Two")
    await http.ended(two)
    assert (await http.execution(last))["status"] == "Queued"
    assert "2 of 1 running" in (await http.execution(last))["waitingFor"]


async def _limit_is(http: Http, most: int) -> bool:
    return bool((await group(http))["maxRunning"] == most)


async def test_an_unknown_group_is_the_mistake_of_its_job_and_the_last_good_version_stays(
    configured: Configured, http: Http, jobbus: Cli
) -> None:
    configured.service.apps.shell("G/Wrong", "exit 0", groups=["databse"])

    async def fault_of(job_id: str) -> Content | None:
        found = await http.call("GET", f"/jobs/{job_id}")
        return found.json.get("fault") if found.status == 200 else None

    fault = await eventually_answered(lambda: fault_of("G/Wrong"), "the mistake")
    assert fault["line"] > 0
    assert 'there is no group "databse"; did you mean "database"?' in fault["reason"]
    checked = await asyncio.to_thread(
        jobbus, configured.service.root, "check", str(configured.service.root)
    )
    assert checked.code == 1
    assert 'no group "databse"' in checked.out
    configured.reload("[group.disk]\nmax_running = 1\n")
    fault = await eventually_answered(lambda: fault_of("G/One"), "the mistake")
    assert 'there is no group "database"' in fault["reason"]
    kept = await group(http)
    assert (kept["defined"], kept["maxRunning"]) == (False, 1)
    one = await http.start("G/One")
    two = await queued(http, "G/Two")
    assert "waiting for group database: 1 of 1" in (await http.execution(two))["waitingFor"]
    configured.reload(ONE)

    async def is_repaired() -> bool:
        return await fault_of("G/One") is None and (await group(http))["defined"]

    await eventually_answered(is_repaired, "the group is back")
    assert (await http.execution(one))["status"] == "Running"


async def test_queues_are_held_by_every_way_in(service: Service, http: Http, jobbus: Cli) -> None:
    """HTTP, a batch, a dropped file, the command line and the Python client."""

    async def paused() -> Content | None:
        found: Content | None = (await http.get("/jobs/G/Free"))["paused"]
        return found

    async def resumed() -> bool:
        return await paused() is None

    pause = {"command": "queue.pause", "jobId": "G/Free", "reason": "why"}
    resume = {"command": "queue.resume", "jobId": "G/Free"}
    lines = "".join(json.dumps(each) + "\n" for each in (pause, resume, pause))
    async with http.session.post(
        "/api/v1/commands", data=lines, headers={"Content-Type": "application/x-ndjson"}
    ) as answer:
        assert answer.status == 200, await answer.text()
    held = await eventually_answered(paused, "a pause by a batch")
    assert (held["reason"], held["by"], held["until"]) == ("why", "admin", None)
    assert (await http.get("/jobs/G/Free"))["may"]["start"]["allowed"]
    waits = await queued(http, "G/Free")
    name = str(uuid.uuid4())
    drop(service, name, {"Command": "queue.resume", "JobID": "G/Free"})
    assert (await http.ended(waits))["status"] == "Succeeded"
    until = "2099-01-01T01:00:00+01:00"
    drop(service, name := str(uuid.uuid4()), {**FILE, "Until": until, "Reason": "a file"})
    held = await eventually_answered(paused, "a pause by a file")
    assert (held["reason"], held["until"]) == ("a file", "2099-01-01T00:00:00.000Z")
    await eventually(lambda: service.result(name), "its result")
    ran = await asyncio.to_thread(jobbus, service.root, "queue", "resume", "G/Free", "--wait")
    assert (ran.code, await resumed()) == (0, True), ran.err
    ran = await asyncio.to_thread(jobbus, service.root, "queue", "pause", "--group", "databse")
    assert ran.err.endswith('no group "databse" in jobbus.toml; did you mean "database"?\n')
    arguments = ("queue", "pause", "--group", "database", "--reason", "cli", "--until", "+2h")
    ran = await asyncio.to_thread(jobbus, service.root, *arguments, "--wait")
    assert (ran.code, "jobbus queue resume --group database" in ran.out) == (0, True), ran.err
    assert (await group(http))["paused"]["until"] is not None
    listed = await asyncio.to_thread(jobbus, service.root, "groups")
    assert "paused by admin since" in listed.out
    async with Client(service.url, service.token) as client:
        await client.resume_queue(group="database", wait_s=20)
        found = (await client.groups()).items
        assert [(each.name, each.paused) for each in found] == [("database", None)]
        await client.pause_queue("G/Free", reason="client", wait_s=20)
        job = await client.job("G/Free")
        assert job.paused is not None
        assert (job.paused.reason, job.groups) == ("client", ())
    audit = (await http.get("/audit?limit=50"))["items"]
    acts = [(each["action"], each.get("detail")) for each in audit]
    assert ("queue.resume", {"group": "database"}) in acts
    assert any(a == "queue.pause" and d.get("reason") == "cli" for a, d in acts if d)
    for wrong, code, words in (
        ({"group": "databse"}, 404, "database"),
        ({}, 422, "one of them"),
        ({"jobId": "G/Free", "group": "database"}, 422, "one of them"),
        ({"jobId": "G/Free", "until": "soon"}, 422, "with its zone"),
        ({"jobId": "G/Free", "until": "2020-01-01T00:00:00Z"}, 422, "ahead"),
        ({"jobId": "G/Free", "reason": "x" * 501}, 422, "500"),
    ):
        answer_ = await http.call("POST", "/commands", {"command": "queue.pause", **wrong})
        assert (answer_.status, words in answer_.body.decode()) == (code, True), answer_.body


FILE = {"Command": "queue.pause", "JobID": "G/Free"}


def drop(service: Service, command_id: str, fields: dict[str, str]) -> None:
    """A file of another program, as a publisher that renames leaves it."""
    whole = {"CommandID": command_id, "SubmittedAt": "2099-01-01T00:00:00Z", **fields}
    queue = service.data / "JobCommandQueue"
    draft = queue / ".tmp" / f"{command_id}.json"
    draft.write_text(json.dumps(whole), encoding="utf-8")
    draft.rename(queue / f"{command_id}.json")


async def test_a_start_over_the_limit_is_refused_with_when_it_may_start_again(
    service: Service, http: Http
) -> None:
    for _ in range(2):
        await http.ended(await http.start("G/Limited"))
    refused = await http.call("POST", "/commands", {"command": "start", "jobId": "G/Limited"})
    assert (refused.status, refused.json["code"]) == (409, "start_limit"), refused.body
    assert "2 times within 1 h" in refused.json["detail"]
    shown = await http.get("/jobs/G/Limited")
    assert shown["startLimit"] == {"count": 2, "withinS": 3600}


async def test_events_of_groups_carry_the_group(service: Service, http: Http) -> None:
    async with await service.stream("/api/v1/events?start=now&type=group.*") as stream:
        await http.publish(20, command="queue.pause", group="database", reason="why")
        received = await stream.until_change("group.paused")
    data = received[-1].data
    assert data["subject"] == "groups/database"
    assert data["data"]["paused"]["reason"] == "why"
