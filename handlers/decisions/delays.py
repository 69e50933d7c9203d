"""When a queued execution may start as far as the clock is concerned. Pure.

There are two kinds of delay. One that follows an end (a retry, a restart) lasts for a while that
was measured from that end. One that a person asked for (`notBefore`) ends at a moment that the
person named, whatever the clock showed when they did.
"""

from bus.job_definition import Job, JobSpec
from bus.model import Execution, ExecutionStatus
from handlers.decisions.readable_table import ReadableTable

_POLICY = "policy:"
"""What the cause of an execution begins with that follows an end by itself."""


def is_delayed_start(execution: Execution) -> bool:
    """Whether it was to start at a moment of its own, which lay ahead."""
    if execution.not_before_ms is None or execution.cause.startswith(_POLICY):
        return False
    return execution.not_before_ms > execution.queued_ms


def is_due(execution: Execution, now_ms: int) -> bool:
    """Whether a queued execution may start as far as the clock is concerned."""
    due_ms = due_at_ms(execution, now_ms)
    return due_ms is None or due_ms <= now_ms


def due_at_ms(execution: Execution, now_ms: int) -> int | None:
    """When its delay ends; None if it waits for none. Of one that follows an end: a clock that was
    set back to a time before the delay began measures nothing any more, so it has ended."""
    if execution.not_before_ms is None or is_delayed_start(execution):
        return execution.not_before_ms
    return now_ms if execution.queued_ms > now_ms else execution.not_before_ms


def backing_off(table: ReadableTable, job_id: str, now_ms: int) -> list[Execution]:
    """The job's executions that follow an end and wait for their delay to pass."""
    waiting = (e for e in table.queued(job_id) if not is_delayed_start(e))
    return [e for e in waiting if not is_due(e, now_ms)]


def planned(table: ReadableTable, job_id: str, now_ms: int) -> list[Execution]:
    """The job's delayed starts whose moment lies ahead: they hold up no other until then."""
    return [e for e in table.queued(job_id) if is_planned(table, e, now_ms)]


def is_planned(table: ReadableTable, execution: Execution, now_ms: int) -> bool:
    """Whether it is a delayed start, still queued, whose moment lies ahead; while the clock is not
    believed, none is known to have come."""
    if execution.status is not ExecutionStatus.QUEUED or not is_delayed_start(execution):
        return False
    return table.doubt is not None or not is_due(execution, now_ms)


def in_turn(table: ReadableTable, job_id: str, now_ms: int) -> list[Execution]:
    """What is queued but for those that are planned."""
    return [e for e in table.queued(job_id) if not is_planned(table, e, now_ms)]


def unattended_spec(job: Job | None) -> JobSpec | None:
    """The definition by which the job may be started when no person looks; None if it may not."""
    if job is None or job.spec is None or job.spec.disabled:
        return None
    return job.spec
