"""The whole table of overlapping commands: what each does to a job in each state, by `overlap`."""

from collections.abc import Callable

import pytest

from bus.clock import rfc3339
from bus.commands import Command, ReportUnknown, RestartJob, StartJob, StopJob
from bus.events import ExecutionEnded, ExecutionQueued
from bus.job_definition import Overlap, RetrySpec, VariableSpec, VariableType
from bus.model import CommandRecord, CommandStatus, ExecutionStatus, Outcome
from handlers.decisions.decision import SpawnExecution, StopExecution
from tests.decision_fixture import Decider

JOB = "Demo/Job"
START = StartJob(job_id=JOB)
OTHER = StartJob(job_id=JOB, variables={"N": 2})
STOP = StopJob(job_id=JOB)
RESTART = RestartJob(job_id=JOB)
COMMANDS: dict[str, Command] = {
    "start": START,
    "start otherwise": OTHER,
    "stop": STOP,
    "restart": RESTART,
}


def idle(decider: Decider) -> None:
    pass


def starting(decider: Decider) -> None:
    decider.send(START)


def running(decider: Decider) -> None:
    decider.runs(decider.send(START).execution_id or "")


def unknown(decider: Decider) -> None:
    execution_id = decider.send(START).execution_id or ""
    decider.runs(execution_id)
    decider.report(ReportUnknown(execution_id=execution_id))


def stopping(decider: Decider) -> None:
    running(decider)
    decider.send(STOP)


def queued(decider: Decider) -> None:
    """One waits behind another that is being stopped."""
    stopping(decider)
    decider.send(START)


def backing_off(decider: Decider) -> None:
    decider.ends(decider.send(START).execution_id or "", 1)


def planned(decider: Decider) -> None:
    """One waits for a moment that lies ahead."""
    later = rfc3339(decider.clock.now_ms() + 3_600_000)
    decider.send(StartJob(job_id=JOB, not_before=later))


STATES: dict[str, Callable[[Decider], None]] = {
    "idle": idle,
    "queued": queued,
    "starting": starting,
    "running": running,
    "stopping": stopping,
    "backing off": backing_off,
    "planned": planned,
    "unknown": unknown,
}

FULL = {
    Overlap.REJECT: "already_running",
    Overlap.QUEUE: "wait",
    Overlap.REPLACE: "stop, then start",
    Overlap.SKIP: "noop",
}
"""What a start does by `overlap` when something else has the slot."""

TABLE = {
    ("idle", "start"): "go",
    ("idle", "start otherwise"): "go",
    ("idle", "stop"): "noop",
    ("idle", "restart"): "go",
    ("queued", "start"): "same",
    ("queued", "start otherwise"): "wait",
    ("queued", "stop"): "cancel",
    ("queued", "restart"): "merged",
    ("starting", "start"): "same",
    ("starting", "start otherwise"): "full",
    ("starting", "stop"): "stop",
    ("starting", "restart"): "wait",
    ("running", "start"): "full",
    ("running", "start otherwise"): "full",
    ("running", "stop"): "stop",
    ("running", "restart"): "stop, then start",
    ("stopping", "start"): "wait",
    ("stopping", "start otherwise"): "wait",
    ("stopping", "stop"): "merged",
    ("stopping", "restart"): "wait",
    ("backing off", "start"): "start now",
    ("backing off", "start otherwise"): "cancel, go",
    ("backing off", "stop"): "cancel",
    ("backing off", "restart"): "start now",
    ("planned", "start"): "go",
    ("planned", "start otherwise"): "go",
    ("planned", "stop"): "cancel",
    ("planned", "restart"): "go",
    ("unknown", "start"): "full",
    ("unknown", "start otherwise"): "full",
    ("unknown", "stop"): "stop",
    ("unknown", "restart"): "stop, then start",
}
"""What happens; `full` is by FULL, `same` is a noop but waits in a queue of its own."""

