"""What the mere passing of time leads to: waiting executions expire, delays end. Pure."""

from bus.commands import PassTime
from bus.events import AnyEvent, ExecutionEnded
from bus.model import Execution, ExecutionStatus, Reason
from handlers.decisions.decision import Context, Decision, Effect, SpawnExecution
from handlers.decisions.policies import due_at_ms, start_of
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.slots import next_to_start
from handlers.decisions.waiting_commands import end_waiting


def pass_time(table: ReadableTable, _: PassTime, context: Context) -> Decision:
    """Cancels what waited longer than its command allowed, starts what has waited its delay."""
    events: list[AnyEvent] = []
    effects: list[Effect] = []
    expired: set[str] = set()
    for execution in table.live_executions():
        due = execution.expires_ms is not None and execution.expires_ms <= context.now_ms
        if due and execution.status is ExecutionStatus.QUEUED:
            final = ExecutionEnded(
                execution_id=execution.id,
                status=ExecutionStatus.CANCELLED,
                reason=Reason.EXPIRED,
                ended_ms=context.now_ms,
                output_end=0,
            )
            expired.add(execution.id)
            events.extend(end_waiting(table, execution, final))
    for job_id in {e.job_id for e in table.live_executions()}:
        for execution in next_to_start(
            table, job_id, context.now_ms, without=expired, is_low=context.is_low
        ):
            events.append(start_of(table, execution))
            effects.append(SpawnExecution(execution.id))
    return Decision(tuple(events), tuple(effects))


def next_deadline_ms(table: ReadableTable, now_ms: int, *, is_low: bool = False) -> int | None:
    """When `pass_time` will next have something to do; None: not before the table changes, or
    before there is room again."""
    deadlines: list[int] = []
    for execution in table.live_executions():
        if execution.status is not ExecutionStatus.QUEUED:
            continue
        if execution.expires_ms is not None:
            deadlines.append(execution.expires_ms)
        due_ms = due_at_ms(execution, now_ms)
        if due_ms is not None and _may_start_then(table, execution, due_ms, now_ms, is_low=is_low):
            deadlines.append(due_ms)
    return min(deadlines, default=None)


def _may_start_then(
    table: ReadableTable, execution: Execution, due_ms: int, now_ms: int, *, is_low: bool
) -> bool:
    """Who has waited long enough and has no slot is started by whoever makes room."""
    if table.maintenance is not None:
        return False
    return due_ms > now_ms or execution in next_to_start(
        table, execution.job_id, now_ms, is_low=is_low
    )
