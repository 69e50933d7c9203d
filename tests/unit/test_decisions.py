"""The table of overlaps and the final states, as decisions on a table without a disk."""

import pytest
from msgspec.structs import replace

from bus.commands import (
    CancelCommand,
    DeleteExecution,
    GetStatus,
    PassTime,
    ReportLost,
    ReportProgress,
    ReportSpawnFailed,
    ReportUnknown,
    RestartJob,
    RetryExecution,
    StartJob,
    StopJob,
)
from bus.envelope import seal
from bus.errors import ErrorCode
from bus.events import ExecutionEnded
from bus.jobs import (
    Overlap,
    RestartPolicy,
    RestartSpec,
    RetrySpec,
    RolesSpec,
    VariableSpec,
    VariableType,
)
from bus.model import CommandStatus, ExecutionStatus, Outcome, Principal, Progress, Reason
from bus.ports import Policy
from handlers.decisions.decision import DeleteFiles, SpawnExecution, StopExecution
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import parts_of
from tests.decision_fixture import OPERATOR, ROLELESS, VIEWER, World

START = StartJob(job_id="Demo/Job")
STOP = StopJob(job_id="Demo/Job")
RESTART = RestartJob(job_id="Demo/Job")


@pytest.fixture
def world() -> World:
    world = World()
    world.define()
    return world


def test_start_takes_the_free_slot_and_completes_when_the_program_runs(world: World) -> None:
    command = world.send(START)
    assert command.status is CommandStatus.RUNNING
    assert world.status(command.execution_id) is ExecutionStatus.STARTING
    assert command.execution_id is not None
    assert world.effects == [SpawnExecution(command.execution_id)]

    world.runs(command.execution_id)
    assert world.command(command.id).outcome is Outcome.DONE
    world.ends(command.execution_id)
    assert world.status(command.execution_id) is ExecutionStatus.SUCCEEDED


def test_start_that_ends_before_it_was_seen_running_still_passes_through_running(
    world: World,
) -> None:
    command = world.send(START)
    assert command.execution_id is not None
    world.ends(command.execution_id, 3)
    assert [type(e).__name__ for e in world.events[-3:]] == [
        "ExecutionRunning",
        "CommandEnded",
        "ExecutionEnded",
    ]
    assert world.execution(command.execution_id).exit_code == 3
    assert world.status(command.execution_id) is ExecutionStatus.FAILED


def test_start_of_an_unknown_job_is_rejected_and_changes_nothing(world: World) -> None:
    command = world.send(StartJob(job_id="No/Such"))
    assert command.status is CommandStatus.REJECTED
    assert command.error_code == ErrorCode.UNKNOWN_JOB
    assert world.effects == []


def test_start_while_running_is_rejected_by_default(world: World) -> None:
    first = world.send(START)
    assert first.execution_id is not None
    world.runs(first.execution_id)
    second = world.send(START)
    assert second.error_code == ErrorCode.ALREADY_RUNNING
    assert second.error is not None
    assert first.execution_id in second.error


def test_start_while_starting_with_the_same_variables_is_a_noop(world: World) -> None:
    first = world.send(START)
    second = world.send(START)
    assert (second.outcome, second.execution_id) == (Outcome.NOOP, first.execution_id)


def test_queue_starts_in_order_when_the_slot_is_free(world: World) -> None:
    world.define(overlap=Overlap.QUEUE)
    first, second, third = (world.send(START) for _ in range(3))
    assert first.execution_id is not None
    assert world.status(second.execution_id) is ExecutionStatus.QUEUED
    world.runs(first.execution_id)
    world.ends(first.execution_id)
    assert world.status(second.execution_id) is ExecutionStatus.STARTING
    assert world.status(third.execution_id) is ExecutionStatus.QUEUED


def test_queue_refuses_when_it_is_full() -> None:
    world = World(Policy(queue_max=2))
    world.define(overlap=Overlap.QUEUE)
    for _ in range(3):
        world.send(START)
    assert world.send(START).error_code == ErrorCode.QUEUE_FULL