OTHERWISE = {
    ("queued", "start", Overlap.QUEUE): "wait",
    ("starting", "start", Overlap.QUEUE): "wait",
    ("queued", "start otherwise", Overlap.REPLACE): "cancel, wait",
}
"""Where `overlap` makes a difference beyond FULL."""


def expected(state: str, command: str, overlap: Overlap) -> str:
    found = OTHERWISE.get((state, command, overlap)) or TABLE[state, command]
    return {"full": FULL[overlap], "same": "noop"}.get(found, found)


def happened(decider: Decider, record: CommandRecord, log_before: int, effects_before: int) -> str:
    """What the command did, in the words of the table."""
    if record.status is CommandStatus.REJECTED:
        return record.error_code or ""
    events = [published.event for published in decider.log[log_before:]]
    fresh = {e.execution_id for e in events if isinstance(e, ExecutionQueued)}
    effects = decider.effects[effects_before:]
    words = []
    if any(isinstance(e, ExecutionEnded) for e in events):
        words.append("cancel")
    if any(isinstance(effect, StopExecution) for effect in effects):
        words.append("stop, then start" if fresh else "stop")
    elif any(isinstance(effect, SpawnExecution) for effect in effects):
        words.append("go" if record.execution_id in fresh else "start now")
    elif fresh:
        words.append("wait")
    elif record.merged:
        words.append("merged")
    elif record.outcome is Outcome.NOOP:
        words.append("noop")
    return ", ".join(words)


@pytest.mark.parametrize("overlap", list(Overlap))
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", STATES)
def test_command_does_what_the_table_says(state: str, command: str, overlap: Overlap) -> None:
    decider = Decider()
    number = VariableSpec(type=VariableType.INTEGER, default=1)
    decider.define(overlap=overlap, retry=RetrySpec(attempts=5), variables={"N": number})
    STATES[state](decider)
    log, effects = len(decider.log), len(decider.effects)
    record = decider.send(COMMANDS[command])
    assert happened(decider, record, log, effects) == expected(state, command, overlap)
    assert len(decider.table.in_slots(JOB)) <= 1


def test_second_start_of_a_replacing_job_takes_the_place_of_the_one_that_waits() -> None:
    decider = Decider()
    number = VariableSpec(type=VariableType.INTEGER, default=1)
    decider.define(overlap=Overlap.REPLACE, variables={"N": number})
    running(decider)
    second, third = decider.send(START), decider.send(OTHER)
    again = decider.send(OTHER)
    assert decider.status(second.execution_id) is ExecutionStatus.CANCELLED
    assert decider.command(second.id).error_code == "superseded"
    assert (again.outcome, again.execution_id) == (Outcome.NOOP, third.execution_id)
    [old] = decider.table.in_slots(JOB)
    decider.ends(old.id, None, signal=15)
    assert decider.status(third.execution_id) is ExecutionStatus.STARTING


@pytest.mark.parametrize("state", ["starting", "running", "stopping", "queued"])
def test_restart_with_other_variables_takes_the_place_of_the_one_that_waits(state: str) -> None:
    decider = Decider()
    number = VariableSpec(type=VariableType.INTEGER, default=1)
    decider.define(variables={"N": number})
    STATES[state](decider)
    first = decider.send(RESTART)
    second = decider.send(RestartJob(job_id=JOB, variables={"N": 2}))
    same = decider.send(RestartJob(job_id=JOB, variables={"N": 2}))
    assert decider.command(first.id).error_code == "superseded"
    assert decider.execution(second.execution_id).variables == {"N": 2}
    assert (same.merged, same.execution_id) == (True, second.execution_id)
    assert [e.id for e in decider.table.queued(JOB)] == [second.execution_id]
    [old] = decider.table.in_slots(JOB)
    if old.status is ExecutionStatus.STARTING:
        decider.runs(old.id)
    decider.ends(old.id, None, signal=15)
    assert decider.status(second.execution_id) is ExecutionStatus.STARTING
