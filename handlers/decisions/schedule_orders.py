"""What people ask of schedules: hold them, let them go on, run one now, make up for a span. Pure.

A schedule that is paused goes on deciding: each of its instants is recorded as skipped, so that
nothing is made up for when it goes on. Who wants that asks for it: a backfill starts the job for
each instant of a span for which it was not started. Its starts have the ids that the schedule's own
would have, so that neither a second backfill nor the schedule itself repeats one; they wait in the
queue and run in the order of their instants, whatever the job's `overlap`.
"""

from collections.abc import Iterator
from itertools import islice

import msgspec
from msgspec.structs import replace

from bus.access import Action
from bus.clock import TIME_MS_MAX, from_rfc3339, rfc3339
from bus.commands import (
    REASON_MAX,
    BackfillSchedule,
    PauseSchedule,
    ResumeSchedule,
    RunSchedule,
    StartJob,
)
from bus.envelope import SCHEDULED, Envelope, seal
from bus.errors import ErrorCode, Refused
from bus.events import AnyEvent, SchedulePaused, ScheduleResumed
from bus.job_definition import Job, JobSpec
from bus.model import Outcome, Value
from bus.schedules import ScheduleSpec
from bus.wording import did_you_mean, quoted
from handlers.catalog.variables import check_secret_names, resolve_variables
from handlers.decisions.command_events import accepted_as, completed, noop, queued
from handlers.decisions.decision import Context, Decision
from handlers.decisions.delays import in_turn
from handlers.decisions.permissions import may_start, may_stop, startable_job, visible_job
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.schedules import start_id
from handlers.decisions.starting import start
from handlers.schedule.plan import instant, local_text, ms_of
from handlers.schedule.rules import RebootRule, due_between, rule_of

BACKFILL_MAX = 100
"""Starts of one backfill; the rest is left for the next."""

LOOKED_AT_MAX = 10_000
"""Instants of a span that a backfill looks at."""