def test_replace_stops_the_old_and_starts_the_new(world: World) -> None:
    world.define(overlap=Overlap.REPLACE)
    first = world.send(START)
    assert first.execution_id is not None
    world.runs(first.execution_id)
    second = world.send(START)
    assert world.status(first.execution_id) is ExecutionStatus.STOPPING
    world.ends(first.execution_id, None, signal=15)
    assert world.status(first.execution_id) is ExecutionStatus.STOPPED
    assert world.execution(first.execution_id).reason is Reason.REPLACED
    assert world.status(second.execution_id) is ExecutionStatus.STARTING


def test_skip_answers_with_the_running_execution(world: World) -> None:
    world.define(overlap=Overlap.SKIP)
    first = world.send(START)
    assert first.execution_id is not None
    world.runs(first.execution_id)
    second = world.send(START)
    assert (second.outcome, second.execution_id) == (Outcome.NOOP, first.execution_id)


def test_max_running_gives_that_many_slots(world: World) -> None:
    world.define(max_running=2)
    first, second = world.send(START), world.send(START)
    assert first.execution_id != second.execution_id
    assert first.execution_id is not None
    assert second.execution_id is not None
    world.runs(first.execution_id)
    world.runs(second.execution_id)
    assert world.send(START).error_code == ErrorCode.ALREADY_RUNNING


def test_start_while_stopping_waits_behind(world: World) -> None:
    first = world.send(START)
    assert first.execution_id is not None
    world.runs(first.execution_id)
    world.send(STOP)
    second = world.send(START)
    assert world.status(second.execution_id) is ExecutionStatus.QUEUED
    world.ends(first.execution_id, None, signal=15)
    assert world.status(second.execution_id) is ExecutionStatus.STARTING


def test_stop_of_an_idle_job_is_a_noop(world: World) -> None:
    assert world.send(STOP).outcome is Outcome.NOOP


def test_stop_completes_when_the_tree_is_gone_whatever_the_exit_code(world: World) -> None:
    start = world.send(START)
    assert start.execution_id is not None
    world.runs(start.execution_id)
    stop = world.send(STOP)
    assert stop.status is CommandStatus.RUNNING
    assert StopExecution(start.execution_id) in world.effects
    world.ends(start.execution_id, 0)
    assert world.status(start.execution_id) is ExecutionStatus.STOPPED
    assert world.command(stop.id).outcome is Outcome.DONE


def test_stop_fails_when_something_survived(world: World) -> None:
    start = world.send(START)
    assert start.execution_id is not None
    world.runs(start.execution_id)
    stop = world.send(STOP)
    world.ends(start.execution_id, None, signal=9, contained=False)
    execution = world.execution(start.execution_id)
    assert execution.status is ExecutionStatus.FAILED
    assert execution.reason is Reason.STOP_INCOMPLETE
    assert execution.survivors == (4711,)
    assert world.command(stop.id).error_code == ErrorCode.STOP_INCOMPLETE


def test_stop_supersedes_the_start_that_has_not_come_through(world: World) -> None:
    start = world.send(START)
    world.send(STOP)
    assert world.command(start.id).status is CommandStatus.CANCELLED
    assert world.command(start.id).error_code == ErrorCode.SUPERSEDED


def test_stop_cancels_what_is_queued(world: World) -> None:
    world.define(overlap=Overlap.QUEUE)
    first, second = world.send(START), world.send(START)
    assert first.execution_id is not None
    stop = world.send(STOP)
    assert world.status(second.execution_id) is ExecutionStatus.CANCELLED
    assert world.command(second.id).error_code == ErrorCode.SUPERSEDED
    world.ends(first.execution_id, None, signal=15)
    assert world.command(stop.id).status is CommandStatus.COMPLETED


def test_second_stop_merges_and_only_a_sharper_one_is_passed_on(world: World) -> None:
    start = world.send(START)
    assert start.execution_id is not None
    world.runs(start.execution_id)
    first = world.send(StopJob(job_id="Demo/Job", grace_s=30))
    orders = len(world.effects)
    second = world.send(StopJob(job_id="Demo/Job", grace_s=60))
    assert len(world.effects) == orders
    world.send(StopJob(job_id="Demo/Job", grace_s=1))
    assert len(world.effects) == orders + 1
    world.send(StopJob(job_id="Demo/Job", kill=True))
    stop = world.execution(start.execution_id).stop
    assert stop is not None
    assert stop.kill
    world.ends(start.execution_id, None, signal=9)
    assert world.command(first.id).outcome is Outcome.DONE
    assert world.command(second.id).outcome is Outcome.MERGED


