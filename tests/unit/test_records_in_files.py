"""Status and result files read back: the records are what was written, or there are none."""

import os
from pathlib import Path

import pytest
from msgspec import Raw
from msgspec.structs import replace

from bus.layout import DataLayout
from bus.model import (
    Caused,
    CommandRecord,
    CommandStatus,
    Execution,
    ExecutionStatus,
    Outcome,
    Progress,
    Reason,
    StopRequest,
)
from handlers.decisions.table import JobTable
from transports.directory.recovery import decode_result, decode_status, records_in_files
from transports.directory.results import encode_result, encode_status

ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
COMMAND = CommandRecord(
    id=ID,
    id_text=ID.upper(),
    kind="start",
    user_id="alice",
    submitted_ms=1_769_450_400_000,
    submitted_text="2026-01-26T10:00:00.0000000-08:00",
    processed_ms=1_769_450_402_000,
    body_hash="",
    status=CommandStatus.COMPLETED,
    job_id="App/Job",
    roles=("operator",),
    variables={"N": 7, "S": "text"},
    execution_id=ID,
    outcome=Outcome.DONE,
    result=Raw(b'{"a":[1]}'),
)
EXECUTION = Execution(
    id=ID,
    job_id="App/Job",
    command_id=ID,
    user_id="alice",
    status=ExecutionStatus.QUEUED,
    revision="",
    queued_ms=1_769_450_400_000,
    attempt=2,
    previous=ID,
)
RUNNING = replace(
    EXECUTION,
    status=ExecutionStatus.RUNNING,
    start_ms=1_769_450_401_000,
    pid=7,
    progress=Progress(percent=42.0, message="copying", data={"files": 7}),
)
STOPPED = replace(
    RUNNING,
    status=ExecutionStatus.STOPPED,
    reason=Reason.USER,
    end_ms=1_769_450_460_000,
    signal=15,
    contained=True,
    output_end=9,
    stop=StopRequest(reason=Reason.USER, by="olga", at_ms=1_769_450_460_000, grace_s=0.0),
    result=Raw(b'{"rows":[1,{"a":null}]}'),
    result_note="noted",
    caused_by=ID,
    caused=(Caused(job_id="App/Next", command_id=ID, error_code="disabled", error="it is"),),
    artifacts=2,
    artifact_bytes=300,
    artifacts_note="1 was not kept",
)


@pytest.mark.parametrize("execution", [EXECUTION, RUNNING, STOPPED], ids=lambda e: e.status.value)
def test_a_status_file_describes_the_execution(execution: Execution) -> None:
    assert decode_status(encode_status(execution)) == execution


def test_a_result_file_describes_the_command() -> None:
    found = decode_result(encode_result(COMMAND))
    assert found is not None
    assert bytes(found.result) == bytes(COMMAND.result)
    assert replace(found, result=COMMAND.result) == COMMAND
    rejected = replace(COMMAND, status=CommandStatus.REJECTED, error_code="unknown_job")
    again = decode_result(encode_result(rejected))
    assert again is not None
    assert (again.status, again.error_code) == (CommandStatus.REJECTED, "unknown_job")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"ExecutionID":"../x"}', b"\xff\xfe"])
def test_what_is_no_such_file_describes_nothing(data: bytes) -> None:
    assert decode_status(data) is None
    assert decode_result(data) is None


def test_commands_come_in_the_order_of_their_ends_whatever_their_ids(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    layout.results.mkdir()
    ids = [f"{first}190a1b2-c3d4-4e5f-8a9b-0c1d2e3f4a5b" for first in "9f3b"]
    for ended_s, command_id in enumerate(ids, 1):
        path = layout.results / f"{command_id}.json"
        path.write_bytes(encode_result(replace(COMMAND, id=command_id, id_text=command_id)))
        os.utime(path, (ended_s, ended_s))
    assert [record.id for record in records_in_files(layout, JobTable())] == ids
