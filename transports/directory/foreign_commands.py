"""The fields of another writer's command file, and the typed command they make. Pure.

Writers spell what is missing in many ways (null, an empty text, an empty list): all of them count.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from bus.clock import A_MOMENT, canonical_moment
from bus.commands import (
    GRACE_S_MAX,
    REASON_MAX,
    BackfillSchedule,
    CancelCommand,
    Command,
    DeleteExecution,
    GetStatus,
    PauseQueue,
    PauseSchedule,
    RestartJob,
    ResumeQueue,
    ResumeSchedule,
    RetryExecution,
    RunSchedule,
    StartJob,
    StopJob,
)
from bus.envelope import canonical_uuid
from bus.errors import ErrorCode, Refused
from bus.malformed import described, escaped, first_unfit
from bus.model import Value
from bus.wording import did_you_mean, quoted
from transports.directory.command_format import FIELD_NAMES, fields_of


class ForeignFile(
    msgspec.Struct,
    frozen=True,
    rename={
        **FIELD_NAMES,
        "session_id": "SessionID",
        "said_twice": "SaidTwice",
        "ambiguous": "Ambiguous",
    },
):
    """The fields as they stand there, of whatever type; unknown ones are ignored.

    `said_twice` are those to which two spellings give different values; `ambiguous` says what is
    wrong if one name stands twice in one object.
    """

    command_id: Any = None
    command: Any = None
    job_id: Any = None
    user_id: Any = None
    session_id: Any = None
    variables: Any = None
    roles: Any = None
    submitted_at: Any = None
    expires_at: Any = None
    execution_id: Any = None
    grace_s: Any = None
    kill: Any = None
    target_id: Any = None
    not_before: Any = None
    traceparent: Any = None
    schedule: Any = None
    group: Any = None
    reason: Any = None
    until: Any = None
    begin: Any = None
    end: Any = None
    preview: Any = None
    said_twice: tuple[str, ...] = ()
    ambiguous: str | None = None


TEXT_MAX = 200
"""Characters kept of a text that means nothing to us when it is longer: it stays in the table, the
journal and the feed for as long as its command."""


def decode(text: bytes) -> ForeignFile:
    """The fields of a command file.

    Raises:
        NotACommand: it is no JSON object.
    """
    found = fields_of(text)
    said = {"SaidTwice": found.twice, "Ambiguous": found.ambiguous}
    return msgspec.convert({**found.fields, **said}, ForeignFile)


def command_of(file: ForeignFile) -> Command:
    """The typed command; the word may be written in any case.

    Raises:
        Refused: unknown word, or a field that is missing or of the wrong type.
    """
    make = _COMMANDS.get(file.command.lower()) if isinstance(file.command, str) else None
    if make is None:
        raise Refused(ErrorCode.UNKNOWN_COMMAND, _no_command(file.command), pointer="/Command")
    return make(file)


def _no_command(written: Any) -> str:
    match written:
        case None:
            return f"Command is missing; write one of {', '.join(_COMMANDS)}"
        case str():
            return f"there is no command {quoted(written)}{did_you_mean(written, _COMMANDS)}"
        case _:
            return f"Command must be one of {', '.join(_COMMANDS)}, not {described(written)}"


def _start(file: ForeignFile) -> Command:
    return StartJob(
        job_id=_job(file),
        variables=_variables(file.variables) or {},
        not_before=_moment(file.not_before),
    )


def _stop(file: ForeignFile) -> Command:
    return StopJob(
        job_id=_job_or_none(file),
        execution_id=_execution_or_none(file),
        grace_s=_grace(file.grace_s),
        kill=_switch(file.kill, "Kill"),
    )


def _restart(file: ForeignFile) -> Command:
    # The origin always writes Variables, empty if none were given: that means the old ones here.
    return RestartJob(
        job_id=_job_or_none(file),
        execution_id=_execution_or_none(file),
        variables=_variables(file.variables) or None,
        grace_s=_grace(file.grace_s),
        kill=_switch(file.kill, "Kill"),
    )


def _status(file: ForeignFile) -> Command:
    return GetStatus(job_id=_job(file))


def _cancel(file: ForeignFile) -> Command:
    return CancelCommand(target_id=_uuid(file.target_id, "TargetID", ErrorCode.UNKNOWN_COMMAND))


def _retry(file: ForeignFile) -> Command:
    return RetryExecution(execution_id=_execution(file), not_before=_moment(file.not_before))


def _delete(file: ForeignFile) -> Command:
    return DeleteExecution(execution_id=_execution(file))


def _pause_schedule(file: ForeignFile) -> Command:
    return PauseSchedule(
        job_id=_job(file),
        schedule=_text(file.schedule, "Schedule", TEXT_MAX),
        reason=_text(file.reason, "Reason", REASON_MAX) or "",
        until=_moment(file.until, "Until"),
    )


def _resume_schedule(file: ForeignFile) -> Command:
    return ResumeSchedule(job_id=_job(file), schedule=_text(file.schedule, "Schedule", TEXT_MAX))


def _run_schedule(file: ForeignFile) -> Command:
    return RunSchedule(job_id=_job(file), schedule=_text(file.schedule, "Schedule", TEXT_MAX))


def _backfill_schedule(file: ForeignFile) -> Command:
    return BackfillSchedule(
        job_id=_job(file),
        schedule=_text(file.schedule, "Schedule", TEXT_MAX),
        begin=_needed_moment(file.begin, "From"),
        end=_needed_moment(file.end, "To"),
        preview=_switch(file.preview, "Preview"),
    )


def _pause(file: ForeignFile) -> Command:
    job_id, group = _queue(file)
    reason = _text(file.reason, "Reason", REASON_MAX)
    return PauseQueue(
        job_id=job_id, group=group, reason=reason or "", until=_moment(file.until, "Until")
    )


def _resume(file: ForeignFile) -> Command:
    job_id, group = _queue(file)
    return ResumeQueue(job_id=job_id, group=group)


_COMMANDS: dict[str, Callable[[ForeignFile], Command]] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "status": _status,
    "cancel": _cancel,
    "retry": _retry,
    "delete": _delete,
    "queue.pause": _pause,
    "queue.resume": _resume,
    "schedule.pause": _pause_schedule,
    "schedule.resume": _resume_schedule,
    "schedule.run": _run_schedule,
    "schedule.backfill": _backfill_schedule,
}


def _job(file: ForeignFile) -> str:
    if not isinstance(file.job_id, str) or not file.job_id:
        raise Refused(
            ErrorCode.UNKNOWN_JOB, 'JobID must name the job, such as "App/Job"', pointer="/JobID"
        )
    if len(file.job_id) > TEXT_MAX:
        raise Refused(
            ErrorCode.UNKNOWN_JOB,
            f"JobID {quoted(file.job_id)} is longer than the id of any job",
            pointer="/JobID",
        )
    return file.job_id


def _job_or_none(file: ForeignFile) -> str | None:
    return _job(file) if file.job_id is not None or file.execution_id is None else None


def _queue(file: ForeignFile) -> tuple[str | None, str | None]:
    """The job or the group whose queue is meant."""
    group = _text(file.group, "Group", TEXT_MAX)
    return (None if is_nothing(file.job_id) and group is not None else _job(file)), group


def _execution(file: ForeignFile) -> str:
    return _uuid(file.execution_id, "ExecutionID", ErrorCode.UNKNOWN_EXECUTION)


def _execution_or_none(file: ForeignFile) -> str | None:
    return _execution(file) if file.execution_id is not None else None


def _uuid(written: Any, field: str, code: ErrorCode) -> str:
    try:
        return canonical_uuid(written if isinstance(written, str) else "")
    except ValueError as error:
        raise Refused(code, f"{field} is {error}", pointer=f"/{field}") from error


def _variables(written: Any) -> dict[str, Value] | None:
    if is_nothing(written):
        return None
    if not isinstance(written, dict):
        raise Refused(
            ErrorCode.BAD_VARIABLES,
            f'Variables must be an object such as {{"Interval": 30}}, not {described(written)}',
            pointer="/Variables",
        )
    unfit = first_unfit(written)
    if unfit is not None:
        name, sentence = unfit
        raise Refused(
            ErrorCode.BAD_VARIABLES, sentence, pointer=f"/Variables/{escaped(name[:TEXT_MAX])}"
        )
    return msgspec.convert(written, dict[str, Value])


def _moment(written: Any, field: str = "NotBefore") -> str | None:
    return None if is_nothing(written) else _needed_moment(written, field)


def _needed_moment(written: Any, field: str) -> str:
    try:
        return canonical_moment(written if isinstance(written, str) else "")
    except (ValueError, OverflowError) as error:
        raise Refused(
            ErrorCode.MALFORMED,
            f"{field} must be {A_MOMENT}, not {spelled(written)}",
            pointer=f"/{field}",
        ) from error


def _text(written: Any, field: str, most: int) -> str | None:
    if is_nothing(written):
        return None
    if not isinstance(written, str) or len(written) > most:
        raise Refused(
            ErrorCode.MALFORMED,
            f"{field} must be a text of at most {most} characters",
            pointer=f"/{field}",
        )
    return written


def _switch(written: Any, field: str) -> bool:
    """Whether it is wanted, e.g. to kill at once. What cannot be understood is refused: neither a
    kill nor a gentle stop may be done in the place of the other."""
    match written:
        case bool():
            return written
        case {"IsPresent": bool(is_present)}:  # a [switch] of PowerShell
            return is_present
        case _ if is_nothing(written):
            return False
        case _:
            raise Refused(
                ErrorCode.MALFORMED,
                f"{field} must be true or false, not {spelled(written)}",
                pointer=f"/{field}",
            )


def _grace(written: Any) -> float | None:
    if is_nothing(written):
        return None
    # JSON has numbers that no float holds: they are compared before they become one.
    is_number = isinstance(written, int | float) and not isinstance(written, bool)
    if not is_number or not 0 <= written <= GRACE_S_MAX:
        raise Refused(
            ErrorCode.BAD_VARIABLES,
            f"GraceS must be from 0 to {GRACE_S_MAX:.0f} seconds",
            pointer="/GraceS",
        )
    return float(written)


def is_nothing(written: Any) -> bool:
    """Whether it is what a parameter that was not given becomes: null; an empty text, where it is
    declared to be one; an empty list, as PHP writes an empty table; `{}`, as Windows PowerShell
    writes what a call that returned nothing returned."""
    match written:
        case None | [] | [[]]:
            return True
        case str():
            return not written.strip()
        case dict():
            return not written
        case _:
            return False


def spelled(written: Any) -> str:
    return quoted(written) if isinstance(written, str) else described(written)
