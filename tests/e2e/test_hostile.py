"""What somebody would try who means harm, at each door: nothing gets in, nothing crashes.

Wrong requests by honest people are in `test_bad_input`; here somebody pretends, hides, injects,
floods and squats. After each case no command waits, no program ran, and the service serves.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.jobs import WAITING, Apps
from tests.raw_stream import RawStream
from tests.service import Service, eventually, running_service
from tests.tally import Kind, Tally

COMMANDS = "/api/v1/commands"
KIB, MIB = 1024, 1024 * 1024
SOME_ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
START = {"command": "start", "jobId": "H/Guarded"}

HOSTILE = Kind.HOSTILE


class Attacked:
    """The service, and the token of somebody who may view the jobs and nothing else."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.token = ""
        self.files = 0

    @property
    def headers(self) -> dict[str, str | None]:
        return {"Authorization": f"Bearer {self.token}"}

    async def token_of(self, user: str, *roles: str) -> str:
        async with self.service.http() as http:
            made = await http.call("POST", "/tokens", {"userId": user, "roles": roles})
        token: str = made.json["token"]
        return token


def define(apps: Apps) -> None:
    text = {"type": "string", "default": "-", "allow_dash": True, "max_length": 32_000}
    plain = {"type": "string", "default": "x"}
    apps.shell("H/Guarded", 'echo ran >> "$BOARD/ran"', roles={"view": ["viewer"], "start": []})
    apps.write(
        "H/Echo",
        ("printf", "%s\\n", "{{Text}}", "{{Other}}"),
        max_running=50,
        variables={"Text": text, "Other": {**text, "default": "other"}},
    )
    apps.shell("H/Plain", "exit 0", max_running=50, variables={"Name": plain})
    apps.shell(
        "H/Loud",
        f'cat "$BOARD/progress" >> "$JOBBUS_PROGRESS"; cat "$BOARD/output"; '
        f"{WAITING.format(name='hush')}",
        max_running=50,
        description="\u001b]0;owned\u0007 <script>alert(1)</script>\r\nSet-Cookie: a=b",
    )


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with running_service(tmp_path_factory.mktemp("hostile"), define) as service:
        yield Attacked(service)


@pytest.fixture(autouse=True)
async def nothing_got_in(
    attacked: Attacked, tally: Tally, request: pytest.FixtureRequest
) -> AsyncIterator[None]:
    if "files" not in request.node.name:
        tally.add(HOSTILE, "requests, values, names")
    if not attacked.token:
        attacked.token = await attacked.token_of("vera", "viewer")
    yield
    await eventually(lambda: not attacked.service.queue_files(), "nothing waits")
    assert attacked.service.apps.lines("ran") == []
    ready = await attacked.service.raw("GET", "/readyz")
    assert (ready.status, ready.body) == (200, b"ready\n")


@dataclass(frozen=True)
class Try:
    """One request of the viewer's, and the statuses that are a fitting answer."""

    name: str
    statuses: tuple[int, ...]
    method: str = "POST"
    target: str = COMMANDS
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=dict)


def sent(**fields: object) -> bytes:
    return json.dumps(START | fields).encode()


NDJSON = {"Content-Type": "application/x-ndjson"}

