"""The entries of what was refused before it made an event. No IO, no clock."""

from bus.audit import REFUSED, AuditEntry, cut, stamp
from bus.clock import rfc3339
from bus.commands import job_of, kind_of
from bus.envelope import Envelope
from bus.errors import BusError
from bus.model import CommandRecord


def entry_of_refusal(envelope: Envelope, error: BusError, at_ms: int) -> AuditEntry:
    """What was refused before it was written anywhere."""
    job_id = job_of(envelope.command)
    return AuditEntry(
        at=rfc3339(at_ms),
        kind=REFUSED,
        actor=cut(envelope.principal.user_id),
        roles=envelope.principal.roles,
        via=envelope.principal.via,
        action=kind_of(envelope.command),
        job=cut(job_id) if job_id else None,
        execution=_text(envelope, "execution_id"),
        command=envelope.id,
        submitted_at=stamp(envelope.submitted_ms),
        status="Rejected",
        error_code=error.code,
    )


def entry_of_file(record: CommandRecord, at_ms: int) -> AuditEntry:
    """A queue file that was answered where it was found."""
    return AuditEntry(
        at=rfc3339(at_ms),
        kind=REFUSED,
        actor=cut(record.user_id),
        roles=tuple(cut(role) for role in record.roles[:16]),
        via=record.via,
        action=cut(record.kind) or "unknown",
        job=cut(record.job_id) if record.job_id else None,
        command=record.id,
        submitted_at=stamp(record.submitted_ms),
        processed_at=stamp(record.processed_ms),
        status=record.status.value,
        error_code=record.error_code,
    )


def _text(envelope: Envelope, name: str) -> str | None:
    value = getattr(envelope.command, name, None)
    return cut(value) if isinstance(value, str) else None
