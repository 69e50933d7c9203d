"""What people ask of schedules: pause, resume, run now, backfill, as decisions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bus.clock import rfc3339
from bus.commands import (
    ApplyCatalog,
    BackfillSchedule,
    Command,
    PassTime,
    PauseSchedule,
    ResumeSchedule,
    RunSchedule,
    StopJob,
)
from bus.envelope import seal
from bus.errors import ErrorCode
from bus.events import ScheduleDecided, SchedulePaused
from bus.job_definition import Overlap, VariableSpec, VariableType
from bus.model import CommandRecord, CommandStatus, ExecutionStatus, Outcome
from bus.schedules import Bar, ScheduleSpec, Verdict, Why
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import parts_of
from tests.decision_fixture import OPERATOR, ROLELESS, VIEWER
from tests.unit.test_schedule_decisions import JOB, MINUTE_MS, Scheduled, every_minute

NUMBER = {"N": VariableSpec(type=VariableType.INTEGER, default=1)}
PAUSE = PauseSchedule(job_id=JOB, reason="new disk")


def scheduled(**settings: object) -> Scheduled:
    return Scheduled(every_minute(variables={"N": 7}), variables=NUMBER, **settings)


def verdicts(decisions: list[ScheduleDecided]) -> list[tuple[Verdict, Why | None]]:
    return [(each.verdict, each.why) for each in decisions]


def span(decider: Scheduled, first: int, last: int, *, preview: bool = False) -> BackfillSchedule:
    """Minutes before now, counted from the last whole one."""
    now_ms = decider.clock.now_ms() // MINUTE_MS * MINUTE_MS
    return BackfillSchedule(
        job_id=JOB,
        begin=rfc3339(now_ms - first * MINUTE_MS),
        end=rfc3339(now_ms - last * MINUTE_MS),
        preview=preview,
    )


def result(record: CommandRecord) -> dict[str, Any]:
    assert record.status is CommandStatus.COMPLETED, record.error
    found: dict[str, Any] = json.loads(bytes(record.result))
    return found


def test_paused_schedule_skips_its_instants_until_it_is_resumed() -> None:
    decider = scheduled()
    assert decider.send(PAUSE).outcome is Outcome.DONE
    assert decider.send(PAUSE).outcome is Outcome.NOOP
    assert verdicts(decider.pass_s(60)) == [(Verdict.SKIPPED, Why.PAUSED)]
    assert decider.send(ResumeSchedule(job_id=JOB, schedule="minutes")).outcome is Outcome.DONE
    assert decider.send(ResumeSchedule(job_id=JOB)).outcome is Outcome.NOOP
    assert verdicts(decider.pass_s(60)) == [(Verdict.STARTED, None)]


def test_pause_ends_by_itself_at_its_time_and_outlives_a_new_rule_and_a_snapshot() -> None:
    decider = scheduled()
    until = rfc3339(decider.clock.now_ms() + 90_000)
    decider.send(PauseSchedule(job_id=JOB, schedule="minutes", reason="r", until=until))
    decider.schedule = ScheduleSpec(name="minutes", every_s=30, zone="UTC")
    decider.define(JOB, schedule=(decider.schedule,))
    decider.table = JobTable.thaw(parts_of(decider.table.freeze()))
    assert {why for _, why in verdicts(decider.pass_s(60))} == {Why.PAUSED}
    assert (Verdict.STARTED, None) in verdicts(decider.pass_s(60))
    assert decider.send(PauseSchedule(job_id=JOB, until=until)).error_code == ErrorCode.MALFORMED


def test_pause_is_kept_while_a_definition_is_away_for_a_moment() -> None:
    decider = scheduled()
    decider.send(PAUSE)
    decider.report(ApplyCatalog(definitions=()))
    decider.clock.advance_s(5)
    decider.define(JOB, schedule=(decider.schedule,), variables=NUMBER)
    state = decider.table.schedules_of(JOB)["minutes"]
    assert state.pause is not None
    assert state.pause.reason == "new disk"


def test_run_starts_now_with_the_variables_of_the_schedule() -> None:
    decider = scheduled()
    decider.send(PAUSE)
    record = decider.send(RunSchedule(job_id=JOB))
    execution = decider.execution(record.execution_id)
    assert (execution.status, execution.variables) == (ExecutionStatus.STARTING, {"N": 7})
    assert (execution.user_id, execution.cause) == ("olga", "")


def test_backfill_starts_each_instant_of_the_span_in_order_and_twice_is_once() -> None:
    decider = scheduled(overlap=Overlap.REJECT)
    decider.clock.advance_s(600)
    preview = result(decider.send(span(decider, 5, 2, preview=True)))
    assert (preview["instants"], preview["started"], preview["preview"]) == (4, 4, True)
    assert list(decider.table.live_executions()) == []
    first = result(decider.send(span(decider, 5, 2)))
    assert (first["started"], first["known"]) == (4, 0)
    again = result(decider.send(span(decider, 6, 2)))
    assert (again["started"], again["known"]) == (1, 4)
    waiting = decider.table.queued(JOB)
    assert [each.cause for each in waiting] == ["schedule:minutes"] * 5
    ran = []
    while decider.table.queued(JOB):
        decider.report(PassTime())
        [execution] = decider.table.in_slots(JOB)
        ran.append(execution.scheduled_at)
        decider.ends(execution.id)
    assert ran[:4] == sorted(filter(None, ran[:4]))
    [last] = decider.table.in_slots(JOB)
    decider.ends(last.id)
    # What the schedule itself would start of them is known, too.
    decisions = decider.look()
    assert sum(each.count for each in decisions if each.verdict is Verdict.STARTED) == 1


def test_backfill_leaves_out_what_calendars_bar_and_what_has_run() -> None:
    decider = scheduled()
    decider.pass_s(60)
    decider.clock.advance_s(300)
    feast = Bar(why=Why.CALENDAR, text="except Feasts")
    decider.bar = lambda job_id, schedule, at_ms: None if at_ms // MINUTE_MS % 2 else feast
    found = result(decider.send(span(decider, 5, 0, preview=True)))
    assert found["instants"] == 6
    assert found["barred"] == 3
    assert found["known"] + found["started"] == 3


@given(first=st.integers(0, 400), length=st.integers(0, 400))
def test_backfills_of_any_span_come_to_an_end_and_repeat_nothing(first: int, length: int) -> None:
    decider = scheduled()
    decider.clock.advance_s(86_400)
    started, calls = 0, 0
    while True:
        found = result(decider.send(span(decider, first + length, first)))
        started += found["started"]
        assert found["started"] + found["left"] + found["known"] == found["instants"] == length + 1
        for execution in decider.table.queued(JOB):
            decider.report(PassTime())
            decider.ends(execution.id)
        calls += 1
        if not found["left"]:
            break
    assert started == length + 1
    assert calls == -(-(length + 1) // 100)
    assert len({each.scheduled_at for each in decider.table.executions()}) == length + 1


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (RunSchedule(job_id=JOB, schedule="minute"), "malformed", 'did you mean "minutes"'),
        (PauseSchedule(job_id="Demo/Plain"), "malformed", "has no schedule"),
        (RunSchedule(job_id="Demo/None"), "unknown_job", "no job"),
        (
            BackfillSchedule(job_id=JOB, begin="2026-01-02T00:00:00Z", end="2026-01-01T00:00:00Z"),
            "malformed",
            "swap them",
        ),
        (
            BackfillSchedule(job_id=JOB, begin="2020-01-01T00:00:00Z", end="2026-01-01T00:00:00Z"),
            "malformed",
            "give a shorter one",
        ),
    ],
)
def test_order_that_cannot_be_meant_says_what_would_be_right(
    command: Command, code: str, words: str
) -> None:
    decider = scheduled()
    decider.define("Demo/Plain")
    record = decider.send(command)
    assert record.error_code == code
    assert words in (record.error or "")


def test_pausing_takes_the_right_to_stop_and_the_others_that_to_start() -> None:
    decider = scheduled()
    for command in (PAUSE, ResumeSchedule(job_id=JOB), RunSchedule(job_id=JOB)):
        assert decider.send(command, VIEWER).error_code == ErrorCode.NOT_PERMITTED
        assert decider.send(command, ROLELESS).error_code is not None
    assert not any(isinstance(event, SchedulePaused) for event in decider.events)


@pytest.mark.parametrize("name", ["run", "backfill"])
def test_stop_of_the_job_overtakes_what_was_asked_for_before_it(name: str) -> None:
    decider = scheduled()
    decider.clock.advance_s(600)
    command: Command = RunSchedule(job_id=JOB) if name == "run" else span(decider, 5, 2)
    stop = seal(StopJob(job_id=JOB), OPERATOR, now_ms=decider.clock.now_ms())
    decider.take(replace(stop, accepted_ns=2))
    before = seal(command, OPERATOR, now_ms=decider.clock.now_ms())
    assert decider.take(replace(before, accepted_ns=1)).error_code == ErrorCode.SUPERSEDED
    after = seal(command, OPERATOR, now_ms=decider.clock.now_ms())
    assert decider.take(replace(after, accepted_ns=3)).error_code is None
