"""Reports to the owner which instants of schedules have come. One task, asleep until the next one.

What to do about an instant is decided by the owner on its table; here is only known when to ask.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from bus.clock import Clock, rfc3339
from bus.commands import ReportClock, ReportScheduleDue
from bus.events import (
    JobChanged,
    JobDefined,
    JobRemoved,
    Published,
    ScheduleBegun,
    ScheduleDecided,
    SystemClock,
)
from bus.job_definition import Job
from bus.ports import ReportSink
from bus.schedules import LastDecision, ScheduleSpec, ScheduleState, default_name
from bus.threads import READS
from bus.views import ComingView, LastDecisionView, PauseView, PlannedView, ScheduleView
from handlers.calendars.calendar_set import NO_CALENDARS, CalendarSet
from handlers.decisions.table import JobTable
from handlers.schedule.agenda import Row, agenda
from handlers.schedule.clock_trust import ClockTrust
from handlers.schedule.plan import (
    Ahead,
    BarOf,
    due_reports,
    local_text,
    next_allowed,
    next_start_ms,
    upcoming,
)
from handlers.schedule.rules import RebootRule, Rule, ScheduleError, rule_of

LOOK_S_MAX = 10.0
"""The wall clock may be set at any moment: no sleep is longer, however many schedules there are."""

DECIDED_MS = 30_000
"""So long a report may take through the owner; after that it is asked again."""

BACKLOG_MS = 600_000
"""What passed longer ago is counted in a thread: it may be much."""

SLICE = 50
"""So many schedules are looked at before others get their turn."""

NEXT_SHOWN = 10
"""Instants to come that are shown of a schedule."""

CLOCK_DOUBTED = (
    "the clock of the machine is not believed: it has jumped, or differs too much from the "
    "journal; if it is right: jobbus clock believe"
)

log = structlog.get_logger("jobbus.schedules")


class Scheduler:
    """Implements `bus.ports.ChangeListener`. Lives in the event loop.

    `_plan` is a heap of times at which to look at a schedule, `_at` the time that counts of each;
    `_rules` are the rules read from their marks, `_names` the schedules of each job. `_changed` are
    jobs to be planned again; `_wake` interrupts the sleep. The listener writes the last two, `run`
    all of them. `_ahead` is what was found for those who asked when a barred schedule starts
    something next, beside what it was found by: it takes long, and is asked for often.
    """

    def __init__(
        self,
        table: JobTable,
        clock: Clock,
        trust: ClockTrust,
        report: ReportSink,
        boot: str,
        calendars: Callable[[], CalendarSet] = lambda: NO_CALENDARS,
    ) -> None:
        """`calendars` are those in force at each call."""
        self._calendars = calendars
        self._table = table
        self._clock = clock
        self._trust = trust
        self._report = report
        self._boot = boot
        self._plan: list[tuple[int, str, str]] = []
        self._at: dict[tuple[str, str], int] = {}
        self._rules: dict[tuple[str, str], tuple[str, Rule]] = {}
        self._ahead: dict[tuple[str, str], tuple[CalendarSet, tuple[ScheduleSpec, str], Ahead]] = {}
        self._names: dict[str, set[str]] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    def first_report(self) -> ReportClock | None:
        """What a start says of the clock before anything else is decided."""
        return self._look()

    def __call__(self, batch: Sequence[Published]) -> None:
        for published in batch:
            match published.event:
                case (
                    JobDefined(job_id=job_id)
                    | JobChanged(job_id=job_id)
                    | JobRemoved(job_id=job_id)
                    | ScheduleBegun(job_id=job_id)
                ):
                    self._changed.add(job_id)
                    self._wake.set()
                case ScheduleDecided(job_id=job_id, schedule=name):
                    self._plan_one(job_id, name)
                case SystemClock() as change:
                    self._say(change)
                    self._wake.set()
                case _:
                    continue

    async def run(self) -> None:
        """Looks at each schedule when its time comes, for ever."""
        self._changed.update(job.id for job in self._table.jobs())
        while True:
            self._wake.clear()
            for number, job_id in enumerate(list(self._changed), 1):
                self._changed.discard(job_id)
                self._plan_job(job_id)
                if number % SLICE == 0:
                    await asyncio.sleep(0)
            change = self._look()
            if change is not None:
                self._report(change)
            elif self._table.doubt is None:
                await self._report_due()
            await self._sleep()

    def rule(self, job_id: str, spec: ScheduleSpec, mark: str) -> Rule | None:
        """The rule of a schedule, read once; None if this version cannot read it."""
        known = self._rules.get((job_id, spec.name))
        if known is not None and known[0] == mark:
            return known[1]
        try:
            rule = rule_of(spec)
        except ScheduleError:
            return None  # of a definition that an earlier version took
        self._rules[job_id, spec.name] = (mark, rule)
        return rule

    def next_ms(self, job_id: str) -> int | None:
        """When the job is started next by itself, as far as it is known."""
        job = self._table.job(job_id)
        if job is None or job.spec is None or not job.spec.schedule or job.spec.disabled:
            return None
        times = (self._next_ms(job_id, each) for each in job.spec.schedule)
        return min((at_ms for at_ms in times if at_ms is not None), default=None)

    def _next_ms(self, job_id: str, spec: ScheduleSpec) -> int | None:
        at_ms, bar_of = self._at.get((job_id, spec.name)), self._bar_of(job_id, spec)
        found = self._find(job_id, spec.name) if bar_of is not None else None
        if found is None or bar_of is None or found[1].decided_ms is None:
            return at_ms
        calendars, (_, state, rule), decided_ms = self._calendars(), found, found[1].decided_ms
        known = self._ahead.get((job_id, spec.name))
        if (
            known is not None
            and known[0] is calendars
            and known[1] == (spec, state.mark)
            and known[2].counts_at(decided_ms)
        ):
            return known[2].next_ms
        chance_of = partial(calendars.chance_ms, job_id, spec)
        ahead = next_allowed(job_id, spec, rule, decided_ms, bar_of, chance_of)
        self._ahead[job_id, spec.name] = (calendars, (spec, state.mark), ahead)
        return ahead.next_ms

    def views(self, job: Job) -> tuple[ScheduleView, ...]:
        """The schedules of the job, each with its next instants."""
        return tuple(self._view(job, each) for each in _schedules(job))

    async def planned(self, jobs: Sequence[Job], until_ms: int, most: int) -> list[PlannedView]:
        """See `bus.ports.ScheduleReader`."""
        rows = [row for job in jobs for spec in _schedules(job) if (row := self._row(job, spec))]
        return await READS.run(agenda, rows, until_ms, most)

    def _row(self, job: Job, spec: ScheduleSpec) -> Row | None:
        found = self._find(job.id, spec.name)
        if found is None:
            return None
        _, state, rule = found
        return Row(
            job_id=job.id,
            spec=spec,
            rule=rule,
            after_ms=self._after_ms(state),
            bar_of=self._bar_of(job.id, spec),
            why=self._why_none(job) or pause_text(state, spec.zone, self._clock.now_ms()),
        )

    def _after_ms(self, state: ScheduleState | None) -> int:
        """What is decided already does not come again, even if the clock was set back since."""
        return max(self._clock.now_ms(), (state.decided_ms or 0) if state is not None else 0)

    def _why_none(self, job: Job) -> str | None:
        """Why no schedule of the job starts anything for now, if none does."""
        if self._table.doubt is not None:
            return CLOCK_DOUBTED
        is_disabled = job.spec is not None and job.spec.disabled
        return "disabled by its definition" if is_disabled else None

    def _view(self, job: Job, spec: ScheduleSpec) -> ScheduleView:
        state = self._table.schedules_of(job.id).get(spec.name)
        rule = self.rule(job.id, spec, state.mark) if state is not None else None
        after_ms, bar_of = self._after_ms(state), self._bar_of(job.id, spec)
        coming = upcoming(spec, rule, after_ms, NEXT_SHOWN, bar_of) if rule is not None else []
        return ScheduleView(
            name=spec.name,
            rule=default_name(spec),
            zone=spec.zone,
            missed=spec.missed.value,
            next=tuple(ComingView(local_text(each.at_ms, spec.zone), each.note) for each in coming),
            last=_last_view(state.last, spec.zone) if state is not None else None,
            why=self._why_none(job) or pause_text(state, spec.zone, self._clock.now_ms()),
            paused=_pause_view(state, self._clock.now_ms()),
        )

    def believe(self, by: str) -> ReportClock:
        """What is to be reported when a person says that the clock is right."""
        self._trust.believe(self._clock.now_ms(), self._clock.steady_s())
        return ReportClock(doubted=False, by=by)

    def _look(self) -> ReportClock | None:
        """What is to be said of the clock, if it is news."""
        now_ms, now_s = self._clock.now_ms(), self._clock.steady_s()
        believed_ms = self._trust.believed_ms
        is_believed = self._trust.look(now_ms, now_s)
        if is_believed == (self._table.doubt is None):
            return None
        return ReportClock(doubted=not is_believed, believed_ms=believed_ms)

    async def _report_due(self) -> None:
        now_ms, count = self._clock.now_ms(), 0
        while self._plan and self._plan[0][0] <= now_ms:
            count += 1
            if count % SLICE == 0:
                await asyncio.sleep(0)
            at_ms, job_id, name = heapq.heappop(self._plan)
            if self._at.get((job_id, name)) != at_ms:
                continue  # planned again since
            reports = await self._due(job_id, name, now_ms)
            if not reports:
                self._plan_one(job_id, name)
                continue
            self._put(now_ms + DECIDED_MS, job_id, name)
            for report in reports:
                self._report(report)

    async def _due(self, job_id: str, name: str, now_ms: int) -> list[ReportScheduleDue]:
        found = self._find(job_id, name)
        if found is None:
            return []
        spec, state, rule = found
        if isinstance(rule, RebootRule):
            if state.boot == self._boot:
                return []
            return [
                ReportScheduleDue(
                    job_id=job_id,
                    schedule=name,
                    mark=state.mark,
                    at_ms=now_ms,
                    boot=self._boot,
                )
            ]
        bar_of = self._bar_of(job_id, spec)
        if now_ms - (state.decided_ms or 0) > BACKLOG_MS:
            return await READS.run(due_reports, job_id, spec, rule, state, now_ms, bar_of)
        return due_reports(job_id, spec, rule, state, now_ms, bar_of)

    def _bar_of(self, job_id: str, spec: ScheduleSpec) -> BarOf | None:
        """What calendars and blackouts say of the schedule's instants; None if they say nothing."""
        calendars = self._calendars()
        if not calendars.concerns(job_id, spec):
            return None
        return partial(calendars.bar, job_id, spec)

    async def _sleep(self) -> None:
        """Until the next time of the plan, at most."""
        wait_s: float | None = None
        if self._plan or self._table.doubt is not None:
            wait_s = LOOK_S_MAX
        if self._plan and self._table.doubt is None:
            wait_s = min(LOOK_S_MAX, (self._plan[0][0] - self._clock.now_ms()) / 1000)
        try:
            async with asyncio.timeout(wait_s if wait_s is None else max(0.001, wait_s)):
                await self._wake.wait()
        except TimeoutError:
            return

    # -- the plan --------------------------------------------------------------------------------

    def _plan_job(self, job_id: str) -> None:
        job = self._table.job(job_id)
        names = {each.name for each in _schedules(job)}
        for name in self._names.pop(job_id, set()) - names:
            self._at.pop((job_id, name), None)
            self._rules.pop((job_id, name), None)
            self._ahead.pop((job_id, name), None)
        if names:
            self._names[job_id] = names
        for name in names:
            self._plan_one(job_id, name)

    def _plan_one(self, job_id: str, name: str) -> None:
        """The schedule is looked at when its next instant comes; not at all if there is none."""
        self._at.pop((job_id, name), None)
        found = self._find(job_id, name)
        if found is None:
            return
        spec, state, rule = found
        if isinstance(rule, RebootRule):
            if state.boot != self._boot:
                self._put(self._clock.now_ms(), job_id, name)
        elif state.decided_ms is not None:
            at_ms = next_start_ms(job_id, spec, rule, state.decided_ms)
            if at_ms is not None:
                self._put(at_ms, job_id, name)

    def _put(self, at_ms: int, job_id: str, name: str) -> None:
        self._at[job_id, name] = at_ms
        entry = (at_ms, job_id, name)
        if len(self._plan) > 2 * len(self._at) + 16:  # most of it was planned again since
            self._plan = [(at_ms, *key) for key, at_ms in self._at.items()]
            heapq.heapify(self._plan)
        else:
            heapq.heappush(self._plan, entry)
        if self._plan[0] == entry:
            self._wake.set()

    def _find(self, job_id: str, name: str) -> tuple[ScheduleSpec, ScheduleState, Rule] | None:
        state = self._table.schedules_of(job_id).get(name)
        specs = _schedules(self._table.job(job_id))
        spec = next((each for each in specs if each.name == name), None)
        rule = (
            self.rule(job_id, spec, state.mark) if spec is not None and state is not None else None
        )
        if spec is None or state is None or rule is None:
            return None
        return spec, state, rule

    def _say(self, change: SystemClock) -> None:
        if not change.doubted:
            log.info("the clock is believed; schedules go on", by=change.by or "system")
            return
        log.warning(
            "nothing is started by schedule: %s",
            CLOCK_DOUBTED,
            shows=rfc3339(change.shown_ms),
            believed=None if change.believed_ms is None else rfc3339(change.believed_ms),
        )


