"""What may be asked of executions that have ended: run it again, forget it. Pure."""

from msgspec.structs import replace

from bus.access import Action
from bus.commands import DeleteExecution, RetryExecution, StartJob
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.events import ExecutionDeleted, ExecutionQueued
from bus.model import Execution, Outcome
from handlers.decisions.command_events import accepted_as, completed
from handlers.decisions.decision import Context, Decision, DeleteFiles
from handlers.decisions.permissions import permitted_execution
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.starting import start


def retry(
    table: ReadableTable, envelope: Envelope, command: RetryExecution, context: Context
) -> Decision:
    """A start with the same variables that remembers whose attempt it follows."""
    old = _ended(table, envelope, command.execution_id, Action.START, context)
    job_id = table.name_now(old.job_id)
    again = StartJob(job_id=job_id, variables=old.variables, not_before=command.not_before)
    decision = start(table, envelope, again, context)
    events = tuple(
        replace(event, attempt=old.attempt + 1, previous=old.id)
        if isinstance(event, ExecutionQueued)
        else event
        for event in decision.events
    )
    return Decision(events, decision.effects)


def delete(
    table: ReadableTable, envelope: Envelope, command: DeleteExecution, context: Context
) -> Decision:
    """The record goes with the decision, the files right after it."""
    old = _ended(table, envelope, command.execution_id, Action.STOP, context)
    gone = ExecutionDeleted(execution_id=old.id, job_id=old.job_id, user_id=old.user_id)
    return Decision(
        (
            accepted_as(envelope, old.job_id, execution_id=old.id),
            gone,
            completed(envelope.id, Outcome.DONE),
        ),
        (DeleteFiles(execution_ids=(old.id,)),),
    )


def _ended(
    table: ReadableTable,
    envelope: Envelope,
    execution_id: str,
    action: Action,
    context: Context,
) -> Execution:
    execution = permitted_execution(table, envelope, execution_id, action, context)
    if not execution.is_final:
        raise Refused(
            ErrorCode.NOT_ENDED,
            f"execution {execution.id} is {execution.status}; wait for its end or stop it first",
            pointer="/executionId",
        )
    return execution
