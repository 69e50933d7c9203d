"""Maintenance: nothing starts, everything else goes on, and what waited goes on afterwards."""

from bus.commands import PassTime, RestartJob, RetryExecution, SetMaintenance, StartJob, StopJob
from bus.errors import ErrorCode
from bus.events import SystemMaintenance
from bus.jobs import Overlap, RetrySpec
from bus.model import CommandStatus, ExecutionStatus
from handlers.decisions.decision import SpawnExecution
from handlers.decisions.timing import next_deadline_ms
from tests.decision_fixture import World

ON = SetMaintenance(on=True, by="root", reason="a new disk")
OFF = SetMaintenance(on=False, by="root")


def test_starts_restarts_and_retries_are_rejected_with_the_reason() -> None:
    world = World()
    world.define("Demo/Job", overlap=Overlap.QUEUE)
    ended = world.send(StartJob(job_id="Demo/Job")).execution_id or ""
    world.runs(ended)
    world.ends(ended)
    world.report(ON)
    for command in (
        StartJob(job_id="Demo/Job"),
        RestartJob(job_id="Demo/Job"),
        RetryExecution(execution_id=ended),
    ):
        record = world.send(command)
        assert (record.status, record.error_code) == (CommandStatus.REJECTED, ErrorCode.MAINTENANCE)
        assert "a new disk" in (record.error or "")


def test_stops_work_and_what_runs_goes_on() -> None:
    world = World()
    world.define("Demo/Job")
    running = world.send(StartJob(job_id="Demo/Job")).execution_id or ""
    world.report(ON)
    world.runs(running)
    stop = world.send(StopJob(job_id="Demo/Job"))
    world.ends(running, exit_code=None, signal=15)
    assert world.status(running) is ExecutionStatus.STOPPED
    assert world.command(stop.id).status is CommandStatus.COMPLETED


def test_what_waits_for_a_slot_starts_when_maintenance_ends() -> None:
    world = World()
    world.define("Demo/Job", overlap=Overlap.QUEUE)
    first, second, third = (
        world.send(StartJob(job_id="Demo/Job")).execution_id or "" for _ in range(3)
    )
    world.report(ON)
    world.runs(first)
    world.ends(first)
    world.report(PassTime())
    assert world.status(second) is ExecutionStatus.QUEUED
    world.report(OFF)
    assert world.table.maintenance is None
    assert world.status(second) is ExecutionStatus.STARTING
    assert world.status(third) is ExecutionStatus.QUEUED
    assert world.effects[-1] == SpawnExecution(second)


def test_a_retry_waits_without_keeping_the_clock_busy() -> None:
    world = World()
    world.define("Demo/Job", retry=RetrySpec(attempts=2, delay_s=5, jitter=0))
    first = world.send(StartJob(job_id="Demo/Job")).execution_id or ""
    world.runs(first)
    world.report(ON)
    world.ends(first, exit_code=1)
    [again] = world.table.queued("Demo/Job")
    assert next_deadline_ms(world.table, world.clock.now_ms()) is None
    world.clock.advance_s(10)
    world.report(PassTime())
    assert world.status(again.id) is ExecutionStatus.QUEUED
    world.report(OFF)
    assert world.status(again.id) is ExecutionStatus.STARTING


def test_a_repeated_order_changes_nothing_and_a_new_reason_is_on_record() -> None:
    world = World()
    assert world.report(OFF) == []
    assert world.report(ON) == [SystemMaintenance(on=True, by="root", reason="a new disk")]
    assert world.report(ON) == []
    assert len(world.report(SetMaintenance(on=True, by="root", reason="longer"))) == 1
    assert world.table.maintenance is not None
    assert world.table.maintenance.reason == "longer"
