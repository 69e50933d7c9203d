"""What the mere passing of time leads to: waiting executions expire, delays and pauses end, delayed
starts are due. Pure."""

from collections.abc import Iterator

from bus.commands import PassTime
from bus.events import GroupResumed, JobResumed
from bus.model import Execution, ExecutionStatus, Reason
from handlers.decisions.decision import Context, Decision, joined
from handlers.decisions.delayed_starts import settle_due
from handlers.decisions.delays import due_at_ms
from handlers.decisions.queue_orders import ends_of_pauses, expired_pauses
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.slots import NOW, Soon, limited_until_ms, next_to_start, starts
from handlers.decisions.waiting_commands import end_unstarted


def pass_time(table: ReadableTable, _: PassTime, context: Context) -> Decision:
    """Cancels what waited longer than its command allowed, ends pauses whose time has passed, and
    starts what may start by now."""
    now_ms = context.now_ms
    expired = [e for e in table.live_executions() if _has_expired(e, now_ms)]
    ends = [
        event
        for execution in expired
        for event in end_unstarted(
            table, execution, ExecutionStatus.CANCELLED, Reason.EXPIRED, now_ms
        )
    ]
    resumed = list(expired_pauses(table, now_ms))
    soon = Soon(
        without={execution.id for execution in expired},
        resumed_jobs=[event.job_id for event in resumed if isinstance(event, JobResumed)],
        resumed_groups=[event.name for event in resumed if isinstance(event, GroupResumed)],
    )
    return joined([Decision((*ends, *resumed)), _due(table, now_ms, soon, is_low=context.is_low)])


def _due(table: ReadableTable, now_ms: int, soon: Soon, *, is_low: bool) -> Decision:
    """The starts of what waited, and what becomes of delayed starts that find no slot."""
    waiting = table.waiting_jobs()
    followers = next_to_start(table, waiting, now_ms, soon=soon, is_low=is_low)
    settled = (
        settle_due(
            table,
            job_id,
            now_ms,
            starting=[each for each in followers if table.name_now(each.job_id) == job_id],
            without=soon.without,
            is_low=is_low,
        )
        for job_id in waiting
    )
    return joined([starts(table, followers), *settled])


def next_deadline_ms(table: ReadableTable, now_ms: int, *, is_low: bool = False) -> int | None:
    """When `pass_time` will next have something to do; None: not before the table changes, or
    before there is room again."""
    deadlines = list(ends_of_pauses(table))
    queued = (e for job_id in table.waiting_jobs() for e in table.queued(job_id))
    deadlines += (each.expires_ms for each in queued if each.expires_ms is not None)
    if table.maintenance is None:
        deadlines += _starts_ahead(table, now_ms)
        if _due(table, now_ms, NOW, is_low=is_low).events:
            deadlines.append(now_ms)
    return min(deadlines, default=None)


def _starts_ahead(table: ReadableTable, now_ms: int) -> Iterator[int]:
    """When delays and start limits end of what waits; what is due and has no slot is started when
    a slot gets free."""
    for job_id in table.waiting_jobs():
        waiting = table.queued(job_id)
        delays = (due_at_ms(execution, now_ms) for execution in waiting)
        yield from (due_ms for due_ms in delays if due_ms is not None and due_ms > now_ms)
        spec = table.spec_of(waiting[0])
        limit = spec.start_limit if spec is not None else None
        free_ms = limited_until_ms(limit, table.queue_of(job_id).starts_ms, now_ms)
        if free_ms is not None:
            yield free_ms


def _has_expired(execution: Execution, now_ms: int) -> bool:
    is_due = execution.expires_ms is not None and execution.expires_ms <= now_ms
    return is_due and execution.status is ExecutionStatus.QUEUED