FORGED = (
    *(
        Try(f"body says {name}", (422,), body=sent(**{name: value}))
        for name, value in {
            "UserID": "root",
            "userId": "root",
            "user_id": "root",
            "Roles": ["admin"],
            "roles": ["admin"],
            "principal": {"userId": "root", "roles": ["admin"], "via": "system"},
            "via": "system",
            "SessionID": "s-1",
            "Seal": "0" * 64,
            "accepted_ns": 1,
            "__class__": "Principal",
        }.items()
    ),
    *(
        Try(
            f"call of the origin says {name}",
            (403,),
            target="/api/v1/jobs/start",
            body=json.dumps({"JobID": "H/Guarded", name: value}).encode(),
        )
        for name, value in {"UserID": "root", "Roles": ["admin"], "SessionID": "s-1"}.items()
    ),
    *(
        Try(f"header {name}", (403,), body=sent(), headers={name: value})
        for name, value in {
            "X-Forwarded-User": "root",
            "X-Remote-User": "root",
            "Remote-User": "root",
            "X-Forwarded-Roles": "admin",
            "X-Forwarded-For": "127.0.0.1",
            "Forwarded": "for=127.0.0.1;host=127.0.0.1",
            "X-Original-URL": "/api/v1/tokens",
            "X-HTTP-Method-Override": "DELETE",
            "Cookie": "jobbus_admin=admin",
        }.items()
    ),
    Try("a report of the shim", (422,), body=b'{"command":"report_ended","executionId":"x"}'),
    Try("an order of the service", (422,), body=b'{"command":"set_maintenance","on":true}'),
    Try("the command twice", (400,), body=b'{"command":"status",' + sent()[1:]),
    Try("making a token", (403,), target="/api/v1/tokens",
        body=b'{"userId":"vera","roles":["admin"]}'),
    Try("taking a token away", (403,), "DELETE", "/api/v1/tokens/admin"),
    Try("replacing the admin's", (403,), target="/api/v1/tokens/admin/rotate"),
    Try("a maintenance", (403,), target="/api/v1/system/maintenance", body=b'{"on":true}'),
    Try("the state of the service", (403,), "GET", "/api/v1/system"),
)  # fmt: skip

PATHS = tuple(
    Try(f"GET {target[:40]}", (400, 404, 405, 421), "GET", target)
    for target in (
        "/admin.token",
        "/../admin.token",
        "/api/v1/../../admin.token",
        "/api/v1/executions/..%2f..%2fadmin.token/output",
        f"/api/v1/executions/{SOME_ID}%2f..%2f..%2f..%2fadmin.token/output",
        f"/api/v1/executions/{SOME_ID}/../../../admin.token",
        f"/api/v1/executions/{SOME_ID}%00/output",
        "/api/v1/jobs/../../etc",
        "/api/v1/jobs/H/..%2f..%2fGuarded",
        "/api/v1/jobs/H/Guarded%0d%0aX-Evil:%201",
        "/api/v1/commands/%252e%252e%252fadmin.token",
        "/console/..%2f..%2fsettings.py",
        "/console/%2e%2e/settings.py",
        "/console/....//settings.py",
        "/problems/..%2f..%2fadmin.token",
        "/problems/%3Cscript%3E",
        "//evil.example/api/v1/jobs",
        "http://evil.example/api/v1/jobs",
        "/api/v1/executions/" + "a" * 4_000,
        "/%c0%ae%c0%ae/admin.token",
        "/api/v1/jobs\\..\\..\\admin.token",
    )
)