@pytest.mark.parametrize("set_by_s", [-10 * 365 * 86_400.0, -60.0, 120.0, 10 * 365 * 86_400.0])
def test_a_sharper_stop_keeps_its_own_grace_when_the_clock_was_set_since_the_first(
    set_by_s: float,
) -> None:
    """With 120 s the grace is over, too, as when the program was given more time."""
    world = World()
    world.define()
    execution_id = world.execution(world.send(StartJob(job_id="Demo/Job")).execution_id).id
    world.runs(execution_id)
    world.send(StopJob(job_id="Demo/Job", grace_s=100))
    world.clock.jump_wall_s(set_by_s)
    world.send(StopJob(job_id="Demo/Job", grace_s=20))
    stop = world.execution(execution_id).stop
    assert stop is not None
    assert (stop.at_ms - world.clock.now_ms()) / 1000 + stop.grace_s == pytest.approx(20)
    assert stop.grace_s == pytest.approx(20)
    assert not stop.kill


def test_restart_of_an_idle_job_starts_it(world: World) -> None:
    command = world.send(RESTART)
    assert world.status(command.execution_id) is ExecutionStatus.STARTING


def test_restart_completes_when_the_new_execution_runs(world: World) -> None:
    first = world.send(START)
    assert first.execution_id is not None
    world.runs(first.execution_id)
    restart = world.send(RESTART)
    assert restart.execution_id is not None
    assert world.status(first.execution_id) is ExecutionStatus.STOPPING
    world.ends(first.execution_id, None, signal=15)
    assert world.execution(first.execution_id).reason is Reason.REPLACED
    assert world.command(restart.id).status is CommandStatus.RUNNING
    world.runs(restart.execution_id)
    assert world.command(restart.id).outcome is Outcome.DONE


def test_restart_while_starting_waits_until_it_is_up_and_a_second_one_merges(
    world: World,
) -> None:
    first = world.send(START)
    assert first.execution_id is not None
    restart = world.send(RESTART)
    again = world.send(RESTART)
    assert again.execution_id == restart.execution_id
    assert world.status(first.execution_id) is ExecutionStatus.STARTING
    world.runs(first.execution_id)
    assert world.command(first.id).outcome is Outcome.DONE
    assert world.status(first.execution_id) is ExecutionStatus.STOPPING
    world.ends(first.execution_id, None, signal=15)
    assert restart.execution_id is not None
    world.runs(restart.execution_id)
    assert world.command(restart.id).outcome is Outcome.DONE
    assert world.command(again.id).outcome is Outcome.MERGED


def test_restart_keeps_the_variables_of_the_old_execution(world: World) -> None:
    world.define(variables={"N": VariableSpec(type=VariableType.INTEGER, default=1)})
    first = world.send(StartJob(job_id="Demo/Job", variables={"N": 7}))
    assert first.execution_id is not None
    world.runs(first.execution_id)
    restart = world.send(RESTART)
    assert world.execution(restart.execution_id).variables == {"N": 7}


def test_restart_with_several_live_needs_an_execution(world: World) -> None:
    world.define(max_running=2)
    for _ in range(2):
        world.send(START)
    assert world.send(RESTART).error_code == ErrorCode.EXECUTION_REQUIRED


def test_cancel_takes_back_a_waiting_start_and_nothing_else(world: World) -> None:
    world.define(overlap=Overlap.QUEUE)
    first, second = world.send(START), world.send(START)
    cancel = world.send(CancelCommand(target_id=second.id))
    assert cancel.outcome is Outcome.DONE
    assert world.command(second.id).status is CommandStatus.CANCELLED
    assert world.status(second.execution_id) is ExecutionStatus.CANCELLED
    late = world.send(CancelCommand(target_id=first.id))
    assert late.error_code == ErrorCode.ALREADY_RUNNING


