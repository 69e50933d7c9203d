"""The files that readers of the origin look into: right fields, right order, never half."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from bus.clock import SystemClock
from bus.commands import StartJob
from bus.events import (
    AnyEvent,
    CommandAccepted,
    CommandEnded,
    ExecutionEnded,
    ExecutionProgress,
    ExecutionQueued,
    Published,
)
from bus.groups import Group
from bus.job_definition import Job, RolesSpec
from bus.layout import DataLayout
from bus.model import (
    CommandRecord,
    CommandStatus,
    Execution,
    ExecutionStatus,
    ForgottenCommand,
    Outcome,
    Progress,
    Reason,
)
from bus.views import GroupView
from tests.directory_fixture import drop, names, origins_fields, received, running, until
from transports.directory import disk
from transports.directory.projections import Projections

COMMAND_ID = "f1d02c3e-9a4b-4c5d-8e6f-7a8b9c0d1e2f"
EXECUTION_ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


class Records:
    """A published table as far as projections ask it; the owner's part is played by the test."""

    maintenance = None

    def __init__(self) -> None:
        self._commands: dict[str, CommandRecord] = {}
        self._executions: dict[str, Execution] = {}

    def put(self, *records: CommandRecord | Execution) -> None:
        for record in records:
            if isinstance(record, CommandRecord):
                self._commands[record.id] = record
            else:
                self._executions[record.id] = record

    def job(self, job_id: str) -> Job | None:
        return None

    def jobs(self) -> Iterable[Job]:
        return ()

    def names_of(self, job_id: str) -> tuple[str, ...]:
        raise NotImplementedError

    def roles(self, job_id: str) -> RolesSpec | None:
        return None

    def execution(self, execution_id: str) -> Execution | None:
        return self._executions.get(execution_id)

    def waiting_for(self, execution: Execution, now_ms: int) -> str:
        return ""

    def groups(self) -> Iterable[Group]:
        return ()

    def group_view(self, name: str) -> GroupView | None:
        return None

    def executions(self) -> Iterable[Execution]:
        return self._executions.values()

    def executions_of(self, job_id: str) -> Iterable[Execution]:
        return (one for one in self._executions.values() if one.job_id == job_id)

    def live_executions(self) -> Iterable[Execution]:
        return (one for one in self._executions.values() if not one.is_final)

    def command(self, command_id: str) -> CommandRecord | None:
        return self._commands.get(command_id)

    def forgotten(self, command_id: str) -> ForgottenCommand | None:
        return None

    def commands(self) -> Iterable[CommandRecord]:
        return self._commands.values()


EXECUTION = Execution(
    id=EXECUTION_ID,
    job_id="WebHostMetrics/CollectMetrics",
    command_id=COMMAND_ID,
    user_id="alice",
    status=ExecutionStatus.RUNNING,
    revision="1",
    queued_ms=1_769_450_400_000,
    start_ms=1_769_450_401_000,
    pid=4711,
    progress=Progress(percent=42.0, message="copying"),
)
ENDED = msgspec.structs.replace(
    EXECUTION,
    status=ExecutionStatus.FAILED,
    end_ms=1_769_450_460_000,
    reason=Reason.EXIT_CODE,
    exit_code=3,
    contained=True,
)
COMMAND = CommandRecord(
    id=COMMAND_ID,
    kind="start",
    user_id="alice",
    roles=("operator",),
    submitted_ms=1_769_450_400_000,
    submitted_text="2026-01-26T10:00:00.0000000-08:00",
    body_hash="x",
    status=CommandStatus.COMPLETED,
    job_id="WebHostMetrics/CollectMetrics",
    variables={"Interval": 30},
    execution_id=EXECUTION_ID,
    outcome=Outcome.DONE,
    processed_ms=1_769_450_402_000,
)


class Rig:
    """Projections at work, and what they settled, with what lay in the folders at that moment."""

    def __init__(self, root: Path) -> None:
        self.layout = DataLayout(root)
        self.table = Records()
        self.settled: list[tuple[str, bool, bool]] = []
        self.projections = Projections(self.layout, self.table, SystemClock(), self._settle)
        self.layout.status.mkdir()
        self.layout.results.mkdir()

    def _settle(self, command_id: str) -> None:
        result = self.layout.results / f"{command_id}.json"
        status = self.layout.status / f"{EXECUTION_ID}.json"
        self.settled.append((command_id, result.exists(), status.exists()))

    def publish(self, *events: AnyEvent) -> None:
        self.projections([Published(n, 0, event) for n, event in enumerate(events)])

    def status(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(
            (self.layout.status / f"{EXECUTION_ID}.json").read_bytes()
        )
        return found

    def result(self, name: str = COMMAND_ID) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.layout.results / f"{name}.json").read_bytes())
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(self.projections.run(), name="projections")
            yield
            task.cancel()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def queued() -> ExecutionQueued:
    return ExecutionQueued(
        execution_id=EXECUTION_ID,
        job_id=EXECUTION.job_id,
        command_id=COMMAND_ID,
        user_id="alice",
        revision="1",
    )