HUGE = (
    Try("a header of 20 KiB", (400, 431), headers={"X-Long": "y" * 20 * KIB}),
    Try("a cookie of 20 KiB", (400, 431), headers={"Cookie": "a=" + "y" * 20 * KIB}),
    Try("a target of 20 KiB", (400, 414), "GET", "/api/v1/jobs?x=" + "y" * 20 * KIB),
    Try("a query of 5 KiB", (400,), "GET", "/api/v1/executions?job=" + "y" * 5 * KIB),
    Try("33 filters", (400,), "GET", "/api/v1/events?" + "&".join(["job=a"] * 33)),
    Try("a limit of 10^30", (400,), "GET", "/api/v1/executions?limit=1" + "0" * 30),
    Try("an offset of 10^30", (400, 404), "GET", f"/api/v1/executions/{SOME_ID}/output?from=1{'0' * 30}"),  # noqa: E501
    Try("a cursor of 3 KiB", (400,), "GET", "/api/v1/commands?cursor=" + "y" * 3 * KIB),
    Try("a position of 7 KiB", (400, 410), "GET", "/api/v1/events",
        headers={"Last-Event-ID": "y" * 7 * KIB, "Accept": "application/json"}),
    Try("a position of digits", (400, 410), "GET", "/api/v1/events",
        headers={"Last-Event-ID": "abc123-" + "9" * 30, "Accept": "application/json"}),
    Try("a body of 2 MiB", (413,), body=sent(variables={"Text": "y" * 2 * MIB})),
    Try("a body said to be 10 GiB", (413, 400), headers={"Content-Length": str(10 * KIB * MIB),
        "Content-Type": "application/json"}),
    Try("a negative length", (400,), headers={"Content-Length": "-1"}),
    Try("two lengths", (400,), headers={"Content-Length": "1", "content-length": "2"}),
    Try("length and chunks", (400,), body=b"0\r\n\r\n",
        headers={"Transfer-Encoding": "chunked"}),
    Try("10 000 variables", (403, 422), body=sent(variables={f"V{n}": n for n in range(10_000)})),
    Try("a variable of 900 KiB", (403, 422), body=sent(variables={"Text": "y" * 900 * KIB})),
    Try("a name of 900 KiB", (403, 422), body=sent(variables={"y" * 900 * KIB: 1})),
    Try("a job id of 900 KiB", (404,), body=sent(jobId="y" * 900 * KIB)),
    Try("a command id of 900 KiB", (422,), body=sent(commandId="y" * 900 * KIB)),
    Try("a number of 100 000 digits", (400, 422), body=b'{"command":"stop","jobId":"H/Guarded",'
        b'"graceS":1' + b"0" * 100_000 + b"}"),
    Try("a key of 7 KiB", (400,), body=sent(), headers={"Idempotency-Key": "k" * 7 * KIB}),
    Try("200 000 brackets", (400, 422), body=b"[" * 200_000),
    Try("variables 5000 deep", (400, 422), body=b'{"command":"start","jobId":"H/Guarded",'
        b'"variables":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001),
    Try("1001 lines", (413,), body=b"{}\n" * 1001, headers=NDJSON),
    Try("a line of 900 KiB", (200,), body=b'{"a":"' + b"y" * 900 * KIB + b'"}\n', headers=NDJSON),
    Try("a search of 2 KiB", (400, 403, 404), "GET",
        f"/api/v1/executions/{SOME_ID}/output?grep=" + "y" * 2 * KIB),
    Try("a ticket's path of 900 KiB", (422,), target="/api/v1/tickets",
        body=json.dumps({"path": "/api/v1/events?job=" + "y" * 900 * KIB}).encode()),
    Try("an encoded slash that climbs", (404,), "GET", "/api/v1/jobs/..%2F..%2Fadmin.token"),
    Try("two encoded slashes", (404,), "GET", "/api/v1/jobs/H%2FGuarded%2F.."),
    Try("a position that forges a line", (410,), "GET",
        "/api/v1/events?start=now&limit=1&lastEventId=a%0Aevent:%20change",
        headers={"Accept": "application/json"}),
    Try("a type of 7 KiB", (406,), "GET", "/api/v1/events", headers={"Accept": "a/b," * 1_700}),
    Try("a weight that never ends", (406,), "GET", "/api/v1/events",
        headers={"Accept": "*/*;q=0." + "0" * 4_000}),
    Try("a body of 1 MiB to sign in", (413,), target="/api/v1/session", body=b"x" * MIB),
    Try("a wait of 10^9 s", (403,), body=sent(), headers={"Prefer": "wait=999999999"}),
    Try("1000 ranges", (404,), "GET", f"/api/v1/executions/{SOME_ID}/output",
        headers={"Range": "bytes=" + ",".join(["0-1"] * 1000)}),
)  # fmt: skip

TRIES = (*FORGED, *PATHS, *HUGE)


@pytest.mark.parametrize("case", TRIES, ids=lambda case: case.name)
async def test_request_of_an_attacker_is_refused(attacked: Attacked, case: Try) -> None:
    answer = await attacked.service.raw(
        case.method, case.target, case.body, attacked.headers | dict(case.headers)
    )
    assert answer.status in case.statuses, answer.body[:500]
    assert b"Traceback" not in answer.body
    assert "x-evil" not in answer.headers
    assert attacked.service.token.encode() not in answer.body
    if answer.status >= 400:
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert len(answer.body) < 10 * KIB, "an answer that grows with the question"


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/jobs?token={}",
        "/api/v1/jobs?access_token={}",
        "/api/v1/events?ticket={}",
        "/api/v1/events?authorization=Bearer%20{}",
        "/api/v1/ws?ticket={}",
        "/api/v1/jobs?ticket={}",
        "/{}",
        "/api/v1/session?token={}",
    ],
)
async def test_token_in_a_url_opens_nothing_and_is_not_logged(
    attacked: Attacked, target: str
) -> None:
    service = attacked.service
    headers = {"Authorization": None, "Accept": "text/event-stream"}
    answer = await service.raw("GET", target.format(service.token), headers=headers)
    assert answer.status in (400, 401, 404), answer.body
    log = service.log.read_text(encoding="utf-8")
    assert service.token not in log
    assert attacked.token not in log