def test_queued_execution_expires(world: World) -> None:
    world.define(overlap=Overlap.QUEUE)
    world.send(START)
    due = world.clock.now_ms() + 5000
    second = world.send(START, expires_ms=due)
    world.clock.advance_s(6)
    world.report(PassTime())
    assert world.command(second.id).status is CommandStatus.EXPIRED
    assert world.execution(second.execution_id).reason is Reason.EXPIRED


def test_command_that_expired_before_it_was_handled_is_not_attempted(world: World) -> None:
    command = world.send(START, expires_ms=world.clock.now_ms() - 1)
    assert command.status is CommandStatus.EXPIRED
    assert command.execution_id is None


@pytest.mark.parametrize(
    ("exit_code", "signal", "cause", "status", "reason"),
    [
        (0, None, None, ExecutionStatus.SUCCEEDED, Reason.EXIT_CODE),
        (1, None, None, ExecutionStatus.FAILED, Reason.EXIT_CODE),
        (None, 11, None, ExecutionStatus.FAILED, Reason.SIGNAL),
        (None, 15, Reason.RUN_TIMEOUT, ExecutionStatus.TIMED_OUT, Reason.RUN_TIMEOUT),
        (None, 6, Reason.WATCHDOG, ExecutionStatus.FAILED, Reason.WATCHDOG),
        (None, 9, Reason.OOM, ExecutionStatus.FAILED, Reason.OOM),
    ],
)
def test_final_state_says_what_ended_it(
    world: World,
    exit_code: int | None,
    signal: int | None,
    cause: Reason | None,
    status: ExecutionStatus,
    reason: Reason,
) -> None:
    start = world.send(START)
    assert start.execution_id is not None
    world.runs(start.execution_id)
    world.ends(start.execution_id, exit_code, signal=signal, cause=cause)
    execution = world.execution(start.execution_id)
    assert (execution.status, execution.reason) == (status, reason)


def test_program_that_cannot_be_started_fails_both_command_and_execution(world: World) -> None:
    start = world.send(START)
    assert start.execution_id is not None
    world.report(ReportSpawnFailed(execution_id=start.execution_id, error="no such file: nope"))
    assert world.execution(start.execution_id).reason is Reason.SPAWN_ERROR
    assert world.command(start.id).error_code == ErrorCode.SPAWN_ERROR
    assert world.command(start.id).error == "no such file: nope"


def test_unknown_holds_the_slot_until_it_is_lost(world: World) -> None:
    start = world.send(START)
    assert start.execution_id is not None
    world.runs(start.execution_id)
    world.report(ReportUnknown(execution_id=start.execution_id))
    assert world.send(START).error_code == ErrorCode.ALREADY_RUNNING
    world.report(ReportLost(execution_id=start.execution_id, reason="no_exit_record"))
    assert world.status(start.execution_id) is ExecutionStatus.LOST
    assert world.send(START).status is CommandStatus.RUNNING


def test_end_without_a_record_has_the_progress_that_the_journal_does_not_have(
    world: World,
) -> None:
    start = world.send(START)
    assert start.execution_id is not None
    world.runs(start.execution_id)
    half = Progress(percent=50.0, message="half")
    world.report(ReportProgress(execution_id=start.execution_id, progress=half))
    events = world.report(ReportLost(execution_id=start.execution_id, reason="no_exit_record"))
    assert [e.progress for e in events if isinstance(e, ExecutionEnded)] == [half]


def test_final_state_is_never_left(world: World) -> None:
    start = world.send(START)
    assert start.execution_id is not None
    world.ends(start.execution_id, 0)
    before = world.execution(start.execution_id)
    world.ends(start.execution_id, 1)
    world.report(ReportLost(execution_id=start.execution_id, reason="no_exit_record"))
    world.runs(start.execution_id)
    assert world.execution(start.execution_id) == before


def test_what_may_not_be_viewed_does_not_exist(world: World) -> None:
    world.define(roles=RolesSpec(view=("ops",), start=("ops",), stop=("ops",)))
    for command in (START, STOP, RESTART, GetStatus(job_id="Demo/Job")):
        assert world.send(command, ROLELESS).error_code == ErrorCode.UNKNOWN_JOB


