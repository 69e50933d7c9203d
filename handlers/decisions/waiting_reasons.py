"""What a queued execution waits for, as one sentence for people. No IO, no clock.

The one place of these sentences: the API, streams, the command line and the page show them as they
are. The first reason that holds is given, from what stops everything to what stops this one alone.
Nobody learns by a sentence of a job that they may not view.
"""

from collections.abc import Callable

from bus.clock import rfc3339
from bus.model import Execution, ExecutionStatus
from handlers.decisions.delays import due_at_ms, in_turn
from handlers.decisions.readable_table import ReadableTable

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
    _delay,
    _slots_of_the_job,
)


def since(at_ms: int, now_ms: int) -> str:
    """A moment of the past as sentences have it: `02:00 UTC`, or the day if that is another."""
    stamp = rfc3339(at_ms)
    is_today = abs(now_ms - at_ms) < _DAY_MS
    return f"{stamp[11:16]} UTC" if is_today else stamp[:10]


def _begun(execution: Execution, now_ms: int) -> str:
    return since(execution.start_ms or execution.queued_ms, now_ms)
