"""Retries and restarts by themselves: which ends, after how long, how often, whatever the clock."""

import pytest

from bus.commands import PassTime, ReportLost, ReportSpawnFailed, StartJob, StopJob
from bus.job_definition import Overlap, RestartPolicy, RestartSpec, RetrySpec
from bus.model import Execution, ExecutionStatus, Reason
from handlers.decisions.decision import Context
from handlers.decisions.retries import delay_of
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import parts_of
from handlers.decisions.timing import next_deadline_ms
from tests.decision_fixture import Decider

JOB = "Demo/Job"


def started(decider: Decider) -> str:
    execution_id = decider.send(StartJob(job_id=JOB)).execution_id
    assert execution_id is not None
    return execution_id


def waiting(decider: Decider) -> Execution | None:
    """The one that will follow by itself, if any."""
    found = decider.table.queued(JOB)
    return found[0] if found else None


def end(decider: Decider, execution_id: str, way: str) -> None:
    match way:
        case "success":
            decider.ends(execution_id, 0)
        case "failure":
            decider.ends(execution_id, 1)
        case "signal":
            decider.ends(execution_id, None, signal=11)
        case "run limit":
            decider.ends(execution_id, None, signal=15, cause=Reason.RUN_TIMEOUT)
        case "watchdog":
            decider.ends(execution_id, None, signal=6, cause=Reason.WATCHDOG)
        case "no program":
            decider.report(ReportSpawnFailed(execution_id=execution_id, error="nope"))
        case "lost":
            decider.report(ReportLost(execution_id=execution_id, reason="host_restart"))
        case "stopped":
            decider.runs(execution_id)
            decider.send(StopJob(job_id=JOB))
            decider.ends(execution_id, 0)
        case _:
            raise AssertionError(way)


FAILURES = ("failure", "signal", "run limit", "watchdog", "no program")
ENDS = ("success", *FAILURES, "lost", "stopped")


@pytest.mark.parametrize("way", ENDS)
@pytest.mark.parametrize("policy", list(RestartPolicy))
def test_restart_follows_an_end_by_its_policy(way: str, policy: RestartPolicy) -> None:
    decider = Decider()
    decider.define(restart=RestartSpec(policy=policy))
    end(decider, started(decider), way)
    follows = {
        RestartPolicy.NO: (),
        RestartPolicy.ON_FAILURE: (*FAILURES, "lost"),
        RestartPolicy.ALWAYS: ("success", *FAILURES, "lost"),
    }
    assert (waiting(decider) is not None) == (way in follows[policy])


@pytest.mark.parametrize("way", ENDS)
def test_retry_follows_failures_and_no_loss_unless_it_is_listed(way: str) -> None:
    decider = Decider()
    decider.define(retry=RetrySpec(attempts=2))
    end(decider, started(decider), way)
    assert (waiting(decider) is not None) == (way in FAILURES)
    listed = Decider()
    listed.define(retry=RetrySpec(attempts=2, on=(ExecutionStatus.LOST,)))
    end(listed, started(listed), way)
    assert (waiting(listed) is not None) == (way == "lost")


def test_delays_grow_up_to_their_most_and_jitter_only_adds() -> None:
    def delays(random: float) -> list[float]:
        context = Context(0, lambda: "", Decider().policy, lambda: random)
        return [delay_of(RetrySpec(), step, context) for step in (1, 2, 3, 6, 7, 100, 10_000)]

    assert delays(0.0) == [1, 2, 4, 32, 60, 60, 60]
    assert delays(1.0) == [1.25, 2.5, 5, 40, 75, 75, 75]


def cycle(decider: Decider, execution_id: str, ran_s: float) -> Execution | None:
    """It ran so long and failed; what follows has been started."""
    decider.runs(execution_id)
    decider.clock.advance_s(ran_s)
    decider.ends(execution_id, 1)
    follower = waiting(decider)
    if follower is not None and follower.not_before_ms is not None:
        decider.clock.advance_s((follower.not_before_ms - decider.clock.now_ms()) / 1000)
        decider.report(PassTime())
        assert decider.status(follower.id) is ExecutionStatus.STARTING
    return follower


