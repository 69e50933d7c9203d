"""The origin's own three calls, as its PowerShell functions make them, against a running service.

What `Submit-JobCommand` writes with `Set-Content`, and what `Get-JobCommandStatus` and
`Get-JobStatus` read, is written and read here in the same way: as files, without jobbus's code.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.jobs import WAITING, Apps
from tests.service import FINAL, Service, eventually, read_json, running_service

SECRET_SESSION = "s-1-live-cookie-of-the-host"
SUBMITTED = "2026-01-26T10:00:00.1234567-08:00"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
INTERVAL = {"type": "integer", "default": 5, "min": 1, "max": 60}


def define(apps: Apps) -> None:
    apps.shell(
        "WebHostMetrics/CollectMetrics",
        'echo "42% collecting" >> "$JOBBUS_PROGRESS"; echo "every $JOBBUS_VAR_Interval s"; exit 3',
        max_running=20,
        variables={"Interval": INTERVAL},
    )
    apps.shell(
        "WebHostMetrics/Serve",
        WAITING.format(name="end-of-serve"),
        variables={"Interval": INTERVAL},
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("origin"), define) as running:
        yield running


def submitted(
    command: str = "start", job_id: str = "WebHostMetrics/CollectMetrics"
) -> dict[str, Any]:
    """The object that `Submit-JobCommand` pipes to `ConvertTo-Json`; it sends no Roles."""
    return {
        "CommandID": str(uuid4()),
        "Command": command,
        "JobID": job_id,
        "UserID": "alice",
        "SessionID": SECRET_SESSION,
        "Variables": {"Interval": 30},
        "SubmittedAt": SUBMITTED,
        "Status": "Pending",
    }


def as_powershell_writes(fields: dict[str, Any]) -> str:
    """`ConvertTo-Json` and `Set-Content`: indented, and a line end after the last brace."""
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def submit_job_command(service: Service, fields: dict[str, Any], data: bytes | None = None) -> str:
    """Writes straight under the final name, as `Set-Content` does."""
    content = data if data is not None else as_powershell_writes(fields).encode()
    queue_file(service, fields).write_bytes(content)
    command_id: str = fields["CommandID"]
    return command_id


def queue_file(service: Service, fields: dict[str, Any]) -> Path:
    return service.data / "JobCommandQueue" / f"{fields['CommandID']}.json"


def get_job_command_status(service: Service, command_id: str) -> dict[str, Any] | None:
    """The command's result, else the command as it waits, else null."""
    return service.result(command_id) or read_json(
        service.data / "JobCommandQueue" / f"{command_id}.json"
    )


def get_job_status(service: Service, execution_id: str, user_id: str) -> dict[str, Any] | None:
    """The status of an execution of that user; null if unknown or another's."""
    status = service.status(execution_id)
    return status if status is not None and status["UserID"] == user_id else None


