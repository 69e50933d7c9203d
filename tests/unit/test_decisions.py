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
from bus.job_definition import (
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
from tests.decision_fixture import OPERATOR, ROLELESS, VIEWER, Decider

START = StartJob(job_id="Demo/Job")
STOP = StopJob(job_id="Demo/Job")
RESTART = RestartJob(job_id="Demo/Job")


@pytest.fixture
def decider() -> Decider:
    decider = Decider()
    decider.define()
    return decider


def test_start_takes_the_free_slot_and_completes_when_the_program_runs(decider: Decider) -> None:
    command = decider.send(START)
    assert command.status is CommandStatus.RUNNING
    assert decider.status(command.execution_id) is ExecutionStatus.STARTING
    assert command.execution_id is not None
    assert decider.effects == [SpawnExecution(command.execution_id)]

    decider.runs(command.execution_id)
    assert decider.command(command.id).outcome is Outcome.DONE
    decider.ends(command.execution_id)
    assert decider.status(command.execution_id) is ExecutionStatus.SUCCEEDED


def test_start_that_ends_before_it_was_seen_running_still_passes_through_running(
    decider: Decider,
) -> None:
    command = decider.send(START)
    assert command.execution_id is not None
    decider.ends(command.execution_id, 3)
    assert [type(e).__name__ for e in decider.events[-3:]] == [
        "ExecutionRunning",
        "CommandEnded",
        "ExecutionEnded",
    ]
    assert decider.execution(command.execution_id).exit_code == 3
    assert decider.status(command.execution_id) is ExecutionStatus.FAILED


def test_start_of_an_unknown_job_is_rejected_and_changes_nothing(decider: Decider) -> None:
    command = decider.send(StartJob(job_id="No/Such"))
    assert command.status is CommandStatus.REJECTED
    assert command.error_code == ErrorCode.UNKNOWN_JOB
    assert decider.effects == []


def test_start_while_running_is_rejected_by_default(decider: Decider) -> None:
    first = decider.send(START)
    assert first.execution_id is not None
    decider.runs(first.execution_id)
    second = decider.send(START)
    assert second.error_code == ErrorCode.ALREADY_RUNNING
    assert second.error is not None
    assert first.execution_id in second.error


def test_start_while_starting_with_the_same_variables_is_a_noop(decider: Decider) -> None:
    first = decider.send(START)
    second = decider.send(START)
    assert (second.outcome, second.execution_id) == (Outcome.NOOP, first.execution_id)


def test_queue_starts_in_order_when_the_slot_is_free(decider: Decider) -> None:
    decider.define(overlap=Overlap.QUEUE)
    first, second, third = (decider.send(START) for _ in range(3))
    assert first.execution_id is not None
    assert decider.status(second.execution_id) is ExecutionStatus.QUEUED
    decider.runs(first.execution_id)
    decider.ends(first.execution_id)
    assert decider.status(second.execution_id) is ExecutionStatus.STARTING
    assert decider.status(third.execution_id) is ExecutionStatus.QUEUED


def test_queue_refuses_when_it_is_full() -> None:
    decider = Decider(Policy(queue_max=2))
    decider.define(overlap=Overlap.QUEUE)
    for _ in range(3):
        decider.send(START)
    assert decider.send(START).error_code == ErrorCode.QUEUE_FULL


def test_replace_stops_the_old_and_starts_the_new(decider: Decider) -> None:
    decider.define(overlap=Overlap.REPLACE)
    first = decider.send(START)
    assert first.execution_id is not None
    decider.runs(first.execution_id)
    second = decider.send(START)
    assert decider.status(first.execution_id) is ExecutionStatus.STOPPING
    decider.ends(first.execution_id, None, signal=15)
    assert decider.status(first.execution_id) is ExecutionStatus.STOPPED
    assert decider.execution(first.execution_id).reason is Reason.REPLACED
    assert decider.status(second.execution_id) is ExecutionStatus.STARTING


def test_skip_answers_with_the_running_execution(decider: Decider) -> None:
    decider.define(overlap=Overlap.SKIP)
    first = decider.send(START)
    assert first.execution_id is not None
    decider.runs(first.execution_id)
    second = decider.send(START)
    assert (second.outcome, second.execution_id) == (Outcome.NOOP, first.execution_id)


def test_max_running_gives_that_many_slots(decider: Decider) -> None:
    decider.define(max_running=2)
    first, second = decider.send(START), decider.send(START)
    assert first.execution_id != second.execution_id
    assert first.execution_id is not None
    assert second.execution_id is not None
    decider.runs(first.execution_id)
    decider.runs(second.execution_id)
    assert decider.send(START).error_code == ErrorCode.ALREADY_RUNNING


def test_start_while_stopping_waits_behind(decider: Decider) -> None:
    first = decider.send(START)
    assert first.execution_id is not None
    decider.runs(first.execution_id)
    decider.send(STOP)
    second = decider.send(START)
    assert decider.status(second.execution_id) is ExecutionStatus.QUEUED
    decider.ends(first.execution_id, None, signal=15)
    assert decider.status(second.execution_id) is ExecutionStatus.STARTING


def test_stop_of_an_idle_job_is_a_noop(decider: Decider) -> None:
    assert decider.send(STOP).outcome is Outcome.NOOP


def test_stop_completes_when_the_tree_is_gone_whatever_the_exit_code(decider: Decider) -> None:
    start = decider.send(START)
    assert start.execution_id is not None
    decider.runs(start.execution_id)
    stop = decider.send(STOP)
    assert stop.status is CommandStatus.RUNNING
    assert StopExecution(start.execution_id) in decider.effects
    decider.ends(start.execution_id, 0)
    assert decider.status(start.execution_id) is ExecutionStatus.STOPPED
    assert decider.command(stop.id).outcome is Outcome.DONE


def test_stop_fails_when_something_survived(decider: Decider) -> None:
    start = decider.send(START)
    assert start.execution_id is not None
    decider.runs(start.execution_id)
    stop = decider.send(STOP)
    decider.ends(start.execution_id, None, signal=9, contained=False)
    execution = decider.execution(start.execution_id)
    assert execution.status is ExecutionStatus.FAILED
    assert execution.reason is Reason.STOP_INCOMPLETE
    assert execution.survivors == (4711,)
    assert decider.command(stop.id).error_code == ErrorCode.STOP_INCOMPLETE


def test_stop_supersedes_the_start_that_has_not_come_through(decider: Decider) -> None:
    start = decider.send(START)
    decider.send(STOP)
    assert decider.command(start.id).status is CommandStatus.CANCELLED
    assert decider.command(start.id).error_code == ErrorCode.SUPERSEDED


def test_stop_cancels_what_is_queued(decider: Decider) -> None:
    decider.define(overlap=Overlap.QUEUE)
    first, second = decider.send(START), decider.send(START)
    assert first.execution_id is not None
    stop = decider.send(STOP)
    assert decider.status(second.execution_id) is ExecutionStatus.CANCELLED
    assert decider.command(second.id).error_code == ErrorCode.SUPERSEDED
    decider.ends(first.execution_id, None, signal=15)
    assert decider.command(stop.id).status is CommandStatus.COMPLETED


def test_second_stop_merges_and_only_a_sharper_one_is_passed_on(decider: Decider) -> None:
    start = decider.send(START)
    assert start.execution_id is not None
    decider.runs(start.execution_id)
    first = decider.send(StopJob(job_id="Demo/Job", grace_s=30))
    orders = len(decider.effects)
    second = decider.send(StopJob(job_id="Demo/Job", grace_s=60))
    assert len(decider.effects) == orders
    decider.send(StopJob(job_id="Demo/Job", grace_s=1))
    assert len(decider.effects) == orders + 1
    decider.send(StopJob(job_id="Demo/Job", kill=True))
    stop = decider.execution(start.execution_id).stop
    assert stop is not None
    assert stop.kill
    decider.ends(start.execution_id, None, signal=9)
    assert decider.command(first.id).outcome is Outcome.DONE
    assert decider.command(second.id).outcome is Outcome.MERGED


@pytest.mark.parametrize("set_by_s", [-10 * 365 * 86_400.0, -60.0, 120.0, 10 * 365 * 86_400.0])
def test_a_sharper_stop_keeps_its_own_grace_when_the_clock_was_set_since_the_first(
    set_by_s: float,
) -> None:
    """With 120 s the grace is over, too, as when the program was given more time."""
    decider = Decider()
    decider.define()
    execution_id = decider.execution(decider.send(StartJob(job_id="Demo/Job")).execution_id).id
    decider.runs(execution_id)
    decider.send(StopJob(job_id="Demo/Job", grace_s=100))
    decider.clock.jump_wall_s(set_by_s)
    decider.send(StopJob(job_id="Demo/Job", grace_s=20))
    stop = decider.execution(execution_id).stop
    assert stop is not None
    assert (stop.at_ms - decider.clock.now_ms()) / 1000 + stop.grace_s == pytest.approx(20)
    assert stop.grace_s == pytest.approx(20)
    assert not stop.kill


def test_restart_of_an_idle_job_starts_it(decider: Decider) -> None:
    command = decider.send(RESTART)
    assert decider.status(command.execution_id) is ExecutionStatus.STARTING


def test_restart_completes_when_the_new_execution_runs(decider: Decider) -> None:
    first = decider.send(START)
    assert first.execution_id is not None
    decider.runs(first.execution_id)
    restart = decider.send(RESTART)
    assert restart.execution_id is not None
    assert decider.status(first.execution_id) is ExecutionStatus.STOPPING
    decider.ends(first.execution_id, None, signal=15)
    assert decider.execution(first.execution_id).reason is Reason.REPLACED
    assert decider.command(restart.id).status is CommandStatus.RUNNING
    decider.runs(restart.execution_id)
    assert decider.command(restart.id).outcome is Outcome.DONE


def test_restart_while_starting_waits_until_it_is_up_and_a_second_one_merges(
    decider: Decider,
) -> None:
    first = decider.send(START)
    assert first.execution_id is not None
    restart = decider.send(RESTART)
    again = decider.send(RESTART)
    assert again.execution_id == restart.execution_id
    assert decider.status(first.execution_id) is ExecutionStatus.STARTING
    decider.runs(first.execution_id)
    assert decider.command(first.id).outcome is Outcome.DONE
    assert decider.status(first.execution_id) is ExecutionStatus.STOPPING
    decider.ends(first.execution_id, None, signal=15)
    assert restart.execution_id is not None
    decider.runs(restart.execution_id)
    assert decider.command(restart.id).outcome is Outcome.DONE
    assert decider.command(again.id).outcome is Outcome.MERGED


def test_restart_keeps_the_variables_of_the_old_execution(decider: Decider) -> None:
    decider.define(variables={"N": VariableSpec(type=VariableType.INTEGER, default=1)})
    first = decider.send(StartJob(job_id="Demo/Job", variables={"N": 7}))
    assert first.execution_id is not None
    decider.runs(first.execution_id)
    restart = decider.send(RESTART)
    assert decider.execution(restart.execution_id).variables == {"N": 7}


def test_restart_with_several_live_needs_an_execution(decider: Decider) -> None:
    decider.define(max_running=2)
    for _ in range(2):
        decider.send(START)
    assert decider.send(RESTART).error_code == ErrorCode.EXECUTION_REQUIRED


def test_cancel_takes_back_a_waiting_start_and_nothing_else(decider: Decider) -> None:
    decider.define(overlap=Overlap.QUEUE)
    first, second = decider.send(START), decider.send(START)
    cancel = decider.send(CancelCommand(target_id=second.id))
    assert cancel.outcome is Outcome.DONE
    assert decider.command(second.id).status is CommandStatus.CANCELLED
    assert decider.status(second.execution_id) is ExecutionStatus.CANCELLED
    late = decider.send(CancelCommand(target_id=first.id))
    assert late.error_code == ErrorCode.ALREADY_RUNNING


def test_queued_execution_expires(decider: Decider) -> None:
    decider.define(overlap=Overlap.QUEUE)
    decider.send(START)
    due = decider.clock.now_ms() + 5000
    second = decider.send(START, expires_ms=due)
    decider.clock.advance_s(6)
    decider.report(PassTime())
    assert decider.command(second.id).status is CommandStatus.EXPIRED
    assert decider.execution(second.execution_id).reason is Reason.EXPIRED


def test_command_that_expired_before_it_was_handled_is_not_attempted(decider: Decider) -> None:
    command = decider.send(START, expires_ms=decider.clock.now_ms() - 1)
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
        (0, None, Reason.UNHEALTHY, ExecutionStatus.FAILED, Reason.UNHEALTHY),
        (None, 9, Reason.OOM, ExecutionStatus.FAILED, Reason.OOM),
    ],
)
def test_final_state_says_what_ended_it(
    decider: Decider,
    exit_code: int | None,
    signal: int | None,
    cause: Reason | None,
    status: ExecutionStatus,
    reason: Reason,
) -> None:
    start = decider.send(START)
    assert start.execution_id is not None
    decider.runs(start.execution_id)
    decider.ends(start.execution_id, exit_code, signal=signal, cause=cause)
    execution = decider.execution(start.execution_id)
    assert (execution.status, execution.reason) == (status, reason)


