"""Slots across jobs: who waits for what, in which order, how long at most; pauses, start limits."""

from collections.abc import Sequence

import pytest

from bus.clock import rfc3339
from bus.commands import (
    ApplyCatalog,
    Command,
    PassTime,
    PauseQueue,
    ReportUnknown,
    RestartJob,
    ResumeQueue,
    SetGroups,
    SetMaintenance,
    StartJob,
    StopJob,
)
from bus.errors import ErrorCode
from bus.groups import OVERDUE_MS, POINT_MS, StartLimitSpec
from bus.job_definition import Overlap, RestartPolicy, RestartSpec, RetrySpec, RolesSpec
from bus.model import CommandStatus, ExecutionStatus, Outcome, Principal
from handlers.decisions.timing import next_deadline_ms
from tests.decision_fixture import OPERATOR, VIEWER, Decider

DB = ("database",)
HOUR_S = OVERDUE_MS / 1000


@pytest.fixture
def decider() -> Decider:
    decider = Decider()
    decider.report(SetGroups(limits={"database": 1, "disk": 1}))
    return decider


def start(decider: Decider, job_id: str) -> str:
    record = decider.send(StartJob(job_id=job_id))
    assert record.execution_id is not None, record.error
    return record.execution_id


def defined(decider: Decider, *jobs: str, groups: Sequence[str] = DB, **settings: object) -> None:
    for job_id in jobs:
        decider.define(job_id, groups=tuple(groups), **settings)


def has_slot(decider: Decider, execution_id: str) -> bool:
    return decider.status(execution_id) is ExecutionStatus.STARTING


def reason(decider: Decider, execution_id: str) -> str:
    execution = decider.execution(execution_id)
    return decider.table.waiting_for(execution, decider.clock.now_ms())


@pytest.mark.parametrize("overlap", list(Overlap))
def test_a_start_waits_for_a_full_group_whatever_its_overlap_is(
    decider: Decider, overlap: Overlap
) -> None:
    defined(decider, "A/One", "A/Two", overlap=overlap)
    first, second = start(decider, "A/One"), start(decider, "A/Two")
    assert (has_slot(decider, first), has_slot(decider, second)) == (True, False)
    words = reason(decider, second)
    assert words.startswith("waiting for group database: 1 of 1 running (A/One since ")
    assert words.endswith(" UTC), position 1")
    decider.runs(first)
    decider.ends(first)
    assert has_slot(decider, second)
    assert decider.execution(second).groups == DB


def test_what_waits_for_a_group_counts_for_the_overlap_of_its_job(decider: Decider) -> None:
    defined(decider, "A/One")
    start(decider, "A/One")
    outcomes = {}
    for overlap in Overlap:
        job_id = f"B/{overlap.title()}"
        variables = {"N": {"type": "integer"}}
        assert variables
        defined(decider, job_id, overlap=overlap)
        waits = start(decider, job_id)
        again = decider.send(StartJob(job_id=job_id))
        outcomes[overlap] = (again.status, again.outcome, again.execution_id == waits)
    same = (CommandStatus.COMPLETED, Outcome.NOOP, True)
    another = (CommandStatus.RUNNING, None, False)
    assert outcomes == {
        Overlap.REJECT: same,
        Overlap.SKIP: same,
        Overlap.REPLACE: same,
        Overlap.QUEUE: another,
    }


@pytest.mark.parametrize(
    ("state", "holds"), [("Unknown", True), ("Stopping", True), ("Succeeded", False)]
)
def test_a_slot_is_held_until_the_end(decider: Decider, state: str, holds: bool) -> None:
    defined(decider, "A/One", "A/Two")
    first, second = start(decider, "A/One"), start(decider, "A/Two")
    decider.runs(first)
    match state:
        case "Unknown":
            decider.report(ReportUnknown(execution_id=first))
        case "Stopping":
            decider.send(StopJob(job_id="A/One"))
        case _:
            decider.ends(first)
            decider.ends(first)  # a second report frees nothing again
    assert decider.status(first).value == state
    assert has_slot(decider, second) is not holds


