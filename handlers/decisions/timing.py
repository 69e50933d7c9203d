"""What the mere passing of time leads to: waiting executions expire, delays end, delayed starts
are due. Pure."""

from collections.abc import Collection, Iterator

from bus.commands import PassTime
from bus.model import Execution, ExecutionStatus, Reason
from handlers.decisions.decision import Context, Decision, joined
from handlers.decisions.delayed_starts import settle_due
from handlers.decisions.delays import due_at_ms
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.slots import next_to_start, starts
from handlers.decisions.waiting_commands import end_unstarted


def pass_time(table: ReadableTable, _: PassTime, context: Context) -> Decision:
    """Cancels what waited longer than its command allowed, starts what has waited its delay."""
    live = list(table.live_executions())
    expired = [execution for execution in live if _has_expired(execution, context.now_ms)]
    ends = (
        event
        for execution in expired
        for event in end_unstarted(
            table, execution, ExecutionStatus.CANCELLED, Reason.EXPIRED, context.now_ms
        )
    )
    ids = {execution.id for execution in expired}
    decisions = [Decision(tuple(ends))]
    for job_id in dict.fromkeys(table.name_now(execution.job_id) for execution in live):
        decisions += _of_job(table, job_id, context.now_ms, without=ids, is_low=context.is_low)
    return joined(decisions)


def _of_job(
    table: ReadableTable, job_id: str, now_ms: int, *, without: Collection[str], is_low: bool
) -> Iterator[Decision]:
    """The starts of what waited, and what becomes of delayed starts that find no slot."""
    followers = list(next_to_start(table, job_id, now_ms, without=without, is_low=is_low))
    yield starts(table, followers)
    yield settle_due(table, job_id, now_ms, starting=followers, without=without, is_low=is_low)


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
    """An execution that is due and has no slot is started when a slot gets free, or is a delayed
    start whose end or whose room is to be decided at once."""
    if table.maintenance is not None:
        return False
    if due_ms > now_ms:
        return True
    decisions = _of_job(table, execution.job_id, now_ms, without=(), is_low=is_low)
    return any(decision.events for decision in decisions)


def _has_expired(execution: Execution, now_ms: int) -> bool:
    is_due = execution.expires_ms is not None and execution.expires_ms <= now_ms
    return is_due and execution.status is ExecutionStatus.QUEUED