def test_program_that_cannot_be_started_fails_both_command_and_execution(decider: Decider) -> None:
    start = decider.send(START)
    assert start.execution_id is not None
    decider.report(ReportSpawnFailed(execution_id=start.execution_id, error="no such file: nope"))
    assert decider.execution(start.execution_id).reason is Reason.SPAWN_ERROR
    assert decider.command(start.id).error_code == ErrorCode.SPAWN_ERROR
    assert decider.command(start.id).error == "no such file: nope"


def test_unknown_holds_the_slot_until_it_is_lost(decider: Decider) -> None:
    start = decider.send(START)
    assert start.execution_id is not None
    decider.runs(start.execution_id)
    decider.report(ReportUnknown(execution_id=start.execution_id))
    assert decider.send(START).error_code == ErrorCode.ALREADY_RUNNING
    decider.report(ReportLost(execution_id=start.execution_id, reason="no_exit_record"))
    assert decider.status(start.execution_id) is ExecutionStatus.LOST
    assert decider.send(START).status is CommandStatus.RUNNING


def test_end_without_a_record_has_the_progress_that_the_journal_does_not_have(
    decider: Decider,
) -> None:
    start = decider.send(START)
    assert start.execution_id is not None
    decider.runs(start.execution_id)
    half = Progress(percent=50.0, message="half")
    decider.report(ReportProgress(execution_id=start.execution_id, progress=half))
    events = decider.report(ReportLost(execution_id=start.execution_id, reason="no_exit_record"))
    assert [e.progress for e in events if isinstance(e, ExecutionEnded)] == [half]


