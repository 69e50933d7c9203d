"""Result and status files as the origin's readers expect them. Pure: records in, bytes out."""

from typing import Any

import msgspec

from bus.clock import rfc3339
from bus.endings import ending
from bus.model import CommandRecord, Execution, Value
from bus.views import waits_until_ms

RESULT_NAMES = {
    "command_id": "CommandID", "command": "Command", "job_id": "JobID", "user_id": "UserID",
    "variables": "Variables", "roles": "Roles", "submitted_at": "SubmittedAt", "status": "Status",
    "processed_at": "ProcessedAt", "execution_id": "ExecutionID", "error": "Error",
    "outcome": "Outcome", "error_code": "ErrorCode", "result": "Result",
}  # fmt: skip

STATUS_NAMES = {
    "execution_id": "ExecutionID", "job_id": "JobID", "status": "Status",
    "start_time": "StartTime", "end_time": "EndTime", "user_id": "UserID",
    "command_id": "CommandID", "attempt": "Attempt", "previous": "Previous",
    "queued_at": "QueuedAt", "progress": "Progress", "message": "Message", "data": "Data",
    "note": "Note",
    "exit_code": "ExitCode", "signal": "Signal", "reason": "Reason", "error": "Error",
    "contained": "Contained", "survivors": "Survivors", "stopped_by": "StoppedBy",
    "pid": "ProcessID", "output_end": "OutputEnd", "ending": "Ending",
    "attempts": "Attempts", "cause": "Cause", "not_before": "NotBefore",
}  # fmt: skip


class ResultFile(msgspec.Struct, frozen=True, kw_only=True, rename=RESULT_NAMES):
    """`JobCommandResults/{CommandID}.json`: what `Get-JobCommandStatus` gives back."""

    command_id: str
    command: str
    job_id: str | None
    user_id: str
    variables: dict[str, Value] | None
    roles: tuple[str, ...]
    submitted_at: str
    status: str
    processed_at: str | None
    execution_id: str | None
    error: str | None
    outcome: str | None
    error_code: str | None
    result: msgspec.Raw | None


class StatusFile(msgspec.Struct, frozen=True, kw_only=True, rename=STATUS_NAMES):
    """`JobStatus/{ExecutionID}.json`: what `Get-JobStatus` gives back to whom it may."""

    execution_id: str
    job_id: str
    status: str
    start_time: str | None
    end_time: str | None
    user_id: str
    command_id: str
    attempt: int
    previous: str | None
    queued_at: str
    progress: float | None
    message: str
    data: dict[str, Any] | None
    note: str
    exit_code: int | None
    signal: int | None
    reason: str | None
    error: str | None
    contained: bool | None
    survivors: tuple[int, ...]
    stopped_by: str | None
    pid: int | None
    output_end: int | None
    attempts: int
    cause: str
    not_before: str | None
    ending: str


_encoder = msgspec.json.Encoder()


def result_name(command: CommandRecord) -> str:
    """The file's name: the id as its writer spelled it, since that is what the writer looks for."""
    return f"{command.id_text or command.id}.json"


def encode_result(command: CommandRecord) -> bytes:
    """The result file of an ended command."""
    file = ResultFile(
        command_id=command.id_text or command.id,
        command=command.kind,
        job_id=command.job_id,
        user_id=command.user_id,
        variables=command.variables,
        roles=command.roles,
        submitted_at=command.submitted_text or rfc3339(command.submitted_ms),
        status=command.status.value,
        processed_at=_time(command.processed_ms),
        execution_id=command.execution_id,
        error=command.error,
        outcome=command.outcome.value if command.outcome else None,
        error_code=command.error_code,
        result=command.result,
    )
    return _encoder.encode(file) + b"\n"


def encode_status(execution: Execution) -> bytes:
    """The status file of an execution as it stands."""
    progress = execution.progress
    file = StatusFile(
        execution_id=execution.id,
        job_id=execution.job_id,
        status=execution.status.value,
        start_time=_time(execution.start_ms),
        end_time=_time(execution.end_ms),
        user_id=execution.user_id,
        command_id=execution.command_id,
        attempt=execution.attempt,
        previous=execution.previous,
        queued_at=rfc3339(execution.queued_ms),
        progress=progress.percent if progress else None,
        message=progress.message if progress else "",
        data=progress.data if progress else None,
        note=progress.note if progress else "",
        exit_code=execution.exit_code,
        signal=execution.signal,
        reason=execution.reason.value if execution.reason else None,
        error=execution.error,
        contained=execution.contained,
        survivors=execution.survivors,
        stopped_by=execution.stop.by if execution.stop else None,
        pid=execution.pid,
        output_end=execution.output_end,
        attempts=execution.attempts,
        cause=execution.cause,
        not_before=_time(waits_until_ms(execution)),
        ending=ending(execution),
    )
    return _encoder.encode(file) + b"\n"


def _time(at_ms: int | None) -> str | None:
    return rfc3339(at_ms) if at_ms is not None else None
