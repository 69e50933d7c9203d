"""The facts that lead to a record, where only the record is left. Pure."""

from collections.abc import Iterator

from bus.envelope import chain_of
from bus.events import (
    AnyEvent,
    CommandAccepted,
    CommandEnded,
    ExecutionCaused,
    ExecutionEnded,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStarted,
    ExecutionStopping,
)
from bus.model import CommandRecord, Execution, ExecutionStatus, Reason


def facts_of(record: CommandRecord | Execution) -> Iterator[AnyEvent]:
    """The facts that lead to a record of which only the outcome is known."""
    if isinstance(record, CommandRecord):
        yield from _facts_of_command(record)
    else:
        yield from _facts_of_execution(record)


def _facts_of_command(command: CommandRecord) -> Iterator[AnyEvent]:
    if not command.is_final:
        return
    yield CommandAccepted(
        command_id=command.id,
        kind=command.kind,
        user_id=command.user_id,
        submitted_ms=command.submitted_ms,
        body_hash=command.body_hash,
        job_id=command.job_id,
        roles=command.roles,
        variables=command.variables,
        submitted_text=command.submitted_text,
        id_text=command.id_text,
        attempted=False,
    )
    yield CommandEnded(
        command_id=command.id,
        status=command.status,
        outcome=command.outcome,
        error_code=command.error_code,
        error=command.error,
        execution_id=command.execution_id,
        result=command.result,
    )


def _facts_of_execution(execution: Execution) -> Iterator[AnyEvent]:
    """A stop that is under way has no event here: its shim follows the order that it has."""
    yield ExecutionQueued(
        execution_id=execution.id,
        job_id=execution.job_id,
        command_id=execution.command_id,
        user_id=execution.user_id,
        revision=execution.revision,
        attempt=execution.attempt,
        previous=execution.previous,
        not_before_ms=execution.not_before_ms,
        cause=execution.cause,
        attempts=execution.attempts,
        caused_by=execution.caused_by,
        hops=execution.hops,
        scheduled_at=execution.scheduled_at,
    )
    if execution.groups:
        yield ExecutionStarted(execution_id=execution.id, groups=execution.groups)
    if execution.start_ms is not None:
        yield ExecutionRunning(
            execution_id=execution.id, started_ms=execution.start_ms, pid=execution.pid
        )
    elif not (execution.is_final or execution.groups) and (
        execution.status is not ExecutionStatus.QUEUED
    ):
        yield ExecutionStarted(execution_id=execution.id)
    if execution.is_final and execution.stop is not None and execution.start_ms is not None:
        yield ExecutionStopping(execution_id=execution.id, stop=execution.stop)
    if execution.is_final:
        yield ExecutionEnded(
            execution_id=execution.id,
            status=execution.status,
            reason=execution.reason or Reason.NO_EXIT_RECORD,
            ended_ms=execution.end_ms or execution.queued_ms,
            exit_code=execution.exit_code,
            signal=execution.signal,
            error=execution.error,
            contained=execution.contained,
            survivors=execution.survivors,
            output_end=execution.output_end,
            progress=execution.progress,
            usage=execution.usage,
            core_dumped=execution.core_dumped,
            result=execution.result,
            result_note=execution.result_note,
            artifacts=execution.artifacts,
            artifact_bytes=execution.artifact_bytes,
            artifacts_note=execution.artifacts_note,
        )
    for caused in execution.caused:
        yield ExecutionCaused(
            execution_id=execution.id, by=chain_of(execution.job_id), caused=caused
        )