INJECTIONS = (
    "a\r\nid: 9-9\r\nevent: reset\r\ndata: {}\r\n\r\n",
    "a\n\nevent: end\ndata: {}\n\n",
    "a\rdata: b",
    "\u2028\u2029\u0085\x0b\x0c",
    "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "\x1b]0;owned\x07\x1b[2J\x1b[31m",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    '"}],"id":"x',
    "\ufeff\u202e\u200b\ud83d\ude00",
    "$(touch $BOARD/ran)",
    "`touch $BOARD/ran`",
    "; touch $BOARD/ran #",
    "' || touch $BOARD/ran '",
    "{{Other}}",
    "${PATH} %s %n",
    "--help",
    "-rf /",
    "a" * 30_000,
)


@pytest.mark.parametrize("text", INJECTIONS, ids=range(len(INJECTIONS)))
async def test_value_of_a_variable_stays_a_value_everywhere(attacked: Attacked, text: str) -> None:
    """In the argument of the program, in its output, in streams, pages of JSON and files."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    service = attacked.service
    async with await service.stream("/api/v1/events?start=now") as stream, service.http() as http:
        await stream.until_kind("bookmark")
        execution_id = await http.start("H/Echo", Text=text)
        received = await stream.until_change("execution.ended", executionId=execution_id)
        assert received[-1].data["data"]["variables"]["Text"] == text
        assert (await http.output(execution_id)).decode() == f"{text}\nother\n"
        assert (await http.execution(execution_id))["variables"]["Text"] == text
    await _well_framed(service, f"/api/v1/executions/{execution_id}/stream")


async def _well_framed(service: Service, target: str) -> None:
    """Read by a reader that refuses any byte which is not of the contract."""
    stream = await RawStream.open(service.port, target, service.token)
    async with stream:
        received = await stream.rest()
    assert received[-1].kind == "end"
    assert "x-evil" not in stream.headers


@pytest.mark.parametrize("text", INJECTIONS, ids=range(len(INJECTIONS)))
async def test_words_of_a_job_stay_words_in_its_stream(attacked: Attacked, text: str) -> None:
    """Output and progress messages, as a job that was taken over would write them."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    service, board = attacked.service, attacked.service.apps.board
    progress = json.dumps({"percent": 5, "message": text, "data": {text[:50]: text}})
    (board / "progress").write_text(progress + "\n", encoding="utf-8")
    (board / "output").write_text(text, encoding="utf-8", newline="")
    (board / "hush").touch()
    async with service.http() as http:
        execution_id = await http.start("H/Loud")
        ended = await http.ended(execution_id)
        raw = await http.output(execution_id)
    assert ended["status"] == "Succeeded"
    assert raw == text.encode()
    await _well_framed(service, f"/api/v1/executions/{execution_id}/stream")


async def test_words_of_a_job_command_no_terminal(attacked: Attacked) -> None:
    """The clipboard, the title, the screen, the answers to questions: of those who look at it."""
    service, board = attacked.service, attacked.service.apps.board
    evil = (
        "\x1b]52;c;cm0gLXJm\x07\x1b]0;owned\x07\x1b[2J\x1b[6n\x9b2J\u202e\u200b\u3164"
        "\x1b[8mhid\x1b[5m \x1b[32mgreen\x1b[0m\n"
    )
    (board / "progress").write_text("5\n", encoding="utf-8")
    (board / "output").write_text(evil, encoding="utf-8")
    (board / "hush").touch()
    async with service.http() as http:
        execution_id = await http.start("H/Loud")
        await http.ended(execution_id)
    screens = await asyncio.gather(
        asyncio.to_thread(on_a_terminal, service, "logs", execution_id),
        asyncio.to_thread(on_a_terminal, service, "logs", "-f", execution_id),
    )
    for seen in screens:
        assert "\x1b[32mgreen\x1b[0m" in seen
        assert "owned" in seen
        rest = seen.replace("\x1b[32m", "").replace("\x1b[0m", "")
        assert not [c for c in rest if c not in "\r\n" and not c.isprintable()], ascii(rest)