def pause_text(state: ScheduleState | None, zone: str, now_ms: int) -> str | None:
    """Why a schedule that is paused starts nothing."""
    pause = state.pause_at(now_ms) if state is not None else None
    if pause is None:
        return None
    # A pause until `+2h` ends within a second: its milliseconds help no reader.
    until = f" until {local_text(pause.until_ms // 1000 * 1000, zone)}" if pause.until_ms else ""
    return f"paused by {pause.by}{until}" + (f": {pause.reason}" if pause.reason else "")


def _pause_view(state: ScheduleState | None, now_ms: int) -> PauseView | None:
    pause = state.pause_at(now_ms) if state is not None else None
    if pause is None:
        return None
    until = rfc3339(pause.until_ms) if pause.until_ms is not None else None
    return PauseView(pause.reason, pause.by, rfc3339(pause.since_ms), until)


def _last_view(last: LastDecision | None, zone: str) -> LastDecisionView | None:
    if last is None:
        return None
    why = last.why.value if last.why is not None else None
    at = local_text(last.instant_ms, zone)
    return LastDecisionView(at, last.verdict.value, why, last.execution_id)


def _schedules(job: Job | None) -> Sequence[ScheduleSpec]:
    return job.spec.schedule if job is not None and job.spec is not None else ()