def test_restarts_that_are_spread_over_more_than_the_window_go_on_for_ever() -> None:
    decider = Decider()
    spec = RestartSpec(policy=RestartPolicy.ALWAYS, limit=3, limit_window_s=600)
    decider.define(restart=spec)
    execution_id = started(decider)
    for _ in range(20):
        follower = cycle(decider, execution_id, 250)
        assert follower is not None
        execution_id = follower.id


def test_who_ran_long_enough_begins_with_the_shortest_delay_again() -> None:
    decider = Decider()
    decider.define(restart=RestartSpec(policy=RestartPolicy.ALWAYS), retry=RetrySpec(jitter=0))
    execution_id = started(decider)
    delays = []
    for ran_s in (0, 0, 0, 100, 0):
        follower = cycle(decider, execution_id, ran_s)
        assert follower is not None
        assert follower.not_before_ms is not None
        delays.append((follower.not_before_ms - follower.queued_ms) / 1000)
        execution_id = follower.id
    assert delays == [1, 2, 4, 1, 16]


def test_where_a_person_put_a_service_it_is_after_a_restart() -> None:
    decider = Decider()
    decider.define("Demo/Up", restart=RestartSpec(policy=RestartPolicy.ON_FAILURE))
    decider.define("Demo/Down", restart=RestartSpec(policy=RestartPolicy.ON_FAILURE))
    for job_id in ("Demo/Up", "Demo/Down"):
        decider.runs(decider.send(StartJob(job_id=job_id)).execution_id or "")
    decider.send(StopJob(job_id="Demo/Down"))
    decider.table = JobTable.thaw(parts_of(decider.table.freeze()))
    for execution in decider.table.live_executions():
        decider.report(ReportLost(execution_id=execution.id, reason="host_restart"))
    assert [e.job_id for e in decider.table.live_executions()] == ["Demo/Up"]


@pytest.mark.parametrize("hours", [-48, 48])
def test_clock_that_is_set_neither_holds_up_a_retry_nor_lets_it_wait_for_ever(hours: int) -> None:
    decider = Decider()
    decider.define(retry=RetrySpec(attempts=2, delay_s=30, jitter=0))
    end(decider, started(decider), "failure")
    follower = waiting(decider)
    assert follower is not None
    decider.clock.jump_wall_s(hours * 3600)
    now_ms = decider.clock.now_ms()
    due_ms = next_deadline_ms(decider.table, now_ms)
    assert due_ms is not None
    assert due_ms <= now_ms
    decider.report(PassTime())
    assert decider.status(follower.id) is ExecutionStatus.STARTING


def test_restarts_from_a_time_that_is_still_to_come_do_not_count() -> None:
    decider = Decider()
    decider.define(restart=RestartSpec(policy=RestartPolicy.ALWAYS, limit=2, limit_window_s=600))
    execution_id = started(decider)
    for _ in range(2):
        follower = cycle(decider, execution_id, 1)
        assert follower is not None
        execution_id = follower.id
    decider.clock.jump_wall_s(-86_400)
    assert cycle(decider, execution_id, 1) is not None


def test_who_has_waited_long_enough_and_has_no_slot_keeps_no_clock_busy() -> None:
    decider = Decider()
    decider.define(overlap=Overlap.QUEUE, retry=RetrySpec(attempts=2, delay_s=5, jitter=0))
    first = started(decider)
    second = decider.send(StartJob(job_id=JOB)).execution_id
    end(decider, first, "failure")
    assert decider.status(second) is ExecutionStatus.STARTING  # while the retry waits for its time
    decider.clock.advance_s(10)
    decider.report(PassTime())
    retry = waiting(decider)
    assert retry is not None
    assert next_deadline_ms(decider.table, decider.clock.now_ms()) is None
    decider.ends(second or "", 0)
    assert decider.status(retry.id) is ExecutionStatus.STARTING
