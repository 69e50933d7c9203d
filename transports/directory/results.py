"""Result and status files as the origin's readers expect them: encoded, written whole, compared.

What encodes is pure; what touches files blocks.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from bus.clock import rfc3339
from bus.endings import ending
from bus.layout import DataLayout
from bus.model import CommandRecord, Execution, Value
from bus.ports import TableReader
from bus.reserve_spares import Need
from bus.scarcity import NO_ROOM
from bus.views import waits_until_ms
from transports.directory import disk

RESULT_NAMES = {
    "command_id": "CommandID", "command": "Command", "job_id": "JobID", "user_id": "UserID",
    "variables": "Variables", "roles": "Roles", "submitted_at": "SubmittedAt", "status": "Status",
    "processed_at": "ProcessedAt", "execution_id": "ExecutionID", "error": "Error",
    "outcome": "Outcome", "error_code": "ErrorCode", "result": "Result",
    "is_hidden": "IsHidden",
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
    "attempts": "Attempts", "cause": "Cause", "not_before": "NotBefore", "result": "Result",
    "result_note": "ResultNote", "caused_by": "CausedBy", "caused": "Caused",
    "health": "Health", "health_since": "HealthSince", "health_message": "HealthMessage",
    "artifacts": "Artifacts", "artifact_bytes": "ArtifactBytes", "artifacts_note": "ArtifactsNote",
}  # fmt: skip


Put = Callable[[str, int, bytes, Need | None], None]
"""Writes one file, inside a folder; the need is for a spare where the disk is full."""


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


class CausedEntry(msgspec.Struct, frozen=True, kw_only=True, rename=RESULT_NAMES):
    """The start of another job that the end of the execution set going."""

    job_id: str
    command_id: str
    execution_id: str | None = None
    error_code: str | None = None
    error: str | None = None
    is_hidden: bool = False


class StatusFile(msgspec.Struct, frozen=True, kw_only=True, rename=STATUS_NAMES):
    """`JobStatus/{ExecutionID}.json`: what `Get-JobStatus` gives back to those who may view it."""

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
    result: msgspec.Raw | None
    result_note: str
    artifacts: int
    artifact_bytes: int
    artifacts_note: str
    caused_by: str | None
    caused: tuple[CausedEntry, ...]
    health: str | None
    health_since: str | None
    health_message: str


_encoder = msgspec.json.Encoder()


def result_name(command: CommandRecord) -> str:
    """The file's name: the id as its writer spelled it, since its writer waits for that name."""
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
    progress, health = execution.progress, execution.health
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
        result=execution.result,
        result_note=execution.result_note,
        artifacts=execution.artifacts,
        artifact_bytes=execution.artifact_bytes,
        artifacts_note=execution.artifacts_note,
        caused_by=execution.caused_by,
        caused=tuple(CausedEntry(**asdict(each)) for each in execution.caused),
        health=health.status.value if health else None,
        health_since=_time(health.since_ms) if health else None,
        health_message=health.message if health else "",
    )
    return _encoder.encode(file) + b"\n"


def write(
    layout: DataLayout,
    executions: Sequence[Execution],
    commands: Sequence[CommandRecord],
    put: Put = disk.replace_file,
) -> set[str]:
    """Each record has its file as it stands, but for those that found no room: their ids.

    The reserve is for what has ended. The file of a live execution only says how far it is.
    """
    disk.make_directory(layout.status)
    disk.make_directory(layout.results)
    without: set[str] = set()
    if executions:
        with disk.open_directory(layout.status) as here:
            for execution in executions:
                need = Need.PROJECTION if execution.is_final else None
                with _noted_in(without, execution.id):
                    put(f"{execution.id}.json", here, encode_status(execution), need)
    if commands:
        with disk.open_directory(layout.results) as here:
            for command in commands:
                with _noted_in(without, command.id):
                    put(result_name(command), here, encode_result(command), Need.PROJECTION)
    return without


@contextmanager
def _noted_in(without: set[str], record_id: str) -> Iterator[None]:
    """The record is among `without` if its file finds no room: the next may be smaller."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        without.add(record_id)


def write_again(layout: DataLayout, table: TableReader) -> None:
    """Every status and result file is as the table says."""
    commands = tuple(each for each in table.commands() if each.is_final)
    without = write(layout, tuple(table.executions()), commands, replace_unless_same)
    if without:
        raise OSError(errno.ENOSPC, f"there is no room for {len(without)} of the files")


def wrong_files(layout: DataLayout, table: TableReader) -> list[str]:
    """The names of status and result files of what has ended that are not as the table says."""
    ended = [e for e in table.executions() if e.is_final]
    settled = [c for c in table.commands() if c.is_final]
    status = [(f"{each.id}.json", encode_status(each)) for each in ended]
    results = [(result_name(each), encode_result(each)) for each in settled]
    return _wrong(layout.status, status) + _wrong(layout.results, results)


def _wrong(folder: Path, files: Iterable[tuple[str, bytes]]) -> list[str]:
    with disk.open_directory(folder) as here:
        return [f"{folder.name}/{name}" for name, data in files if not _is_same(name, here, data)]


def sync(*folders: Path) -> bool:
    """Everything in the file systems of the folders is on the disk; False if that is not known."""
    done = set()
    for folder in folders:
        with disk.open_directory(folder) as here:
            device = os.fstat(here).st_dev
            if device in done:
                continue
            if not disk.syncs_all_for_real(here):
                return False
            disk.sync_all(here)
            done.add(device)
    return True


def remove(folder: Path, names: Sequence[str]) -> None:
    """The files are gone."""
    if names:
        with disk.open_directory(folder) as here:
            for name in names:
                disk.remove(name, here)


def replace_unless_same(name: str, inside: int, data: bytes, need: Need | None = None) -> None:
    """The file has this content; a file that had it is left alone."""
    if not _is_same(name, inside, data):
        disk.replace_file(name, inside, data, need)


def _is_same(name: str, inside: int, data: bytes) -> bool:
    try:
        return disk.read_file(name, inside, len(data)).data == data
    except (FileNotFoundError, disk.Unfit, disk.InMotion):
        return False  # not the right content, whatever it is


def _time(at_ms: int | None) -> str | None:
    return rfc3339(at_ms) if at_ms is not None else None
