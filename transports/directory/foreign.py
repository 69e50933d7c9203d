"""A command file that somebody else wrote, made an envelope. Pure: no IO, no clock.

Two kinds of fault: a file that is `NotACommand` (Rejects, in the end), and a command that says what
cannot be done (`Refused`: its writer finds a Rejected result under its CommandID).
"""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from bus.access import ADMIN
from bus.clock import from_rfc3339
from bus.commands import (
    GRACE_S_MAX,
    CancelCommand,
    Command,
    DeleteExecution,
    GetStatus,
    RestartJob,
    RetryExecution,
    StartJob,
    StopJob,
    body_hash,
)
from bus.envelope import Envelope, can_be_user, canonical_uuid, trace_context
from bus.errors import ErrorCode, Refused
from bus.malformed import described, escaped, first_unfit
from bus.model import CommandRecord, CommandStatus, Principal, Value
from bus.wording import did_you_mean, quoted
from transports.directory.settings import DirectorySettings
from transports.directory.wire import FIELD_NAMES, command_id_of, fields_of


class ForeignFile(
    msgspec.Struct,
    frozen=True,
    rename={**FIELD_NAMES, "session_id": "SessionID", "said_twice": "SaidTwice"},
):
    """The fields as they stand there, of whatever type; unknown ones are ignored.

    `said_twice` are those to which two spellings give different values.
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
    traceparent: Any = None
    said_twice: tuple[str, ...] = ()


TEXT_MAX = 200
"""Characters kept of a text that means nothing to us when it is longer: it stays in the table, the
journal and the feed for as long as its command."""


class Writer(msgspec.Struct, frozen=True):
    """Who wrote the file, as the file system knows it, and when it last changed."""

    uid: int
    is_service: bool
    mtime_ms: int


def decode(text: bytes) -> ForeignFile:
    """The fields of a command file.

    Raises:
        NotACommand: it is no JSON object.
    """
    found = fields_of(text)
    return msgspec.convert({**found.fields, "SaidTwice": found.twice}, ForeignFile)


def envelope_of(
    file: ForeignFile, writer: Writer, settings: DirectorySettings, secret: bytes
) -> Envelope:
    """The command with the principal that its writer is granted.

    Raises:
        NotACommand: it has no CommandID.
        Refused: it cannot be carried out, whoever asks.
    """
    command_id = command_id_of(file.command_id)
    for name in file.said_twice:
        raise Refused(
            ErrorCode.MALFORMED,
            f"{name} stands there in two spellings that say different things; write it once",
            pointer=f"/{name}",
        )
    if writer.is_service:
        _check_roles(file.roles)
    command = command_of(file)
    expires_ms = _expiry(file.expires_at)
    return Envelope(
        id=command_id,
        id_text=file.command_id if file.command_id != command_id else None,
        command=command,
        principal=principal_of(file, writer, settings),
        submitted_ms=submitted_ms(file.submitted_at, writer.mtime_ms),
        body_hash=body_hash(command, expires_ms),
        expires_ms=expires_ms,
        submitted_text=_kept(file.submitted_at),
        session_hash=_session_hash(file.session_id, secret),
        traceparent=trace_context(_text(file.traceparent) or ""),
    )


def rejected(
    file: ForeignFile, writer: Writer, settings: DirectorySettings, why: Refused, now_ms: int
) -> CommandRecord:
    """What the writer of a command that is `Refused` finds as its result."""
    command_id = command_id_of(file.command_id)
    principal = principal_of(file, writer, settings)
    return CommandRecord(
        id=command_id,
        id_text=file.command_id if file.command_id != command_id else None,
        kind=_kept(file.command) or "",
        user_id=principal.user_id,
        roles=principal.roles,
        via=principal.via,
        submitted_ms=submitted_ms(file.submitted_at, writer.mtime_ms),
        submitted_text=_kept(file.submitted_at),
        body_hash="",
        job_id=_kept(file.job_id),
        status=CommandStatus.REJECTED,
        error_code=why.code,
        error=why.message,
        processed_ms=now_ms,
    )


def principal_of(file: ForeignFile, writer: Writer, settings: DirectorySettings) -> Principal:
    """Who acts: the service's own account is believed, others are who the file system says.

    `admin`, names that only jobbus gives and what is no visible name are not believed from a file.
    """
    account = f"uid:{writer.uid}"
    if not writer.is_service:
        return Principal(user_id=account, roles=settings.roles_of(writer.uid), via="directory")
    name = file.user_id
    believed = isinstance(name, str) and can_be_user(name)
    roles = _roles(file.roles, settings)
    return Principal(user_id=name if believed else account, roles=roles, via="directory")


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
    return StartJob(job_id=_job(file), variables=_variables(file.variables) or {})


def _stop(file: ForeignFile) -> Command:
    return StopJob(
        job_id=_job_or_none(file),
        execution_id=_execution_or_none(file),
        grace_s=_grace(file.grace_s),
        kill=_kill(file.kill),
    )


def _restart(file: ForeignFile) -> Command:
    # The origin always writes Variables, empty if none were given: that means the old ones here.
    return RestartJob(
        job_id=_job_or_none(file),
        execution_id=_execution_or_none(file),
        variables=_variables(file.variables) or None,
        grace_s=_grace(file.grace_s),
        kill=_kill(file.kill),
    )


def _status(file: ForeignFile) -> Command:
    return GetStatus(job_id=_job(file))


def _cancel(file: ForeignFile) -> Command:
    return CancelCommand(target_id=_uuid(file.target_id, "TargetID", ErrorCode.UNKNOWN_COMMAND))


def _retry(file: ForeignFile) -> Command:
    return RetryExecution(execution_id=_execution(file))


def _delete(file: ForeignFile) -> Command:
    return DeleteExecution(execution_id=_execution(file))


_COMMANDS: dict[str, Callable[[ForeignFile], Command]] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "status": _status,
    "cancel": _cancel,
    "retry": _retry,
    "delete": _delete,
}


def is_urgent(word: object) -> bool:
    """Whether commands with this word go ahead of others (see `bus.commands.URGENT`)."""
    return isinstance(word, str) and word.lower() in ("stop", "cancel")


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
    if _is_nothing(written):
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


def _is_nothing(written: Any) -> bool:
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


def _kill(written: Any) -> bool:
    """Whether to kill at once. What cannot be understood is refused: neither kill nor a gentle stop
    may be done in the place of the other."""
    match written:
        case bool():
            return written
        case {"IsPresent": bool(is_present)}:  # a [switch] of PowerShell
            return is_present
        case _ if _is_nothing(written):
            return False
        case _:
            raise Refused(
                ErrorCode.MALFORMED,
                f"Kill must be true or false, not {_spelled(written)}",
                pointer="/Kill",
            )


def _grace(written: Any) -> float | None:
    if _is_nothing(written):
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


def _roles(written: Any, settings: DirectorySettings) -> tuple[str, ...]:
    """The words that came, but for `admin`, and what they count as; the default where none came."""
    words = _role_words(written)
    if words is None:
        return settings.default_roles
    believed = tuple(word for word in words if settings.admin or word != ADMIN)
    counted = (role for word in words for role in settings.role_map.get(word, ()))
    return tuple(dict.fromkeys((*believed, *counted)))


def _role_words(written: Any) -> tuple[str, ...] | None:
    """The words in Roles; None where none stands there, however its writer spells that: PowerShell
    has `[]`, `null`, an empty text and a list of nulls for a parameter that was not given."""
    said = _role_list(written)
    return tuple(role for role in said if isinstance(role, str)) if said else None


def _role_list(written: Any) -> list[Any]:
    """What stands there in the place of words, without what is nothing."""
    match written:
        case list():
            listed = written
        case {"value": list(listed), "Count": int()} if len(written) == 2:
            pass  # a list, as Windows PowerShell 5.1 writes one that it got from elsewhere
        case _:
            listed = [written]
    return [role for role in listed if not _is_nothing(role)]


def _check_roles(written: Any) -> None:
    if not all(isinstance(word, str) for word in _role_list(written)):
        raise Refused(
            ErrorCode.MALFORMED,
            'Roles must be words such as ["operator"], or left out',
            pointer="/Roles",
        )


def submitted_ms(written: object, mtime_ms: int) -> int:
    """The writer's own time; the file's, where the writer's is missing or no time."""
    if isinstance(written, str):
        try:
            return from_rfc3339(written)
        except (ValueError, OverflowError):
            return mtime_ms
    return mtime_ms


def _expiry(written: Any) -> int | None:
    if _is_nothing(written):
        return None
    try:
        return from_rfc3339(written if isinstance(written, str) else "")
    except (ValueError, OverflowError) as error:
        raise Refused(
            ErrorCode.EXPIRED,
            f"ExpiresAt must be a time such as 2026-01-26T18:00:00Z, not {_spelled(written)}",
            pointer="/ExpiresAt",
        ) from error


def _session_hash(written: Any, secret: bytes) -> str | None:
    """All that is kept of a SessionID, which may be a live cookie of the host."""
    if not isinstance(written, str) or not written:
        return None
    text = written.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, key=secret[:64], person=b"session").hexdigest()


def _text(written: Any) -> str | None:
    return written if isinstance(written, str) else None


def _kept(written: Any) -> str | None:
    return written[:TEXT_MAX] if isinstance(written, str) else None


def _spelled(written: Any) -> str:
    return quoted(written) if isinstance(written, str) else described(written)
