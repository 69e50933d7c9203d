"""What a stop or a cancel leads to.

Pure: no IO, no clock, no entropy.
"""

from bus.access import Action
from bus.commands import CancelCommand, StopJob, job_of
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.events import (
    AnyEvent,
    ExecutionStopping,
)
from bus.model import Execution, ExecutionStatus, Outcome, Reason
from handlers.decisions.command_events import accepted_as, completed, noop
from handlers.decisions.decision import Context, Decision, Effect, StopExecution
from handlers.decisions.permissions import (
    may_stop,
    may_view,
    permitted_execution,
    same_job,
    visible_job,
)
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.refusals import refusal
from handlers.decisions.stop_orders import cancel_queued, stop_order, supersede_starts
from handlers.decisions.waiting_commands import CANCELLED_WAITING


def stop(table: ReadableTable, envelope: Envelope, command: StopJob, context: Context) -> Decision:
    targets = _targets_of_stop(table, envelope, command, context)
    job_id = targets[0].job_id if targets else command.job_id
    # Stops go ahead of starts that wait undecided; those accepted before it must not run after it.
    overtakes = command.execution_id is None and may_stop(table, envelope, command.job_id, context)
    supersedes_ns = envelope.accepted_ns if overtakes else 0
    if not targets:
        return noop(envelope, job_id, command.execution_id, supersedes_ns=supersedes_ns)
    events: list[AnyEvent] = []
    effects: list[Effect] = []
    merged = all(e.status is ExecutionStatus.STOPPING for e in targets)
    for execution in targets:
        if execution.status is ExecutionStatus.QUEUED:
            continue
        order = stop_order(table, execution, envelope, command.grace_s, command.kill, context)
        if order is not None:
            events.append(ExecutionStopping(execution_id=execution.id, stop=order))
            effects.append(StopExecution(execution.id))
    queued = [e for e in targets if e.status is ExecutionStatus.QUEUED]
    waits_for = tuple(e.id for e in targets if e.status is not ExecutionStatus.QUEUED)
    accepted = accepted_as(
        envelope,
        job_id,
        execution_id=targets[0].id,
        waits_for=waits_for,
        merged=merged,
        supersedes_ns=supersedes_ns,
    )
    events[:0] = [accepted, *cancel_queued(table, queued, Reason.SUPERSEDED, context)]
    events.extend(supersede_starts(table, targets))
    if not waits_for:
        events.append(completed(envelope.id, Outcome.DONE))
    return Decision(tuple(events), tuple(effects))


def cancel(
    table: ReadableTable, envelope: Envelope, command: CancelCommand, context: Context
) -> Decision:
    target = table.command(command.target_id)
    undecided = context.undecided(command.target_id) if target is None else None
    if undecided is not None and table.forgotten(command.target_id) is None:
        return _take_back(table, envelope, undecided, context)
    own = target is not None and target.user_id == envelope.principal.user_id
    if target is None or not (own or may_view(table, envelope, target.job_id, context)):
        raise _no_such_command(command.target_id)
    if not (own or may_stop(table, envelope, target.job_id, context)):
        raise _may_not_cancel(target.job_id)
    execution = table.execution(target.execution_id) if target.execution_id else None
    if target.is_final or execution is None or execution.status is not ExecutionStatus.QUEUED:
        raise Refused(
            ErrorCode.ALREADY_ENDED if target.is_final else ErrorCode.ALREADY_RUNNING,
            f"command {target.id} is {target.status}; only one whose execution still waits can be "
            "cancelled" + (f"; stop execution {execution.id} instead" if execution else ""),
        )
    accepted = accepted_as(envelope, target.job_id, execution_id=execution.id)
    events = [accepted, *cancel_queued(table, [execution], Reason.USER, context)]
    return Decision((*events, completed(envelope.id, Outcome.DONE)))


def _take_back(
    table: ReadableTable, envelope: Envelope, target: Envelope, context: Context
) -> Decision:
    """The command is on record as cancelled before its turn comes, and then nothing comes of it."""
    job_id = job_of(target.command)
    if target.principal.user_id != envelope.principal.user_id:
        if not may_view(table, envelope, job_id, context):
            raise _no_such_command(target.id)
        if not may_stop(table, envelope, job_id, context):
            raise _may_not_cancel(job_id)
    taken_back = Refused(ErrorCode.CANCELLED, CANCELLED_WAITING)
    return Decision(
        (
            *refusal(table, target, taken_back, context).events,
            accepted_as(envelope, job_id),
            completed(envelope.id, Outcome.DONE),
        )
    )


def _no_such_command(command_id: str) -> Refused:
    return Refused(
        ErrorCode.UNKNOWN_COMMAND, f"there is no command {command_id}", pointer="/targetId"
    )


def _may_not_cancel(job_id: str | None) -> Refused:
    return Refused(
        ErrorCode.NOT_PERMITTED,
        f"you may not cancel commands on {job_id}: none of your roles allows it",
    )


def _targets_of_stop(
    table: ReadableTable, envelope: Envelope, command: StopJob, context: Context
) -> list[Execution]:
    if command.execution_id is not None:
        execution = permitted_execution(table, envelope, command.execution_id, Action.STOP, context)
        same_job(table, execution, command.job_id)
        return [] if execution.is_final else [execution]
    if command.job_id is None:
        raise Refused(
            ErrorCode.UNKNOWN_JOB, "a stop needs `jobId` or `executionId`", pointer="/jobId"
        )
    live = table.live_of(command.job_id)
    if not live:
        visible_job(table, envelope, command.job_id, context)  # an idle job must be one at least
    if may_stop(table, envelope, command.job_id, context):
        return live
    own = [e for e in live if e.user_id == envelope.principal.user_id]
    if not own:
        visible_job(table, envelope, command.job_id, context)
        raise Refused(
            ErrorCode.NOT_PERMITTED,
            f"you may not stop {command.job_id}: none of your roles allows it",
        )
    return own
