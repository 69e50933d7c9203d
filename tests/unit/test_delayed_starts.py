"""Delayed starts (`notBefore`) as decisions: accepted, waiting, and what becomes of them."""

import pytest

from bus.clock import rfc3339
from bus.commands import (
    ApplyCatalog,
    CancelCommand,
    PassTime,
    ReportClock,
    RestartJob,
    RetryExecution,
    SetMaintenance,
    StartJob,
    StopJob,
)
from bus.errors import ErrorCode
from bus.job_definition import Overlap, VariableSpec, VariableType
from bus.model import CommandRecord, CommandStatus, ExecutionStatus, Outcome, Reason, Value
from bus.ports import Policy
from handlers.decisions.decision import SpawnExecution
from handlers.decisions.timing import next_deadline_ms
from tests.decision_fixture import Decider

JOB = "Demo/Job"
START = StartJob(job_id=JOB)
HOUR_S = 3600
NUMBER = {"N": VariableSpec(type=VariableType.INTEGER, default=1)}


@pytest.fixture
def decider() -> Decider:
    decider = Decider()
    decider.define(variables=NUMBER)
    return decider


def later(decider: Decider, *, hours: float = 1, number: int = 1) -> StartJob:
    at_ms = decider.clock.now_ms() + int(hours * HOUR_S * 1000)
    variables: dict[str, Value] = {"N": number}
    return StartJob(job_id=JOB, variables=variables, not_before=rfc3339(at_ms))


def an_hour_passes(decider: Decider) -> None:
    decider.clock.advance_s(HOUR_S)
    decider.report(PassTime())


def running(decider: Decider, command: StartJob = START) -> str:
    execution_id = decider.send(command).execution_id
    assert execution_id is not None
    decider.runs(execution_id)
    return execution_id


def test_delayed_start_waits_without_a_slot_and_starts_when_its_moment_comes(
    decider: Decider,
) -> None:
    command = decider.send(later(decider))
    execution = decider.execution(command.execution_id)
    assert (command.status, execution.status) == (CommandStatus.RUNNING, ExecutionStatus.QUEUED)
    assert execution.not_before_ms == next_deadline_ms(decider.table, decider.clock.now_ms())
    assert decider.effects == []
    decider.clock.advance_s(HOUR_S - 1)
    assert decider.report(PassTime()) == []
    decider.clock.advance_s(1)
    decider.report(PassTime())
    assert decider.effects == [SpawnExecution(execution.id)]
    assert next_deadline_ms(decider.table, decider.clock.now_ms()) is None


def test_moment_that_has_passed_is_now(decider: Decider) -> None:
    command = decider.send(later(decider, hours=-1))
    assert decider.status(command.execution_id) is ExecutionStatus.STARTING
    assert decider.execution(command.execution_id).not_before_ms is None


def test_clock_that_is_set_back_moves_no_moment(decider: Decider) -> None:
    command = decider.send(later(decider))
    decider.clock.jump_wall_s(-48 * HOUR_S)
    assert decider.report(PassTime()) == []
    decider.clock.advance_s(48 * HOUR_S)
    assert decider.report(PassTime()) == []
    an_hour_passes(decider)
    assert decider.status(command.execution_id) is ExecutionStatus.STARTING


@pytest.mark.parametrize("number", [1, 2])
def test_start_now_leaves_a_delayed_start_alone(decider: Decider, number: int) -> None:
    waiting = decider.send(later(decider, number=number)).execution_id
    now = decider.send(START)
    assert decider.status(now.execution_id) is ExecutionStatus.STARTING
    assert decider.status(waiting) is ExecutionStatus.QUEUED
    decider.ends(now.execution_id or "")
    an_hour_passes(decider)
    assert decider.status(waiting) is ExecutionStatus.STARTING


@pytest.mark.parametrize("overlap", [Overlap.REJECT, Overlap.SKIP])
def test_without_a_slot_it_is_skipped_at_its_moment(decider: Decider, overlap: Overlap) -> None:
    decider.define(variables=NUMBER, overlap=overlap)
    first = running(decider)
    command = decider.send(later(decider))
    an_hour_passes(decider)
    execution = decider.execution(command.execution_id)
    assert (execution.status, execution.reason) == (ExecutionStatus.SKIPPED, Reason.OVERLAP)
    assert first in (execution.error or "")
    record = decider.command(command.id)
    assert (record.status, record.error_code) == (
        CommandStatus.CANCELLED,
        ErrorCode.ALREADY_RUNNING,
    )
    assert decider.status(first) is ExecutionStatus.RUNNING


def test_without_a_slot_it_waits_in_the_queue_of_a_job_that_has_one(decider: Decider) -> None:
    decider.define(variables=NUMBER, overlap=Overlap.QUEUE)
    first = running(decider)
    command = decider.send(later(decider))
    an_hour_passes(decider)
    assert decider.status(command.execution_id) is ExecutionStatus.QUEUED
    assert next_deadline_ms(decider.table, decider.clock.now_ms()) is None
    decider.ends(first)
    assert decider.status(command.execution_id) is ExecutionStatus.STARTING


