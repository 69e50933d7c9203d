"""What status and result files say of records that the table lacks, after damage to the journal.

They were written behind it, so they are true as of some moment before its end. Blocking.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict

from bus.clock import from_rfc3339
from bus.envelope import canonical_uuid
from bus.layout import DataLayout
from bus.model import (
    NO_RESULT,
    Caused,
    CommandRecord,
    CommandStatus,
    Execution,
    ExecutionStatus,
    Outcome,
    Progress,
    Reason,
    StopRequest,
    Value,
)
from bus.ports import TableReader
from transports.directory import disk
from transports.directory.command_format import id_in_name
from transports.directory.results import RESULT_NAMES, STATUS_NAMES, CausedEntry

SIZE_MAX = 1 << 20

Record = TypeVar("Record")


class _Status(msgspec.Struct, frozen=True, kw_only=True, rename=STATUS_NAMES):
    execution_id: str
    job_id: str
    status: ExecutionStatus
    user_id: str
    command_id: str
    queued_at: str
    start_time: str | None = None
    end_time: str | None = None
    attempt: int = 1
    previous: str | None = None
    progress: float | None = None
    message: str = ""
    data: dict[str, Any] | None = None
    note: str = ""
    stopped_by: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: Reason | None = None
    error: str | None = None
    contained: bool | None = None
    survivors: tuple[int, ...] = ()
    pid: int | None = None
    output_end: int | None = None
    attempts: int = 0
    cause: str = ""
    not_before: str | None = None
    result: msgspec.Raw = NO_RESULT
    result_note: str = ""
    artifacts: int = 0
    artifact_bytes: int = 0
    artifacts_note: str = ""
    caused_by: str | None = None
    caused: tuple[CausedEntry, ...] = ()


class _Result(msgspec.Struct, frozen=True, kw_only=True, rename=RESULT_NAMES):
    command_id: str
    command: str
    user_id: str
    submitted_at: str
    status: CommandStatus
    job_id: str | None = None
    roles: tuple[str, ...] = ()
    variables: dict[str, Value] | None = None
    result: msgspec.Raw = NO_RESULT
    processed_at: str | None = None
    execution_id: str | None = None
    error: str | None = None
    outcome: Outcome | None = None
    error_code: str | None = None


def records_in_files(layout: DataLayout, table: TableReader) -> Iterator[CommandRecord | Execution]:
    """First commands in the order of their ends, then executions in the order of their ids, which
    is that of their beginnings; what is no such file of ours is passed over. Files have neither the
    hash of a command nor the variables of an execution."""
    yield from _records(
        layout.results,
        _written,  # ids of commands are others', and say no time
        lambda own: table.command(own) is None and table.forgotten(own) is None,
        decode_result,
    )
    yield from _records(
        layout.status, _named, lambda own: table.execution(own) is None, decode_status
    )


def decode_status(data: bytes) -> Execution | None:
    """The execution that a status file describes; None if it is none."""
    try:
        file = msgspec.json.decode(data, type=_Status)
        return Execution(
            id=canonical_uuid(file.execution_id),
            job_id=file.job_id,
            command_id=canonical_uuid(file.command_id),
            user_id=file.user_id,
            status=file.status,
            revision="",
            queued_ms=from_rfc3339(file.queued_at),
            attempt=file.attempt,
            previous=file.previous,
            progress=_progress(file),
            stop=_stop(file),
            start_ms=_time(file.start_time),
            end_ms=_time(file.end_time),
            pid=file.pid,
            reason=file.reason,
            exit_code=file.exit_code,
            signal=file.signal,
            error=file.error,
            contained=file.contained,
            survivors=file.survivors,
            output_end=file.output_end,
            attempts=file.attempts,
            cause=file.cause,
            not_before_ms=_time(file.not_before),
            result=msgspec.Raw(bytes(file.result)),
            result_note=file.result_note,
            artifacts=file.artifacts,
            artifact_bytes=file.artifact_bytes,
            artifacts_note=file.artifacts_note,
            caused_by=file.caused_by,
            caused=tuple(Caused(**asdict(each)) for each in file.caused),
        )
    except (msgspec.MsgspecError, ValueError):
        return None


def decode_result(data: bytes) -> CommandRecord | None:
    """The ended command that a result file describes; None if it is none."""
    try:
        file = msgspec.json.decode(data, type=_Result)
        if not file.command:  # of a file that was none: it was not handled
            return None
        return CommandRecord(
            id=canonical_uuid(file.command_id),
            id_text=file.command_id,
            kind=file.command,
            user_id=file.user_id,
            submitted_ms=from_rfc3339(file.submitted_at),
            submitted_text=file.submitted_at,
            processed_ms=_time(file.processed_at),
            body_hash="",
            status=file.status,
            job_id=file.job_id,
            roles=file.roles,
            variables=file.variables,
            result=msgspec.Raw(bytes(file.result)),
            execution_id=file.execution_id,
            error=file.error,
            outcome=file.outcome,
            error_code=file.error_code,
        )
    except (msgspec.MsgspecError, ValueError):
        return None


def _records(
    folder: Path,
    order: Callable[[os.DirEntry[str]], tuple[int, str]],
    is_unknown: Callable[[str], bool],
    decode: Callable[[bytes], Record | None],
) -> Iterator[Record]:
    try:
        with os.scandir(folder) as entries:
            names = [name for *_, name in sorted((*order(each), each.name) for each in entries)]
    except FileNotFoundError:
        return
    with disk.open_directory(folder) as here:
        for name in names:
            try:
                own = id_in_name(name)
                if own is None or not is_unknown(own):
                    continue
                data = disk.read_file(name, here, SIZE_MAX).data
            except (FileNotFoundError, disk.Unfit, disk.InMotion):
                continue
            record = decode(data)
            if record is not None:
                yield record


def _named(entry: os.DirEntry[str]) -> tuple[int, str]:
    return 0, entry.name.lower()


def _written(entry: os.DirEntry[str]) -> tuple[int, str]:
    """A result is written once. Copied without its time it is where its name puts it."""
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns, entry.name.lower()
    except FileNotFoundError:
        return 0, entry.name.lower()


def _progress(file: _Status) -> Progress | None:
    if file.progress is None and not file.message and file.data is None and not file.note:
        return None
    return Progress(percent=file.progress, message=file.message, data=file.data, note=file.note)


def _stop(file: _Status) -> StopRequest | None:
    """By whom it was stopped; the order itself stands nowhere any more."""
    if file.stopped_by is None:
        return None
    reason = file.reason or Reason.USER
    at_ms = _time(file.end_time) or from_rfc3339(file.queued_at)
    return StopRequest(reason=reason, by=file.stopped_by, at_ms=at_ms, grace_s=0.0)


def _time(text: str | None) -> int | None:
    return from_rfc3339(text) if text is not None else None