async def ended_command(service: Service, command_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        status = service.result(command_id)
        return (
            status
            if status is not None and status["Status"] not in ("Pending", "Running")
            else None
        )

    return await eventually(look, f"result of {command_id}")


async def ended_execution(service: Service, execution_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        status = get_job_status(service, execution_id, "alice")
        return status if status is not None and status["Status"] in FINAL else None

    return await eventually(look, f"end of {execution_id}")


async def test_submitted_file_runs_the_job_and_both_status_calls_return_every_field(
    service: Service,
) -> None:
    fields = submitted()
    command_id = submit_job_command(service, fields)
    result = await ended_command(service, command_id)
    processed_at, execution_id = result.pop("ProcessedAt"), result.pop("ExecutionID")
    assert result == {
        "CommandID": command_id,
        "Command": "start",
        "JobID": "WebHostMetrics/CollectMetrics",
        "UserID": "alice",
        "Variables": {"Interval": 30},
        "Roles": ["operator"],
        "SubmittedAt": SUBMITTED,
        "Status": "Completed",
        "Error": None,
        "Outcome": "done",
        "ErrorCode": None,
        "Result": None,
    }
    assert TIME.fullmatch(processed_at)
    status = await ended_execution(service, execution_id)
    times = {name: status.pop(name) for name in ("StartTime", "EndTime", "QueuedAt", "ProcessID")}
    assert all(TIME.fullmatch(times[name]) for name in ("StartTime", "EndTime", "QueuedAt"))
    assert times["QueuedAt"] <= times["StartTime"] <= times["EndTime"]
    assert times["ProcessID"] > 1
    assert status == {
        "ExecutionID": execution_id,
        "JobID": "WebHostMetrics/CollectMetrics",
        "Status": "Failed",
        "UserID": "alice",
        "CommandID": command_id,
        "Attempt": 1,
        "Previous": None,
        "Progress": 42,
        "Message": "collecting",
        "Note": "",
        "Data": None,
        "ExitCode": 3,
        "Signal": None,
        "Reason": "exit_code",
        "Error": None,
        "Contained": True,
        "Survivors": [],
        "StoppedBy": None,
        "OutputEnd": len("every 30 s\n"),
        "Attempts": 0,
        "Cause": "",
        "NotBefore": None,
        "Ending": "failed: exit code 3",
        "Result": None,
        "ResultNote": "",
        "Artifacts": 0,
        "ArtifactBytes": 0,
        "ArtifactsNote": "",
        "CausedBy": None,
        "Caused": [],
        "Health": None,
        "HealthSince": None,
        "HealthMessage": "",
    }
    assert get_job_status(service, execution_id, "mallory") is None
    await eventually(lambda: not queue_file(service, fields).exists(), "the queue file is gone")


FORMS: dict[str, Callable[[str], bytes]] = {
    "with a BOM": lambda text: text.encode("utf-8-sig"),
    "as UTF-16 with a BOM": lambda text: text.encode("utf-16"),
    "as big-endian UTF-16": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "with CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "with BOM and CRLF": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "compressed": lambda text: json.dumps(json.loads(text), separators=(",", ":")).encode(),
}


@pytest.mark.parametrize("form", FORMS)
async def test_file_starts_the_job_written(service: Service, form: str) -> None:
    fields = submitted() | {"UserID": "alice"}
    command_id = submit_job_command(service, fields, FORMS[form](as_powershell_writes(fields)))
    result = await ended_command(service, command_id)
    assert (result["Status"], result["Variables"]) == ("Completed", {"Interval": 30})


async def test_file_written_in_two_pieces_starts_the_job_once_it_is_whole(service: Service) -> None:
    fields = submitted()
    content = as_powershell_writes(fields).encode()
    path = queue_file(service, fields)
    with path.open("wb", buffering=0) as file:
        file.write(content[: len(content) // 2])
        await asyncio.sleep(0.3)  # the writer's own pause: this is what is tested
        assert service.result(fields["CommandID"]) is None
        assert path.exists()
        file.write(content[len(content) // 2 :])
    result = await ended_command(service, fields["CommandID"])
    assert (result["Status"], result["Outcome"]) == ("Completed", "done")


async def test_upper_case_id_is_answered_under_the_name_its_writer_knows(service: Service) -> None:
    fields = submitted()
    fields["CommandID"] = fields["CommandID"].upper()
    result = await ended_command(service, submit_job_command(service, fields))
    assert (result["CommandID"], result["Status"]) == (fields["CommandID"], "Completed")
    names = [path.name for path in (service.data / "JobCommandResults").iterdir()]
    assert [n for n in names if n.lower() == f"{fields['CommandID'].lower()}.json"] == [
        f"{fields['CommandID']}.json"
    ]
    async with service.http() as http:
        shown = await http.get(f"/commands/{fields['CommandID'].lower()}")
    assert shown["executionId"] == result["ExecutionID"]


@pytest.mark.parametrize(
    ("roles", "kept", "status"),
    [
        ("operator", ["operator"], "Completed"),
        (["operator", "viewer"], ["operator", "viewer"], "Completed"),
        (None, ["operator"], "Completed"),
        (["viewer"], ["viewer"], "Rejected"),
        ([], ["operator"], "Completed"),
        (["authenticated"], ["authenticated", "operator"], "Completed"),
        (["admin"], [], "Rejected"),
    ],
)
async def test_roles_are_taken_as_written_but_never_admin(
    service: Service, roles: object, kept: list[str], status: str
) -> None:
    fields = submitted() | {"Roles": roles}
    result = await ended_command(service, submit_job_command(service, fields))
    assert (result["Roles"], result["Status"]) == (kept, status)
    if status == "Rejected":
        assert result["ErrorCode"] in ("not_permitted", "unknown_job")
        assert result["Error"]
        assert result["ExecutionID"] is None


@pytest.mark.parametrize("variables", [None, {}])
async def test_no_variables_mean_the_defaults(service: Service, variables: object) -> None:
    fields = submitted() | {"Variables": variables}
    result = await ended_command(service, submit_job_command(service, fields))
    assert result["Status"] == "Completed"
    await ended_execution(service, result["ExecutionID"])
    log = service.data / "JobOutput" / result["ExecutionID"] / "output.log"
    assert log.read_text() == "every 5 s\n"


async def test_wrong_command_is_answered_with_what_was_wrong(service: Service) -> None:
    unknown = await ended_command(
        service, submit_job_command(service, submitted(job_id="WebHostMetrics/CollectMetric"))
    )
    assert (unknown["Status"], unknown["ErrorCode"]) == ("Rejected", "unknown_job")
    assert "CollectMetric" in unknown["Error"]
    high = submitted() | {"Variables": {"Interval": 61}}
    refused = await ended_command(service, submit_job_command(service, high))
    assert (refused["Status"], refused["ErrorCode"]) == ("Rejected", "bad_variables")
    assert "60" in refused["Error"]


async def test_status_restart_and_stop_work_as_the_origin_sends_them(service: Service) -> None:
    start = submitted(job_id="WebHostMetrics/Serve")
    first = await ended_command(service, submit_job_command(service, start))
    running = get_job_status(service, first["ExecutionID"], "alice")
    assert running is not None
    assert (running["Status"], running["EndTime"], running["ExitCode"]) == ("Running", None, None)
    again = submitted(job_id="WebHostMetrics/Serve") | {"Variables": {}}
    busy = await ended_command(service, submit_job_command(service, again))
    assert (busy["Status"], busy["ErrorCode"]) == ("Rejected", "already_running")
    asked = await ended_command(
        service, submit_job_command(service, submitted("status", "WebHostMetrics/Serve"))
    )
    assert asked["Status"] == "Completed"
    assert first["ExecutionID"] in json.dumps(asked["Result"])
    restart = submitted("restart", "WebHostMetrics/Serve") | {"Variables": {}}
    second = await ended_command(service, submit_job_command(service, restart))
    assert second["Status"] == "Completed"
    assert second["ExecutionID"] not in (None, first["ExecutionID"])
    old = await ended_execution(service, first["ExecutionID"])
    assert old["Status"] == "Stopped"
    stop = submitted("stop", "WebHostMetrics/Serve") | {"Variables": None}
    stopped = await ended_command(service, submit_job_command(service, stop))
    assert (stopped["Status"], stopped["Outcome"]) == ("Completed", "done")
    end = await ended_execution(service, second["ExecutionID"])
    assert (end["Status"], end["Reason"], end["StoppedBy"]) == ("Stopped", "user", "alice")
    async with service.http() as http:
        shown = await http.execution(second["ExecutionID"])
    assert shown["variables"] == {"Interval": 30}


async def test_session_of_the_host_is_written_nowhere(service: Service) -> None:
    fields = submitted()
    await ended_command(service, submit_job_command(service, fields))
    await eventually(lambda: not queue_file(service, fields).exists(), "the queue file is gone")
    holders = [
        path.name
        for path in service.data.rglob("*")
        if path.is_file() and SECRET_SESSION.encode() in path.read_bytes()
    ]
    assert holders == []


BROKEN: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "cut off": lambda fields: json.dumps(fields).encode()[:-9],
    "in Latin-1": lambda fields: json.dumps(fields, ensure_ascii=False).encode("latin-1"),
    "a number out of range": lambda fields: json.dumps(fields).replace("30", "1e999").encode(),
    "a lone surrogate": lambda fields: json.dumps(fields | {"UserID": "\ud800"}).encode(),
    "a list": lambda fields: json.dumps([fields]).encode(),
    "nested beyond reason": lambda fields: b'{"Variables":' + b"[" * 99_999,
    "empty": lambda fields: b"",
    "of another id": lambda fields: json.dumps(fields | {"CommandID": str(uuid4())}).encode(),
}


async def test_files_that_are_no_commands_are_set_aside_with_the_reason(service: Service) -> None:
    names: dict[str, str] = {}
    for form, write in BROKEN.items():
        fields = submitted() | {"UserID": "Jürgen"}
        names[form] = queue_file(service, fields).name
        queue_file(service, fields).write_bytes(write(fields))
    good = await ended_command(service, submit_job_command(service, submitted()))
    assert good["Status"] == "Completed"
    rejects = service.data / "JobCommandRejects"

    def reasons() -> dict[str, str]:
        reasons = (read_json(path) for path in rejects.glob("*.reason.json"))
        return {each["OriginalName"]: each["Reason"] for each in reasons if each is not None}

    await eventually(lambda: reasons().keys() >= set(names.values()), "all are set aside")
    assert all(reasons()[name] for name in names.values())
    assert service.queue_files() == []
    for name in names.values():
        answer = service.result(name.removesuffix(".json"))
        assert answer is not None
        assert (answer["Status"], answer["ErrorCode"]) == ("Rejected", "malformed")
        assert answer["Error"] == reasons()[name]


async def test_unknown_ids_have_no_status(service: Service) -> None:
    assert get_job_command_status(service, str(uuid4())) is None
    assert get_job_status(service, str(uuid4()), "alice") is None