def ended() -> CommandEnded:
    return CommandEnded(command_id=COMMAND_ID, status=CommandStatus.COMPLETED)


def progress() -> ExecutionProgress:
    return ExecutionProgress(execution_id=EXECUTION_ID, progress=Progress(percent=1.0))


async def test_get_job_status_finds_its_fields(rig: Rig) -> None:
    async with rig.running():
        rig.table.put(ENDED)
        rig.publish(queued())
        await rig.projections.drain()
    origin = {
        "ExecutionID": EXECUTION_ID,
        "JobID": "WebHostMetrics/CollectMetrics",
        "Status": "Failed",
        "StartTime": "2026-01-26T18:00:01.000Z",
        "EndTime": "2026-01-26T18:01:00.000Z",
        "UserID": "alice",
    }
    ours = {
        "CommandID": COMMAND_ID,
        "Attempt": 1,
        "Progress": 42.0,
        "Message": "copying",
        "ExitCode": 3,
        "Signal": None,
        "Reason": "exit_code",
        "Contained": True,
    }
    found = rig.status()
    assert {name: found[name] for name in (*origin, *ours)} == origin | ours


async def test_get_job_command_status_finds_its_fields(rig: Rig) -> None:
    async with rig.running():
        rig.table.put(COMMAND, EXECUTION)
        rig.publish(ended())
        await rig.projections.drain()
    assert rig.result() == {
        "CommandID": COMMAND_ID,
        "Command": "start",
        "JobID": "WebHostMetrics/CollectMetrics",
        "UserID": "alice",
        "Variables": {"Interval": 30},
        "Roles": ["operator"],
        "SubmittedAt": "2026-01-26T10:00:00.0000000-08:00",
        "Status": "Completed",
        "ProcessedAt": "2026-01-26T18:00:02.000Z",
        "ExecutionID": EXECUTION_ID,
        "Error": None,
        "Outcome": "done",
        "ErrorCode": None,
        "Result": None,
    }


async def test_a_result_lies_where_its_writer_looks_for_it(rig: Rig) -> None:
    async with rig.running():
        rig.table.put(msgspec.structs.replace(COMMAND, id_text=COMMAND_ID.upper()))
        rig.publish(ended())
        await rig.projections.drain()
    assert names(rig.layout.results) == [f"{COMMAND_ID.upper()}.json"]
    assert rig.result(COMMAND_ID.upper())["CommandID"] == COMMAND_ID.upper()


async def test_a_command_is_settled_when_status_and_result_are_there(rig: Rig) -> None:
    async with rig.running():
        rig.table.put(COMMAND, EXECUTION)
        rig.publish(queued(), ended())
        await rig.projections.drain()
    assert rig.settled == [(COMMAND_ID, True, True)]


async def test_a_command_that_is_only_accepted_has_no_result(rig: Rig) -> None:
    async with rig.running():
        rig.table.put(msgspec.structs.replace(COMMAND, status=CommandStatus.RUNNING), EXECUTION)
        accepted = CommandAccepted(
            command_id=COMMAND_ID, kind="start", user_id="a", submitted_ms=0, body_hash="x"
        )
        rig.publish(accepted, queued())
        await rig.projections.drain()
    assert names(rig.layout.results) == []
    assert rig.settled == []


async def test_progress_is_written_once_a_second_and_the_end_at_once(rig: Rig) -> None:
    async with rig.running():
        rig.table.put(EXECUTION)
        rig.publish(queued())
        await until(lambda: names(rig.layout.status))
        first = (rig.layout.status / f"{EXECUTION_ID}.json").stat().st_mtime_ns
        for percent in range(200):
            moved = Progress(percent=float(percent))
            rig.table.put(msgspec.structs.replace(EXECUTION, progress=moved))
            rig.publish(progress())
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert (rig.layout.status / f"{EXECUTION_ID}.json").stat().st_mtime_ns == first
        await until(lambda: rig.status()["Progress"] == 199.0)
        rig.publish(progress())
        rig.table.put(ENDED)
        rig.publish(
            ExecutionEnded(
                execution_id=EXECUTION_ID,
                status=ExecutionStatus.FAILED,
                reason=Reason.EXIT_CODE,
                ended_ms=0,
            )
        )
        await until(lambda: rig.status()["Status"] == "Failed")