def test_viewer_may_look_and_not_touch(world: World) -> None:
    assert world.send(GetStatus(job_id="Demo/Job"), VIEWER).status is CommandStatus.COMPLETED
    for command in (START, STOP, RESTART):
        assert world.send(command, VIEWER).error_code == ErrorCode.NOT_PERMITTED


def test_who_started_it_may_stop_it_and_only_that(world: World) -> None:
    world.define(max_running=2, roles=RolesSpec(stop=("boss",)))
    mine = world.send(START, OPERATOR)
    other = OPERATOR.__class__(user_id="otto", roles=("operator",), via="http")
    world.send(START, other)
    assert mine.execution_id is not None
    stop = world.send(StopJob(job_id="Demo/Job"), OPERATOR)
    assert stop.waits_for == (mine.execution_id,)


def test_status_answers_with_the_jobs_entry(world: World) -> None:
    world.send(START)
    answer = world.send(GetStatus(job_id="Demo/Job"))
    assert answer.result is not None
    assert b'"status":"Starting"' in bytes(answer.result)


def test_repeated_command_id_is_decided_once(world: World) -> None:
    envelope = seal(START, OPERATOR, now_ms=world.clock.now_ms())
    world.take(envelope)
    before = list(world.log)
    world.take(envelope)
    assert world.log == before


def test_thawed_table_goes_on_like_the_frozen_one(world: World) -> None:
    world.define(overlap=Overlap.QUEUE)
    first, second = world.send(START), world.send(START)
    assert first.execution_id is not None
    content = world.table.freeze()
    world.table = JobTable.thaw(parts_of(content))
    assert world.table.freeze() == content
    world.ends(first.execution_id)
    assert world.status(second.execution_id) is ExecutionStatus.STARTING


def test_disabled_job_is_rejected(world: World) -> None:
    world.define(disabled=True)
    assert world.send(START).error_code == ErrorCode.DISABLED


def test_failed_execution_is_retried_after_its_delay_with_the_next_attempt(world: World) -> None:
    world.define(retry=RetrySpec(attempts=3, delay_s=10, jitter=0))
    first = world.send(START)
    assert first.execution_id is not None
    world.ends(first.execution_id, 1)
    (second,) = world.table.live_of("Demo/Job")
    assert (second.attempt, second.previous, second.cause) == (
        2,
        first.execution_id,
        "policy:retry",
    )
    world.report(PassTime())
    assert world.status(second.id) is ExecutionStatus.QUEUED
    world.clock.advance_s(10)
    world.report(PassTime())
    assert world.status(second.id) is ExecutionStatus.STARTING
    world.ends(second.id, 1)
    (third,) = world.table.live_of("Demo/Job")
    assert third.not_before_ms == world.clock.now_ms() + 20_000
    world.clock.advance_s(20)
    world.report(PassTime())
    world.ends(third.id, 1)
    assert world.table.live_of("Demo/Job") == []


def test_stop_cancels_the_retry_that_waits(world: World) -> None:
    world.define(retry=RetrySpec(attempts=3))
    first = world.send(START)
    assert first.execution_id is not None
    world.ends(first.execution_id, 1)
    stop = world.send(STOP)
    assert stop.outcome is Outcome.DONE
    assert world.table.live_of("Demo/Job") == []


def test_start_while_backing_off_starts_at_once(world: World) -> None:
    world.define(retry=RetrySpec(attempts=3))
    first = world.send(START)
    assert first.execution_id is not None
    world.ends(first.execution_id, 1)
    second = world.send(START)
    assert world.status(second.execution_id) is ExecutionStatus.STARTING
    assert world.execution(second.execution_id).attempt == 2


