"""The owner with a real journal: what is visible when, and that only it changes the table."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from bus.changes import ChangeEncoder
from bus.commands import (
    ApplyCatalog,
    Definition,
    DeleteExecution,
    ReportEnded,
    StartJob,
    StopJob,
)
from bus.dispatch import Inbox
from bus.envelope import SYSTEM, Envelope, seal
from bus.events import Published
from bus.feed import Feed
from bus.job_definition import JobSpec
from bus.model import Execution, ExitRecord, Principal
from bus.ports import Policy
from handlers.decisions.table import JobTable
from handlers.journal.format import Record
from handlers.journal.journal import Journal
from handlers.journal.recovery import recover
from handlers.owner import Owner
from tests.fakes import ManualClock

ROOT = Path(__file__).parents[2]
OLGA = Principal(user_id="olga", roles=("operator",), via="http")


class RecordingSupervisor:
    """Starts nothing; remembers what it was asked."""

    def __init__(self) -> None:
        self.spawned: list[str] = []

    def spawn(self, execution: Execution, spec: JobSpec | None) -> None:
        self.spawned.append(execution.id)

    def stop(self, execution: Execution) -> None:
        raise AssertionError("nothing is stopped here")


class Rig:
    """An owner on a real journal whose sync can be held up."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        found = Journal.open(directory, now_ms=self.clock.now_ms())
        self.journal = found.journal
        self.feed = Feed(found.epoch, found.next_seq - 1, self.clock)
        self.supervisor = RecordingSupervisor()
        self.owner = Owner(
            journal=found.journal,
            table=JobTable(),
            next_seq=found.next_seq,
            inbox=Inbox(self.clock),
            feed=self.feed,
            encoder=ChangeEncoder("instance", found.epoch),
            supervisor=self.supervisor,
            delete_files=lambda _: None,
            clock=self.clock,
            policy=Policy(),
        )

    async def define(self) -> None:
        definition = Definition(job_id="Demo/A", spec=JobSpec(command=("true",)), revision="r1")
        report = ApplyCatalog(definitions=(definition,))
        await self.owner.handle([Envelope(id="", command=report, principal=SYSTEM, submitted_ms=0)])

    def start(self) -> Envelope:
        return seal(StartJob(job_id="Demo/A"), OLGA, now_ms=self.clock.now_ms())


async def test_nothing_is_visible_or_done_before_the_record_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    await rig.define()
    loop = asyncio.get_running_loop()
    reached, released = asyncio.Event(), asyncio.Event()
    batches: list[Sequence[Published]] = []

    def listener(batch: Sequence[Published]) -> None:
        batches.append(batch)

    rig.owner.listen(listener)
    append = rig.journal.append

    def held(records: Sequence[Record]) -> None:
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result(timeout=10)
        append(records)

    monkeypatch.setattr(rig.journal, "append", held)
    envelope = rig.start()
    head = rig.feed.head
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(rig.owner.handle([envelope]))
        await reached.wait()
        assert rig.owner.published.command(envelope.id) is None
        assert list(rig.owner.published.executions()) == []
        assert (rig.feed.head, rig.supervisor.spawned, batches) == (head, [], [])
        released.set()
    monkeypatch.undo()
    record = rig.owner.published.command(envelope.id)
    assert record is not None
    assert rig.supervisor.spawned == [record.execution_id]
    assert rig.feed.head > head
    assert len(batches) == 1
    rig.owner.close()


async def test_journal_replays_to_the_published_table(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.define()
    await rig.owner.handle([rig.start() for _ in range(3)])
    await rig.owner.snapshot()
    await rig.owner.handle([rig.start()])
    published = rig.owner.published.freeze()
    rig.owner.close()

    found = recover(tmp_path, "instance", rig.clock)
    assert found.table.freeze() == published
    assert found.clean
    assert found.feed.epoch == rig.feed.epoch
    found.journal.close(found.next_seq, 0)


async def test_a_stop_of_what_ends_and_is_deleted_in_the_same_batch_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    await rig.define()
    await rig.owner.handle([rig.start()])
    [execution] = rig.owner.published.executions()
    ended = ReportEnded(execution_id=execution.id, exit=ExitRecord(ended_ms=rig.clock.now_ms()))
    await rig.owner.handle(
        [
            seal(StopJob(execution_id=execution.id), OLGA, now_ms=rig.clock.now_ms()),
            Envelope(id="", command=ended, principal=SYSTEM, submitted_ms=0),
            seal(DeleteExecution(execution_id=execution.id), OLGA, now_ms=rig.clock.now_ms()),
        ]
    )
    assert list(rig.owner.published.executions()) == []
    rig.owner.close()


async def test_repeated_command_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.define()
    envelope = rig.start()
    await rig.owner.handle([envelope, envelope])
    head = rig.feed.head
    await rig.owner.handle([envelope])
    assert rig.feed.head == head
    assert len(rig.supervisor.spawned) == 1
    rig.owner.close()


def test_only_the_owner_applies_events() -> None:
    callers = {
        str(path.relative_to(ROOT))
        for part in ("jobbus", "bus", "handlers", "transports")
        for path in (ROOT / part).rglob("*.py")
        if re.search(r"\.apply\(", path.read_text(encoding="utf-8"))
    }
    # Recovery makes the owner's table; history and the doctor fold records into tables of their
    # own that no other part sees.
    assert callers == {
        "handlers/owner.py",
        "handlers/journal/recovery.py",
        "handlers/history.py",
        "jobbus/doctor/journal.py",
    }
