"""A command file of another writer, made an envelope. Pure: no IO, no clock.

Two kinds of fault: a file that is `NotACommand` (Rejects, in the end), and a command that says what
cannot be done (`Refused`: its writer finds a Rejected result under its CommandID).
"""

import hashlib
from typing import Any

import msgspec

from bus.access import ADMIN
from bus.clock import from_rfc3339
from bus.commands import (
    body_hash,
)
from bus.envelope import Envelope, can_be_user, trace_context
from bus.errors import ErrorCode, Refused
from bus.model import CommandRecord, CommandStatus, Principal
from transports.directory.command_format import command_id_of
from transports.directory.foreign_commands import (
    TEXT_MAX,
    ForeignFile,
    command_of,
    is_nothing,
    spelled,
)
from transports.directory.settings import DirectorySettings


class Writer(msgspec.Struct, frozen=True):
    """The writer of the file, as the file system knows it, and when the file last changed."""

    uid: int
    is_service: bool
    mtime_ms: int


def envelope_of(
    file: ForeignFile, writer: Writer, settings: DirectorySettings, secret: bytes
) -> Envelope:
    """The command with the principal that its writer is granted.

    Raises:
        NotACommand: it has no CommandID.
        Refused: it cannot be carried out for any user.
    """
    command_id = command_id_of(file.command_id)
    if file.ambiguous is not None:
        raise Refused(ErrorCode.MALFORMED, file.ambiguous)
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
    """The acting user: the service's own account is believed, of others the file system names the
    account.

    `admin`, names that only jobbus gives and what is no visible name are not believed from a file.
    """
    account = f"uid:{writer.uid}"
    if not writer.is_service:
        return Principal(user_id=account, roles=settings.roles_of(writer.uid), via="directory")
    name = file.user_id
    believed = isinstance(name, str) and can_be_user(name)
    roles = _roles(file.roles, settings)
    return Principal(user_id=name if believed else account, roles=roles, via="directory")


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
    return [role for role in listed if not is_nothing(role)]


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
    if is_nothing(written):
        return None
    try:
        return from_rfc3339(written if isinstance(written, str) else "")
    except (ValueError, OverflowError) as error:
        raise Refused(
            ErrorCode.EXPIRED,
            f"ExpiresAt must be a time such as 2026-01-26T18:00:00Z, not {spelled(written)}",
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
