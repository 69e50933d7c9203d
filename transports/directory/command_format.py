"""A command as a queue file: the format and nothing else. No IO, no clock.

The fields are those of the origin, spelled as it spells them; ours stand behind them. A file that
jobbus wrote carries a `Seal`, an HMAC over every byte before it: what stands in a sealed file was
put there by this instance's own code and is believed as it is. Anything else is `foreign`.
"""

import hmac
import re
from typing import Any

import msgspec

from bus.clock import from_rfc3339, rfc3339
from bus.commands import (
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
    kind_of,
)
from bus.envelope import Envelope, canonical_uuid
from bus.malformed import why_ambiguous, why_no_json, why_no_object
from bus.model import Principal, Value

SUFFIX = ".json"
"""A command file is called after its CommandID, with this behind it."""
_PURPOSE = b"jobbus queue file 1\n"
_SEAL = re.compile(rb',"Seal":"([0-9a-f]{64})"\}\n?\Z')
_SEAL_BEGIN = b',"Seal":"'
_SEAL_LENGTH = len(b',"Seal":""}\n') + 64


class NotACommand(Exception):
    """The bytes are no command (yet); the text says why. Such a file goes to Rejects in the end."""


FIELD_NAMES = {
    "command_id": "CommandID",
    "command": "Command",
    "job_id": "JobID",
    "user_id": "UserID",
    "variables": "Variables",
    "roles": "Roles",
    "submitted_at": "SubmittedAt",
    "status": "Status",
    "accepted_at": "AcceptedAt",
    "expires_at": "ExpiresAt",
    "execution_id": "ExecutionID",
    "grace_s": "GraceS",
    "kill": "Kill",
    "target_id": "TargetID",
    "not_before": "NotBefore",
    "traceparent": "Traceparent",
    "payload": "Payload",
    "via": "Via",
    "body_hash": "BodyHash",
    "session_hash": "SessionHash",
    "schedule": "Schedule",
    "group": "Group",
    "reason": "Reason",
    "until": "Until",
    "begin": "From",
    "end": "To",
    "preview": "Preview",
}


class SealedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=FIELD_NAMES):
    """What jobbus writes; the origin's fields are always there, ours where they say something."""

    command_id: str
    command: str
    job_id: str | None
    user_id: str
    variables: dict[str, Value] | None
    roles: tuple[str, ...]
    submitted_at: str
    status: str
    accepted_at: int
    expires_at: str | None = None
    execution_id: str | None = None
    grace_s: float | None = None
    kill: bool = False
    target_id: str | None = None
    not_before: str | None = None
    traceparent: str | None = None
    payload: dict[str, Any] | None = None
    via: str = "system"
    body_hash: str = ""
    session_hash: str | None = None
    schedule: str | None = None
    group: str | None = None
    reason: str = ""
    until: str | None = None
    begin: str | None = None
    end: str | None = None
    preview: bool = False


class Outline(msgspec.Struct, frozen=True, rename={
    "command_id": "CommandID", "command": "Command", "accepted_at": "AcceptedAt",
    "submitted_at": "SubmittedAt", "user_id": "UserID",
}):  # fmt: skip
    """As much of a command file as its place in the queue depends on; the types are not judged."""

    command_id: Any = None
    command: Any = None
    accepted_at: Any = None
    submitted_at: Any = None
    user_id: Any = None


WRITE_UTF8 = "write it with -Encoding utf8"
_KNOWN = {name.casefold(): name for name in (*FIELD_NAMES.values(), "SessionID")}

_encoder = msgspec.json.Encoder()
_fields_decoder = msgspec.json.Decoder(dict[str, Any])
_sealed_decoder = msgspec.json.Decoder(SealedFile)
_outline_decoder = msgspec.json.Decoder(Outline)


