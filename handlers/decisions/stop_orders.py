"""The orders a stop gives, and what it does to work that had not begun.

Pure: no IO, no clock, no entropy.
"""

from collections.abc import Iterable, Iterator

import msgspec

from bus.envelope import Envelope
from bus.events import AnyEvent
from bus.job_definition import JobSpec
from bus.model import Execution, ExecutionStatus, Reason, StopRequest
from handlers.decisions.command_events import superseded
from handlers.decisions.decision import Context
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.waiting_commands import end_unstarted


def stop_order(
    table: ReadableTable,
    execution: Execution,
    envelope: Envelope,
    grace_s: float | None,
    kill: bool,
    context: Context,
    *,
    reason: Reason = Reason.USER,
) -> StopRequest | None:
    """The order to give, or None if the one that is being followed is at least as sharp."""
    wanted = StopRequest(
        reason=reason,
        by=envelope.principal.user_id,
        at_ms=context.now_ms,
        grace_s=grace_of(table, execution) if grace_s is None else max(0.0, grace_s),
        kill=kill,
        command_id=envelope.id,
    )
    before = execution.stop
    if before is None or execution.status is not ExecutionStatus.STOPPING:
        return wanted
    # One that lies ahead, or whose grace is over, measures nothing: the clock was set since, or the
    # program asked for more time. The shim kills at the earlier moment of both.
    measures = before.at_ms <= context.now_ms < _deadline_ms(before)
    sooner = not measures or _deadline_ms(wanted) < _deadline_ms(before)
    if before.kill or not (kill or (grace_s is not None and sooner)):
        return None
    # Who ordered the stop first stays on record; only the deadline moves.
    at_ms = before.at_ms if measures else wanted.at_ms
    grace_left_s = max(0.0, (_deadline_ms(wanted) - at_ms) / 1000)
    return msgspec.structs.replace(
        before,
        at_ms=at_ms,
        grace_s=0.0 if kill else grace_left_s,
        kill=kill,
        command_id=envelope.id,
    )


def grace_of(table: ReadableTable, execution: Execution) -> float:
    """Seconds that the definition the execution runs by gives it to end."""
    spec = table.spec(execution.job_id, execution.revision) or JobSpec(command=())
    return spec.stop_grace_s


def _deadline_ms(order: StopRequest) -> float:
    return order.at_ms + (0.0 if order.kill else order.grace_s * 1000)


def cancel_queued(
    table: ReadableTable, queued: Iterable[Execution], reason: Reason, context: Context
) -> Iterator[AnyEvent]:
    """The ends of queued executions, for `reason`, and of the commands that made them."""
    for execution in queued:
        yield from end_unstarted(
            table, execution, ExecutionStatus.CANCELLED, reason, context.now_ms
        )


def supersede_starts(table: ReadableTable, targets: Iterable[Execution]) -> Iterator[AnyEvent]:
    """Starts that had not come through when the stop arrived never will."""
    for execution in targets:
        if execution.status is not ExecutionStatus.STARTING:
            continue
        for command in table.commands_waiting_for(execution.id):
            if not command.waits_for:
                yield superseded(command.id, execution.id)
