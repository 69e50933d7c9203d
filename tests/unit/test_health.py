"""What is decided when a program is found well or not well."""

import pytest

from bus.commands import PassTime, ReportHealth, StartJob, StopJob
from bus.events import ExecutionHealth, JobGaveUp
from bus.health import HealthAction, HealthSpec, HealthStatus
from bus.job_definition import RestartSpec, RetrySpec
from bus.model import ExecutionStatus, Outcome, Reason
from handlers.decisions.decision import StopExecution
from handlers.decisions.retries import RESTART
from tests.decision_fixture import Decider

START = StartJob(job_id="Demo/Job")
UNHEALTHY = HealthStatus.UNHEALTHY


@pytest.fixture
def decider() -> Decider:
    return Decider()


def running(decider: Decider, action: HealthAction, limit: int = 2, delay_s: float = 0.0) -> str:
    """A running execution of a job that is checked."""
    decider.define(
        health=HealthSpec(url="http://localhost/", action=action),
        restart=RestartSpec(limit=limit),
        retry=RetrySpec(delay_s=delay_s),
    )
    return started(decider)


def started(decider: Decider) -> str:
    execution_id = decider.send(START).execution_id
    assert execution_id is not None
    decider.runs(execution_id)
    return execution_id


def check(decider: Decider, execution_id: str, status: HealthStatus) -> None:
    decider.report(ReportHealth(execution_id=execution_id, status=status, message="said"))


def followers(decider: Decider, execution_id: str) -> list[str]:
    found = decider.table.live_of("Demo/Job")
    return [each.id for each in found if each.previous == execution_id]


def test_health_is_on_record_with_since_when_and_only_when_it_changes(decider: Decider) -> None:
    execution_id = running(decider, HealthAction.MARK)
    check(decider, execution_id, HealthStatus.HEALTHY)
    since_ms = decider.clock.now_ms()
    decider.clock.advance_s(5)
    check(decider, execution_id, HealthStatus.HEALTHY)
    health = decider.execution(execution_id).health
    assert health is not None
    assert (health.status, health.since_ms) == (HealthStatus.HEALTHY, since_ms)
    check(decider, execution_id, UNHEALTHY)
    assert len([e for e in decider.events if isinstance(e, ExecutionHealth)]) == 2
    assert decider.status(execution_id) is ExecutionStatus.RUNNING
    assert not any(isinstance(effect, StopExecution) for effect in decider.effects)


def test_what_is_being_stopped_or_has_not_begun_is_not_judged(decider: Decider) -> None:
    execution_id = running(decider, HealthAction.RESTART)
    decider.send(StopJob(job_id="Demo/Job"))
    check(decider, execution_id, UNHEALTHY)
    assert decider.execution(execution_id).health is None
    stop = decider.execution(execution_id).stop
    assert stop is not None
    assert stop.reason is Reason.USER


def test_unhealthy_is_stopped_and_started_again_without_a_policy_until_the_limit(
    decider: Decider,
) -> None:
    execution_id = running(decider, HealthAction.RESTART, limit=2)
    for _ in range(2):
        check(decider, execution_id, UNHEALTHY)
        assert decider.status(execution_id) is ExecutionStatus.STOPPING
        assert decider.effects[-1] == StopExecution(execution_id)
        decider.ends(execution_id, 0, cause=Reason.UNHEALTHY)
        ended = decider.execution(execution_id)
        assert (ended.status, ended.reason) == (ExecutionStatus.FAILED, Reason.UNHEALTHY)
        [execution_id] = followers(decider, execution_id)
        assert decider.execution(execution_id).cause == RESTART
        decider.report(PassTime())
        decider.runs(execution_id)
    check(decider, execution_id, UNHEALTHY)
    decider.ends(execution_id, 0, cause=Reason.UNHEALTHY)
    assert followers(decider, execution_id) == []
    assert isinstance(decider.events[-1], JobGaveUp)


def test_other_ends_are_left_to_the_policy_of_restart(decider: Decider) -> None:
    execution_id = running(decider, HealthAction.RESTART)
    decider.ends(execution_id, 1)
    assert followers(decider, execution_id) == []


@pytest.mark.parametrize("cause", [Reason.UNHEALTHY, Reason.WATCHDOG])
def test_stop_by_a_person_counts_although_something_else_was_ending_it(
    decider: Decider, cause: Reason
) -> None:
    execution_id = running(decider, HealthAction.RESTART)
    check(decider, execution_id, UNHEALTHY)
    stop = decider.send(StopJob(job_id="Demo/Job"))
    decider.ends(execution_id, 0, cause=cause)
    assert followers(decider, execution_id) == []
    assert decider.command(stop.id).outcome is Outcome.MERGED


def test_a_waiting_restart_stays_ordered_while_its_job_is_healed(decider: Decider) -> None:
    execution_id = running(decider, HealthAction.RESTART, delay_s=60.0)
    check(decider, execution_id, UNHEALTHY)
    decider.ends(execution_id, 0, cause=Reason.UNHEALTHY)
    [waiting] = followers(decider, execution_id)
    for action, status in (
        (HealthAction.RESTART, ExecutionStatus.QUEUED),
        (HealthAction.MARK, ExecutionStatus.SKIPPED),
    ):
        decider.define(health=HealthSpec(url="http://localhost/2", action=action))
        assert decider.status(waiting) is status
