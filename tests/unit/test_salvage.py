"""Facts behind a hole in the journal: whatever is missing, what is left fits and is replayed."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.commands import (
    CancelCommand,
    DeleteExecution,
    Forget,
    PassTime,
    ReportLost,
    ReportUnknown,
    RestartJob,
    StartJob,
    StopJob,
)
from bus.errors import ErrorCode
from bus.events import (
    CommandAccepted,
    CommandEnded,
    ExecutionDeleted,
    ExecutionEnded,
    ExecutionQueued,
    ExecutionRunning,
    JobChanged,
    Published,
    SystemForgotten,
)
from bus.job_definition import AfterSpec, Overlap, RestartPolicy, RestartSpec, RetrySpec
from bus.model import FINAL_EXECUTION, CommandStatus, ExecutionStatus, Reason
from handlers.decisions.table import JobTable
from handlers.journal.repair.fitting import fitting, stranded, without_trace
from tests.decision_fixture import Decider

JOB, NEXT = "Demo/Job", "Demo/Next"
ACTS = (
    "start",
    "start",
    "runs",
    "runs",
    "ends",
    "ends",
    "fails",
    "stop",
    "restart",
    "cancel",
    "unknown",
    "lost",
    "time",
    "define",
    "delete",
    "forget",
)


def act(decider: Decider, word: str, pick: int) -> None:
    """One thing happens, if it can: to the execution or command number `pick`, counted round."""
    executions = [e.id for e in decider.table.executions()]
    commands = [c.id for c in decider.table.commands()]
    if word in ("runs", "ends", "fails", "unknown", "lost", "delete") and not executions:
        return
    execution_id = executions[pick % len(executions)] if executions else ""
    command_id = commands[pick % len(commands)] if commands else ""
    in_slot = bool(execution_id) and execution_id in {
        e.id for job_id in (JOB, NEXT) for e in decider.table.in_slots(job_id)
    }
    match word:
        case "start":
            decider.send(StartJob(job_id=JOB))
        case "stop":
            decider.send(StopJob(job_id=JOB))
        case "restart":
            decider.send(RestartJob(job_id=JOB))
        case "cancel" if command_id:
            decider.send(CancelCommand(target_id=command_id))
        case "runs" if in_slot:
            decider.runs(execution_id)
        case "ends" | "fails" if in_slot:
            decider.ends(execution_id, int(word == "fails"))
        case "unknown" if in_slot:
            decider.report(ReportUnknown(execution_id=execution_id))
        case "lost" if in_slot:
            decider.report(ReportLost(execution_id=execution_id, reason="no_exit_record"))
        case "time":
            decider.clock.advance_s(100)
            decider.report(PassTime())
        case "define":
            define(decider)
        case "delete":
            decider.send(DeleteExecution(execution_id=execution_id))
        case "forget":
            decider.report(Forget(executions=tuple(executions[3:]), commands=tuple(commands[3:])))
        case _:
            return


def define(decider: Decider) -> None:
    decider.define(
        JOB,
        overlap=Overlap.QUEUE,
        max_running=2,
        retry=RetrySpec(attempts=2),
        restart=RestartSpec(policy=RestartPolicy.ON_FAILURE),
        after=(AfterSpec(start=NEXT, on=tuple(FINAL_EXECUTION)),),
    )


def lived(acts: Sequence[tuple[str, int]]) -> Decider:
    decider = Decider()
    decider.define(NEXT, overlap=Overlap.QUEUE)
    define(decider)
    for word, pick in acts:
        act(decider, word, pick)
    return decider


def replay(table: JobTable, left: Sequence[Published], next_seq: int) -> None:
    """The table takes in what is left, as a start does."""
    seq = next_seq
    for published in left:
        for event in fitting(table, published.event, published.at_ms):
            table.apply(Published(seq, published.at_ms, event))
            seq += 1
    for end in stranded(table):
        table.apply(Published(seq, 0, end))
        seq += 1


def story(table: JobTable) -> tuple[dict[str, ExecutionStatus], dict[str, CommandStatus]]:
    executions = {e.id: e.status for e in table.executions()}
    return executions, {c.id: c.status for c in table.commands()}


def check(log: Sequence[Published], begin: int, end: int) -> None:
    """What a start makes of a log in which the events from `begin` to `end` cannot be read."""
    table = JobTable()
    for published in log[:begin]:
        table.apply(published)
    left = log[end:]
    replay(table, left, len(log) + 1)
    forgotten: set[str] = set()
    forgets = [p.event for p in left if isinstance(p.event, SystemForgotten)]
    traceless = {command_id for event in forgets for command_id in event.traceless}
    for event in (published.event for published in left):
        if isinstance(event, SystemForgotten):
            forgotten.update(event.executions)
        elif isinstance(event, ExecutionDeleted):
            forgotten.add(event.execution_id)
        command_id = getattr(event, "command_id", None)
        if command_id is not None:
            known = table.command(command_id) or table.forgotten(command_id)
            assert known or command_id in traceless, event
    for event in (published.event for published in left):
        execution = table.execution(getattr(event, "execution_id", None) or "")
        if isinstance(event, ExecutionQueued):
            assert (execution is None) == (event.execution_id in forgotten), event
        if isinstance(event, ExecutionEnded) and execution is not None:
            assert execution.is_final, event
    for command in table.unfinished_commands():
        awaited = [table.execution(i) for i in command.waits_for or (command.execution_id or "",)]
        assert any(e is not None and not e.is_final for e in awaited), command
    before = story(table)
    replay(table, left, 10_000)  # a death before the salvage was put away
    assert story(table) == before


@settings(max_examples=25, deadline=None)
@given(
    acts=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 5)), min_size=10, max_size=40),
    size=st.integers(1, 8),
)
def test_whatever_is_missing_the_rest_fits_and_is_replayed(
    acts: list[tuple[str, int]], size: int
) -> None:
    log = lived(acts).log
    for begin in range(len(log)):
        check(log, begin, begin + size)


@settings(max_examples=50, deadline=None)
@given(acts=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 5)), min_size=5, max_size=40))
def test_where_nothing_is_missing_the_replay_is_the_same(acts: list[tuple[str, int]]) -> None:
    decider = lived(acts)
    table = JobTable()
    replay(table, decider.log, 1)
    assert story(table) == story(decider.table)


def test_program_whose_start_is_lost_and_end_is_not_has_its_exact_code() -> None:
    decider = lived([("start", 0), ("runs", 0), ("fails", 0)])
    table = JobTable()
    replay(table, [p for p in decider.log if not isinstance(p.event, ExecutionRunning)], 100)
    [first, *_] = list(table.executions())[::-1]
    assert (first.status, first.exit_code) == (ExecutionStatus.FAILED, 1)
    command = table.command(first.command_id)
    assert command is not None
    assert command.is_final


def test_command_of_which_only_the_end_is_left_is_not_run_again() -> None:
    decider = Decider()
    define(decider)
    started = decider.send(StartJob(job_id=JOB))
    decider.runs(started.execution_id or "")
    table = JobTable()
    ends = [p for p in decider.log if isinstance(p.event, CommandEnded)]
    replay(table, ends, 100)
    record = table.command(started.id)
    assert record is not None
    assert (record.status, record.body_hash) == (CommandStatus.COMPLETED, "")


def test_command_whose_execution_is_nowhere_ends_as_interrupted() -> None:
    decider = Decider()
    define(decider)
    started = decider.send(StartJob(job_id=JOB))
    table = JobTable()
    replay(table, [p for p in decider.log if isinstance(p.event, CommandAccepted)], 100)
    record = table.command(started.id)
    assert record is not None
    assert (record.status, record.error_code) == (CommandStatus.FAILED, ErrorCode.INTERRUPTED)


def test_waiting_execution_of_a_lost_definition_takes_the_nearest_that_is_known() -> None:
    decider = Decider()
    define(decider)
    for _ in range(2):
        decider.send(StartJob(job_id=JOB))
    define(decider)
    waiting = decider.send(StartJob(job_id=JOB)).execution_id or ""
    table = JobTable()
    replay(table, [p for p in decider.log if not isinstance(p.event, JobChanged)], 100)
    execution = table.execution(waiting)
    assert execution is not None
    assert execution.status is ExecutionStatus.QUEUED
    assert table.spec(JOB, execution.revision) is not None


def test_execution_of_which_nothing_is_left_on_disk_never_runs_again() -> None:
    decider = Decider()
    define(decider)
    seen, gone, waiting = (decider.send(StartJob(job_id=JOB)) for _ in range(3))
    assert decider.status(waiting.execution_id) is ExecutionStatus.QUEUED
    for event in without_trace(decider.table, lambda e, _: e.id == seen.execution_id, 7):
        decider.table.apply(Published(1000, 7, event))
    assert decider.status(seen.execution_id) is ExecutionStatus.STARTING
    for lost in (gone, waiting):
        execution = decider.execution(lost.execution_id)
        assert (execution.status, execution.reason) == (
            ExecutionStatus.LOST,
            Reason.NO_EXIT_RECORD,
        )
        assert decider.command(lost.id).error_code == ErrorCode.INTERRUPTED