def test_the_higher_priority_goes_first_and_the_older_among_equals(decider: Decider) -> None:
    defined(decider, "A/One", "A/Low", "A/Low2")
    defined(decider, "A/High", priority=10)
    running = start(decider, "A/One")
    low, low2, high = (start(decider, f"A/{name}") for name in ("Low", "Low2", "High"))
    assert [reason(decider, i)[-1] for i in (high, low, low2)] == ["1", "2", "3"]
    order = []
    while waiting := [i for i in (low, low2, high) if i not in order]:
        decider.ends(running)
        [running] = [i for i in waiting if has_slot(decider, i)]
        order.append(running)
    assert order == [high, low, low2]


def test_a_point_of_priority_is_worth_a_fixed_wait(decider: Decider) -> None:
    defined(decider, "A/One", "A/Low")
    defined(decider, "A/High", priority=10)
    running, low = start(decider, "A/One"), start(decider, "A/Low")
    decider.clock.advance_s(10 * POINT_MS / 1000 + 1)
    high = start(decider, "A/High")
    decider.ends(running)
    assert (has_slot(decider, low), has_slot(decider, high)) == (True, False)


@pytest.mark.parametrize("jump_s", [0.0, 365 * 86_400.0, -86_400.0])
def test_nothing_starves_behind_higher_priorities(decider: Decider, jump_s: float) -> None:
    """The lowest waits behind a flood of the highest, which never leaves the group idle: no longer
    than an hour and one run, and a clock that jumps does not change that."""
    defined(decider, "A/Lowest", priority=-100)
    defined(decider, "A/Flood", priority=100, overlap=Overlap.QUEUE)
    runs_s = 60.0
    running = start(decider, "A/Flood")
    lowest = start(decider, "A/Lowest")
    decider.clock.jump_wall_s(jump_s)
    waited_s = 0.0
    waiting = [start(decider, "A/Flood") for _ in range(3)]
    while not has_slot(decider, lowest):
        assert waited_s <= HOUR_S + 5 * runs_s
        decider.clock.advance_s(runs_s)
        waited_s += runs_s
        waiting.append(start(decider, "A/Flood"))
        decider.ends(running)
        if not has_slot(decider, lowest):
            running = waiting.pop(0)
            assert has_slot(decider, running)
    # A jump ahead counts as an hour at most: what comes after it is an hour younger.
    assert waited_s >= HOUR_S or jump_s > 0


def test_a_job_of_several_groups_starves_no_longer_than_an_hour_and_a_run(
    decider: Decider,
) -> None:
    """Each group alone is busy all the time, and never are both free at once."""
    defined(decider, "A/Both", groups=("database", "disk"))
    defined(decider, "A/Db", overlap=Overlap.QUEUE)
    defined(decider, "A/Disk", groups=("disk",), overlap=Overlap.QUEUE)
    running = {name: start(decider, f"A/{name}") for name in ("Db", "Disk")}
    both = start(decider, "A/Both")
    waited_s, run_s = 0.0, 120.0
    for round_number in range(1000):
        if has_slot(decider, both):
            break
        name = ("Db", "Disk")[round_number % 2]
        following = start(decider, f"A/{name}")
        decider.clock.advance_s(run_s / 2)
        waited_s += run_s / 2
        if decider.status(running[name]) is not ExecutionStatus.QUEUED:
            decider.ends(running[name])
            running[name] = following
    assert has_slot(decider, both)
    assert HOUR_S - run_s <= waited_s <= HOUR_S + 2 * run_s


