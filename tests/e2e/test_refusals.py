"""The same wrong commands at every door: each answer is in the words of who wrote the command."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.jobs import Apps
from tests.service import ROOT, Service, eventually, running_service
from tests.wrong_bodies import VARIABLES, broken, found_in, senseless

HTTP_NAMES = {"command": "command", "job_id": "jobId", "variables": "variables"}
FILE_NAMES = {"command": "Command", "job_id": "JobID", "variables": "Variables"}


def define(apps: Apps) -> None:
    apps.shell("W/Job", "true", variables=VARIABLES, max_running=100)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("refusals"), define) as running:
        yield running


def writer(own: dict[str, str]) -> Callable[..., bytes]:
    """JSON of these members, whose values are JSON already."""

    def write(**members: str) -> bytes:
        pairs = (f"{json.dumps(name)}:{value}" for name, value in (own | members).items())
        return ("{" + ",".join(pairs) + "}").encode()

    return write


def bodies() -> dict[str, bytes]:
    """By the names that HTTP has for the fields."""
    command = writer({"command": '"start"', "jobId": '"W/Job"'})
    return dict(broken(command())) | dict(senseless(command, HTTP_NAMES))


def says_something(answer: str) -> None:
    assert found_in(answer) == [], answer
    assert len(answer) > 10, answer


async def test_a_wrong_body_is_refused_in_the_words_of_who_sent_it(service: Service) -> None:
    for name, body in bodies().items():
        of_type = {"Content-Type": "application/json"}
        answer = await service.raw("POST", "/api/v1/commands", body, of_type)
        problem = json.loads(answer.body)
        assert answer.status in (400, 404, 422), (name, answer.status, problem)
        says_something(problem["detail"])
        for each in problem.get("errors", []):
            says_something(each["detail"])
            assert each["pointer"].startswith("/") or not each["pointer"], (name, each)


async def test_a_wrong_line_of_a_batch_is(service: Service) -> None:
    lines = {name: body for name, body in bodies().items() if body.strip() and b"\n" not in body}
    answer = await service.raw(
        "POST",
        "/api/v1/commands",
        b"\n".join(lines.values()),
        {"Content-Type": "application/x-ndjson"},
    )
    assert answer.status == 200
    results = [json.loads(line) for line in answer.body.splitlines()]
    for name, result in zip(lines, results, strict=True):
        assert "problem" in result, (name, result)
        says_something(result["problem"]["detail"])


async def test_a_wrong_message_over_a_websocket_is(service: Service) -> None:
    url = f"ws://127.0.0.1:{service.port}/api/v1/ws"
    for name, body in bodies().items():
        try:
            command = body.decode()
        except UnicodeDecodeError:
            continue  # a text message cannot be that
        for text in (command, f'{{"op":"publish","ref":"r","command":{command}}}'):
            headers = {"Authorization": f"Bearer {service.token}"}
            async with connect(url, additional_headers=headers, subprotocols=["jobbus.v1"]) as ws:  # type: ignore[list-item]
                await ws.send(text)
                says_something(await problem_over(ws, name))


async def problem_over(ws: ClientConnection, name: str) -> str:
    """The sentence of the first problem that comes."""
    while True:
        frame = json.loads(await ws.recv())
        if frame["op"] == "problem":
            detail: str = frame["data"]["detail"]
            return detail
        assert frame["op"] in ("hello", "ping", "published"), (name, frame)


MORE_IN_FILES: dict[str, dict[str, str]] = {
    "no id": {"CommandID": "null"},
    "a number as the id": {"CommandID": "7"},
    "no UUID as the id": {"CommandID": '"x"'},
    "an object of roles": {"Roles": '{"a":1}'},
    "a number among roles": {"Roles": '["operator",1]'},
    "an unknown role": {"Roles": '["boss"]'},
    "no time": {"ExpiresAt": '"tomorrow"'},
    "a number as a time": {"ExpiresAt": "7"},
    "a text of grace": {"Command": '"stop"', "GraceS": '"x"'},
    "a text of kill": {"Command": '"stop"', "Kill": '"true"'},
    "a number of kill": {"Command": '"restart"', "Kill": "1"},
    "no UUID of an execution": {"Command": '"retry"', "ExecutionID": '"x"'},
    "no execution": {"Command": '"delete"'},
    "no target": {"Command": '"cancel"', "TargetID": "7"},
}


def files() -> Iterator[tuple[str, str, bytes]]:
    """What is wrong, the id that the file is called after, and its content."""
    own = {"Command": '"start"', "JobID": '"W/Job"', "UserID": '"alice"', "Roles": '["operator"]'}

    def one(**members: str) -> bytes:
        return writer({"CommandID": json.dumps(str(uuid4()))} | own)(**members)

    more = ((name, one(**members)) for name, members in MORE_IN_FILES.items())
    for name, body in (*broken(one()), *senseless(one, FILE_NAMES), *more):
        yield name, id_in(body) or str(uuid4()), body
    yield "another id", str(uuid4()), one()
    twice = one(jobid='"A/B"', JOBID='"C/D"').replace(b'"JobID":"W/Job",', b"")
    yield "two spellings", id_in(twice) or "", twice


def id_in(body: bytes) -> str | None:
    try:
        written = json.loads(body)["CommandID"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return written if isinstance(written, str) and len(written) == 36 else None


async def test_a_wrong_file_has_an_answer_under_the_id_that_it_is_called_after(
    service: Service,
) -> None:
    dropped = {name: (command_id, body) for name, command_id, body in files()}
    for command_id, body in dropped.values():
        (service.data / "JobCommandQueue" / f"{command_id}.json").write_bytes(body)
    for name, (command_id, _) in dropped.items():
        found = await eventually(partial(service.result, command_id), f"answer to {name}")
        assert found["Status"] == "Rejected", (name, found)
        assert found["CommandID"] == command_id
        says_something(found["Error"])
    reasons = (service.data / "JobCommandRejects").glob("*.reason.json")
    for path in reasons:
        says_something(json.loads(path.read_text())["Reason"])


TWICE = {
    "jobId": {"job": '"command":"start","jobId":"W/Job","jobId":"W/Job"'},
    "Count": {"job": '"command":"start","jobId":"W/Job","variables":{"Count":1,"Count":2}'},
    "secret": {
        "job": '"command":"start","jobId":"W/Job","variables":{"Key":{"secret":"a","secret":"b"}}'
    },
    "userId": {"token": '"userId":"a","roles":["viewer"],"userId":"b"'},
    "on": {"maintenance": '"on":false,"reason":"x","on":true'},
}
PATHS = {"job": "commands", "token": "tokens", "maintenance": "system/maintenance"}


@pytest.mark.parametrize("name", TWICE)
async def test_name_that_stands_twice_in_one_object_is_refused_by_its_name(
    service: Service, name: str
) -> None:
    [(door, members)] = TWICE[name].items()
    body = f"{{{members}}}".encode()
    answer = await service.raw(
        "POST", f"/api/v1/{PATHS[door]}", body, {"Content-Type": "application/json"}
    )
    problem = json.loads(answer.body)
    assert (answer.status, problem["code"]) == (400, "malformed")
    assert f'"{name}" stands twice' in problem["detail"]
    async with service.http() as http:
        assert await http.executions("W/Job") == []
        assert (await http.get("/tokens"))["items"] == []
        assert (await http.get("/system"))["maintenance"] is None


async def test_name_that_stands_twice_in_a_file_is_refused_by_its_name(service: Service) -> None:
    own = '"Command":"start","UserID":"alice","Roles":["operator"]'
    for name, members in (
        ("JobID", '"JobID":"W/Job","JobID":"W/Other"'),
        ("Count", '"JobID":"W/Job","Variables":{"Count":1,"Count":2}'),
    ):
        command_id = str(uuid4())
        body = f'{{"CommandID":"{command_id}",{own},{members}}}'
        (service.data / "JobCommandQueue" / f"{command_id}.json").write_text(body)
        found = await eventually(partial(service.result, command_id), f"answer to {name}")
        assert (found["Status"], found["ErrorCode"]) == ("Rejected", "malformed")
        assert f'"{name}" stands twice' in found["Error"]


@pytest.mark.parametrize("value", ["{'a':1}", '{"secret":1}'])
def test_a_wrong_value_on_the_command_line_is(service: Service, value: str) -> None:
    environment = service.environment() | {"JOBBUS_TOKEN": service.token}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jobbus", "start", "W/Job", "--url", service.url),
            *("-V", f"Count:={value}"),
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    says_something(done.stderr)