def test_final_state_is_never_left(decider: Decider) -> None:
    start = decider.send(START)
    assert start.execution_id is not None
    decider.ends(start.execution_id, 0)
    before = decider.execution(start.execution_id)
    decider.ends(start.execution_id, 1)
    decider.report(ReportLost(execution_id=start.execution_id, reason="no_exit_record"))
    decider.runs(start.execution_id)
    assert decider.execution(start.execution_id) == before


def test_what_may_not_be_viewed_does_not_exist(decider: Decider) -> None:
    decider.define(roles=RolesSpec(view=("ops",), start=("ops",), stop=("ops",)))
    for command in (START, STOP, RESTART, GetStatus(job_id="Demo/Job")):
        assert decider.send(command, ROLELESS).error_code == ErrorCode.UNKNOWN_JOB


def test_viewer_may_look_and_not_touch(decider: Decider) -> None:
    assert decider.send(GetStatus(job_id="Demo/Job"), VIEWER).status is CommandStatus.COMPLETED
    for command in (START, STOP, RESTART):
        assert decider.send(command, VIEWER).error_code == ErrorCode.NOT_PERMITTED


def test_who_started_it_may_stop_it_and_only_that(decider: Decider) -> None:
    decider.define(max_running=2, roles=RolesSpec(stop=("boss",)))
    mine = decider.send(START, OPERATOR)
    other = OPERATOR.__class__(user_id="otto", roles=("operator",), via="http")
    decider.send(START, other)
    assert mine.execution_id is not None
    stop = decider.send(StopJob(job_id="Demo/Job"), OPERATOR)
    assert stop.waits_for == (mine.execution_id,)


