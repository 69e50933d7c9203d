"""What becomes of instants of schedules: one recorded decision for each. Pure.

A schedule begins with a record of the moment from which on its instants count; a changed rule is
another schedule and begins again. All instants up to `decided_ms` are decided; what is reported of
earlier ones, of another rule or of instants to come leads to nothing. The command of a start has an
id derived of job, name and instant, so that no second service, restart or clock can repeat it.

While the clock is in doubt nothing is decided, and what begins waits for the end of the doubt.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from bus.clock import rfc3339
from bus.commands import ReportClock, ReportScheduleDue, StartJob
from bus.envelope import SCHEDULED, Envelope, derived_uuid, seal
from bus.errors import ErrorCode, Refused
from bus.events import (
    AnyEvent,
    CommandAccepted,
    ExecutionQueued,
    ExecutionStarted,
    ScheduleBegun,
    ScheduleDecided,
    SystemClock,
)
from bus.job_definition import Job, JobSpec, Overlap
from bus.model import ExecutionStatus, Principal
from bus.schedules import Bar, Instants, ScheduleSpec, ScheduleState, Verdict, Why, mark_of
from handlers.decisions.decision import NOTHING, Context, Decision, Effect
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.starting import start_permitted
from handlers.schedule.plan import jitter_ms, local_text

GONE_MS = 60_000
"""A job that is removed for no longer than this goes on with its schedules as if nothing was."""

AHEAD_MS_MAX = 25 * 3_600_000
"""A schedule whose instants are decided further ahead than this was so by a wrong clock."""

_WHY = {ErrorCode.ALREADY_RUNNING: Why.OVERLAP, ErrorCode.QUEUE_FULL: Why.QUEUE_FULL}
_WAITING = (ExecutionStatus.QUEUED, ExecutionStatus.STARTING)


def schedules_begun(
    table: ReadableTable, job_id: str, spec: JobSpec, context: Context
) -> Iterator[ScheduleBegun]:
    """The beginnings of a definition's schedules that are new, have another rule, were gone, or
    were another job's that this one was formerly.
    """
    from_ms = context.now_ms if table.doubt is None else None
    known = table.schedules_of(job_id)
    for schedule in spec.schedule:
        state, mark = known.get(schedule.name), mark_of(schedule)
        heirloom = _under_former_name(table, job_id, spec, schedule.name)
        if heirloom is None and state is not None and _goes_on(state, mark):
            continue
        begun = ScheduleBegun(
            job_id=job_id,
            schedule=schedule.name,
            mark=mark,
            from_ms=from_ms,
            boot=context.policy.boot,
            formerly=heirloom[0] if heirloom is not None else None,
        )
        if state is None and heirloom is not None:
            state = heirloom[1]
        if state is not None and state.mark == mark and _was_there(state, context.now_ms):
            begun = replace(begun, from_ms=state.decided_ms, boot=state.boot)
        yield begun


def _goes_on(state: ScheduleState, mark: str) -> bool:
    return state.mark == mark and state.gone_ms is None


def _was_there(state: ScheduleState, now_ms: int) -> bool:
    """Whether its job was there until now, but for a moment."""
    if state.decided_ms is None:
        return False
    return state.gone_ms is None or 0 <= now_ms - state.gone_ms <= GONE_MS


def _under_former_name(
    table: ReadableTable, job_id: str, spec: JobSpec, schedule: str
) -> tuple[str, ScheduleState] | None:
    """What is known of the job's schedule under a name that it had, the first that knows any."""
    for name in spec.formerly:
        state = table.schedules_of(name).get(schedule)
        if state is not None and name != job_id:
            return name, state
    return None


def clock(table: ReadableTable, report: ReportClock, context: Context) -> Decision:
    """The doubt begins; or it ends, and with it begins what waited for that."""
    if report.doubted == (table.doubt is not None):
        return NOTHING
    change = SystemClock(
        doubted=report.doubted,
        shown_ms=context.now_ms,
        believed_ms=report.believed_ms,
        by=report.by,
    )
    if report.doubted:
        return Decision((change,))
    begun = (
        ScheduleBegun(
            job_id=job_id, schedule=name, mark=state.mark, from_ms=context.now_ms, boot=state.boot
        )
        for job_id, name, state in table.schedules()
        if state.gone_ms is None and _waits_for_belief(state, context.now_ms)
    )
    return Decision((change, *begun))


def _waits_for_belief(state: ScheduleState, now_ms: int) -> bool:
    return state.decided_ms is None or state.decided_ms > now_ms + AHEAD_MS_MAX


def due(table: ReadableTable, report: ReportScheduleDue, context: Context) -> Decision:
    """What becomes of an instant that has come, and of those before it."""
    job = table.job(report.job_id)
    schedule = _schedule(table, job, report, context)
    if job is None or job.spec is None or schedule is None:
        return NOTHING
    decided, effects = _decided(table, job, job.spec, schedule, report, context)
    *events, verdict = decided
    assert isinstance(verdict, ScheduleDecided)
    ranges = [
        _of_many(_barred(_plain(report, Verdict.SKIPPED), each.bar), each.instants)
        for each in report.barred
    ]
    if report.skipped is not None:
        missed = replace(_plain(report, Verdict.SKIPPED), why=Why.MISSED)
        ranges.append(_of_many(missed, report.skipped))
    if report.merged is not None:
        into = replace(verdict, command_id=None, error=None)
        if verdict.verdict is Verdict.STARTED:
            into = replace(into, verdict=Verdict.COALESCED, command_id=verdict.command_id)
        ranges.append(_of_many(into, report.merged))
    return Decision((*ranges, *events, verdict), effects)