def test_service_is_restarted_until_the_limit_then_gives_up_and_a_person_clears_it(
    world: World,
) -> None:
    world.define(restart=RestartSpec(policy=RestartPolicy.ALWAYS, limit=2, limit_window_s=600))
    execution_id = world.send(START).execution_id
    for _ in range(2):
        assert execution_id is not None
        world.ends(execution_id, 0)
        (again,) = world.table.live_of("Demo/Job")
        assert again.cause == "policy:restart"
        world.clock.advance_s(60)
        world.report(PassTime())
        execution_id = again.id
    assert execution_id is not None
    world.ends(execution_id, 0)
    job = world.table.job("Demo/Job")
    assert job is not None
    assert job.gave_up_ms == world.clock.now_ms()
    assert world.table.live_of("Demo/Job") == []
    world.send(START)
    job = world.table.job("Demo/Job")
    assert job is not None
    assert (job.gave_up_ms, job.restarts_ms) == (None, ())


def test_person_who_stops_a_service_keeps_it_stopped(world: World) -> None:
    world.define(restart=RestartSpec(policy=RestartPolicy.ALWAYS))
    start = world.send(START)
    assert start.execution_id is not None
    world.runs(start.execution_id)
    world.send(STOP)
    world.report(ReportLost(execution_id=start.execution_id, reason="host_restart"))
    assert world.table.live_of("Demo/Job") == []


def test_lost_service_comes_back_on_failure(world: World) -> None:
    world.define(restart=RestartSpec(policy=RestartPolicy.ON_FAILURE))
    start = world.send(START)
    assert start.execution_id is not None
    world.runs(start.execution_id)
    world.report(ReportLost(execution_id=start.execution_id, reason="host_restart"))
    (again,) = world.table.live_of("Demo/Job")
    assert again.previous == start.execution_id


def test_retry_of_an_ended_execution_keeps_its_variables(world: World) -> None:
    world.define(variables={"N": VariableSpec(type=VariableType.INTEGER, default=1)})
    first = world.send(StartJob(job_id="Demo/Job", variables={"N": 7}))
    assert first.execution_id is not None
    early = world.send(RetryExecution(execution_id=first.execution_id))
    assert early.error_code == ErrorCode.NOT_ENDED
    world.ends(first.execution_id, 1)
    retry = world.send(RetryExecution(execution_id=first.execution_id))
    execution = world.execution(retry.execution_id)
    assert (execution.variables, execution.attempt) == ({"N": 7}, 2)
    assert execution.previous == first.execution_id


def test_deleted_execution_is_gone_and_its_files_follow(world: World) -> None:
    first = world.send(START)
    assert first.execution_id is not None
    world.ends(first.execution_id, 0)
    delete = world.send(DeleteExecution(execution_id=first.execution_id))
    assert delete.outcome is Outcome.DONE
    assert world.table.execution(first.execution_id) is None
    assert DeleteFiles(execution_ids=(first.execution_id,)) in world.effects


def test_stop_overtakes_starts_that_were_accepted_before_it_and_are_decided_after(
    world: World,
) -> None:
    early = replace(seal(START, OPERATOR, now_ms=world.clock.now_ms()), accepted_ns=10)
    late = replace(seal(START, OPERATOR, now_ms=world.clock.now_ms()), accepted_ns=30)
    stop = replace(seal(STOP, OPERATOR, now_ms=world.clock.now_ms()), accepted_ns=20)
    assert world.take(stop).outcome is Outcome.NOOP
    world.table = JobTable.thaw(parts_of(world.table.freeze()))
    overtaken = world.take(early)
    assert overtaken.status is CommandStatus.CANCELLED
    assert overtaken.error_code == ErrorCode.SUPERSEDED
    assert world.take(late).status is CommandStatus.RUNNING


def test_stop_by_a_user_who_may_only_stop_their_own_overtakes_no_other_start(
    world: World,
) -> None:
    world.define(max_running=5, roles=RolesSpec(stop=("boss",)))
    assert world.send(START, OPERATOR).status is CommandStatus.RUNNING
    other = Principal(user_id="otto", roles=("operator",), via="http")
    early = replace(seal(START, other, now_ms=world.clock.now_ms()), accepted_ns=10)
    world.take(replace(seal(STOP, OPERATOR, now_ms=world.clock.now_ms()), accepted_ns=20))
    assert world.take(early).status is CommandStatus.RUNNING