def test_it_replaces_what_runs_at_its_moment_if_the_job_says_so(decider: Decider) -> None:
    decider.define(variables=NUMBER, overlap=Overlap.REPLACE)
    first = running(decider)
    older, newer = decider.send(later(decider)), decider.send(later(decider, number=2))
    much_later = decider.send(later(decider, hours=3))
    an_hour_passes(decider)
    stop = decider.execution(first).stop
    assert stop is not None
    assert (stop.reason, stop.command_id) == (Reason.REPLACED, newer.id)
    assert decider.command(older.id).error_code == ErrorCode.SUPERSEDED
    decider.ends(first, None, signal=15)
    assert decider.status(newer.execution_id) is ExecutionStatus.STARTING
    assert decider.status(much_later.execution_id) is ExecutionStatus.QUEUED


def test_it_replaces_what_runs_and_waits_under_any_name_of_its_job(decider: Decider) -> None:
    decider.define(variables=NUMBER, overlap=Overlap.QUEUE)
    first, delayed = running(decider), decider.send(later(decider))
    decider.rename(JOB, "Demo/New")
    queued = decider.send(StartJob(job_id="Demo/New", variables={"N": 2}))
    replaces = {"variables": NUMBER, "overlap": Overlap.REPLACE, "formerly": (JOB,)}
    decider.define("Demo/New", **replaces)
    an_hour_passes(decider)
    stop = decider.execution(first).stop
    assert stop is not None
    assert (stop.reason, stop.command_id) == (Reason.REPLACED, delayed.id)
    assert decider.command(queued.id).error_code == ErrorCode.SUPERSEDED


def test_replacing_start_takes_no_delayed_start_away(decider: Decider) -> None:
    decider.define(variables=NUMBER, overlap=Overlap.REPLACE)
    running(decider)
    waiting = decider.send(later(decider))
    decider.send(StartJob(job_id=JOB, variables={"N": 2}))
    decider.send(StartJob(job_id=JOB, variables={"N": 3}))
    assert decider.status(waiting.execution_id) is ExecutionStatus.QUEUED


def test_it_runs_by_the_definition_in_force_when_it_is_due(decider: Decider) -> None:
    command = decider.send(later(decider, number=5))
    decider.define(variables=NUMBER, description="newer")
    job = decider.table.job(JOB)
    assert job is not None
    an_hour_passes(decider)
    execution = decider.execution(command.execution_id)
    assert (execution.revision, execution.variables) == (job.revision, {"N": 5})


def test_job_that_is_disabled_or_gone_at_the_moment_skips_it(decider: Decider) -> None:
    commands = [decider.send(later(decider)), decider.send(later(decider, hours=2))]
    decider.define(variables=NUMBER, disabled=True)
    assert decider.status(commands[0].execution_id) is ExecutionStatus.QUEUED
    an_hour_passes(decider)
    decider.report(ApplyCatalog(definitions=()))
    an_hour_passes(decider)
    for command in commands:
        execution = decider.execution(command.execution_id)
        assert (execution.status, execution.reason) == (ExecutionStatus.SKIPPED, Reason.DISABLED)
        assert decider.command(command.id).error_code == ErrorCode.DISABLED


def test_definition_that_was_away_for_a_while_takes_nothing_with_it(decider: Decider) -> None:
    command = decider.send(later(decider))
    decider.report(ApplyCatalog(definitions=()))
    decider.define(variables=NUMBER)
    an_hour_passes(decider)
    assert decider.status(command.execution_id) is ExecutionStatus.STARTING


def test_maintenance_holds_what_is_due_until_its_end(decider: Decider) -> None:
    command = decider.send(later(decider))
    decider.report(SetMaintenance(on=True, by="root"))
    an_hour_passes(decider)
    assert decider.status(command.execution_id) is ExecutionStatus.QUEUED
    assert next_deadline_ms(decider.table, decider.clock.now_ms()) is None
    decider.report(SetMaintenance(on=False, by="root"))
    assert decider.status(command.execution_id) is ExecutionStatus.STARTING


def test_start_that_would_expire_before_its_moment_is_refused(decider: Decider) -> None:
    expires_ms = decider.clock.now_ms() + HOUR_S * 1000
    refused = decider.send(later(decider), expires_ms=expires_ms)
    assert refused.error_code == ErrorCode.MALFORMED
    assert "expiresAt" in (refused.error or "")
    taken = decider.send(later(decider), expires_ms=expires_ms + 1000)
    decider.clock.advance_s(HOUR_S + 1)
    decider.report(PassTime())
    assert decider.command(taken.id).status is CommandStatus.EXPIRED


