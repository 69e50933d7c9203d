"""What a start or a restart leads to; with docs/protocol.md's table of overlaps beside it.

Pure: no IO, no clock, no entropy.
"""

from collections.abc import Iterable

from bus.access import Action
from bus.clock import rfc3339
from bus.commands import RestartJob, StartJob
from bus.endings import duration
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.events import (
    AnyEvent,
    CommandAccepted,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionStopping,
    JobCleared,
)
from bus.job_definition import Job, JobSpec, Overlap
from bus.model import Execution, ExecutionStatus, Reason, Value
from handlers.catalog.variables import check_secret_names, resolve_variables
from handlers.decisions.command_events import accepted_as, merge, noop, queued
from handlers.decisions.decision import Context, Decision, SpawnExecution, StopExecution
from handlers.decisions.delayed_starts import moment_ahead_ms, wait_until
from handlers.decisions.delays import backing_off, in_turn, is_planned
from handlers.decisions.permissions import permitted_execution, same_job, startable_job
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.retries import start_of
from handlers.decisions.slots import is_held_back, limited_until_ms
from handlers.decisions.stop_orders import cancel_queued, stop_order, supersede_starts

_WAITING = (ExecutionStatus.QUEUED, ExecutionStatus.STARTING)


def start(
    table: ReadableTable, envelope: Envelope, command: StartJob, context: Context
) -> Decision:
    return _cleared(table, _start(table, envelope, command, context))


def restart(
    table: ReadableTable, envelope: Envelope, command: RestartJob, context: Context
) -> Decision:
    return _cleared(table, _restart(table, envelope, command, context))


def _cleared(table: ReadableTable, decision: Decision) -> Decision:
    """With a person's start, automatic restarts are counted from zero."""
    if not any(isinstance(event, ExecutionQueued | ExecutionStarted) for event in decision.events):
        return decision
    job_ids = (e.job_id for e in decision.events if isinstance(e, CommandAccepted))
    job = table.job(next(job_ids, None) or "")
    if job is None or not (job.restarts_ms or job.gave_up_ms is not None):
        return decision
    return Decision((*decision.events, JobCleared(job_id=job.id)), decision.effects)


def _start(
    table: ReadableTable, envelope: Envelope, command: StartJob, context: Context
) -> Decision:
    job, spec = startable_job(table, envelope, command.job_id, Action.START, context)
    return start_permitted(table, envelope, job, spec, command, spec.overlap, context)


def start_permitted(
    table: ReadableTable,
    envelope: Envelope,
    job: Job,
    spec: JobSpec,
    command: StartJob,
    overlap: Overlap,
    context: Context,
) -> Decision:
    """What a start leads to that may be made now; `overlap` is what it does if the slots are full.

    Raises:
        Refused: its variables do not fit, or the slots are full.
    """
    variables = resolve_variables(spec, command.variables)
    check_secret_names(variables, context.policy.secrets_for(job.id))
    at_ms = moment_ahead_ms(envelope, command, context.now_ms)
    if at_ms is not None:
        return wait_until(table, envelope, job, variables, at_ms, context)
    busy = table.in_slots(job.id)
    delayed = backing_off(table, job.id, context.now_ms)
    ids = {each.id for each in busy}
    turn = in_turn(table, job.id, context.now_ms)
    held = [e for e in turn if e not in delayed and e.replaces not in ids]
    limited_ms = _limited_until_ms(table, job, context)
    if len(busy) + len(held) < spec.max_running and limited_ms is None:
        return _go_or_wait(table, envelope, job, variables, delayed, context)
    if overlap is not Overlap.QUEUE:
        for execution in _in_turn_or_starting(table, job.id, context):
            if execution.variables == variables:
                return noop(envelope, job.id, execution.id)
    if any(e.status is ExecutionStatus.STOPPING for e in busy):
        if overlap is Overlap.REPLACE:
            return _replace_waiting(table, envelope, job, variables, context)
        return _wait(table, envelope, job, variables, context)
    match overlap:
        case Overlap.QUEUE:
            return _wait(table, envelope, job, variables, context)
        case Overlap.REPLACE if busy and limited_ms is None:
            return _replace(table, envelope, job, busy[0], variables, context)
        case Overlap.REPLACE:
            return _replace_waiting(table, envelope, job, variables, context)
        case Overlap.SKIP:
            newest = next(iter(table.executions_of(job.id)), None)
            before = (*busy, *held, *((newest,) if newest is not None else ()))
            return noop(envelope, job.id, before[0].id if before else None)
        case Overlap.REJECT:
            if limited_ms is not None:
                raise _over_the_limit(job, spec, limited_ms)
            raise _already_there(job, busy, held)


