"""Maintenance: nothing starts, everything else goes on, and what waited goes on afterwards."""

from bus.commands import PassTime, RestartJob, RetryExecution, SetMaintenance, StartJob, StopJob
from bus.errors import ErrorCode
from bus.events import SystemMaintenance
from bus.job_definition import Overlap, RetrySpec
from bus.model import CommandStatus, ExecutionStatus
from handlers.decisions.decision import SpawnExecution
from handlers.decisions.timing import next_deadline_ms
from tests.decision_fixture import Decider

ON = SetMaintenance(on=True, by="root", reason="a new disk")
OFF = SetMaintenance(on=False, by="root")


def test_starts_restarts_and_retries_are_rejected_with_the_reason() -> None:
    decider = Decider()
    decider.define("Demo/Job", overlap=Overlap.QUEUE)
    ended = decider.send(StartJob(job_id="Demo/Job")).execution_id or ""
    decider.runs(ended)
    decider.ends(ended)
    decider.report(ON)
    for command in (
        StartJob(job_id="Demo/Job"),
        RestartJob(job_id="Demo/Job"),
        RetryExecution(execution_id=ended),
    ):
        record = decider.send(command)
        assert (record.status, record.error_code) == (CommandStatus.REJECTED, ErrorCode.MAINTENANCE)
        assert "a new disk" in (record.error or "")


def test_stops_work_and_what_runs_goes_on() -> None:
    decider = Decider()
    decider.define("Demo/Job")
    running = decider.send(StartJob(job_id="Demo/Job")).execution_id or ""
    decider.report(ON)
    decider.runs(running)
    stop = decider.send(StopJob(job_id="Demo/Job"))
    decider.ends(running, exit_code=None, signal=15)
    assert decider.status(running) is ExecutionStatus.STOPPED
    assert decider.command(stop.id).status is CommandStatus.COMPLETED


def test_what_waits_for_a_slot_starts_when_maintenance_ends() -> None:
    decider = Decider()
    decider.define("Demo/Job", overlap=Overlap.QUEUE)
    first, second, third = (
        decider.send(StartJob(job_id="Demo/Job")).execution_id or "" for _ in range(3)
    )
    decider.report(ON)
    decider.runs(first)
    decider.ends(first)
    decider.report(PassTime())
    assert decider.status(second) is ExecutionStatus.QUEUED
    decider.report(OFF)
    assert decider.table.maintenance is None
    assert decider.status(second) is ExecutionStatus.STARTING
    assert decider.status(third) is ExecutionStatus.QUEUED
    assert decider.effects[-1] == SpawnExecution(second)


def test_a_retry_waits_without_keeping_the_clock_busy() -> None:
    decider = Decider()
    decider.define("Demo/Job", retry=RetrySpec(attempts=2, delay_s=5, jitter=0))
    first = decider.send(StartJob(job_id="Demo/Job")).execution_id or ""
    decider.runs(first)
    decider.report(ON)
    decider.ends(first, exit_code=1)
    [again] = decider.table.queued("Demo/Job")
    assert next_deadline_ms(decider.table, decider.clock.now_ms()) is None
    decider.clock.advance_s(10)
    decider.report(PassTime())
    assert decider.status(again.id) is ExecutionStatus.QUEUED
    decider.report(OFF)
    assert decider.status(again.id) is ExecutionStatus.STARTING


def test_a_repeated_order_changes_nothing_and_a_new_reason_is_on_record() -> None:
    decider = Decider()
    assert decider.report(OFF) == []
    assert decider.report(ON) == [SystemMaintenance(on=True, by="root", reason="a new disk")]
    assert decider.report(ON) == []
    assert len(decider.report(SetMaintenance(on=True, by="root", reason="longer"))) == 1
    assert decider.table.maintenance is not None
    assert decider.table.maintenance.reason == "longer"
