"""Why something waits, as one sentence: the first reason that holds, and none once nothing does."""

from bus.commands import PassTime, RestartJob, SetMaintenance, StartJob
from bus.job_definition import Overlap, RetrySpec
from bus.model import Execution
from tests.decision_fixture import Decider


def queued_behind_one(decider: Decider, **settings: object) -> tuple[Execution, Execution]:
    """What runs, and what waits for it."""
    decider.define("Demo/Job", overlap=Overlap.QUEUE, **settings)
    first = decider.send(StartJob(job_id="Demo/Job")).execution_id
    second = decider.send(StartJob(job_id="Demo/Job")).execution_id
    assert first is not None
    decider.runs(first)
    return decider.execution(first), decider.execution(second)


def reason(decider: Decider, execution: Execution) -> str:
    now = decider.execution(execution.id)
    return decider.table.waiting_for(now, decider.clock.now_ms())


def test_a_queued_one_says_that_the_slots_are_taken_since_when_and_its_position() -> None:
    decider = Decider()
    first, second = queued_behind_one(decider)
    third = decider.execution(decider.send(StartJob(job_id="Demo/Job")).execution_id)
    words = "waiting for a slot of Demo/Job: 1 of 1 running (since "
    assert reason(decider, second).startswith(words)
    assert reason(decider, second).endswith(" UTC), position 1")
    assert reason(decider, third).endswith(" UTC), position 2")
    assert reason(decider, first) == ""
    decider.ends(first.id)
    assert reason(decider, second) == "", "it has started"
    assert reason(decider, third).endswith(" UTC), position 1")


def test_slots_that_are_held_since_another_day_are_said_by_that_day() -> None:
    decider = Decider()
    _, second = queued_behind_one(decider)
    decider.clock.advance_s(3 * 86_400)
    assert " UTC" not in reason(decider, second)


def test_many_holders_are_not_all_named() -> None:
    decider = Decider()
    decider.define("Demo/Job", overlap=Overlap.QUEUE, max_running=9)
    for _ in range(9):
        decider.send(StartJob(job_id="Demo/Job"))
    last = decider.execution(decider.send(StartJob(job_id="Demo/Job")).execution_id)
    words = reason(decider, last)
    assert (words.count("since"), ", …)" in words, "9 of 9 running" in words) == (3, True, True)


def test_maintenance_is_the_reason_before_all_others() -> None:
    decider = Decider()
    _, second = queued_behind_one(decider)
    decider.report(SetMaintenance(on=True, by="root", reason="a new disk"))
    words = reason(decider, second)
    assert words.startswith("waiting for the end of the maintenance that holds since ")
    assert words.endswith(": a new disk")


def test_a_retry_waits_for_its_time() -> None:
    decider = Decider()
    decider.define("Demo/Job", retry=RetrySpec(attempts=2, delay_s=60.0, jitter=0.0))
    first = decider.send(StartJob(job_id="Demo/Job")).execution_id
    assert first is not None
    decider.runs(first)
    decider.ends(first, exit_code=1)
    [retry] = decider.table.queued("Demo/Job")
    assert reason(decider, retry).startswith("waiting for its time: retry at ")
    decider.clock.advance_s(61)
    decider.report(PassTime())
    assert reason(decider, retry) == ""


def test_a_restart_waits_for_the_end_of_what_it_replaces() -> None:
    decider = Decider()
    decider.define("Demo/Job")
    first = decider.send(StartJob(job_id="Demo/Job")).execution_id
    assert first is not None
    decider.runs(first)
    follower = decider.execution(decider.send(RestartJob(job_id="Demo/Job")).execution_id)
    words = f"waiting for the end of execution {first}, whose place it takes"
    assert reason(decider, follower) == words
