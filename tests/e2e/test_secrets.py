"""A secret reaches the environment of its job and nothing else: everything is searched for it."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import Apps
from tests.raw_stream import RawStream
from tests.service import FINAL, Http, Service, eventually, eventually_answered

VALUE = "s3cr3t-Planted/value+42"
LINES = "first-line-of-the-key\nsecond-line-of-the-key"

WHOLE = """
import os, sys
value = os.environ["JOBBUS_VAR_Token"]
open(os.environ["BOARD"] + "/seen", "w").write(value + "\\n")
print("whole:", value, flush=True)
print("on stderr:", value, file=sys.stderr, flush=True)
print("in env:", os.environ["URL"], flush=True)
"""

PIECES = """
import os, sys, time
value = os.environ["JOBBUS_VAR_Token"].encode()
os.write(1, b"halves:" + value[:11])
time.sleep(0.3)
os.write(1, value[11:] + b"\\n")
os.write(1, b"bytes:")
for one in value:
    os.write(1, bytes((one,)))
    time.sleep(0.002)
os.write(1, b"\\nbeginning only:" + value[:5] + b"\\nat the end:" + value)
"""

REPORTING = """
import os, time
value = os.environ["JOBBUS_VAR_Token"]
with open(os.environ["JOBBUS_PROGRESS"], "a") as file:
    file.write("50% with " + value + "\\n")
def wait_for(name):
    while not os.path.exists(os.environ["BOARD"] + "/" + name):
        time.sleep(0.02)
wait_for("status")
import socket
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
link.connect(os.environ["NOTIFY_SOCKET"])
link.send(b"STATUS=status " + value.encode())
wait_for("end")
with open(os.environ["JOBBUS_PROGRESS"], "a") as file:
    file.write('{"percent": 90, "message": "m ' + value + '", "data": {"k": "' + value + '"}}\\n')