def encode(envelope: Envelope, accepted_ns: int, secret: bytes) -> bytes:
    """The sealed file of a command, one line."""
    body = _encoder.encode(_filled(envelope, accepted_ns))
    return body[:-1] + b',"Seal":"' + _seal(body, secret) + b'"}\n'


def open_seal(data: bytes, secret: bytes) -> SealedFile | None:
    """What a file says that bears this instance's seal; None if it bears none, or not ours.

    Raises:
        ValueError: sealed by a version of jobbus that wrote other fields.
    """
    body = _body_under_seal(data, secret)
    return _sealed_decoder.decode(body) if body is not None else None


def looks_sealed(data: bytes) -> bool:
    """Whether the file ends as sealed ones do; whether the seal is good is known to `open_seal`."""
    return _SEAL_BEGIN in data[-_SEAL_LENGTH:]


def unsealed(file: SealedFile) -> Envelope:
    """The envelope that `encode` was given."""
    return Envelope(
        id=file.command_id,
        command=_command_of(file),
        principal=Principal(user_id=file.user_id, roles=file.roles, via=file.via),
        submitted_ms=from_rfc3339(file.submitted_at),
        body_hash=file.body_hash,
        accepted_ns=file.accepted_at,
        expires_ms=from_rfc3339(file.expires_at) if file.expires_at is not None else None,
        session_hash=file.session_hash,
        traceparent=file.traceparent,
    )


def outline(text: bytes) -> Outline:
    """The outline of one JSON object. No proper prefix of an object parses: parsed means whole.

    Raises:
        NotACommand: it is none, or not yet.
    """
    try:
        found = _outline_decoder.decode(text)
    # Broken JSON, broken UTF-8 and numbers out of range are ValueErrors; deep nesting is not.
    except (ValueError, RecursionError) as error:
        raise _no_object(text) from error
    if None in (found.command_id, found.command, found.submitted_at):  # or spelled otherwise
        return msgspec.convert(fields_of(text).fields, Outline)
    return found


class Fields(msgspec.Struct, frozen=True):
    """The members of a command file under the names that we know; `twice` are those that two
    spellings, neither of them ours, give different values. `ambiguous`: what is wrong if one name
    stands twice in one object."""

    fields: dict[str, Any]
    twice: tuple[str, ...] = ()
    ambiguous: str | None = None


def fields_of(text: bytes) -> Fields:
    """The members of one JSON object, whatever the case of their names; ours wins.

    Raises:
        NotACommand: it is none, or not yet.
    """
    try:
        written = _fields_decoder.decode(text)
        ambiguous = why_ambiguous(text)
    except (ValueError, RecursionError) as error:
        raise _no_object(text) from error
    fields: dict[str, Any] = {}
    twice: dict[str, None] = {}
    for name, value in written.items():
        known = _KNOWN.get(name.casefold())
        if known is None or (known != name and known in written):
            continue
        if known in fields and not _same(fields[known], value):
            twice[known] = None
        fields[known] = value
    return Fields(fields, tuple(twice), ambiguous)


def _same(value: object, other: object) -> bool:
    """As JSON: `true` is not `1`."""
    return _encoder.encode(value) == _encoder.encode(other)


def _no_object(text: bytes) -> NotACommand:
    match text.lstrip()[:1]:
        case b"[" if _is_json(text):
            return NotACommand(
                "it is a list: one command a file, an object in braces (in PowerShell, leave out "
                "-AsArray)"
            )
        case b"<":
            return NotACommand(
                "it is XML, not JSON: write it with ConvertTo-Json (not with Export-Clixml)"
            )
        case _ if _is_json(text):
            return NotACommand(why_no_object(text))
        case _:
            return NotACommand(f"it is no JSON: {why_no_json(text, WRITE_UTF8)}")


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def id_in_name(name: str) -> str | None:
    """The id that a file is called after, in its canonical form; None if there is none."""
    try:
        return canonical_uuid(name.removesuffix(SUFFIX)) if name.endswith(SUFFIX) else None
    except ValueError:
        return None


