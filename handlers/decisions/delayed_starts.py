"""Starts that were asked for a later moment: accepted now, decided again when it has come. Pure.

A delayed start is a queued execution with `not_before_ms`. Until then it holds no slot and holds up
no other: no start takes it over, replaces it or finds the queue full because of it. A stop of the
whole job takes it back, as it does everything that was accepted before it.

When its moment has come it takes a free slot, like anything queued. What becomes of one that finds
none is decided here, from the table alone: as a start that came at that moment, by the `overlap`
of the definition then in force. The refusal of such a start is the end `Skipped`, with the reason.
Nothing is decided while a maintenance lasts, the disk is nearly full or the clock is not believed:
then it waits. A change of the clock does nothing to the moment.
"""

from collections.abc import Collection, Iterator, Sequence

from bus.clock import from_rfc3339, rfc3339
from bus.commands import StartJob
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.events import AnyEvent, ExecutionStopping
from bus.job_definition import Job, Overlap
from bus.model import Execution, ExecutionStatus, Reason, StopRequest, Value
from handlers.decisions.command_events import accepted_as, noop, queued
from handlers.decisions.decision import NOTHING, Context, Decision, StopExecution
from handlers.decisions.delays import (
    in_turn,
    is_delayed_start,
    is_due,
    planned,
    unattended_spec,
)
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.stop_orders import grace_of, supersede_starts
from handlers.decisions.waiting_commands import end_unstarted


def moment_ahead_ms(envelope: Envelope, command: StartJob, now_ms: int) -> int | None:
    """The moment before which the start must not begin; None if it may begin now.

    Raises:
        Refused: it would expire before it could begin.
    """
    if command.not_before is None:
        return None
    at_ms = from_rfc3339(command.not_before)
    if at_ms <= now_ms:
        return None
    if envelope.expires_ms is not None and envelope.expires_ms <= at_ms:
        raise Refused(
            ErrorCode.MALFORMED,
            f"it expires at {rfc3339(envelope.expires_ms)} and may not start before "
            f"{command.not_before}: it would never start; give a later expiresAt, or none",
            pointer="/expiresAt",
        )
    return at_ms


def wait_until(
    table: ReadableTable,
    envelope: Envelope,
    job: Job,
    variables: dict[str, Value],
    at_ms: int,
    context: Context,
) -> Decision:
    """The start waits for its moment; the same one twice is one, unless the job queues."""
    ahead = planned(table, job.id, context.now_ms)
    if job.spec is None or job.spec.overlap is not Overlap.QUEUE:
        for execution in ahead:
            if (execution.not_before_ms, execution.variables) == (at_ms, variables):
                return noop(envelope, job.id, execution.id)
    if len(ahead) >= context.policy.queue_max:
        raise Refused(
            ErrorCode.QUEUE_FULL,
            f"{len(ahead)} delayed starts of {job.id} wait for their time already; cancel some, or "
            "let a schedule in its definition start it",
        )
    new = queued(envelope, job, variables, context, not_before_ms=at_ms)
    return Decision((accepted_as(envelope, job.id, execution_id=new.execution_id), new))


def settle_due(
    table: ReadableTable,
    job_id: str,
    now_ms: int,
    *,
    starting: Collection[Execution] = (),
    without: Collection[str] = (),
    is_low: bool = False,
) -> Decision:
    """What becomes of delayed starts whose moment has come and that found no slot.

    `starting` are those that take one in the same decision, `without` are ids that end in it.
    """
    if table.maintenance is not None or table.doubt is not None or is_low:
        return NOTHING
    due = [
        e
        for e in table.queued(job_id)
        if is_delayed_start(e) and is_due(e, now_ms) and e not in starting and e.id not in without
    ]
    if not due:
        return NOTHING
    spec = unattended_spec(table.job(job_id))
    if spec is None:
        return Decision(tuple(_skipped(table, due, Reason.DISABLED, now_ms)))
    busy = table.in_slots(job_id)
    if len(busy) + len(starting) < spec.max_running:
        return NOTHING  # its slot is free: something else holds it back
    if starting or any(e.status is ExecutionStatus.STOPPING for e in busy):
        return NOTHING  # decided when the slots are seen to be in use for longer
    match spec.overlap:
        case Overlap.QUEUE:
            return NOTHING
        case Overlap.REPLACE:
            return _replace(table, due, busy[0], now_ms)
        case Overlap.REJECT | Overlap.SKIP:
            return Decision(tuple(_skipped(table, due, Reason.OVERLAP, now_ms, busy)))


def _skipped(
    table: ReadableTable,
    due: Sequence[Execution],
    reason: Reason,
    now_ms: int,
    busy: Sequence[Execution] = (),
) -> Iterator[AnyEvent]:
    running = ", ".join(e.id for e in busy)
    for execution in due:
        at = rfc3339(execution.not_before_ms or now_ms)
        yield from end_unstarted(
            table,
            execution,
            ExecutionStatus.SKIPPED,
            reason,
            now_ms,
            error=f"{execution.job_id} was running at {at} ({running})" if busy else None,
        )


def _replace(
    table: ReadableTable, due: Sequence[Execution], old: Execution, now_ms: int
) -> Decision:
    """The newest of those that are due takes the place of what runs, and of what waits for it."""
    new = max(reversed(due), key=lambda execution: execution.not_before_ms or 0)
    order = StopRequest(
        reason=Reason.REPLACED,
        by=new.user_id,
        at_ms=now_ms,
        grace_s=grace_of(table, old),
        command_id=new.command_id,
    )
    events: list[AnyEvent] = []
    for waiting in in_turn(table, table.name_now(new.job_id), now_ms):
        if waiting.id != new.id:
            events.extend(
                end_unstarted(table, waiting, ExecutionStatus.CANCELLED, Reason.SUPERSEDED, now_ms)
            )
    events.append(ExecutionStopping(execution_id=old.id, stop=order))
    events.extend(supersede_starts(table, [old]))
    return Decision(tuple(events), (StopExecution(old.id),))