def on_a_terminal(service: Service, *words: str) -> str:
    """What the command line writes to a terminal."""
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobbus", *words, "--data", str(service.data)],
            cwd=service.root,
            env=service.environment(),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
        os.close(theirs)
        written = bytearray()
        with suppress(OSError):  # EIO: the terminal has no other end any more
            while piece := os.read(ours, 4096):
                written += piece
        _, complaint = process.communicate(timeout=30)
    finally:
        os.close(ours)
    assert process.returncode == 0, complaint
    return written.decode()


@pytest.mark.parametrize(
    ("job_id", "variables"),
    [
        ("H/Plain", {"Name": "-rf"}),
        ("H/Plain", {"Name": "--help"}),
        ("H/Plain", {"Name": "-"}),
        ("H/Plain", {"Name": "a\0b"}),
        ("H/Plain", {"PATH": "/tmp"}),
        ("H/Plain", {"LD_PRELOAD": "/tmp/x.so"}),
        ("H/Plain", {"JOBBUS_USER_ID": "root"}),
        ("H/Plain", {"Name=x\nLD_PRELOAD": "/tmp/x.so"}),
        ("H/Plain", {"": "x"}),
        ("H/Plain", {"__proto__": "x"}),
        ("H/Plain", {"Name": {"secret": "admin.token"}}),
        ("H/Plain", {"Name": {"file": "/etc/passwd"}}),
        ("H/Echo", {"Text": "a" * 200_000}),
    ],
)
async def test_options_and_names_cannot_be_smuggled_in(
    attacked: Attacked, job_id: str, variables: dict[str, object]
) -> None:
    body = {"command": "start", "jobId": job_id, "variables": variables}
    answer = await attacked.service.raw("POST", COMMANDS, json.dumps(body).encode())
    assert answer.status == 422, answer.body


async def test_squatted_command_id_gives_neither_a_start_nor_a_word_of_its_owner(
    attacked: Attacked,
) -> None:
    """Somebody who guessed or saw an id, before or after its owner used it."""
    service, command_id = attacked.service, str(uuid4())
    body = {"command": "start", "jobId": "H/Plain", "commandId": command_id}
    first = await service.raw("POST", COMMANDS, json.dumps(body).encode())
    assert first.status == 202
    olga = {"Authorization": f"Bearer {await attacked.token_of('olga', 'operator')}"}
    for spelled in (command_id, command_id.upper()):
        for change in ({}, {"variables": {"Name": "other"}}):
            again = json.dumps(body | change | {"commandId": spelled}).encode()
            answer = await service.raw("POST", COMMANDS, again, olga)
            assert (answer.status, answer.json["code"]) == (409, "id_in_use")
            assert "root" not in answer.body.decode()
            assert "H/Plain" not in answer.body.decode()
    async with service.http() as http:
        await http.get(f"/commands/{command_id}")
        mine = await http.get("/commands?user=olga")
    assert mine["items"] == []


async def test_key_of_somebody_else_is_not_the_same_key(attacked: Attacked) -> None:
    service = attacked.service
    body = json.dumps({"command": "start", "jobId": "H/Plain"}).encode()
    olga = {"Authorization": f"Bearer {await attacked.token_of('olga', 'operator')}"}
    first = await service.raw("POST", COMMANDS, body, {"Idempotency-Key": "nightly"})
    second = await service.raw("POST", COMMANDS, body, olga | {"Idempotency-Key": "nightly"})
    assert (first.status, second.status) == (202, 202)
    assert first.json["commandId"] != second.json["commandId"]
    assert "idempotency-replayed" not in second.headers