def test_status_answers_with_the_jobs_entry(decider: Decider) -> None:
    decider.send(START)
    answer = decider.send(GetStatus(job_id="Demo/Job"))
    assert answer.result is not None
    assert b'"status":"Starting"' in bytes(answer.result)


def test_repeated_command_id_is_decided_once(decider: Decider) -> None:
    envelope = seal(START, OPERATOR, now_ms=decider.clock.now_ms())
    decider.take(envelope)
    before = list(decider.log)
    decider.take(envelope)
    assert decider.log == before


def test_thawed_table_goes_on_like_the_frozen_one(decider: Decider) -> None:
    decider.define(overlap=Overlap.QUEUE)
    first, second = decider.send(START), decider.send(START)
    assert first.execution_id is not None
    content = decider.table.freeze()
    decider.table = JobTable.thaw(parts_of(content))
    assert decider.table.freeze() == content
    decider.ends(first.execution_id)
    assert decider.status(second.execution_id) is ExecutionStatus.STARTING


def test_disabled_job_is_rejected(decider: Decider) -> None:
    decider.define(disabled=True)
    assert decider.send(START).error_code == ErrorCode.DISABLED


def test_failed_execution_is_retried_after_its_delay_with_the_next_attempt(
    decider: Decider,
) -> None:
    decider.define(retry=RetrySpec(attempts=3, delay_s=10, jitter=0))
    first = decider.send(START)
    assert first.execution_id is not None
    decider.ends(first.execution_id, 1)
    (second,) = decider.table.live_of("Demo/Job")
    assert (second.attempt, second.previous, second.cause) == (
        2,
        first.execution_id,
        "policy:retry",
    )
    decider.report(PassTime())
    assert decider.status(second.id) is ExecutionStatus.QUEUED
    decider.clock.advance_s(10)
    decider.report(PassTime())
    assert decider.status(second.id) is ExecutionStatus.STARTING
    decider.ends(second.id, 1)
    (third,) = decider.table.live_of("Demo/Job")
    assert third.not_before_ms == decider.clock.now_ms() + 20_000
    decider.clock.advance_s(20)
    decider.report(PassTime())
    decider.ends(third.id, 1)
    assert decider.table.live_of("Demo/Job") == []