"""


def define(apps: Apps) -> None:
    token = {"Token": {"type": "secret", "required": True}}
    apps.python("S/Whole", WHOLE, variables=token)
    definition = apps.definition("S/Whole")
    text = definition.read_text(encoding="utf-8")
    url = "URL = 'db://u:{{Token}}@h'\n[env]\n"
    definition.write_text(text.replace("[env]\n", "[env]\n" + url.partition("[env]")[0]))
    apps.python("S/Pieces", PIECES, variables=token)
    apps.python("S/Reporting", REPORTING, variables=token)
    apps.write("S/Missing", ("./no-such-program",), variables=token)
    apps.shell("S/Lines", 'echo "$JOBBUS_VAR_Token"; echo "$JOBBUS_VAR_Token" | base64 -w0',
               variables=token)  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    tmp_path = tmp_path_factory.mktemp("secrets")
    (tmp_path / "token").write_text(VALUE + "\n")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "lines").write_text(LINES + "\n")
    (tmp_path / "lines").chmod(0o600)
    (tmp_path / "open").write_text(VALUE)
    (tmp_path / "open").chmod(0o640)
    (tmp_path / "jobbus.toml").write_text(
        '[secrets]\nTOKEN = { file = "token" }\nLINES = { file = "lines" }\n'
        'OPEN = { file = "open" }\nNONE = { env = "NO_SUCH_VARIABLE" }\n'
        'ONLY = { file = "lines", jobs = ["S/Lines"] }\n'
    )
    running = Service(tmp_path)
    define(running.apps)
    try:
        running.start(*configured(running))
        yield running
        assert not running.complaints()
    finally:
        running.clear_away()


def configured(service: Service) -> tuple[str, str]:
    return "--config", str(service.root / "jobbus.toml")


def reference(name: str = "TOKEN") -> dict[str, str]:
    return {"secret": name}


def command_lines() -> bytes:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return b"\n".join(found)


def assert_nowhere(service: Service, *answers: bytes) -> int:
    """No file of the data directory, no log, no answer and no command line holds the value."""
    looked = 0
    files = [path for path in service.data.rglob("*") if path.is_file()]
    for path in (*files, service.log):
        data = path.read_bytes()
        for needle in (VALUE, *LINES.split("\n")):
            assert needle.encode() not in data, f"{needle} stands in {path}"
        looked += 1
    for answer in (*answers, command_lines()):
        for needle in (VALUE, *LINES.split("\n")):
            assert needle.encode() not in answer, answer
        looked += 1
    return looked


async def test_a_secret_is_in_the_environment_and_nowhere_else(service: Service) -> None:
    outputs = {}
    async with service.http() as http:
        stream = await service.stream()
        for job in ("S/Whole", "S/Pieces"):
            execution = await http.start(job, Token=reference())
            assert (await http.ended(execution))["exitCode"] == 0
            outputs[job] = await http.output(execution)
        execution = await http.start("S/Lines", Token=reference("LINES"))
        await http.ended(execution)
        outputs["S/Lines"] = await http.output(execution)
        reporting = await http.start("S/Reporting", Token=reference())
        await eventually_answered(lambda: reports(http, reporting, "with ***"), "progress")
        service.apps.put("status")
        await eventually_answered(lambda: reports(http, reporting, "status ***"), "a status")
        service.apps.put("end")
        ended = await http.ended(reporting)
        assert ended["progress"]["message"] == "m ***"
        assert ended["progress"]["data"] == {"k": "***"}
        failed = await http.publish(20, command="start", jobId="S/Missing",
                                    variables={"Token": reference()})  # fmt: skip
        assert failed["errorCode"] == "spawn_error"
        answers = [
            (await http.call("GET", path)).body
            for path in ("/executions?limit=100", "/commands?limit=100", "/jobs", "/system")
        ]
        await eventually_answered(lambda: seen(stream, failed["commandId"]), "the last event")
        await stream.aclose()
        frames = stream.raw
    assert service.apps.lines("seen") == [VALUE]
    whole = outputs["S/Whole"].decode()
    assert "whole: ***\n" in whole
    assert "on stderr: ***\n" in whole
    assert "in env: db://u:***@h\n" in whole
    lines = outputs["S/Pieces"].decode().splitlines()
    assert lines == ["halves:***", "bytes:***", "beginning only:" + VALUE[:5], "at the end:***"]
    assert outputs["S/Lines"].startswith(b"***\n")
    assert b"first" not in outputs["S/Lines"]
    assert assert_nowhere(service, *outputs.values(), *answers, frames) > 20
    assert service.end() == 0
    service.start(*configured(service))
    assert assert_nowhere(service) > 20


async def seen(stream: RawStream, command_id: str) -> bool:
    await stream.next()
    return command_id.encode() in stream.raw


async def reports(http: Http, execution_id: str, message: str) -> bool:
    progress = (await http.execution(execution_id))["progress"]
    return bool(progress) and progress["message"] == message


async def test_by_value_it_is_refused_in_every_door_and_kept_in_none(service: Service) -> None:
    body = {"command": "start", "jobId": "S/Whole", "variables": {"Token": VALUE}}
    async with service.http() as http:
        answer = await http.call("POST", "/commands", body)
        assert (answer.status, answer.json["code"]) == (422, "secret_by_value")
        astray = {**body, "variables": {"Token": reference(VALUE.replace("/", "_"))}}
        refused = await http.call("POST", "/commands", astray)
        assert (refused.status, refused.json["code"]) == (422, "bad_variables")
        answers = [answer.body, refused.body]
        simple = {"jobId": "S/Whole", "variables": {"Token": VALUE}}
        answers.append((await http.call("POST", "/jobs/start", simple)).body)
        async with http.session.post(
            "/api/v1/commands",
            data=json.dumps(body) + "\n",
            headers={"Content-Type": "application/x-ndjson"},
        ) as batch:
            answers.append(await batch.read())
            assert b"secret_by_value" in answers[-1]
        async with http.session.ws_connect("/api/v1/ws", protocols=("jobbus.v1",)) as ws:
            await ws.send_json({"op": "publish", "ref": "r", "command": body})
            while (frame := await ws.receive_str()) and '"r"' not in frame:
                continue
            assert "secret_by_value" in frame
            answers.append(frame.encode())
        dropped = await drop(service, body["jobId"], {"Token": VALUE})
        assert (dropped["Status"], dropped["ErrorCode"]) == ("Rejected", "secret_by_value")
        assert dropped["Variables"] is None
        # The same is answered for a job that one may not see, and of a reference that is a value.
        hidden = await drop(service, body["jobId"], {"Token": VALUE}, Roles=["guest"])
        assert (hidden["ErrorCode"], hidden["Variables"]) == ("unknown_job", None)
        wrong = await drop(service, body["jobId"], {"Token": {"secret": VALUE}})
        assert (wrong["ErrorCode"], wrong["Variables"]) == ("bad_variables", None)
        await eventually(lambda: not service.queue_files(), "the files are gone")
    assert assert_nowhere(service, *answers) > 10


async def test_a_secret_for_one_job_is_given_to_no_other(service: Service) -> None:
    given = {"Token": reference("ONLY")}
    async with service.http() as http:
        refused = await http.call(
            "POST", "/commands", {"command": "start", "jobId": "S/Whole", "variables": given}
        )
        record = await http.publish(20, command="start", jobId="S/Lines", variables=given)
    dropped = await drop(service, "S/Whole", given)
    assert (refused.status, refused.json["code"]) == (422, "bad_variables")
    assert (record["status"], dropped["ErrorCode"]) == ("Completed", "bad_variables")


async def test_the_same_file_again_is_not_kept_either(service: Service) -> None:
    command_id = str(uuid.uuid4())
    await drop(service, "S/Whole", {"Token": VALUE}, CommandID=command_id)
    await eventually(lambda: not service.queue_files(), "the first is gone")
    write(service, "S/Whole", {"Token": VALUE}, CommandID=command_id)
    await eventually(lambda: not service.queue_files(), "the second is gone")
    assert assert_nowhere(service) > 5


async def test_what_cannot_be_read_fails_the_start_with_the_fix(service: Service) -> None:
    async with service.http() as http:
        for name, sentence in (("OPEN", "chmod 600"), ("NONE", "NO_SUCH_VARIABLE")):
            record = await http.publish(20, command="start", jobId="S/Whole",
                                      variables={"Token": reference(name)})  # fmt: skip
            assert record["errorCode"] == "spawn_error"
            assert sentence in record["error"]
            assert (await http.execution(record["executionId"]))["status"] in FINAL
        answer = await http.call("POST", "/commands", {"command": "start", "jobId": "S/Whole"})
        assert (answer.status, answer.json["code"]) == (422, "bad_variables")


def write(service: Service, job: object, variables: object, **fields: object) -> str:
    command_id = str(fields.get("CommandID") or uuid.uuid4())
    content = {"CommandID": command_id, "Command": "start", "JobID": job, "UserID": "alice",
               "Variables": variables, "Roles": ["operator"], "Status": "Pending",
               **fields}  # fmt: skip
    path = service.data / "JobCommandQueue" / f"{command_id}.json"
    path.write_text(json.dumps(content))
    return command_id


async def drop(
    service: Service, job: object, variables: object, **fields: object
) -> dict[str, Any]:
    command_id = write(service, job, variables, **fields)
    return await eventually(lambda: service.result(command_id), "a result file")


async def test_another_file_with_a_borrowed_id_is_not_kept_either(service: Service) -> None:
    async with service.http() as http:
        known = await http.publish(20, command="status", jobId="S/Whole")
    write(service, "S/Whole", {"Token": VALUE}, CommandID=known["commandId"])
    await eventually(lambda: not service.queue_files(), "the file is gone")
    assert assert_nowhere(service) > 5