def test_stop_of_the_job_takes_it_back_and_a_stop_of_another_execution_does_not(
    decider: Decider,
) -> None:
    first = running(decider)
    command = decider.send(later(decider))
    decider.send(StopJob(execution_id=first))
    assert decider.status(command.execution_id) is ExecutionStatus.QUEUED
    decider.send(StopJob(job_id=JOB))
    assert decider.command(command.id).error_code == ErrorCode.SUPERSEDED


def test_cancel_takes_it_back(decider: Decider) -> None:
    command = decider.send(later(decider))
    decider.send(CancelCommand(target_id=command.id))
    assert decider.command(command.id).status is CommandStatus.CANCELLED
    assert next_deadline_ms(decider.table, decider.clock.now_ms()) is None


def test_delayed_starts_have_a_bound_of_their_own_and_fill_no_queue() -> None:
    decider = Decider(Policy(queue_max=2))
    decider.define(overlap=Overlap.QUEUE, variables=NUMBER)
    running(decider)
    assert [decider.send(later(decider)).error_code for _ in range(3)] == [None, None, "queue_full"]
    assert [decider.send(START).error_code for _ in range(3)] == [None, None, "queue_full"]


@pytest.mark.parametrize("overlap", list(Overlap))
def test_same_delayed_start_twice_is_one_unless_the_job_queues(
    decider: Decider, overlap: Overlap
) -> None:
    decider.define(variables=NUMBER, overlap=overlap)
    command = later(decider)
    first, second = decider.send(command), decider.send(command)
    is_same = (second.outcome, second.execution_id) == (Outcome.NOOP, first.execution_id)
    assert is_same is (overlap is not Overlap.QUEUE)
    assert decider.send(later(decider, hours=2)).execution_id != first.execution_id


def test_restart_of_the_job_means_what_runs_and_not_what_is_planned(decider: Decider) -> None:
    waiting = decider.send(later(decider))
    again = decider.send(RestartJob(job_id=JOB))
    assert decider.status(again.execution_id) is ExecutionStatus.STARTING
    decider.runs(again.execution_id or "")
    assert decider.send(RestartJob(job_id=JOB)).error_code is None
    assert decider.status(waiting.execution_id) is ExecutionStatus.QUEUED


def test_restart_of_a_delayed_start_by_its_id_starts_it_now_if_there_is_a_slot(
    decider: Decider,
) -> None:
    waiting = decider.send(later(decider))
    named = RestartJob(execution_id=waiting.execution_id)
    first = running(decider)
    assert decider.send(named).error_code == ErrorCode.ALREADY_RUNNING
    decider.ends(first)
    assert decider.send(named).execution_id == waiting.execution_id
    assert decider.status(waiting.execution_id) is ExecutionStatus.STARTING


def test_retry_may_be_delayed_too(decider: Decider) -> None:
    first = running(decider)
    decider.ends(first, 1)
    not_before = later(decider).not_before
    again = decider.send(RetryExecution(execution_id=first, not_before=not_before))
    execution = decider.execution(again.execution_id)
    assert (execution.status, execution.previous) == (ExecutionStatus.QUEUED, first)
    an_hour_passes(decider)
    assert decider.status(again.execution_id) is ExecutionStatus.STARTING


def test_of_two_behind_a_stop_one_gets_the_slot_and_the_other_is_skipped(decider: Decider) -> None:
    first = running(decider)
    commands: list[CommandRecord] = [decider.send(later(decider, number=n)) for n in (1, 2)]
    decider.clock.advance_s(HOUR_S)
    decider.send(StopJob(execution_id=first))
    decider.report(PassTime())
    decider.ends(first, None, signal=15)
    decider.report(PassTime())
    statuses = [decider.status(command.execution_id) for command in commands]
    assert statuses == [ExecutionStatus.STARTING, ExecutionStatus.SKIPPED]


def test_clock_that_jumps_starts_nothing_until_it_is_believed_again(decider: Decider) -> None:
    due, far = decider.send(later(decider)), decider.send(later(decider, hours=9_000))
    decider.clock.jump_wall_s(8_760 * HOUR_S)
    decider.report(ReportClock(doubted=True, believed_ms=decider.clock.now_ms()))
    decider.report(PassTime())
    now = decider.send(START)
    decider.ends(now.execution_id or "")
    assert decider.status(due.execution_id) is ExecutionStatus.QUEUED
    assert next_deadline_ms(decider.table, decider.clock.now_ms()) != decider.clock.now_ms()
    waiting = decider.table.waiting_for(decider.execution(due.execution_id), decider.clock.now_ms())
    assert waiting == "waiting for a clock that is believed: the machine's has jumped"
    decider.report(ReportClock(doubted=False, by="olga"))
    decider.report(PassTime())
    assert decider.status(due.execution_id) is ExecutionStatus.STARTING
    assert decider.status(far.execution_id) is ExecutionStatus.QUEUED