def test_stop_cancels_the_retry_that_waits(decider: Decider) -> None:
    decider.define(retry=RetrySpec(attempts=3))
    first = decider.send(START)
    assert first.execution_id is not None
    decider.ends(first.execution_id, 1)
    stop = decider.send(STOP)
    assert stop.outcome is Outcome.DONE
    assert decider.table.live_of("Demo/Job") == []


def test_start_while_backing_off_starts_at_once(decider: Decider) -> None:
    decider.define(retry=RetrySpec(attempts=3))
    first = decider.send(START)
    assert first.execution_id is not None
    decider.ends(first.execution_id, 1)
    second = decider.send(START)
    assert decider.status(second.execution_id) is ExecutionStatus.STARTING
    assert decider.execution(second.execution_id).attempt == 2


def test_service_is_restarted_until_the_limit_then_gives_up_and_a_person_clears_it(
    decider: Decider,
) -> None:
    decider.define(restart=RestartSpec(policy=RestartPolicy.ALWAYS, limit=2, limit_window_s=600))
    execution_id = decider.send(START).execution_id
    for _ in range(2):
        assert execution_id is not None
        decider.ends(execution_id, 0)
        (again,) = decider.table.live_of("Demo/Job")
        assert again.cause == "policy:restart"
        decider.clock.advance_s(60)
        decider.report(PassTime())
        execution_id = again.id
    assert execution_id is not None
    decider.ends(execution_id, 0)
    job = decider.table.job("Demo/Job")
    assert job is not None
    assert job.gave_up_ms == decider.clock.now_ms()
    assert decider.table.live_of("Demo/Job") == []
    decider.send(START)
    job = decider.table.job("Demo/Job")
    assert job is not None
    assert (job.gave_up_ms, job.restarts_ms) == (None, ())