def test_one_that_waits_for_a_full_group_keeps_none_from_the_other(decider: Decider) -> None:
    defined(decider, "A/Db", "A/Db2")
    defined(decider, "A/Disk", "A/Disk2", groups=("disk",))
    defined(decider, "A/Both", groups=("database", "disk"), priority=100)
    db, disk = start(decider, "A/Db"), start(decider, "A/Disk")
    both = start(decider, "A/Both")
    disk2 = start(decider, "A/Disk2")
    decider.ends(disk)
    assert (has_slot(decider, disk2), has_slot(decider, both)) == (True, False)
    assert reason(decider, both).startswith("waiting for group database: ")
    db2 = start(decider, "A/Db2")
    decider.ends(disk2)
    decider.ends(db)
    assert (has_slot(decider, both), has_slot(decider, db2)) == (True, False)


def test_slots_that_are_kept_for_one_are_given_out_when_it_waits_no_more(
    decider: Decider,
) -> None:
    defined(decider, "A/Db")
    defined(decider, "A/Disk", "A/Disk2", groups=("disk",))
    defined(decider, "A/Both", groups=("database", "disk"))
    start(decider, "A/Db")
    disk = start(decider, "A/Disk")
    both = decider.send(StartJob(job_id="A/Both"))
    decider.clock.advance_s(HOUR_S + 1)
    disk2 = start(decider, "A/Disk2")
    decider.ends(disk)
    assert not has_slot(decider, disk2), "the slot is kept"
    decider.send(StopJob(execution_id=both.execution_id))
    now_ms = decider.clock.now_ms()
    assert next_deadline_ms(decider.table, now_ms) == now_ms
    decider.report(PassTime())
    assert has_slot(decider, disk2)


def test_a_limit_that_is_raised_starts_what_waits_and_a_lowered_one_ends_nothing(
    decider: Decider,
) -> None:
    defined(decider, *(f"A/{n}" for n in range(4)))
    ids = [start(decider, f"A/{n}") for n in range(4)]
    decider.report(SetGroups(limits={"database": 3, "disk": 1}))
    assert [has_slot(decider, i) for i in ids] == [True, True, True, False]
    decider.report(SetGroups(limits={"database": 1, "disk": 1}))
    decider.ends(ids[0])
    decider.ends(ids[1])
    assert has_slot(decider, ids[2])
    assert not has_slot(decider, ids[3]), "one still runs, and one may"
    assert "1 of 1 running" in reason(decider, ids[3])
    decider.ends(ids[2])
    assert has_slot(decider, ids[3])


def test_a_group_that_was_removed_keeps_its_last_limit_while_it_is_used(decider: Decider) -> None:
    defined(decider, "A/One", "A/Two")
    first, second = start(decider, "A/One"), start(decider, "A/Two")
    decider.report(SetGroups(limits={}))
    kept = decider.table.group("database")
    assert kept is not None
    assert (kept.is_defined, kept.max_running) == (False, 1)
    assert decider.table.group("disk") is None, "nobody uses it"
    assert not has_slot(decider, second)
    decider.ends(first)
    assert has_slot(decider, second)
    decider.report(SetGroups(limits={"database": 2}))
    again = decider.table.group("database")
    assert again is not None
    assert (again.is_defined, again.max_running) == (True, 2)


def test_starts_of_one_decision_take_each_slot_once(decider: Decider) -> None:
    """An end of maintenance, a catalog and a limit start things of many jobs at once."""
    defined(decider, *(f"A/{n}" for n in range(4)))
    first, *others = [start(decider, f"A/{n}") for n in range(4)]
    decider.report(SetMaintenance(on=True, by="root"))
    decider.ends(first)
    decider.report(SetMaintenance(on=False, by="root"))
    assert [has_slot(decider, i) for i in others] == [True, False, False]
    decider.ends(others[0])
    assert [has_slot(decider, i) for i in others[1:]] == [True, False]