def _schedule(
    table: ReadableTable, job: Job | None, report: ReportScheduleDue, context: Context
) -> ScheduleSpec | None:
    """The schedule in force, if the report is news of it."""
    spec = job.spec if job is not None else None
    state = table.schedules_of(report.job_id).get(report.schedule)
    if spec is None or state is None or state.mark != report.mark or table.doubt is not None:
        return None
    schedule = next((each for each in spec.schedule if each.name == report.schedule), None)
    if schedule is None or state.decided_ms is None or state.gone_ms is not None:
        return None
    if report.boot:
        return schedule if report.boot != state.boot else None
    is_early = report.at_ms + jitter_ms(report.job_id, schedule) > context.now_ms
    return None if is_early or report.at_ms <= state.decided_ms else schedule


def _decided(
    table: ReadableTable,
    job: Job,
    spec: JobSpec,
    schedule: ScheduleSpec,
    report: ReportScheduleDue,
    context: Context,
) -> tuple[tuple[AnyEvent, ...], tuple[Effect, ...]]:
    """The events of a start and behind them the decision; or that alone, if nothing is started."""
    skipped = _plain(report, Verdict.SKIPPED)
    why = _why_not(table, spec, report, context)
    if why is not None:
        return (replace(skipped, why=why),), ()
    bar = report.bar
    if bar is not None:
        skipped = _barred(skipped, bar)
    if bar is not None and bar.until_ms is None:
        return (skipped,), ()
    command = StartJob(
        job_id=report.job_id,
        variables=schedule.variables,
        # What falls into a blackout waits for its end, as a start that was asked for then.
        not_before=rfc3339(bar.until_ms) if bar is not None and bar.until_ms else None,
    )
    envelope = _envelope(command, report, context)
    known = table.command(envelope.id)
    if known is not None or table.forgotten(envelope.id) is not None:
        before = replace(skipped, verdict=Verdict.COALESCED, why=Why.STARTED_BEFORE)
        execution_id = known.execution_id if known is not None else None
        return (replace(before, execution_id=execution_id, command_id=envelope.id),), ()
    overlap = Overlap.QUEUE if report.queue else spec.overlap
    try:
        start = start_permitted(table, envelope, job, spec, command, overlap, context)
    except Refused as refused:
        why = _WHY.get(ErrorCode(refused.code), Why.REFUSED)
        error = refused.message if why is Why.REFUSED else None
        return (replace(skipped, why=why, error=error),), ()
    accepted = next(e for e in start.events if isinstance(e, CommandAccepted))
    runs = any(isinstance(e, ExecutionQueued | ExecutionStarted) for e in start.events)
    if not runs:
        return (_not_needed(table, skipped, accepted.execution_id),), ()
    events = (_marked(event, schedule, report) for event in start.events)
    started = replace(
        skipped,
        verdict=Verdict.STARTED,
        command_id=envelope.id,
        execution_id=accepted.execution_id,
    )
    return (*events, started), start.effects


def _barred(decision: ScheduleDecided, bar: Bar) -> ScheduleDecided:
    return replace(decision, why=bar.why, error=bar.text)


def _why_not(
    table: ReadableTable, spec: JobSpec, report: ReportScheduleDue, context: Context
) -> Why | None:
    """Why the instant starts nothing, whatever the job does now."""
    if not report.start:
        return Why.MISSED
    if spec.disabled:
        return Why.DISABLED
    state = table.schedules_of(report.job_id).get(report.schedule)
    if state is not None and state.pause_at(context.now_ms) is not None:
        return Why.PAUSED
    if table.maintenance is not None:
        return Why.MAINTENANCE
    return Why.NO_SPACE if context.is_low else None


def _not_needed(
    table: ReadableTable, skipped: ScheduleDecided, execution_id: str | None
) -> ScheduleDecided:
    """The slots are full; what waits already will do the same."""
    execution = table.execution(execution_id or "")
    waits = execution is not None and execution.status in _WAITING
    verdict = Verdict.COALESCED if waits else Verdict.SKIPPED
    why = skipped.why or Why.OVERLAP
    return replace(skipped, verdict=verdict, why=why, execution_id=execution_id)


def _marked(event: AnyEvent, schedule: ScheduleSpec, report: ReportScheduleDue) -> AnyEvent:
    if not isinstance(event, ExecutionQueued):
        return event
    at = local_text(report.at_ms, schedule.zone)
    return replace(event, cause=f"{SCHEDULED}{schedule.name}", scheduled_at=at)


def _envelope(command: StartJob, report: ReportScheduleDue, context: Context) -> Envelope:
    return seal(
        command,
        Principal(user_id=f"{SCHEDULED}{report.schedule}"),
        now_ms=context.now_ms,
        command_id=start_id(report.job_id, report.schedule, report.boot or report.at_ms),
    )


def start_id(job_id: str, name: str, instant: int | str) -> str:
    """The id of the command by which an instant of a schedule starts the job, or a boot does."""
    return derived_uuid("schedule", job_id, name, str(instant))


def _plain(report: ReportScheduleDue, verdict: Verdict) -> ScheduleDecided:
    return ScheduleDecided(
        job_id=report.job_id,
        schedule=report.schedule,
        instant_ms=report.at_ms,
        verdict=verdict,
        boot=report.boot,
    )


def _of_many(decision: ScheduleDecided, instants: Instants) -> ScheduleDecided:
    return replace(
        decision,
        instant_ms=instants.last_ms,
        first_ms=instants.first_ms,
        count=instants.count,
        more=instants.more,
        boot="",
    )