async def test_file_under_the_id_of_a_command_that_ended_changes_nothing(
    attacked: Attacked,
) -> None:
    service = attacked.service
    async with service.http() as http:
        accepted = await http.publish(20, command="start", jobId="H/Plain")
    result = await eventually(lambda: service.result(accepted["commandId"]))
    fields = START | {"CommandID": accepted["commandId"], "Command": "start", "JobID": "H/Plain"}
    fields["Variables"] = {"Name": "squatter"}
    path = queue(service) / f"{accepted['commandId']}.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    await eventually(lambda: not path.exists(), "taken away")
    assert service.result(accepted["commandId"]) == result


def queue(service: Service) -> Path:
    return service.data / "JobCommandQueue"


def a_command(**fields: object) -> dict[str, object]:
    return {
        "CommandID": str(uuid4()),
        "Command": "start",
        "JobID": "H/Guarded",
        "UserID": "root",
        "Roles": ["admin"],
        **fields,
    }


def _symlink_to(target: str) -> Callable[[Service, Path], None]:
    return lambda service, path: path.symlink_to(service.data / target)


def _link_to(target: str) -> Callable[[Service, Path], None]:
    return lambda service, path: os.link(service.data / target, path)


def _socket(_: Service, path: Path) -> None:
    here = os.open(path.parent, os.O_PATH)  # the name of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _device(_: Service, path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: it never ends
    except PermissionError:
        pytest.skip("only root makes device nodes")


def _sparse(_: Service, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _written(data: bytes) -> Callable[[Service, Path], None]:
    return lambda _, path: _put(path, data)


def _written_under_its_id(text: str) -> Callable[[Service, Path], None]:
    return lambda _, path: _put(path, text.replace("ID", path.stem, 1).encode())


def _from_long_after(_: Service, path: Path) -> None:
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(a_command(CommandID=path.stem)), encoding="utf-8")
    at_s = 2**33 + 2**32
    os.utime(draft, (at_s, at_s))
    draft.rename(path)


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _of_another(_: Service, path: Path) -> None:
    path.write_text(json.dumps(a_command(CommandID=path.stem)), encoding="utf-8")
    try:
        os.chown(path, 12_345, -1)
    except PermissionError:
        path.unlink()
        pytest.skip("only root gives files away")