def test_a_restart_keeps_its_slot(decider: Decider) -> None:
    defined(decider, "A/One")
    defined(decider, "A/Two", priority=100)
    first, second = start(decider, "A/One"), start(decider, "A/Two")
    decider.runs(first)
    again = decider.send(RestartJob(job_id="A/One")).execution_id or ""
    decider.ends(first)
    assert (has_slot(decider, again), has_slot(decider, second)) == (True, False)


def test_a_retry_gives_its_slot_away_during_its_delay(decider: Decider) -> None:
    defined(decider, "A/One", retry=RetrySpec(attempts=2, delay_s=60.0, jitter=0.0))
    defined(decider, "A/Two")
    first, second = start(decider, "A/One"), start(decider, "A/Two")
    decider.ends(first, exit_code=1)
    assert has_slot(decider, second)
    [retry] = decider.table.queued("A/One")
    decider.clock.advance_s(61)
    decider.report(PassTime())
    assert decider.status(retry.id) is ExecutionStatus.QUEUED
    decider.ends(second)
    assert has_slot(decider, retry.id)


def test_a_new_definition_counts_for_what_waits_and_not_for_what_runs(decider: Decider) -> None:
    defined(decider, "A/One", "A/Two")
    start(decider, "A/One")
    second = start(decider, "A/Two")
    defined(decider, "A/One", groups=("disk",))
    assert not has_slot(decider, second), "what runs holds the slot that it took"
    defined(decider, "A/Two", groups=("disk",))
    assert has_slot(decider, second)
    assert decider.execution(second).groups == ("disk",)


def test_holders_are_named_as_far_as_all_who_see_it_may_know_of_them(decider: Decider) -> None:
    decider.report(SetGroups(limits={"database": 4}))
    defined(decider, "A/Open", "A/Waits", max_running=2, overlap=Overlap.QUEUE)
    defined(decider, "A/Secret", roles=RolesSpec(view=("boss",)))
    defined(decider, "A/Boss", roles=RolesSpec(view=("boss",)))
    admin = Principal(user_id="root", roles=("admin",), via="http")
    for job_id in ("A/Open", "A/Open", "A/Secret"):
        decider.send(StartJob(job_id=job_id), admin)
    last = decider.send(StartJob(job_id="A/Boss"), admin).execution_id or ""
    waits = start(decider, "A/Waits")
    words = reason(decider, waits)
    assert "4 of 4 running (A/Open since " in words
    assert "2 of other jobs)" in words
    assert "Secret" not in words
    decider.ends(last)
    boss = decider.send(StartJob(job_id="A/Boss"), admin).execution_id or ""
    assert "A/Secret since " in reason(decider, boss)
    assert "A/Open" not in reason(decider, boss)


# -- pauses


PAUSES = [
    (PauseQueue(job_id="A/One", reason="why"), ResumeQueue(job_id="A/One")),
    (PauseQueue(group="database", reason="why"), ResumeQueue(group="database")),
]


@pytest.mark.parametrize(("pause", "resume"), PAUSES, ids=["job", "group"])
@pytest.mark.parametrize("overlap", list(Overlap))
def test_what_is_asked_for_during_a_pause_waits_and_starts_when_it_ends(
    decider: Decider, overlap: Overlap, pause: Command, resume: Command
) -> None:
    defined(decider, "A/One", overlap=overlap)
    running = start(decider, "A/One")
    decider.ends(running)
    assert decider.send(pause).outcome is Outcome.DONE
    assert decider.send(pause).outcome is Outcome.NOOP
    waits = start(decider, "A/One")
    assert not has_slot(decider, waits)
    words = reason(decider, waits)
    assert ("which olga has paused since " in words, words.endswith(": why")) == (True, True)
    decider.report(PassTime())
    assert not has_slot(decider, waits)
    assert decider.send(resume).outcome is Outcome.DONE
    assert has_slot(decider, waits)
    assert decider.send(resume).outcome is Outcome.NOOP