def command_id_of(written: object) -> str:
    """The canonical form of a CommandID as it was written.

    Raises:
        NotACommand: it is no UUID.
    """
    if not isinstance(written, str):
        raise NotACommand("CommandID is missing or no text; it must be a UUID")
    try:
        return canonical_uuid(written)
    except ValueError as error:
        raise NotACommand(f"CommandID is {error}") from error


def _filled(envelope: Envelope, accepted_ns: int) -> SealedFile:
    command: Any = envelope.command
    variables = getattr(command, "variables", None)
    expires_ms = envelope.expires_ms
    return SealedFile(
        command_id=envelope.id,
        command=kind_of(command),
        job_id=getattr(command, "job_id", None),
        user_id=envelope.principal.user_id,
        variables=variables,
        roles=envelope.principal.roles,
        submitted_at=rfc3339(envelope.submitted_ms),
        status="Pending",
        accepted_at=accepted_ns,
        expires_at=rfc3339(expires_ms) if expires_ms is not None else None,
        execution_id=getattr(command, "execution_id", None),
        grace_s=getattr(command, "grace_s", None),
        kill=getattr(command, "kill", False),
        target_id=getattr(command, "target_id", None),
        not_before=getattr(command, "not_before", None),
        traceparent=envelope.traceparent,
        via=envelope.principal.via,
        body_hash=envelope.body_hash,
        session_hash=envelope.session_hash,
        schedule=getattr(command, "schedule", None),
        group=getattr(command, "group", None),
        reason=getattr(command, "reason", ""),
        until=getattr(command, "until", None),
        begin=getattr(command, "begin", None),
        end=getattr(command, "end", None),
        preview=getattr(command, "preview", False),
    )


def _command_of(file: SealedFile) -> Command:
    match file.command:
        case "start":
            return StartJob(
                job_id=file.job_id or "",
                variables=file.variables or {},
                not_before=file.not_before,
            )
        case "stop":
            return StopJob(
                job_id=file.job_id,
                execution_id=file.execution_id,
                grace_s=file.grace_s,
                kill=file.kill,
            )
        case "restart":
            return RestartJob(
                job_id=file.job_id,
                execution_id=file.execution_id,
                variables=file.variables,
                grace_s=file.grace_s,
                kill=file.kill,
            )
        case "status":
            return GetStatus(job_id=file.job_id or "")
        case "cancel":
            return CancelCommand(target_id=file.target_id or "")
        case "retry":
            return RetryExecution(execution_id=file.execution_id or "", not_before=file.not_before)
        case "delete":
            return DeleteExecution(execution_id=file.execution_id or "")
        case "queue.pause":
            return PauseQueue(
                job_id=file.job_id, group=file.group, reason=file.reason, until=file.until
            )
        case "queue.resume":
            return ResumeQueue(job_id=file.job_id, group=file.group)
        case "schedule.pause":
            return PauseSchedule(
                job_id=file.job_id or "",
                schedule=file.schedule,
                reason=file.reason,
                until=file.until,
            )
        case "schedule.resume":
            return ResumeSchedule(job_id=file.job_id or "", schedule=file.schedule)
        case "schedule.run":
            return RunSchedule(job_id=file.job_id or "", schedule=file.schedule)
        case "schedule.backfill":
            return BackfillSchedule(
                job_id=file.job_id or "",
                schedule=file.schedule,
                begin=file.begin or "",
                end=file.end or "",
                preview=file.preview,
            )
        case other:
            raise NotACommand(f"sealed by another version: it has no command {other!r}")


def _body_under_seal(data: bytes, secret: bytes) -> bytes | None:
    match = _SEAL.search(data, max(0, len(data) - _SEAL_LENGTH))
    if match is None:
        return None
    body = data[: match.start()] + b"}"
    return body if hmac.compare_digest(_seal(body, secret), match[1]) else None


def _seal(body: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + body, "sha256").hex().encode()