FILES: dict[str, Callable[[Service, Path], None]] = {
    "symlink to the token": _symlink_to("admin.token"),
    "symlink to itself": lambda _, path: path.symlink_to(path.name),
    "symlink to nothing": _symlink_to("nothing"),
    "symlink to the output": _symlink_to("JobOutput"),
    "symlink to a device": lambda _, path: path.symlink_to("/dev/zero"),
    "hard link to the token": _link_to("admin.token"),
    "hard link to the lock": _link_to("lock"),
    "hard link to something big": lambda service, path: os.link(service.root / "big", path),
    "FIFO": lambda _, path: os.mkfifo(path),
    "socket": _socket,
    "device": _device,
    "sparse file of 1 TiB": _sparse,
    "another's file that says admin": _of_another,
    "admin by its own word": lambda _, p: _put(p, json.dumps(a_command(CommandID=p.stem)).encode()),
    "name of another command": lambda _, p: _put(p, json.dumps(a_command()).encode()),
    "id that climbs": _written(json.dumps(a_command(CommandID="../../admin.token")).encode()),
    "job that climbs": lambda _, p: _put(
        p, json.dumps(a_command(CommandID=p.stem, JobID="../../../etc/passwd")).encode()
    ),
    "execution that climbs": lambda _, p: _put(
        p,
        json.dumps(a_command(CommandID=p.stem, Command="stop", ExecutionID="../../lock")).encode(),
    ),
    "a user that is ours": lambda _, p: _put(
        p, json.dumps(a_command(CommandID=p.stem, UserID="system:bus", Roles=["admin"])).encode()
    ),
    "a grace of 400 digits": _written_under_its_id(
        '{"CommandID":"ID","Command":"stop","JobID":"H/Guarded","GraceS":1' + "0" * 400 + "}"
    ),
    "a grace of 10^300 s": lambda _, p: _put(
        p, json.dumps(a_command(CommandID=p.stem, Command="stop", GraceS=1e300)).encode()
    ),
    "a name that commands a terminal": lambda _, p: _put(
        p, json.dumps(a_command(CommandID=p.stem, UserID="\x1b]0;owned\x07\u202e")).encode()
    ),
    "from the year 1": lambda _, p: _put(
        p, json.dumps(a_command(CommandID=p.stem, SubmittedAt="0001-01-01T00:00:00Z")).encode()
    ),
    "from the year 2446": _from_long_after,
    "a forged seal": lambda _, p: _put(
        p, json.dumps(a_command(CommandID=p.stem, Via="system", Seal="0" * 64)).encode()
    ),
    "100 000 brackets": _written(b"[" * 100_000),
    "objects 50 000 deep": _written(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "NUL": _written(b"\0" * 1000),
    "half a surrogate": _written(b'{"CommandID":"\\ud800"}'),
    "lists where texts belong": lambda _, p: _put(
        p, json.dumps({name: [[]] for name in a_command()}).encode()
    ),
    "300 KiB": lambda _, p: _put(
        p, json.dumps(a_command(CommandID=p.stem, Variables={"Text": "y" * 300 * KIB})).encode()
    ),
}


async def test_files_of_an_attacker_start_nothing_and_touch_nothing(
    attacked: Attacked, tally: Tally
) -> None:
    """All at once: each must stand still for a while before it is set aside."""
    service = attacked.service
    token = (service.data / "admin.token").read_bytes()
    big = service.root / "big"
    with big.open("wb") as file:
        file.truncate(100 * MIB)
    paths = {name: queue(service) / f"{uuid4()}.json" for name in FILES}
    for name, path in paths.items():
        FILES[name](service, path)
    tally.add(HOSTILE, "files", len(paths))
    for name, path in paths.items():
        await eventually(lambda p=path: not os.path.lexists(p), f"{name}: set aside or answered")  # type: ignore[misc]
        result = service.result(path.stem)
        assert result is None or result["Status"] in ("Rejected", "Expired"), (name, result)
    assert (service.data / "admin.token").read_bytes() == token
    # Rejects that are too big are cut: not so what has another name elsewhere.
    assert big.stat().st_size == 100 * MIB
    kept = (service.data / "JobCommandRejects").iterdir()
    copies = [one for one in kept if not one.is_symlink() and one.is_file()]
    assert not [one for one in copies if one.stat().st_nlink == 1 and token in _head_of(one)]


def _head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MIB)


async def test_names_of_an_attacker_in_the_queue_are_left_alone(attacked: Attacked) -> None:
    """No file is looked for by a name that is no id, and none is listed into a path."""
    folder = queue(attacked.service)
    strange = [
        os.fsencode(folder) + b"/" + name
        for name in (
            b"\xff\xfe.json",
            b"a\nb.json",
            b"..json",
            b"-rf.json",
            b"$(x).json",
            b"*.json",
        )
    ]
    for name in strange:
        Path(os.fsdecode(name)).write_bytes(b"{}")
    (folder / "dir.json").mkdir()
    async with attacked.service.http() as http:
        assert (await http.ended(await http.start("H/Plain")))["status"] == "Succeeded"
    for name in strange:
        Path(os.fsdecode(name)).unlink(missing_ok=True)
    (folder / "dir.json").rmdir()


async def test_answer_to_a_name_with_line_ends_has_no_header_of_the_asker(
    attacked: Attacked,
) -> None:
    evil = quote("x\r\nX-Evil: 1\r\n\r\n<script>")
    for target in (
        f"/api/v1/executions?job={evil}",
        f"/api/v1/executions?cursor={evil}",
        f"/api/v1/executions?{evil}=1",
        f"/api/v1/commands/{evil}",
        f"/{evil}",
    ):
        answer = await attacked.service.raw("GET", target)
        assert "x-evil" not in answer.headers
        assert b"<script>" not in answer.body or answer.headers["content-type"].startswith(
            "application/"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