def test_what_runs_goes_on_during_a_pause_and_may_be_restarted(decider: Decider) -> None:
    defined(decider, "A/One")
    running = start(decider, "A/One")
    decider.runs(running)
    decider.send(PauseQueue(job_id="A/One"))
    assert decider.status(running) is ExecutionStatus.RUNNING
    again = decider.send(RestartJob(job_id="A/One")).execution_id or ""
    decider.ends(running)
    assert has_slot(decider, again), "it brings no more work than there was"


def test_retries_and_automatic_restarts_wait_for_the_end_of_a_pause(decider: Decider) -> None:
    defined(
        decider,
        "A/One",
        restart=RestartSpec(policy=RestartPolicy.ALWAYS),
        retry=RetrySpec(delay_s=1.0, jitter=0.0),
    )
    running = start(decider, "A/One")
    decider.send(PauseQueue(group="database"))
    decider.ends(running)
    decider.clock.advance_s(5)
    decider.report(PassTime())
    [again] = decider.table.queued("A/One")
    assert decider.status(again.id) is ExecutionStatus.QUEUED
    decider.send(ResumeQueue(group="database"))
    assert has_slot(decider, again.id)


def test_a_pause_ends_at_its_time(decider: Decider) -> None:
    defined(decider, "A/One")
    until = decider.clock.now_ms() + 60_000
    decider.send(PauseQueue(group="database", until=rfc3339(until)))
    waits = start(decider, "A/One")
    assert next_deadline_ms(decider.table, decider.clock.now_ms()) == until
    decider.clock.advance_s(59)
    decider.report(PassTime())
    assert not has_slot(decider, waits)
    decider.clock.advance_s(1)
    decider.report(PassTime())
    assert has_slot(decider, waits)
    group = decider.table.group("database")
    assert group is not None
    assert group.paused is None


def test_a_pause_outlives_a_definition_that_is_gone_for_a_moment(decider: Decider) -> None:
    defined(decider, "A/One")
    decider.send(PauseQueue(job_id="A/One", reason="why"))
    decider.report(ApplyCatalog(definitions=()))
    assert decider.table.job("A/One") is None
    defined(decider, "A/One")
    waits = start(decider, "A/One")
    assert "paused" in reason(decider, waits)


def test_a_pause_goes_on_under_the_new_name_even_if_that_is_claimed_later(
    decider: Decider,
) -> None:
    defined(decider, "A/One")
    decider.send(PauseQueue(job_id="A/One", reason="why"))
    decider.report(ApplyCatalog(definitions=()))
    defined(decider, "A/Two")
    defined(decider, "A/Two", formerly=("A/One",))
    waits = start(decider, "A/Two")
    assert "paused" in reason(decider, waits)


def test_what_cannot_be_paused_is_refused_with_what_would_be_right(decider: Decider) -> None:
    defined(decider, "A/One")
    past = rfc3339(decider.clock.now_ms())
    cases: list[tuple[Command, Principal, ErrorCode, str]] = [
        (PauseQueue(group="databse"), OPERATOR, ErrorCode.UNKNOWN_GROUP, "database"),
        (PauseQueue(group="database"), VIEWER, ErrorCode.NOT_PERMITTED, "operator or admin"),
        (PauseQueue(job_id="A/One"), VIEWER, ErrorCode.NOT_PERMITTED, "`stop`"),
        (ResumeQueue(job_id="A/One"), VIEWER, ErrorCode.NOT_PERMITTED, "`start`"),
        (PauseQueue(job_id="A/Two"), OPERATOR, ErrorCode.UNKNOWN_JOB, "A/Two"),
        (PauseQueue(), OPERATOR, ErrorCode.MALFORMED, "name a job"),
        (PauseQueue(job_id="A/One", group="database"), OPERATOR, ErrorCode.MALFORMED, "name"),
        (PauseQueue(job_id="A/One", until=past), OPERATOR, ErrorCode.MALFORMED, "ahead"),
        (PauseQueue(job_id="A/One", reason="x" * 501), OPERATOR, ErrorCode.MALFORMED, "500"),
    ]
    for command, principal, code, words in cases:
        record = decider.send(command, principal)
        assert (record.status, record.error_code) == (CommandStatus.REJECTED, code), command
        assert words in (record.error or "")


