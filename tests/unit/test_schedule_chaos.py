"""Every change of the clocks of two years in twelve zones, with clocks that jump, outages, restarts
and wrong years: each instant of a schedule has one decision, and none comes early."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from bus.commands import ReportClock
from bus.events import ScheduleDecided
from bus.schedules import MissedPolicy, ScheduleSpec, Verdict
from handlers.decisions.table import JobTable
from handlers.schedule.clock_trust import ClockTrust
from handlers.schedule.plan import due_reports, instant, ms_of
from handlers.schedule.rules import due_between, rule_of
from tests.decision_fixture import Decider
from tests.tally import Kind, Tally
from tests.unit.test_schedule_rules import LINES, ZONES, at, transitions

JOB = "Demo/Job"
HOUR_S, DAY_S, YEAR_S = 3600, 86_400, 365 * 86_400
BEFORE, AFTER = timedelta(hours=8), timedelta(hours=30)
CHAOS = ("outage", "restart", "year ahead", "day back", "wrong year at boot", "edit")


class Life(Decider):
    """One schedule through one change of the clocks; what the scheduler does, without its task."""

    def __init__(self, spec: ScheduleSpec, begin: datetime, seed: str) -> None:
        super().__init__()
        self.spec, self.rule = spec, rule_of(spec)
        self.chance = random.Random(seed)
        self.clock.jump_wall_s((ms_of(begin) - self.clock.now_ms()) / 1000)
        self.trust = ClockTrust(None, self.clock.steady_s())
        self.look()
        self.define(JOB, schedule=(spec,), max_running=1000)

    def look(self) -> None:
        believed_ms = self.trust.believed_ms
        is_believed = self.trust.look(self.clock.now_ms(), self.clock.steady_s())
        if is_believed != (self.table.doubt is None):
            self.report(ReportClock(doubted=not is_believed, believed_ms=believed_ms))
        state = self.table.schedules_of(JOB).get(self.spec.name)
        if state is None or self.table.doubt is not None:
            return
        for report in due_reports(JOB, self.spec, self.rule, state, self.clock.now_ms()):
            self.report(report)

    def restart(self) -> None:
        """Another service finds what the last one recorded."""
        doubt = self.table.doubt
        self.table = JobTable()
        for published in self.log:
            self.table.apply(published)
        assert self.table.doubt == doubt
        seen_ms = self.log[-1].at_ms if doubt is None else doubt.believed_ms
        self.trust = ClockTrust(seen_ms, self.clock.steady_s())
        self.look()

    def suffer(self, kind: str) -> None:
        match kind:
            case "outage":
                self.clock.advance_s(self.chance.uniform(60, 3 * HOUR_S))
                self.restart()
            case "restart":
                self.restart()
            case "edit":
                self.define(JOB, schedule=(self.spec,), max_running=1000, timeout_s=5.0)
            case "year ahead" | "day back":
                self._wrong_s(YEAR_S if kind == "year ahead" else -DAY_S, restarts=False)
            case _:
                self._wrong_s(YEAR_S, restarts=True)

    def _wrong_s(self, ahead_s: float, *, restarts: bool) -> None:
        self.clock.jump_wall_s(ahead_s)
        for _ in range(3):
            self.restart() if restarts else self.look()
            self.clock.advance_s(self.chance.uniform(1, 600))
        self.clock.jump_wall_s(-ahead_s)
        self.restart() if restarts else self.look()


def lives(zone: str, lines: Sequence[str], changes: int | None) -> Iterator[Life]:
    place = ZoneInfo(zone)
    found = transitions(place, at("2026-01-01"), at("2028-01-01")) or [at("2026-03-29T01:00")]
    for change in found[:changes]:
        for number, line in enumerate(lines):
            missed = list(MissedPolicy)[number % 3]
            spec = ScheduleSpec(name="s", cron=line, zone=zone, missed=missed)
            life = Life(spec, change - BEFORE, f"{zone} {line} {change}")
            end_ms = ms_of(change + AFTER)
            while life.clock.now_ms() < end_ms:
                life.clock.advance_s(life.chance.uniform(30, HOUR_S))
                life.look()
                if life.chance.random() < 0.2:
                    life.suffer(life.chance.choice(CHAOS))
            life.look()
            yield life


def wrong_in(life: Life) -> list[str]:
    """What is not as it must be: an instant without its one decision, one that is early."""
    begin_ms = next(p.at_ms for p in life.log if p.event.__class__.__name__ == "JobDefined")
    end_ms = life.clock.now_ms()
    wanted = [ms_of(due) for due in due_between(life.rule, instant(begin_ms), instant(end_ms))]
    found: Counter[int] = Counter()
    wrong: list[str] = []
    for published in life.log:
        event = published.event
        if not isinstance(event, ScheduleDecided):
            continue
        if event.instant_ms > published.at_ms:
            wrong.append(f"early: {event}")
        if event.first_ms is None:
            found[event.instant_ms] += 1
            continue
        inside = [ms for ms in wanted if event.first_ms <= ms <= event.instant_ms]
        found.update(inside)
        if len(inside) != event.count or event.more:
            wrong.append(f"{event.count} instants are recorded as {len(inside)}: {event}")
    wrong += [f"{n} decisions: {instant(ms)}" for ms, n in found.items() if n != 1]
    wrong += [f"no decision: {instant(ms)}" for ms in wanted if ms not in found]
    wrong += [f"no instant: {instant(ms)}" for ms in found.keys() - set(wanted)]
    starts = [e for e in life.events if isinstance(e, ScheduleDecided)]
    ids = [e.command_id for e in starts if e.verdict is Verdict.STARTED]
    return wrong if len(ids) == len(set(ids)) else [*wrong, "a command id twice"]


def survive(zones: Sequence[str], lines: Sequence[str], changes: int | None) -> tuple[int, int]:
    """How many lives there were, and how many decisions."""
    count = decisions = 0
    for zone in zones:
        for life in lives(zone, lines, changes):
            assert wrong_in(life) == [], (zone, life.spec.cron, life.spec.missed)
            count += 1
            decisions += sum(isinstance(event, ScheduleDecided) for event in life.events)
    return count, decisions


def test_each_instant_has_one_decision_whatever_clocks_and_services_do() -> None:
    lines = ("30 2 * * *", "*/15 2 * * *", "*/20 * * * *", "0 0 * * *", "5 * * * *", "0 0 1 * *")
    count, decisions = survive(("Europe/Berlin", "Africa/Cairo"), lines, 1)
    assert count == 12
    assert decisions > 50


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("zone", ZONES)
def test_each_instant_has_one_decision_over_all_changes_of_two_years(
    zone: str, tally: Tally
) -> None:
    count, decisions = survive((zone,), LINES, None)
    tally.add(Kind.SCHEDULES, zone, decisions, 0)
    print(f"{zone}: {count} changes and lines, {decisions} decisions")
