"""The events of a command, each made in one place for all decisions.

Pure: no IO, no clock, no entropy.
"""

import msgspec

from bus.commands import kind_of, variables_of
from bus.envelope import Envelope
from bus.errors import ErrorCode
from bus.events import (
    CommandAccepted,
    CommandEnded,
    ExecutionQueued,
)
from bus.job_definition import Job
from bus.model import NO_RESULT, CommandStatus, Outcome, Value
from handlers.decisions.decision import Context, Decision


def queued(
    envelope: Envelope,
    job: Job,
    variables: dict[str, Value],
    context: Context,
    *,
    first: bool = False,
    replaces: str | None = None,
    not_before_ms: int | None = None,
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
        not_before_ms=not_before_ms,
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
    return Decision((accepted, completed(envelope.id, Outcome.NOOP)))


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


def completed(
    command_id: str,
    outcome: Outcome,
    *,
    execution_id: str | None = None,
    result: msgspec.Raw = NO_RESULT,
) -> CommandEnded:
    """The command did what it asked for."""
    return CommandEnded(
        command_id=command_id,
        status=CommandStatus.COMPLETED,
        outcome=outcome,
        execution_id=execution_id,
        result=result,
    )


def ended_without_success(
    command_id: str,
    status: CommandStatus,
    code: str,
    error: str,
    *,
    execution_id: str | None = None,
) -> CommandEnded:
    """The command did not do what it asked for; `error` is a sentence for people."""
    return CommandEnded(
        command_id=command_id,
        status=status,
        error_code=code,
        error=error,
        execution_id=execution_id,
    )


def superseded(command_id: str, execution_id: str) -> CommandEnded:
    """A start or restart that will never run: what came later overtook it."""
    return ended_without_success(
        command_id,
        CommandStatus.CANCELLED,
        ErrorCode.SUPERSEDED,
        "a later stop, start or restart came before the execution ran",
        execution_id=execution_id,
    )
