"""Which files are behind the table: in the end each is written, and results never before their
execution's status."""

from hypothesis import given
from hypothesis import strategies as st

from bus.commands import ReportProgress, StartJob
from bus.events import COMMAND_EVENTS, EXECUTION_EVENTS, CommandEnded
from bus.model import CommandRecord, Execution, Progress
from tests.decision_fixture import Decider
from transports.directory.changed_records import INTERVAL_S, ChangedRecords

STEPS = st.lists(
    st.sampled_from(["start", "run", "progress", "end", "write", "fail", "wait"]), max_size=40
)


class Files:
    """A table that changes, and the files of a disk that fails at times."""

    def __init__(self) -> None:
        self.decider = Decider()
        self.decider.define(max_running=100)
        self.changed = ChangedRecords(self.decider.table)
        self.live: list[str] = []
        self.now_s = 0.0
        self.noted = 0
        self.status: dict[str, Execution] = {}
        self.results: dict[str, CommandRecord] = {}

    def change(self, step: str) -> None:
        match step:
            case "start":
                record = self.decider.send(StartJob(job_id="Demo/Job"))
                assert record.execution_id is not None
                self.live.append(record.execution_id)
            case "run" if self.live:
                self.decider.runs(self.live[0])
            case "progress" if self.live:
                progress = Progress(percent=float(len(self.decider.log) % 100))
                self.decider.report(ReportProgress(execution_id=self.live[0], progress=progress))
            case "end" if self.live:
                self.decider.ends(self.live.pop(0))
            case "wait":
                self.now_s += INTERVAL_S
            case _:
                return
        self.note()

    def note(self) -> None:
        for published in self.decider.log[self.noted :]:
            event = published.event
            if isinstance(event, EXECUTION_EVENTS):
                self.changed.note_execution(event.execution_id)
            elif isinstance(event, COMMAND_EVENTS) and isinstance(event, CommandEnded):
                self.changed.note_command(event.command_id)
        self.noted = len(self.decider.log)

    def write(self, *, hurry: bool = False, fails: bool = False) -> bool:
        """Whether there was anything to be written."""
        batch = self.changed.take(self.now_s, hurry=hurry)
        if batch is None:
            return False
        if fails:
            self.changed.note_again(batch)
            return True
        self.status.update((each.id, each) for each in batch.executions)
        for command in batch.commands:
            if command.execution_id is not None:
                assert command.execution_id in self.status, "a result before its status"
            self.results[command.id] = command
        self.changed.written(batch)
        return True


@given(STEPS)
def test_every_change_is_in_a_file_in_the_end(steps: list[str]) -> None:
    files = Files()
    for step in steps:
        files.change(step)
        if step in ("write", "fail"):
            files.write(fails=step == "fail")
    while files.write(hurry=True):
        pass
    table = files.decider.table
    assert files.status == {each.id: each for each in table.executions()}
    assert files.results == {each.id: each for each in table.commands() if each.is_final}
    assert not files.changed.to_be_written()
    assert files.changed.due_s is None


def test_the_status_of_a_live_execution_is_written_at_most_once_an_interval() -> None:
    files = Files()
    files.change("start")
    files.change("run")
    assert files.write()
    files.change("progress")
    assert not files.write()
    assert files.changed.due_s == INTERVAL_S
    files.now_s = INTERVAL_S
    assert files.write()
    files.change("end")
    assert files.write()


def test_what_was_forgotten_is_removed_and_not_written() -> None:
    files = Files()
    files.change("start")
    files.change("end")
    [execution] = files.decider.table.executions()
    [command] = files.decider.table.commands()
    files.changed.forget([execution.id], [command.id], [command.id])
    batch = files.changed.take(0, hurry=True)
    assert batch is not None
    assert (batch.executions, batch.commands) == ((), ())
    assert batch.status_gone == (f"{execution.id}.json",)
    assert batch.results_gone == (f"{command.id}.json",)
