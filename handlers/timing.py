"""What the mere passing of time leads to: queued executions that expire. Pure."""

from bus.commands import PassTime
from bus.events import AnyEvent, ExecutionEnded
from bus.model import ExecutionStatus, Reason
from handlers.decision import Circumstances, Decision
from handlers.outcomes import after_end
from handlers.table import JobTable


def pass_time(table: JobTable, _: PassTime, around: Circumstances) -> Decision:
    """Cancels what waited longer than its command allowed."""
    events: list[AnyEvent] = []
    for execution in table.live_executions():
        due = execution.expires_ms is not None and execution.expires_ms <= around.now_ms
        if due and execution.status is ExecutionStatus.QUEUED:
            final = ExecutionEnded(
                execution_id=execution.id,
                status=ExecutionStatus.CANCELLED,
                reason=Reason.EXPIRED,
                ended_ms=around.now_ms,
                output_end=0,
            )
            events.extend(after_end(table, execution, final, around).events)
    return Decision(tuple(events))


def next_deadline_ms(table: JobTable) -> int | None:
    """When `pass_time` will next have something to do; None: not before the table changes."""
    return min(
        (
            execution.expires_ms
            for execution in table.live_executions()
            if execution.expires_ms is not None and execution.status is ExecutionStatus.QUEUED
        ),
        default=None,
    )