def _limited_until_ms(table: ReadableTable, job: Job, context: Context) -> int | None:
    limit = job.spec.start_limit if job.spec is not None else None
    return limited_until_ms(limit, table.queue_of(job.id).starts_ms, context.now_ms)


def _over_the_limit(job: Job, spec: JobSpec, until_ms: int) -> Refused:
    assert spec.start_limit is not None
    return Refused(
        ErrorCode.START_LIMIT,
        f"{job.id} was started {spec.start_limit.count} times within "
        f"{duration(spec.start_limit.within_s)}, as often as its start_limit allows; it may start "
        f"again at {rfc3339(until_ms)}",
    )


def _already_there(job: Job, busy: list[Execution], held: list[Execution]) -> Refused:
    there = ", ".join(e.id for e in (*busy, *held))
    what = "already running" if busy else "already waiting for its turn"
    advice = "stop it first, restart it" if busy else "cancel that first"
    return Refused(
        ErrorCode.ALREADY_RUNNING,
        f"{job.id} is {what} ({there}); {advice}, or set `overlap` or `max_running` in its "
        "definition",
    )


def _in_turn_or_starting(table: ReadableTable, job_id: str, context: Context) -> list[Execution]:
    return [
        e
        for e in table.live_of(job_id)
        if e.status in _WAITING and not is_planned(table, e, context.now_ms)
    ]


def _restart(
    table: ReadableTable, envelope: Envelope, command: RestartJob, context: Context
) -> Decision:
    old = _target_of_restart(table, envelope, command, context)
    job_id = old.job_id if old is not None else command.job_id
    assert job_id is not None
    job, spec = startable_job(table, envelope, job_id, Action.RESTART, context)
    given = command.variables
    if given is None:
        given = old.variables if old is not None else {}
    variables = resolve_variables(spec, given)
    check_secret_names(variables, context.policy.secrets_for(job.id))
    limited_ms = _limited_until_ms(table, job, context)
    is_there = old is not None and any(old.id in (w.id, w.replaces) for w in table.queued(job.id))
    if limited_ms is not None and not is_there:
        raise _over_the_limit(job, spec, limited_ms)  # what runs is not ended for nothing
    if old is None or old.is_final:
        return _go_or_wait(table, envelope, job, variables, [], context)
    named = is_planned(table, old, context.now_ms)
    waiting = [old] if named else backing_off(table, job.id, context.now_ms)
    has_slot = len(table.in_slots(job.id)) < spec.max_running and limited_ms is None
    if old in waiting and has_slot:
        return _go_or_wait(table, envelope, job, variables, waiting, context)
    if named:
        raise Refused(
            ErrorCode.ALREADY_RUNNING,
            f"{job.id} is already running, so execution {old.id} cannot start before its time",
        )
    for waits in table.queued(job.id):
        if old.id in (waits.id, waits.replaces):
            return _wait_in_its_place(table, envelope, command, job, waits, variables, context)
    new = queued(envelope, job, variables, context, first=True, replaces=old.id)
    events: list[AnyEvent] = [accepted_as(envelope, job.id, execution_id=new.execution_id), new]
    if old.status is ExecutionStatus.STARTING:
        # Wait behind the start; `outcomes.running` stops the old one as soon as it is up.
        return Decision(tuple(events))
    order = stop_order(
        table, old, envelope, command.grace_s, command.kill, context, reason=Reason.REPLACED
    )
    if order is None:
        return Decision(tuple(events))
    events.append(ExecutionStopping(execution_id=old.id, stop=order))
    return Decision(tuple(events), (StopExecution(old.id),))


def _target_of_restart(
    table: ReadableTable, envelope: Envelope, command: RestartJob, context: Context
) -> Execution | None:
    if command.execution_id is not None:
        execution = permitted_execution(
            table, envelope, command.execution_id, Action.RESTART, context
        )
        same_job(table, execution, command.job_id)
        return execution
    if command.job_id is None:
        raise Refused(
            ErrorCode.UNKNOWN_JOB, "a restart needs `jobId` or `executionId`", pointer="/jobId"
        )
    now_ms = context.now_ms  # what is planned for later is meant only if it is named
    present = [e for e in table.live_of(command.job_id) if not is_planned(table, e, now_ms)]
    live = [e for e in present if e.replaces is None]
    if len(live) > 1:  # what is on its way out is not meant, if something waits to follow it
        live = [e for e in live if e.status is not ExecutionStatus.STOPPING] or live
    if len(live) > 1:
        startable_job(table, envelope, command.job_id, Action.RESTART, context)
        raise Refused(
            ErrorCode.EXECUTION_REQUIRED,
            f"{len(live)} executions of {command.job_id} are live; name one as `executionId`",
            pointer="/executionId",
        )
    if live:
        return live[0]
    return present[0] if present else None