# -- start limits


LIMIT = StartLimitSpec(count=2, within_s=60.0)


def over_the_limit(decider: Decider, **settings: object) -> None:
    """The job has been started as often as it may, and both have ended."""
    decider.define("A/One", start_limit=LIMIT, **settings)
    for _ in range(2):
        decider.ends(start(decider, "A/One"))
        decider.clock.advance_s(10)


def test_a_start_over_the_limit_is_refused_with_when_it_may_start_again(decider: Decider) -> None:
    over_the_limit(decider)
    refused = decider.send(StartJob(job_id="A/One"))
    assert (refused.status, refused.error_code) == (CommandStatus.REJECTED, ErrorCode.START_LIMIT)
    assert "2 times within 1 min" in (refused.error or "")
    decider.clock.advance_s(40)
    assert has_slot(decider, start(decider, "A/One"))


def test_overlap_decides_what_becomes_of_a_start_over_the_limit(decider: Decider) -> None:
    over_the_limit(decider, overlap=Overlap.SKIP)
    assert decider.send(StartJob(job_id="A/One")).outcome is Outcome.NOOP
    decider.define("A/One", start_limit=LIMIT, overlap=Overlap.QUEUE)
    first, second = start(decider, "A/One"), start(decider, "A/One")
    assert reason(decider, first).startswith("waiting for the start_limit of A/One: 2 starts")
    due = next_deadline_ms(decider.table, decider.clock.now_ms())
    assert due is not None
    decider.clock.advance_s((due - decider.clock.now_ms()) / 1000)
    decider.report(PassTime())
    assert (has_slot(decider, first), has_slot(decider, second)) == (True, False)


def test_a_restart_over_the_limit_is_refused_and_what_runs_goes_on(decider: Decider) -> None:
    decider.define("A/One", start_limit=StartLimitSpec(count=1, within_s=60.0))
    running = start(decider, "A/One")
    decider.runs(running)
    refused = decider.send(RestartJob(job_id="A/One"))
    assert refused.error_code == ErrorCode.START_LIMIT
    assert decider.status(running) is ExecutionStatus.RUNNING


def test_retries_count_and_wait_for_the_limit(decider: Decider) -> None:
    retry = RetrySpec(attempts=3, delay_s=1.0, backoff=1.0, jitter=0.0)
    decider.define("A/One", start_limit=LIMIT, retry=retry)
    first = start(decider, "A/One")
    decider.ends(first, exit_code=1)
    decider.clock.advance_s(2)
    decider.report(PassTime())
    [second] = decider.table.live_of("A/One")
    decider.ends(second.id, exit_code=1)
    decider.clock.advance_s(2)
    decider.report(PassTime())
    [third] = decider.table.queued("A/One")
    assert "start_limit" in reason(decider, third.id)
    decider.clock.advance_s(60)
    decider.report(PassTime())
    assert has_slot(decider, third.id)


def test_starts_are_counted_over_a_definition_that_is_gone_for_a_moment(decider: Decider) -> None:
    over_the_limit(decider)
    decider.report(ApplyCatalog(definitions=()))
    decider.define("A/One", start_limit=LIMIT)
    assert decider.send(StartJob(job_id="A/One")).error_code == ErrorCode.START_LIMIT


def test_a_clock_that_is_set_back_lifts_the_limit_instead_of_closing_it_for_long(
    decider: Decider,
) -> None:
    over_the_limit(decider)
    decider.clock.jump_wall_s(-86_400)
    assert has_slot(decider, start(decider, "A/One"))
