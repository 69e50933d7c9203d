"""One recorded decision for each instant of a schedule, whatever the clock and the service do."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.commands import (
    ApplyCatalog,
    Definition,
    Forget,
    PassTime,
    PauseSchedule,
    ReportClock,
    ReportEnded,
    ReportScheduleDue,
    SetMaintenance,
    StartJob,
)
from bus.envelope import seal
from bus.events import CommandAccepted, ScheduleBegun, ScheduleDecided
from bus.job_definition import JobSpec, Overlap
from bus.model import ExecutionStatus, ExitRecord, Principal
from bus.schedules import Bar, MissedPolicy, ScheduleSpec, ScheduleState, Verdict, Why
from handlers.decisions.decision import SpawnExecution
from handlers.decisions.schedules import start_id
from handlers.schedule.plan import BarOf, due_reports
from handlers.schedule.rules import rule_of
from tests.decision_fixture import Decider

JOB = "Demo/Job"
MINUTE_MS = 60_000
DAY_S = 86_400.0


class Scheduled(Decider):
    """A job with one schedule, whose instants are reported as the scheduler does it."""

    def __init__(self, schedule: ScheduleSpec, **settings: object) -> None:
        super().__init__()
        self.schedule = schedule
        self.bar_of: BarOf | None = None
        self.define(JOB, schedule=(schedule,), **settings)

    def look(self) -> list[ScheduleDecided]:
        """What is due now is reported; what was decided."""
        before = len(self.events)
        state = self.table.schedules_of(JOB)[self.schedule.name]
        rule = rule_of(self.schedule)
        now_ms = self.clock.now_ms()
        for report in due_reports(JOB, self.schedule, rule, state, now_ms, self.bar_of):
            self.report(report)
        return [e for e in self.events[before:] if isinstance(e, ScheduleDecided)]

    def pass_s(self, seconds: float) -> list[ScheduleDecided]:
        self.clock.advance_s(seconds)
        return self.look()

    def due(self, at_ms: int, *, boot: str = "") -> ReportScheduleDue:
        state = self.table.schedules_of(JOB)[self.schedule.name]
        return ReportScheduleDue(
            job_id=JOB, schedule=self.schedule.name, mark=state.mark, at_ms=at_ms, boot=boot
        )


def every_minute(**settings: object) -> ScheduleSpec:
    return ScheduleSpec(name="minutes", every_s=60, zone="Europe/Berlin", **settings)  # type: ignore[arg-type]


def words(decided: Sequence[ScheduleDecided]) -> list[tuple[Verdict, Why | None, int]]:
    return [(each.verdict, each.why, each.count) for each in decided]


def test_instant_starts_the_job_with_the_schedules_variables_and_its_time() -> None:
    scheduled = Scheduled(every_minute())
    (decided,) = scheduled.pass_s(60)
    execution = scheduled.execution(decided.execution_id)
    assert execution.user_id == execution.cause == "schedule:minutes"
    at = datetime.fromisoformat(execution.scheduled_at or "")
    assert at == datetime.fromtimestamp(decided.instant_ms / 1000, UTC)
    assert (execution.scheduled_at or "").endswith("+01:00")
    assert scheduled.command(decided.command_id or "").execution_id == execution.id
    assert scheduled.effects == [SpawnExecution(execution.id)]


def test_schedule_that_is_new_or_changed_makes_up_for_nothing_before_it_was_in_force() -> None:
    scheduled = Scheduled(every_minute())
    scheduled.clock.advance_s(600)
    scheduled.schedule = ScheduleSpec(name="minutes", every_s=30, zone="Europe/Berlin")
    scheduled.define(JOB, schedule=(scheduled.schedule,))
    assert scheduled.look() == []
    assert words(scheduled.pass_s(30)) == [(Verdict.STARTED, None, 1)]


def test_other_edits_of_the_definition_leave_the_schedule_where_it_was() -> None:
    scheduled = Scheduled(every_minute())
    scheduled.clock.advance_s(59)
    scheduled.define(JOB, schedule=(scheduled.schedule,), timeout_s=5.0)
    assert len(scheduled.pass_s(1)) == 1


@pytest.mark.parametrize(("gone_s", "is_kept"), [(30, True), (61, False)])
def test_job_that_is_gone_for_a_moment_goes_on_where_it_was(gone_s: int, *, is_kept: bool) -> None:
    scheduled = Scheduled(every_minute())
    decided_ms = scheduled.table.schedules_of(JOB)["minutes"].decided_ms
    scheduled.clock.advance_s(100)
    scheduled.report(ApplyCatalog(definitions=()))
    scheduled.clock.advance_s(gone_s)
    scheduled.define(JOB, schedule=(scheduled.schedule,))
    after_ms = scheduled.table.schedules_of(JOB)["minutes"].decided_ms
    assert after_ms == (decided_ms if is_kept else scheduled.clock.now_ms())


def test_report_of_what_is_decided_early_or_of_another_rule_leads_to_nothing() -> None:
    scheduled = Scheduled(every_minute())
    (decided,) = scheduled.pass_s(60)
    count = len(scheduled.events)
    for at_ms in (decided.instant_ms, decided.instant_ms - MINUTE_MS, decided.instant_ms + 60_000):
        scheduled.report(scheduled.due(at_ms))
    scheduled.clock.advance_s(60)
    due = scheduled.due(decided.instant_ms + 60_000)
    other = ReportScheduleDue(job_id=JOB, schedule="minutes", mark="x", at_ms=due.at_ms)
    gone = ReportScheduleDue(job_id=JOB, schedule="other", mark=due.mark, at_ms=due.at_ms)
    for report in (other, gone):
        scheduled.report(report)
    assert len(scheduled.events) == count


def test_command_id_is_the_same_for_the_same_instant_wherever_it_is_decided() -> None:
    decided = [Scheduled(every_minute()).pass_s(60)[0].command_id for _ in range(2)]
    assert decided[0] == decided[1] is not None


@pytest.mark.parametrize(
    ("overlap", "settings", "verdict", "why"),
    [
        (Overlap.REJECT, {}, Verdict.COALESCED, Why.OVERLAP),
        (Overlap.SKIP, {}, Verdict.COALESCED, Why.OVERLAP),
        (Overlap.QUEUE, {}, Verdict.STARTED, None),
        (Overlap.REPLACE, {"max_running": 2}, Verdict.STARTED, None),
    ],
)
def test_overlap_decides_beside_a_start_that_waits(
    overlap: Overlap, settings: dict[str, object], verdict: Verdict, why: Why | None
) -> None:
    scheduled = Scheduled(every_minute(), overlap=overlap, **settings)
    scheduled.pass_s(60)
    assert words(scheduled.pass_s(60)) == [(verdict, why, 1)]


@pytest.mark.parametrize("overlap", [Overlap.REJECT, Overlap.SKIP])
def test_instant_beside_one_that_runs_is_skipped_and_says_so(overlap: Overlap) -> None:
    scheduled = Scheduled(every_minute(), overlap=overlap)
    (first,) = scheduled.pass_s(60)
    scheduled.runs(first.execution_id or "")
    assert words(scheduled.pass_s(60)) == [(Verdict.SKIPPED, Why.OVERLAP, 1)]
    scheduled.ends(first.execution_id or "")
    assert words(scheduled.pass_s(60)) == [(Verdict.STARTED, None, 1)]


def test_disabled_job_and_maintenance_skip_and_say_so() -> None:
    scheduled = Scheduled(every_minute(), disabled=True)
    assert words(scheduled.pass_s(60)) == [(Verdict.SKIPPED, Why.DISABLED, 1)]
    scheduled.define(JOB, schedule=(scheduled.schedule,))
    scheduled.report(SetMaintenance(on=True, by="root"))
    assert words(scheduled.pass_s(60)) == [(Verdict.SKIPPED, Why.MAINTENANCE, 1)]
    scheduled.report(SetMaintenance(on=False, by="root"))
    assert words(scheduled.pass_s(60)) == [(Verdict.STARTED, None, 1)]


def test_missed_once_starts_for_the_newest_and_coalesces_the_others_into_it() -> None:
    scheduled = Scheduled(every_minute(missed_within_s=600.0))
    decided = scheduled.pass_s(3600)
    assert words(decided) == [
        (Verdict.SKIPPED, Why.MISSED, 49),
        (Verdict.COALESCED, None, 10),
        (Verdict.STARTED, None, 1),
    ]
    assert decided[1].execution_id == decided[2].execution_id
    assert sum(each.count for each in decided) == 60
    assert scheduled.look() == []


def test_missed_skip_starts_nothing_that_is_late() -> None:
    scheduled = Scheduled(every_minute(missed=MissedPolicy.SKIP))
    scheduled.clock.advance_s(30)
    assert words(scheduled.pass_s(3600)) == [
        (Verdict.SKIPPED, Why.MISSED, 59),
        (Verdict.STARTED, None, 1),
    ]
    late = Scheduled(ScheduleSpec(name="hours", every_s=3600, missed=MissedPolicy.SKIP, zone="UTC"))
    decided = late.pass_s(2 * DAY_S + 1800)
    assert {each.verdict for each in decided} == {Verdict.SKIPPED}
    assert sum(each.count for each in decided) == 48


def test_missed_all_starts_for_each_in_order_and_each_waits_for_the_one_before() -> None:
    scheduled = Scheduled(every_minute(missed=MissedPolicy.ALL, missed_within_s=300.0))
    decided = scheduled.pass_s(3600)
    assert words(decided) == [(Verdict.SKIPPED, Why.MISSED, 54), *[(Verdict.STARTED, None, 1)] * 6]
    ids = [each.execution_id or "" for each in decided[1:]]
    assert [scheduled.status(i) for i in ids] == [
        ExecutionStatus.STARTING,
        *[ExecutionStatus.QUEUED] * 5,
    ]
    for number, id_ in enumerate(ids[:-1], 1):
        scheduled.runs(id_)
        exit_ = ExitRecord(ended_ms=scheduled.clock.now_ms(), exit_code=0)
        scheduled.report(ReportEnded(execution_id=id_, exit=exit_))
        assert scheduled.status(ids[number]) is ExecutionStatus.STARTING


def test_a_year_of_seconds_is_a_few_records() -> None:
    scheduled = Scheduled(ScheduleSpec(name="s", cron="* * * * * *", zone="UTC"))
    decided = scheduled.pass_s(365 * DAY_S)
    assert [each.verdict for each in decided] == [
        Verdict.SKIPPED,
        Verdict.COALESCED,
        Verdict.STARTED,
    ]
    assert decided[0].more
    assert decided[0].first_ms is not None
    assert decided[0].instant_ms < (decided[1].first_ms or 0)


def test_start_whose_variables_do_not_fit_any_more_is_skipped_with_the_reason() -> None:
    scheduled = Scheduled(every_minute(variables={"Kind": "x"}))
    (decided,) = scheduled.pass_s(60)
    assert (decided.verdict, decided.why) == (Verdict.SKIPPED, Why.REFUSED)
    assert "no variable" in (decided.error or "")


def test_clock_in_doubt_decides_nothing_and_a_schedule_defined_then_begins_at_its_end() -> None:
    scheduled = Scheduled(every_minute())
    scheduled.clock.jump_wall_s(365 * DAY_S)
    scheduled.report(ReportClock(doubted=True, believed_ms=1))
    assert scheduled.look() == []
    scheduled.define("Demo/New", schedule=(every_minute(),))
    assert scheduled.table.schedules_of("Demo/New")["minutes"].decided_ms is None
    scheduled.clock.jump_wall_s(-365 * DAY_S)
    events = scheduled.report(ReportClock(doubted=False))
    (begun,) = (e for e in events if isinstance(e, ScheduleBegun))
    assert (begun.job_id, begun.from_ms) == ("Demo/New", scheduled.clock.now_ms())
    assert words(scheduled.pass_s(60)) == [(Verdict.STARTED, None, 1)]


def test_schedule_that_a_wrong_clock_took_far_ahead_goes_on_when_the_clock_is_believed() -> None:
    scheduled = Scheduled(every_minute())
    scheduled.clock.jump_wall_s(365 * DAY_S)
    assert scheduled.look()[-1].verdict is Verdict.STARTED
    scheduled.clock.jump_wall_s(-365 * DAY_S)
    scheduled.report(ReportClock(doubted=True))
    scheduled.report(ReportClock(doubted=False, by="root"))
    assert len(scheduled.pass_s(60)) == 1


def test_instant_whose_command_is_known_is_not_started_again() -> None:
    scheduled = Scheduled(every_minute(), max_running=5)
    (first,) = scheduled.pass_s(60)
    scheduled.schedule = every_minute(jitter_s=1.0)
    scheduled.clock.jump_wall_s(-120)
    scheduled.define(JOB, schedule=(scheduled.schedule,), max_running=5)
    scheduled.clock.jump_wall_s(121)
    decided = scheduled.look()[-1]
    assert (decided.instant_ms, decided.why) == (first.instant_ms, Why.STARTED_BEFORE)
    accepted = [e for e in scheduled.events if isinstance(e, CommandAccepted)]
    assert len(accepted) == len({e.command_id for e in accepted})


def test_start_by_hand_beside_a_schedule_is_left_alone() -> None:
    scheduled = Scheduled(every_minute())
    scheduled.send(StartJob(job_id=JOB))
    assert words(scheduled.pass_s(60)) == [(Verdict.COALESCED, Why.OVERLAP, 1)]


def renamed(decider: Scheduled, new_id: str = "Demo/New", *formerly: str) -> ScheduleState:
    """The folder was moved, with its schedule; what is known of that under the new name."""
    spec = JobSpec(command=("true",), schedule=(decider.schedule,), formerly=formerly or (JOB,))
    new = Definition(job_id=new_id, spec=spec, revision=f"as {new_id} {formerly}")
    decider.report(ApplyCatalog(definitions=(new,)))
    return decider.table.schedules_of(new_id)["minutes"]


PAUSE = PauseSchedule(job_id=JOB, reason="an audit")


def test_schedule_of_a_renamed_job_goes_on_where_it_was() -> None:
    decider = Scheduled(every_minute(missed=MissedPolicy.ALL))
    decider.pass_s(60)
    decider.send(PAUSE)
    before = decider.table.schedules_of(JOB)["minutes"]
    decider.clock.advance_s(300)  # what passes while no service runs is made up for
    assert renamed(decider) == before
    assert decider.table.schedules_of(JOB) == {}
    assert renamed(decider, "Demo/Third", "Demo/New", JOB) == before
    assert decider.table.schedules_of("Demo/New") == {}


def test_schedule_whose_job_gets_its_old_name_back_repeats_nothing() -> None:
    decider = Scheduled(every_minute())
    renamed(decider)
    state = decider.table.schedules_of("Demo/New")["minutes"]
    at_ms = (decider.clock.now_ms() // MINUTE_MS + 1) * MINUTE_MS
    decider.clock.jump_wall_s((at_ms - decider.clock.now_ms()) / 1000)
    due = ReportScheduleDue(job_id="Demo/New", schedule="minutes", mark=state.mark, at_ms=at_ms)
    assert any(isinstance(event, ScheduleDecided) for event in decider.report(due))
    decider.define(JOB, schedule=(decider.schedule,))
    assert decider.look() == []


def test_pause_of_a_schedule_goes_on_under_a_name_that_claims_it_later() -> None:
    """The folder is moved, that is in force, and then the definition gets its line."""
    decider = Scheduled(every_minute())
    decider.send(PAUSE)
    state = renamed(decider, "Demo/New", "Demo/Other")
    assert state.pause is None
    decider.clock.advance_s(30)
    later = renamed(decider)
    assert later.pause is not None
    assert later.decided_ms == state.decided_ms


def test_schedule_of_a_job_that_was_gone_for_long_begins_under_its_new_name() -> None:
    decider = Scheduled(every_minute())
    decider.send(PAUSE)
    decider.report(ApplyCatalog(definitions=()))
    decider.clock.advance_s(3600)
    state = renamed(decider)
    assert state.decided_ms == decider.clock.now_ms()
    assert state.pause is not None


CLOSED = Bar(why=Why.CALENDAR, text="except Feasts: 25 December")


def test_barred_instant_starts_nothing_and_its_record_says_why() -> None:
    decider = Scheduled(every_minute())
    decider.bar_of = lambda at_ms: CLOSED
    [decided] = decider.pass_s(60)
    assert (decided.verdict, decided.why) == (Verdict.SKIPPED, Why.CALENDAR)
    assert decided.error == CLOSED.text
    decider.bar_of = lambda at_ms: None
    [decided] = decider.pass_s(60)
    assert decided.verdict is Verdict.STARTED


def test_start_for_missed_instants_is_for_the_newest_that_is_not_barred() -> None:
    decider = Scheduled(every_minute())
    newest_ms = (decider.clock.now_ms() // MINUTE_MS + 10) * MINUTE_MS
    decider.bar_of = lambda at_ms: CLOSED if at_ms > newest_ms - 3 * MINUTE_MS else None
    decisions = decider.pass_s(600)
    started = [each for each in decisions if each.verdict is Verdict.STARTED]
    assert [each.instant_ms for each in started] == [newest_ms - 3 * MINUTE_MS]
    barred = [each for each in decisions if each.why is Why.CALENDAR]
    assert sum(each.count for each in barred) == 3
    assert decider.look() == []


@given(
    barred=st.sets(st.integers(1, 40)),
    passed=st.integers(1, 40),
    missed=st.sampled_from(list(MissedPolicy)),
    texts=st.integers(1, 3),
)
def test_each_instant_is_decided_once_whichever_are_barred(
    barred: set[int], passed: int, missed: MissedPolicy, texts: int
) -> None:
    decider = Scheduled(every_minute(missed=missed), max_running=100)
    first_ms = (decider.clock.now_ms() // MINUTE_MS) * MINUTE_MS

    def bar_of(at_ms: int) -> Bar | None:
        number = (at_ms - first_ms) // MINUTE_MS
        text = f"reason {number % texts}"
        return Bar(why=Why.CALENDAR, text=text) if number in barred else None

    decider.bar_of = bar_of
    decisions = decider.pass_s(60 * passed)
    assert sum(each.count for each in decisions) == passed
    skipped = sum(each.count for each in decisions if each.why is Why.CALENDAR)
    assert skipped == len([number for number in barred if number <= passed])
    for each in decisions:
        if each.verdict is Verdict.STARTED:
            assert bar_of(each.instant_ms) is None
    state = decider.table.schedules_of(JOB)["minutes"]
    assert state.decided_ms == first_ms + passed * MINUTE_MS
    assert decider.look() == []


def test_what_falls_into_a_blackout_is_one_start_that_waits_for_its_end() -> None:
    decider = Scheduled(every_minute())
    end_ms = decider.clock.now_ms() + 300_000
    night = Bar(why=Why.BLACKOUT, text="blackout Night: backups run", until_ms=end_ms)
    decider.bar_of = lambda at_ms: night if at_ms < end_ms else None
    [first] = decider.pass_s(60)
    assert (first.verdict, first.why, first.error) == (Verdict.STARTED, Why.BLACKOUT, night.text)
    execution = decider.execution(first.execution_id)
    assert (execution.status, execution.not_before_ms) == (ExecutionStatus.QUEUED, end_ms)
    assert (execution.cause, execution.user_id) == ("schedule:minutes", "schedule:minutes")
    [second] = decider.pass_s(60)
    assert (second.verdict, second.why) == (Verdict.COALESCED, Why.BLACKOUT)
    assert second.execution_id == execution.id
    decider.clock.advance_s(180)
    decider.report(PassTime())
    assert decider.status(execution.id) is ExecutionStatus.STARTING


def test_reboot_starts_once_for_each_boot_and_not_for_the_one_it_was_defined_in() -> None:
    scheduled = Scheduled(ScheduleSpec(name="boot", cron="@reboot", zone="UTC"), max_running=9)
    assert scheduled.table.schedules_of(JOB)["boot"].boot == scheduled.policy.boot
    scheduled.clock.advance_s(60)
    for boot in ("b-1", "b-1", "b-2", "b-2"):
        scheduled.report(scheduled.due(scheduled.clock.now_ms(), boot=boot))
        scheduled.clock.advance_s(60)
    decided = [e for e in scheduled.events if isinstance(e, ScheduleDecided)]
    assert [(each.verdict, each.boot) for each in decided] == [
        (Verdict.STARTED, "b-1"),
        (Verdict.STARTED, "b-2"),
    ]


def test_instant_whose_command_is_only_remembered_is_not_started_again() -> None:
    """As after a backfill, which a person asked for under the same ids."""
    scheduled = Scheduled(every_minute(), max_running=5)
    scheduled.clock.advance_s(60)
    at_ms = scheduled.clock.now_ms() // MINUTE_MS * MINUTE_MS
    command = start_id(JOB, "minutes", at_ms)
    person = Principal(user_id="olga", roles=("operator",), via="http")
    scheduled.take(
        seal(StartJob(job_id=JOB), person, now_ms=scheduled.clock.now_ms(), command_id=command)
    )
    execution_id = scheduled.command(command).execution_id or ""
    scheduled.runs(execution_id)
    scheduled.ends(execution_id)
    scheduled.report(Forget(executions=(execution_id,), commands=(command,)))
    assert words(scheduled.look()) == [(Verdict.COALESCED, Why.STARTED_BEFORE, 1)]
