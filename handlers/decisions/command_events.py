"""The records of a command that several decisions share.

Pure: no IO, no clock, no entropy.
"""

from bus.commands import kind_of, variables_of
from bus.envelope import Envelope
from bus.events import (
    CommandAccepted,
    CommandEnded,
    ExecutionQueued,
)
from bus.jobs import Job
from bus.model import CommandStatus, Outcome, Value
from handlers.decisions.decision import Context, Decision


def queued(
    envelope: Envelope,
    job: Job,
    variables: dict[str, Value],
    context: Context,
    *,
    first: bool = False,
    replaces: str | None = None,
) -> ExecutionQueued:
    return ExecutionQueued(
        execution_id=context.new_id(),
        job_id=job.id,
        command_id=envelope.id,
        user_id=envelope.principal.user_id,
        revision=job.revision,
        variables=variables,
        first=first,
        replaces=replaces,
        expires_ms=envelope.expires_ms,
        traceparent=envelope.traceparent,
        attempts=attempts_of(job),
    )


def attempts_of(job: Job) -> int:
    """How many starts in all the job's definition allows, if it is retried at all."""
    attempts = job.spec.retry.attempts if job.spec is not None else 1
    return attempts if attempts > 1 else 0


def noop(
    envelope: Envelope, job_id: str | None, execution_id: str | None, *, supersedes_ns: int = 0
) -> Decision:
    accepted = accepted_as(envelope, job_id, execution_id=execution_id, supersedes_ns=supersedes_ns)
    return Decision((accepted, completed(envelope, Outcome.NOOP)))


def merge(envelope: Envelope, job_id: str, execution_id: str) -> Decision:
    return Decision((accepted_as(envelope, job_id, execution_id=execution_id, merged=True),))


def accepted_as(
    envelope: Envelope,
    job_id: str | None,
    *,
    execution_id: str | None = None,
    waits_for: tuple[str, ...] = (),
    merged: bool = False,
    attempted: bool = True,
    supersedes_ns: int = 0,
) -> CommandAccepted:
    """The command is on record. No other place makes this event of an envelope, so that every
    command keeps all that came with it, whatever becomes of it."""
    return CommandAccepted(
        command_id=envelope.id,
        kind=kind_of(envelope.command),
        user_id=envelope.principal.user_id,
        submitted_ms=envelope.submitted_ms,
        body_hash=envelope.body_hash,
        job_id=job_id,
        roles=envelope.principal.roles,
        via=envelope.principal.via,
        variables=variables_of(envelope.command),
        submitted_text=envelope.submitted_text,
        id_text=envelope.id_text,
        traceparent=envelope.traceparent,
        execution_id=execution_id,
        waits_for=waits_for,
        merged=merged,
        attempted=attempted,
        supersedes_ns=supersedes_ns,
    )


def completed(envelope: Envelope, outcome: Outcome) -> CommandEnded:
    return CommandEnded(command_id=envelope.id, status=CommandStatus.COMPLETED, outcome=outcome)