class Backfilled(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a backfill comes to: of all `instants` of the span so many are `started` now, `known` to
    have been started, and `barred` by calendars and blackouts; `left` are for another one."""

    schedule: str
    instants: int
    started: int
    known: int
    barred: int
    left: int
    first: str | None = None
    last: str | None = None
    preview: bool = False


def pause(
    table: ReadableTable, envelope: Envelope, command: PauseSchedule, context: Context
) -> Decision:
    job = visible_job(table, envelope, command.job_id, context)
    if not may_stop(table, envelope, job.id, context):
        raise _not_permitted("pause", "stop", job.id)
    if len(command.reason) > REASON_MAX:
        raise Refused(
            ErrorCode.MALFORMED,
            f"the reason is longer than {REASON_MAX} characters",
            pointer="/reason",
        )
    until_ms = _until_ms(command, context)
    by, known = envelope.principal.user_id, table.schedules_of(job.id)
    wanted = (command.reason, by, until_ms)
    events: list[AnyEvent] = []
    for name in _named(job, command.schedule):
        held = known[name].pause if name in known else None
        if held is None or (held.reason, held.by, held.until_ms) != wanted:
            events.append(
                SchedulePaused(
                    job_id=job.id,
                    schedule=name,
                    by=by,
                    reason=command.reason,
                    until_ms=until_ms,
                )
            )
    return _done(envelope, job.id, events)


def resume(
    table: ReadableTable, envelope: Envelope, command: ResumeSchedule, context: Context
) -> Decision:
    job = visible_job(table, envelope, command.job_id, context)
    if not may_start(table, envelope, job.id, context):
        raise _not_permitted("resume", "start", job.id)
    by, known = envelope.principal.user_id, table.schedules_of(job.id)
    events: list[AnyEvent] = [
        ScheduleResumed(job_id=job.id, schedule=name, by=by)
        for name in _named(job, command.schedule)
        if name in known and known[name].pause is not None
    ]
    return _done(envelope, job.id, events)


def run(
    table: ReadableTable, envelope: Envelope, command: RunSchedule, context: Context
) -> Decision:
    """A start now, with the variables of the schedule."""
    job, spec = startable_job(table, envelope, command.job_id, Action.START, context)
    schedule = _one(job, spec, command.schedule)
    return start(table, envelope, StartJob(job_id=job.id, variables=schedule.variables), context)


def backfill(
    table: ReadableTable, envelope: Envelope, command: BackfillSchedule, context: Context
) -> Decision:
    """A start for each instant of the span for which there was none; with `preview` their count."""
    job, spec = startable_job(table, envelope, command.job_id, Action.START, context)
    schedule = _one(job, spec, command.schedule)
    variables = resolve_variables(spec, schedule.variables)
    check_secret_names(variables, context.policy.secrets_for(job.id))
    instants = _instants(table, schedule, command, context)
    open_ = [at for at in instants if context.bar_of(job.id, schedule, at) is None]
    new = [at for at in open_ if not _is_known(table, start_id(job.id, schedule.name, at))]
    room = context.policy.queue_max - len(in_turn(table, job.id, context.now_ms))
    taken = new[: max(0, min(room, BACKFILL_MAX))]
    if new and not taken:
        raise Refused(
            ErrorCode.QUEUE_FULL,
            f"{context.policy.queue_max} executions of {job.id} wait already; try again later",
        )
    result = Backfilled(
        schedule=schedule.name,
        instants=len(instants),
        started=len(taken),
        known=len(open_) - len(new),
        barred=len(instants) - len(open_),
        left=len(new) - len(taken),
        first=local_text(taken[0], schedule.zone) if taken else None,
        last=local_text(taken[-1], schedule.zone) if taken else None,
        preview=command.preview,
    )
    events: list[AnyEvent] = []
    for at_ms in taken if not command.preview else ():
        events += _made_up(envelope, job, schedule, variables, at_ms, context)
    outcome = Outcome.DONE if events else Outcome.NOOP
    ended = completed(envelope.id, outcome, result=msgspec.Raw(msgspec.json.encode(result)))
    return Decision((accepted_as(envelope, job.id), *events, ended))


def _made_up(
    envelope: Envelope,
    job: Job,
    schedule: ScheduleSpec,
    variables: dict[str, Value],
    at_ms: int,
    context: Context,
) -> Iterator[AnyEvent]:
    """A start for one instant, asked for by the person who asked for the backfill. It is due at
    once and in its turn, so that starts of one span keep their order."""
    own = seal(
        StartJob(job_id=job.id, variables=schedule.variables),
        envelope.principal,
        now_ms=context.now_ms,
        command_id=start_id(job.id, schedule.name, at_ms),
        traceparent=envelope.traceparent,
    )
    execution = queued(own, job, variables, context, not_before_ms=context.now_ms)
    yield accepted_as(own, job.id, execution_id=execution.execution_id)
    yield replace(
        execution,
        cause=f"{SCHEDULED}{schedule.name}",
        scheduled_at=local_text(at_ms, schedule.zone),
    )


def _instants(
    table: ReadableTable, schedule: ScheduleSpec, command: BackfillSchedule, context: Context
) -> list[int]:
    """The instants of the span, both ends with it, as far as they have come."""
    first_ms, last_ms = from_rfc3339(command.begin), from_rfc3339(command.end)
    if first_ms > last_ms:
        raise Refused(ErrorCode.MALFORMED, "from lies behind to; swap them", pointer="/from")
    horizon_ms = table.horizon_at(context.now_ms)
    if first_ms <= horizon_ms:
        raise Refused(
            ErrorCode.EXPIRED,
            f"which instants before {rfc3339(horizon_ms)} were started is not known any more; "
            "begin later",
            pointer="/from",
        )
    rule = rule_of(schedule)
    if isinstance(rule, RebootRule):
        raise Refused(
            ErrorCode.MALFORMED,
            f"{quoted(schedule.name)} is due at boots, which cannot be made up for",
            pointer="/schedule",
        )
    due = due_between(rule, instant(first_ms - 1), instant(min(last_ms, context.now_ms)))
    found = [ms_of(each) for each in islice(due, LOOKED_AT_MAX + 1)]
    if len(found) > LOOKED_AT_MAX:
        raise Refused(
            ErrorCode.MALFORMED,
            f"the span has more than {LOOKED_AT_MAX} instants; give a shorter one",
            pointer="/to",
        )
    return found


def _is_known(table: ReadableTable, command_id: str) -> bool:
    return (table.command(command_id) or table.forgotten(command_id)) is not None


def _named(job: Job, name: str | None) -> tuple[str, ...]:
    """The schedules that are meant: the one of that name, or without a name all of the job's."""
    names = tuple(each.name for each in job.spec.schedule) if job.spec is not None else ()
    if not names:
        raise Refused(
            ErrorCode.MALFORMED, f"{job.id} has no schedule in its definition", pointer="/jobId"
        )
    if name is None:
        return names
    if name not in names:
        raise Refused(
            ErrorCode.MALFORMED,
            f"{job.id} has no schedule {quoted(name)}{did_you_mean(name, names)}",
            pointer="/schedule",
        )
    return (name,)


def _one(job: Job, spec: JobSpec, name: str | None) -> ScheduleSpec:
    names = _named(job, name)
    if len(names) > 1:
        shown = ", ".join(quoted(each) for each in names)
        raise Refused(
            ErrorCode.MALFORMED,
            f"{job.id} has {len(names)} schedules; name one of {shown}",
            pointer="/schedule",
        )
    return next(each for each in spec.schedule if each.name == names[0])


def _until_ms(command: PauseSchedule, context: Context) -> int | None:
    if command.until is None:
        return None
    until_ms = from_rfc3339(command.until)
    if not context.now_ms < until_ms <= TIME_MS_MAX:
        raise Refused(ErrorCode.MALFORMED, "until must lie ahead", pointer="/until")
    return until_ms


def _done(envelope: Envelope, job_id: str, events: list[AnyEvent]) -> Decision:
    if not events:
        return noop(envelope, job_id, None)
    ended = completed(envelope.id, Outcome.DONE)
    return Decision((accepted_as(envelope, job_id), *events, ended))


def _not_permitted(verb: str, right: str, job_id: str) -> Refused:
    return Refused(
        ErrorCode.NOT_PERMITTED,
        f"you may not {verb} schedules of {job_id}: that takes the right `{right}`, and none of "
        "your roles gives it",
    )
