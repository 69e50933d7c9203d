"""A command on its way: who asked, when, under which id. Ids are made here; time is handed in."""

import hashlib
import os
import re
import uuid
from typing import NamedTuple

import msgspec

from bus.commands import AnyCommand, Command, body_hash, job_of, kind_of
from bus.errors import IdInUse
from bus.model import CommandRecord, CommandStatus, ForgottenCommand, Principal
from bus.visible_text import hides

SYSTEM = Principal(user_id="system:bus", roles=(), via="system")
RESERVED_USERS = ("uid:", "schedule:", "chain:", "policy:", "system:")
"""Prefixes of user ids that only jobbus itself gives."""

SCHEDULED = "schedule:"
"""The user ids of schedules begin with that, and so do the causes of what they start."""

USER_MAX = 128

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z"
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A command with its id, its principal and its times.

    `accepted_ns` is set by the transport's committer and only grows; it orders our own commands.
    `submitted_text` is the writer's own spelling of the time, given back in results word for word;
    `id_text` is its spelling of the id, where that differs from `id`. `poison`: why it must not be
    handled: starts of the service died of it.
    """

    id: str
    command: AnyCommand
    principal: Principal
    submitted_ms: int
    body_hash: str = ""
    accepted_ns: int = 0
    expires_ms: int | None = None
    submitted_text: str | None = None
    session_hash: str | None = None
    traceparent: str | None = None
    id_text: str | None = None
    poison: str = ""


def seal(
    command: Command,
    principal: Principal,
    *,
    now_ms: int,
    command_id: str | None = None,
    expires_ms: int | None = None,
    submitted_text: str | None = None,
    session_hash: str | None = None,
    traceparent: str | None = None,
) -> Envelope:
    """The command in an envelope, with a new UUIDv7 unless it brings an id of its own."""
    return Envelope(
        id=command_id or new_uuid(now_ms),
        command=command,
        principal=principal,
        submitted_ms=now_ms,
        body_hash=body_hash(command, expires_ms),
        expires_ms=expires_ms,
        submitted_text=submitted_text,
        session_hash=session_hash,
        traceparent=traceparent,
    )


class Identity(NamedTuple):
    """What makes two commands under one id the same: what is asked for, and on whose behalf."""

    body_hash: str
    user_id: str


def identity_of(command: Envelope | CommandRecord | ForgottenCommand) -> Identity:
    """The identity of a command, on its way or on record."""
    if isinstance(command, Envelope):
        return Identity(command.body_hash, command.principal.user_id)
    return Identity(command.body_hash, command.user_id)


def check_same(envelope: Envelope, known: Identity) -> None:
    """The command is the one that is known under its id.

    Raises:
        IdInUse: it is another one, or of another principal.
    """
    if identity_of(envelope) != known:
        raise IdInUse(
            f"the command id {envelope.id} stands for another command",
            same_principal=envelope.principal.user_id == known.user_id,
        )


ENVELOPE_BYTES = 1024
"""About what an envelope takes beside the variables of its command."""


def weight_of(envelope: Envelope) -> int:
    """About how many bytes the envelope takes in memory while it waits."""
    variables = getattr(envelope.command, "variables", None) or {}
    texts = sum(len(value) for value in variables.values() if isinstance(value, str))
    return ENVELOPE_BYTES + texts + sum(map(len, variables)) + 64 * len(variables)


def waiting_record(envelope: Envelope) -> CommandRecord:
    """The command as it is shown before the owner has decided about it: `Pending`."""
    command = envelope.command
    return CommandRecord(
        id=envelope.id,
        kind=kind_of(command),
        user_id=envelope.principal.user_id,
        submitted_ms=envelope.submitted_ms,
        body_hash=envelope.body_hash,
        status=CommandStatus.PENDING,
        job_id=job_of(command),
        roles=envelope.principal.roles,
        via=envelope.principal.via,
        submitted_text=envelope.submitted_text,
        id_text=envelope.id_text,
        traceparent=envelope.traceparent,
    )


def new_uuid(now_ms: int) -> str:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, the rest random; sorts by time."""
    raw = bytearray(now_ms.to_bytes(6, "big") + os.urandom(10))
    raw[6] = (raw[6] & 0x0F) | 0x70
    raw[8] = (raw[8] & 0x3F) | 0x80
    text = raw.hex()  # what `uuid.UUID` would print, for a third of the time
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def chain_of(job_id: str) -> str:
    """The user on whose behalf `[[after]]` of that job starts others."""
    return f"chain:{job_id}"


def derived_uuid(*parts: str) -> str:
    """The id of a command that the service itself makes (UUIDv8, RFC 9562 §5.8): always the same
    for the same cause, so that it cannot be given twice."""
    joined = "\0".join(parts).encode()
    raw = bytearray(hashlib.blake2b(joined, digest_size=16, person=b"jobbus derived").digest())
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


def can_be_user(text: str) -> bool:
    """Whether a user from outside may have this name: visible, and not reserved for jobbus."""
    is_visible = (
        0 < len(text) <= USER_MAX
        and text.isprintable()
        and not hides(text)
        and text == text.strip()
    )
    return is_visible and not text.lower().startswith(RESERVED_USERS)


def trace_context(text: str) -> str | None:
    """`text` if it is a well-formed `traceparent` (W3C Trace Context); else none, as that asks."""
    return text if _TRACEPARENT.match(text) else None


def canonical_uuid(text: str) -> str:
    """`text` in lower case, if it is a UUID in the usual form with dashes.

    Raises:
        ValueError: it is not; nothing else may ever become part of a path.
    """
    lowered = text.lower() if len(text) == 36 else ""
    if not _UUID.match(lowered):
        raise ValueError("not a UUID such as 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
    return lowered
