"""Forgetting in a whole owner with a journal, projections and output on a real disk.

The programs are not run: a stand-in ends them at once and leaves the folder a shim would leave
(`test_shim_life` and the service's own tests say that it is that).
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bus.changes import ChangeEncoder
from bus.clock import Clock, SystemClock
from bus.commands import ApplyCatalog, Definition, ReportEnded, StartJob
from bus.dispatch import Inbox
from bus.envelope import new_uuid, seal
from bus.events import CommandEnded, Published, SystemForgotten
from bus.feed import Frame
from bus.job_definition import JobSpec
from bus.layout import DataLayout
from bus.model import Execution, ExitRecord, Principal
from bus.ports import Policy, ReportSink
from bus.retention_settings import RetentionSettings
from handlers.decisions.decision import DeleteFiles
from handlers.disposal import Disposal
from handlers.journal.journal import SEGMENT_BYTES
from handlers.journal.opening import REPLAY_BYTES_MAX
from handlers.journal.recovery import recover
from handlers.owner import SNAPSHOT_BYTES, Owner
from handlers.retention_loop import LOOK_AFTER_ENDS, Retention, TrustedClock
from tests.fakes import ManualClock
from transports.directory.disk import PASSING
from transports.directory.projections import Projections

OLGA = Principal(user_id="olga", roles=("operator",), via="http")
JOBS = 10
SHIMS_FILES = ("claim", "process.json", "exit.json", "lock", "output.log", "output.idx")
DAY_S = 86_400.0


class Ends:
    """A supervisor whose programs end the moment they are started."""

    def __init__(self, layout: DataLayout, clock: Clock, report: ReportSink) -> None:
        self._layout = layout
        self._clock = clock
        self._report = report

    def spawn(self, execution: Execution, spec: JobSpec | None) -> None:
        folder = self._layout.execution(execution.id).root
        folder.mkdir()
        for name in SHIMS_FILES:
            os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY, 0o600))
        now_ms = self._clock.now_ms()
        ended = ExitRecord(ended_ms=now_ms, started_ms=now_ms, pid=1, exit_code=0)
        self._report(ReportEnded(execution_id=execution.id, exit=ended))

    def stop(self, execution: Execution) -> None:
        raise AssertionError("nothing runs long enough to be stopped")


class House:
    """An owner with everything that keeps and forgets."""

    def __init__(self, root: Path, keeping: RetentionSettings) -> None:
        self.layout = DataLayout(root)
        self.clock = SystemClock()
        folders = (self.layout.output, self.layout.status, self.layout.results, self.layout.journal)
        for folder in folders:
            folder.mkdir(parents=True)
        found = recover(self.layout.journal, "instance", self.clock)
        self.inbox = Inbox(self.clock)
        self.disposal = Disposal(self.layout)
        self.owner = Owner(
            journal=found.journal,
            table=found.table,
            next_seq=found.next_seq,
            inbox=self.inbox,
            feed=found.feed,
            encoder=found.encoder,
            supervisor=Ends(self.layout, self.clock, self.inbox.report),
            delete_files=self.forget_files,
            clock=self.clock,
            policy=Policy(),
        )
        self.table = found.table
        self.projections = Projections(self.layout, self.table, self.clock, lambda _: None)
        self.retention = Retention(
            self.table,
            keeping,
            self.clock,
            TrustedClock(self.clock, None),
            self.inbox.report,
            lambda: None,
            lambda _: None,
        )
        self.ended = 0
        self.news = asyncio.Event()
        for listener in (self.retention, self.projections, self.count):
            self.owner.listen(listener)

    def count(self, batch: Sequence[Published]) -> None:
        self.ended += sum(isinstance(published.event, CommandEnded) for published in batch)
        self.news.set()

    def forget_files(self, gone: DeleteFiles) -> None:
        self.disposal(gone.execution_ids)
        self.projections.forget(gone.execution_ids, gone.command_ids, gone.spellings)

    def files(self) -> dict[str, int]:
        """How many files and folders each part of the tree holds."""
        parts = (self.layout.output, self.layout.status, self.layout.results, self.layout.journal)
        return {
            part.name: sum(1 for path in part.rglob("*") if path.name != PASSING) for part in parts
        }

    def journal_bytes(self, kind: str) -> int:
        return sum(path.stat().st_size for path in self.layout.journal.glob(f"*.{kind}"))

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        parts = (self.owner, self.projections, self.disposal, self.retention)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part.run()) for part in parts]
            definitions = tuple(
                Definition(
                    job_id=f"Demo/Job{number}",
                    spec=JobSpec(command=("true",), max_running=1000),
                    revision="r1",
                )
                for number in range(JOBS)
            )
            self.inbox.report(ApplyCatalog(definitions=definitions))
            yield
            for task in tasks:
                task.cancel()
        self.owner.close()

    async def run(self, count: int) -> None:
        """So many starts have been handled and their programs have ended."""
        begun, wanted = 0, self.ended + count
        while begun < count:
            room = min(await self.inbox.room(), 256, count - begun)
            now_ms = self.clock.now_ms()
            self.inbox.put(
                seal(StartJob(job_id=f"Demo/Job{(begun + n) % JOBS}"), OLGA, now_ms=now_ms)
                for n in range(room)
            )
            begun += room
            await asyncio.sleep(0)
        while self.ended < wanted or list(self.table.live_executions()):
            self.news.clear()
            await self.news.wait()


async def leaves(root: Path, count: int, keeping: RetentionSettings, commands: int) -> None:
    """After `count` short executions no more is there than is kept."""
    house = House(root, keeping)
    async with house.at_work():
        await house.run(count)
        await house.retention.look()
        await house.projections.drain()
        await _emptied(house)
        kept = len(list(house.table.executions()))
    assert kept == min(count, keeping.executions * JOBS)
    files = house.files()
    assert files["JobOutput"] == kept * (1 + len(SHIMS_FILES))
    assert files["JobStatus"] == kept
    # Commands of the last minute are kept, whatever their number.
    assert files["JobCommandResults"] == len(list(house.table.commands()))
    assert len(list(house.table.commands())) <= commands
    # What came since the older of two snapshots, and what is kept for readers that come back.
    records, tables = house.journal_bytes("log"), house.journal_bytes("snapshot")
    assert records < 2 * SNAPSHOT_BYTES + REPLAY_BYTES_MAX + 2 * SEGMENT_BYTES
    assert tables < 2 * 1024 * (kept + commands)
    print({"executions": count, "kept": kept, **files, "records": records, "tables": tables})


async def _emptied(house: House) -> None:
    """The folders of what was forgotten are removed."""
    while len(os.listdir(house.layout.output)) > len(list(house.table.executions())):
        await asyncio.sleep(0.1)


async def test_many_short_executions_leave_no_more_than_is_kept(tmp_path: Path) -> None:
    await leaves(tmp_path / "data", 600, RetentionSettings(executions=20), commands=600)


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
async def test_a_million_short_executions_leave_no_more_than_is_kept(tmp_path: Path) -> None:
    # The kept commands, those of the last minute, and those of the time between two looks.
    await leaves(tmp_path / "data", 1_000_000, RetentionSettings(), commands=300_000)


async def test_a_table_read_again_is_the_one_that_forgot(tmp_path: Path) -> None:
    house = House(tmp_path / "data", RetentionSettings(executions=3))
    async with house.at_work():
        await house.run(100)
        await house.retention.look()
        published = house.table.freeze()
    again = recover(house.layout.journal, "instance", house.clock)
    assert again.table.freeze() == published
    assert len(list(again.table.executions())) == 3 * JOBS
    again.journal.close(again.next_seq, 0)


async def test_the_feed_has_no_change_of_what_is_forgotten(tmp_path: Path) -> None:
    encoder = ChangeEncoder("instance", "abc123")
    house = House(tmp_path / "data", RetentionSettings(executions=1))
    frames: list[Frame | None] = []

    def listener(batch: Sequence[Published]) -> None:
        frames.extend(
            encoder.frame(published, house.table)
            for published in batch
            if isinstance(published.event, SystemForgotten)
        )

    house.owner.listen(listener)
    async with house.at_work():
        await house.run(30)
        assert await house.retention.look() == 1
    assert frames == [None]


def test_a_service_that_was_down_for_long_waits_a_day_before_anything_is_too_old() -> None:
    clock = ManualClock()
    trusted = TrustedClock(clock, clock.now_ms() - int(3 * DAY_S * 1000))
    assert not trusted.is_trusted()
    clock.advance_s(DAY_S - 60)
    assert not trusted.is_trusted()
    clock.advance_s(120)
    assert trusted.is_trusted()
    clock.advance_s(10)
    assert trusted.is_trusted()


@pytest.mark.parametrize("jump_s", [400 * DAY_S, -400 * DAY_S, 1.5 * DAY_S])
def test_a_clock_that_jumps_makes_nothing_old_until_it_has_jumped_back(jump_s: float) -> None:
    clock = ManualClock()
    trusted = TrustedClock(clock, clock.now_ms())
    clock.advance_s(3600)
    assert trusted.is_trusted()
    clock.jump_wall_s(jump_s)
    assert not trusted.is_trusted()
    clock.advance_s(600)
    assert not trusted.is_trusted()
    clock.jump_wall_s(-jump_s)
    assert trusted.is_trusted()


@pytest.mark.parametrize("jump_s", [3600, -3600, 0.9 * DAY_S])
def test_a_clock_that_is_set_a_little_is_trusted(jump_s: float) -> None:
    clock = ManualClock()
    trusted = TrustedClock(clock, clock.now_ms())
    clock.jump_wall_s(jump_s)
    assert trusted.is_trusted()


@pytest.mark.exhaustive
async def test_many_ends_are_looked_at_soon_without_waiting_for_the_hour(tmp_path: Path) -> None:
    house = House(tmp_path / "data", RetentionSettings(executions=2))
    async with house.at_work():
        await house.run(LOOK_AFTER_ENDS + 50)
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                while len(list(house.table.executions())) > LOOK_AFTER_ENDS // 2:
                    house.news.clear()
                    await house.news.wait()
        assert len(list(house.table.executions())) <= LOOK_AFTER_ENDS // 2


def dig(folder: Path, levels: int) -> None:
    """Folders in each other, more than a path can name."""
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deep", dir_fd=handle)
        above, handle = handle, os.open("deep", os.O_RDONLY, dir_fd=handle)
        os.close(above)
    os.close(handle)


@pytest.mark.parametrize("with_folder", [False, True])
def test_folders_of_the_forgotten_go_whatever_lies_in_them(
    tmp_path: Path, *, with_folder: bool
) -> None:
    layout = DataLayout(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    gone, link = new_uuid(2), new_uuid(1)
    folder = layout.execution(gone).root
    folder.mkdir(parents=True)
    (folder / "output.log").touch()
    (folder / "way-out").symlink_to(outside)
    if with_folder:
        dig(folder, sys.getrecursionlimit() + 100)
        (folder / "closed" / "more").mkdir(parents=True)
        (folder / "closed").chmod(0o500)
        folder.chmod(0)
    layout.execution(link).root.symlink_to(outside)
    disposal = Disposal(layout)
    assert disposal.sweep(known=(), since_ms=0) == 2
    assert not folder.exists()
    assert (outside / "precious").exists()