async def test_the_end_of_a_command_takes_a_waiting_status_along(rig: Rig) -> None:
    async with rig.running():
        starting = msgspec.structs.replace(EXECUTION, status=ExecutionStatus.STARTING)
        rig.table.put(starting)
        rig.publish(queued())
        await until(lambda: names(rig.layout.status))
        rig.table.put(EXECUTION, COMMAND)
        rig.publish(progress(), ended())
        await until(lambda: rig.settled)
        assert rig.status()["Status"] == "Running"


async def test_drain_does_not_wait_for_the_second_to_pass(rig: Rig) -> None:
    async with rig.running():
        rig.table.put(EXECUTION)
        for percent in range(3):
            moved = Progress(percent=float(percent))
            rig.table.put(msgspec.structs.replace(EXECUTION, progress=moved))
            rig.publish(progress())
            await rig.projections.drain()
            assert rig.status()["Progress"] == float(percent)


async def test_a_rewrite_makes_all_files_true_again(rig: Rig) -> None:
    other = msgspec.structs.replace(ENDED, id=EXECUTION_ID.replace("0190", "0191"))
    running_command = msgspec.structs.replace(
        COMMAND, id=COMMAND_ID.replace("f1", "f2"), status=CommandStatus.RUNNING
    )
    rig.table.put(EXECUTION, other, COMMAND, running_command)
    (rig.layout.status / f"{EXECUTION_ID}.json").write_bytes(b"\0" * 300)
    await rig.projections.rewrite()
    before = (rig.layout.status / f"{EXECUTION_ID}.json").stat()
    assert rig.status()["Status"] == "Running"
    assert len(names(rig.layout.status)) == 2
    assert names(rig.layout.results) == [f"{COMMAND_ID}.json"]
    assert [one for one, _, _ in rig.settled] == [COMMAND_ID]
    await rig.projections.rewrite()
    after = (rig.layout.status / f"{EXECUTION_ID}.json").stat()
    assert after.st_ino == before.st_ino, "a file that was right was written again"


async def test_a_rewrite_removes_what_a_death_left_half_written(rig: Rig) -> None:
    rig.table.put(EXECUTION, COMMAND)
    left = [
        rig.layout.status / f".{EXECUTION_ID}.json{disk.PASSING}",
        rig.layout.results / f".{COMMAND_ID}.json{disk.PASSING}",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{")
        assert path not in path.parent.glob("*.json")
    await rig.projections.rewrite()
    assert [path.name for path in rig.layout.status.iterdir()] == [f"{EXECUTION_ID}.json"]
    assert [path.name for path in rig.layout.results.iterdir()] == [f"{COMMAND_ID}.json"]


async def test_files_are_private_and_nothing_passing_stays(rig: Rig) -> None:
    async with rig.running():
        rig.table.put(COMMAND, EXECUTION)
        rig.publish(queued(), ended())
        await rig.projections.drain()
    for folder in (rig.layout.status, rig.layout.results):
        [path] = folder.iterdir()
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_disk_that_refuses_delays_files_and_loses_none(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transports.directory.projections.RETRY_S", 0.05)
    rig.layout.status.rmdir()
    rig.layout.status.write_bytes(b"a file where the folder should be")
    async with rig.running():
        rig.table.put(COMMAND, EXECUTION)
        rig.publish(queued(), ended())
        await asyncio.sleep(0.1)
        assert rig.settled == []
        rig.layout.status.unlink()
        await rig.projections.drain()
    assert rig.settled == [(COMMAND_ID, True, True)]


async def test_thousands_of_commands_have_their_files_in_the_end(rig: Rig) -> None:
    ids = [COMMAND_ID[:-4] + f"{n:04x}" for n in range(2000)]
    async with rig.running():
        for one in ids:
            rig.table.put(msgspec.structs.replace(COMMAND, id=one, execution_id=None))
            rig.publish(CommandEnded(command_id=one, status=CommandStatus.COMPLETED))
        await rig.projections.drain()
    assert names(rig.layout.results) == [f"{one}.json" for one in ids]
    assert [one for one, _, _ in rig.settled] == ids


async def test_from_a_dropped_file_to_its_result_and_an_empty_queue(tmp_path: Path) -> None:
    table = Records()
    layout = DataLayout(tmp_path)
    async with running(tmp_path, known=table.command) as transport:
        projections = Projections(layout, table, SystemClock(), transport.settle)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(projections.run(), name="projections")
            path = drop(layout, origins_fields(CommandID=COMMAND_ID))
            [got] = await received(transport, 1)
            table.put(COMMAND, EXECUTION)
            projections(
                [Published(1, 0, queued()), Published(2, 0, ended())],
            )
            await until(lambda: not path.exists())
            task.cancel()
    assert isinstance(got.command, StartJob)
    assert json.loads((layout.results / path.name).read_bytes())["Status"] == "Completed"
    assert names(layout.status) == [f"{EXECUTION_ID}.json"]
