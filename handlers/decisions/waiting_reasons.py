"""What a queued execution waits for, as one sentence for people. No IO, no clock.

The one place of these sentences: the API, streams, the command line and the page show them as they
are. The first reason that holds is given, from what stops everything to what stops this one alone.
A sentence names no job to those who may not view it.
"""

from collections.abc import Callable

from bus.clock import rfc3339
from bus.endings import duration
from bus.groups import Group, Pause
from bus.model import Execution, ExecutionStatus
from handlers.decisions.delays import due_at_ms, in_turn, is_delayed_start
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.slots import limited_until_ms

_DAY_MS = 86_400_000
_NAMED_MAX = 3
"""Holders of slots that a sentence names."""


def waiting_for(table: ReadableTable, execution: Execution, now_ms: int) -> str:
    """What the execution waits for, as the table is now; empty if it does not wait."""
    if execution.status is not ExecutionStatus.QUEUED:
        return ""
    reasons = (reason(table, execution, now_ms) for reason in _REASONS)
    return next(filter(None, reasons), "")


def _maintenance(table: ReadableTable, _: Execution, now_ms: int) -> str:
    if table.maintenance is None:
        return ""
    begun = since(table.maintenance.since_ms, now_ms)
    why = f": {table.maintenance.reason}" if table.maintenance.reason else ""
    return f"waiting for the end of the maintenance that holds since {begun}{why}"


def _delay(_: ReadableTable, execution: Execution, now_ms: int) -> str:
    due_ms = due_at_ms(execution, now_ms)
    if due_ms is None or due_ms <= now_ms:
        return ""
    what = execution.cause.rpartition(":")[2] or "start"
    return f"waiting for its time: {what} at {rfc3339(due_ms)}"


def _paused(table: ReadableTable, execution: Execution, now_ms: int) -> str:
    if execution.replaces is not None:
        return ""
    held = table.queue_of(execution.job_id).paused
    if held is not None:
        return _pause(f"the queue of {execution.job_id}", held, now_ms)
    for group in _groups(table, execution):
        if group.paused is not None:
            return _pause(f"group {group.name}", group.paused, now_ms)
    return ""


def _pause(what: str, held: Pause, now_ms: int) -> str:
    until = f" until {rfc3339(held.until_ms)}" if held.until_ms is not None else ""
    why = f": {held.reason}" if held.reason else ""
    begun = since(held.since_ms, now_ms)
    return f"waiting for {what}, which {held.by} has paused since {begun}{until}{why}"


def _start_limit(table: ReadableTable, execution: Execution, now_ms: int) -> str:
    spec = table.spec_of(execution)
    limit = spec.start_limit if spec is not None else None
    free_ms = limited_until_ms(limit, table.queue_of(execution.job_id).starts_ms, now_ms)
    if limit is None or free_ms is None:
        return ""
    return (
        f"waiting for the start_limit of {execution.job_id}: {limit.count} starts within "
        f"{duration(limit.within_s)}, the next at {rfc3339(free_ms)}"
    )


def _slots_of_groups(table: ReadableTable, execution: Execution, now_ms: int) -> str:
    for group in _groups(table, execution):
        holders = table.in_group(group.name)
        if len(holders) < group.max_running:
            continue
        place = table.lines.position(group.name, execution.id)
        return (
            f"waiting for group {group.name}: {len(holders)} of {group.max_running} running "
            f"({_named(table, execution, holders, now_ms)}), position {place}"
        )
    return ""


def _groups(table: ReadableTable, execution: Execution) -> list[Group]:
    spec = table.spec_of(execution)
    found = (table.group(name) for name in (spec.groups if spec is not None else ()))
    return [group for group in found if group is not None]


def _named(
    table: ReadableTable, execution: Execution, holders: list[Execution], now_ms: int
) -> str:
    """Those that hold the slots, as far as everybody who sees the execution may know of them."""
    known = [e for e in holders if table.is_seen_with(execution.job_id, e.job_id)]
    words = [f"{each.job_id} since {_begun(each, now_ms)}" for each in known[:_NAMED_MAX]]
    others = len(holders) - len(known)
    if len(known) > _NAMED_MAX:
        words.append("…")
    if others:
        words.append(f"{others} of other jobs" if others > 1 else "one of another job")
    return ", ".join(words)


def _doubt(table: ReadableTable, execution: Execution, _: int) -> str:
    if table.doubt is None or not is_delayed_start(execution):
        return ""
    return "waiting for a clock that is believed: the machine's has jumped"


def _replaced(table: ReadableTable, execution: Execution, _: int) -> str:
    old = table.execution(execution.replaces) if execution.replaces is not None else None
    if old is None or old.is_final:
        return ""
    return f"waiting for the end of execution {old.id}, whose place it takes"


def _slots_of_the_job(table: ReadableTable, execution: Execution, now_ms: int) -> str:
    job_id = table.name_now(execution.job_id)
    busy, slots = table.in_slots(job_id), table.slots_of(job_id)
    if len(busy) < slots:
        return ""
    held = ", ".join(f"since {_begun(each, now_ms)}" for each in busy[:_NAMED_MAX])
    held += ", …" if len(busy) > _NAMED_MAX else ""
    ids = [each.id for each in in_turn(table, job_id, now_ms)]
    return (
        f"waiting for a slot of {job_id}: {len(busy)} of {slots} running ({held}), "
        f"position {ids.index(execution.id) + 1}"
    )


_REASONS: tuple[Callable[[ReadableTable, Execution, int], str], ...] = (
    _maintenance,
    _replaced,
    _paused,
    _delay,
    _doubt,
    _slots_of_the_job,
    _start_limit,
    _slots_of_groups,
)


def since(at_ms: int, now_ms: int) -> str:
    """A moment of the past as sentences have it: `02:00 UTC`, or the day if that is another."""
    stamp = rfc3339(at_ms)
    is_today = abs(now_ms - at_ms) < _DAY_MS
    return f"{stamp[11:16]} UTC" if is_today else stamp[:10]


def _begun(execution: Execution, now_ms: int) -> str:
    return since(execution.start_ms or execution.queued_ms, now_ms)