def test_person_who_stops_a_service_keeps_it_stopped(decider: Decider) -> None:
    decider.define(restart=RestartSpec(policy=RestartPolicy.ALWAYS))
    start = decider.send(START)
    assert start.execution_id is not None
    decider.runs(start.execution_id)
    decider.send(STOP)
    decider.report(ReportLost(execution_id=start.execution_id, reason="host_restart"))
    assert decider.table.live_of("Demo/Job") == []


def test_lost_service_comes_back_on_failure(decider: Decider) -> None:
    decider.define(restart=RestartSpec(policy=RestartPolicy.ON_FAILURE))
    start = decider.send(START)
    assert start.execution_id is not None
    decider.runs(start.execution_id)
    decider.report(ReportLost(execution_id=start.execution_id, reason="host_restart"))
    (again,) = decider.table.live_of("Demo/Job")
    assert again.previous == start.execution_id


def test_retry_of_an_ended_execution_keeps_its_variables(decider: Decider) -> None:
    decider.define(variables={"N": VariableSpec(type=VariableType.INTEGER, default=1)})
    first = decider.send(StartJob(job_id="Demo/Job", variables={"N": 7}))
    assert first.execution_id is not None
    early = decider.send(RetryExecution(execution_id=first.execution_id))
    assert early.error_code == ErrorCode.NOT_ENDED
    decider.ends(first.execution_id, 1)
    retry = decider.send(RetryExecution(execution_id=first.execution_id))
    execution = decider.execution(retry.execution_id)
    assert (execution.variables, execution.attempt) == ({"N": 7}, 2)
    assert execution.previous == first.execution_id


def test_deleted_execution_is_gone_and_its_files_follow(decider: Decider) -> None:
    first = decider.send(START)
    assert first.execution_id is not None
    decider.ends(first.execution_id, 0)
    delete = decider.send(DeleteExecution(execution_id=first.execution_id))
    assert delete.outcome is Outcome.DONE
    assert decider.table.execution(first.execution_id) is None
    assert DeleteFiles(execution_ids=(first.execution_id,)) in decider.effects


def test_stop_overtakes_starts_that_were_accepted_before_it_and_are_decided_after(
    decider: Decider,
) -> None:
    early = replace(seal(START, OPERATOR, now_ms=decider.clock.now_ms()), accepted_ns=10)
    late = replace(seal(START, OPERATOR, now_ms=decider.clock.now_ms()), accepted_ns=30)
    stop = replace(seal(STOP, OPERATOR, now_ms=decider.clock.now_ms()), accepted_ns=20)
    assert decider.take(stop).outcome is Outcome.NOOP
    decider.table = JobTable.thaw(parts_of(decider.table.freeze()))
    overtaken = decider.take(early)
    assert overtaken.status is CommandStatus.CANCELLED
    assert overtaken.error_code == ErrorCode.SUPERSEDED
    assert decider.take(late).status is CommandStatus.RUNNING


def test_stop_by_a_user_who_may_only_stop_their_own_overtakes_no_other_start(
    decider: Decider,
) -> None:
    decider.define(max_running=5, roles=RolesSpec(stop=("boss",)))
    assert decider.send(START, OPERATOR).status is CommandStatus.RUNNING
    other = Principal(user_id="otto", roles=("operator",), via="http")
    early = replace(seal(START, other, now_ms=decider.clock.now_ms()), accepted_ns=10)
    decider.take(replace(seal(STOP, OPERATOR, now_ms=decider.clock.now_ms()), accepted_ns=20))
    assert decider.take(early).status is CommandStatus.RUNNING