def _go_or_wait(
    table: ReadableTable,
    envelope: Envelope,
    job: Job,
    variables: dict[str, Value],
    delayed: list[Execution],
    context: Context,
) -> Decision:
    """A slot of the job is free. Without one of each of its groups, or while a queue is paused,
    the start waits, whatever `overlap` says: that is about the job's own executions."""
    if not is_held_back(table, job.id, context.now_ms):
        return _go_now(table, envelope, job, variables, delayed, context)
    accepted, *events = _wait(table, envelope, job, variables, context).events
    return Decision((accepted, *_superseded(table, job, delayed, context), *events))


def _superseded(
    table: ReadableTable, job: Job, delayed: list[Execution], context: Context
) -> Iterable[AnyEvent]:
    """The ends of what waits for its delay, if a person's start takes the only slot before."""
    if job.spec is None or job.spec.max_running > 1:
        return ()
    return cancel_queued(table, delayed, Reason.SUPERSEDED, context)


def _go_now(
    table: ReadableTable,
    envelope: Envelope,
    job: Job,
    variables: dict[str, Value],
    waiting: list[Execution],
    context: Context,
) -> Decision:
    """A person's start does not wait for a delay: it takes the waiting execution, or its place."""
    for execution in waiting:
        started = start_of(table, execution)
        if variables in (execution.variables, started.variables):
            accepted = accepted_as(envelope, job.id, execution_id=execution.id)
            return Decision((accepted, started), (SpawnExecution(execution.id),))
    decision = _go(envelope, job, variables, context)
    superseded = _superseded(table, job, waiting, context)
    return Decision((*superseded, *decision.events), decision.effects)


def _go(envelope: Envelope, job: Job, variables: dict[str, Value], context: Context) -> Decision:
    new = queued(envelope, job, variables, context)
    groups = job.spec.groups if job.spec is not None else ()
    return Decision(
        (
            accepted_as(envelope, job.id, execution_id=new.execution_id),
            new,
            ExecutionStarted(execution_id=new.execution_id, groups=groups),
        ),
        (SpawnExecution(new.execution_id),),
    )


def _wait(
    table: ReadableTable,
    envelope: Envelope,
    job: Job,
    variables: dict[str, Value],
    context: Context,
) -> Decision:
    waiting = len(in_turn(table, job.id, context.now_ms))
    if waiting >= context.policy.queue_max:
        raise Refused(
            ErrorCode.QUEUE_FULL, f"{waiting} executions of {job.id} wait already; try again later"
        )
    new = queued(envelope, job, variables, context)
    return Decision((accepted_as(envelope, job.id, execution_id=new.execution_id), new))


def _wait_in_its_place(
    table: ReadableTable,
    envelope: Envelope,
    command: RestartJob,
    job: Job,
    waits: Execution,
    variables: dict[str, Value],
    context: Context,
) -> Decision:
    """One restart waits at a time: a second one is the same, unless it asks for other variables."""
    if command.variables is None or waits.variables == variables:
        return merge(envelope, job.id, waits.id)
    new = queued(envelope, job, variables, context, first=True, replaces=waits.replaces)
    accepted = accepted_as(envelope, job.id, execution_id=new.execution_id)
    cancelled = cancel_queued(table, [waits], Reason.SUPERSEDED, context)
    return Decision((accepted, *cancelled, new))


def _replace_waiting(
    table: ReadableTable,
    envelope: Envelope,
    job: Job,
    variables: dict[str, Value],
    context: Context,
) -> Decision:
    """What has the slot is on its way out already; the newest start takes the place behind it."""
    waiting = in_turn(table, job.id, context.now_ms)
    decision = _wait(table, envelope, job, variables, context)
    accepted, *events = decision.events
    cancelled = cancel_queued(table, waiting, Reason.SUPERSEDED, context)
    return Decision((accepted, *cancelled, *events))


def _replace(
    table: ReadableTable,
    envelope: Envelope,
    job: Job,
    old: Execution,
    variables: dict[str, Value],
    context: Context,
) -> Decision:
    new = queued(envelope, job, variables, context, first=True, replaces=old.id)
    order = stop_order(table, old, envelope, None, False, context, reason=Reason.REPLACED)
    assert order is not None, "what is being stopped was handled before"
    return Decision(
        (
            accepted_as(envelope, job.id, execution_id=new.execution_id),
            *cancel_queued(
                table, in_turn(table, job.id, context.now_ms), Reason.SUPERSEDED, context
            ),
            new,
            ExecutionStopping(execution_id=old.id, stop=order),
            *supersede_starts(table, [old]),
        ),
        (StopExecution(old.id),),
    )
