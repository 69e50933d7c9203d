"""What the mere passing of time leads to: waiting executions expire, delays end. Pure."""

from bus.commands import PassTime
from bus.events import AnyEvent, ExecutionEnded, ExecutionStarted
from bus.model import ExecutionStatus, Reason
from handlers.decisions.decision import Circumstances, Decision, Effect, SpawnExecution
from handlers.decisions.outcomes import end_waiting, next_to_start
from handlers.decisions.table import JobTable


def pass_time(table: JobTable, _: PassTime, around: Circumstances) -> Decision:
    """Cancels what waited longer than its command allowed, starts what has waited its delay."""
    events: list[AnyEvent] = []
    effects: list[Effect] = []
    expired: set[str] = set()
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
            expired.add(execution.id)
            events.extend(end_waiting(table, execution, final))
    for job_id in {e.job_id for e in table.live_executions()}:
        for execution in next_to_start(table, job_id, around.now_ms, without=expired):
            events.append(ExecutionStarted(execution_id=execution.id))
            effects.append(SpawnExecution(execution.id))
    return Decision(tuple(events), tuple(effects))


def next_deadline_ms(table: JobTable) -> int | None:
    """When `pass_time` will next have something to do; None: not before the table changes."""
    starts = table.maintenance is None
    return min(
        (
            at_ms
            for execution in table.live_executions()
            if execution.status is ExecutionStatus.QUEUED
            for at_ms in (execution.expires_ms, execution.not_before_ms if starts else None)
            if at_ms is not None
        ),
        default=None,
    )
