"""Which files are written again after a crash: those that may not have been synced, no others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus.commands import Forget, StartJob, StopJob
from bus.events import Published
from bus.layout import DataLayout
from handlers.decisions.retention import BATCH_MAX as FORGET_MAX
from tests.decision_fixture import Decider
from tests.fakes import ManualClock
from transports.directory import disk
from transports.directory import projections as module
from transports.directory.changed_records import PAST_MAX
from transports.directory.projections import Projections


class Rig:
    """Projections of a table that is driven by hand."""

    def __init__(self, root: Path) -> None:
        self.decider = Decider()
        self.layout = DataLayout(root)
        self.clock = ManualClock()
        self.settled: list[str] = []
        self.projections = self.fresh()
        self.published = 0
        self.decider.define("Demo/Job")

    def fresh(self) -> Projections:
        return Projections(self.layout, self.decider.table, self.clock, self.settled.append)

    def publish(self) -> Sequence[Published]:
        """What has happened since the last time."""
        batch, self.published = self.decider.log[self.published :], len(self.decider.log)
        self.projections(batch)
        return batch

    def run_one(self) -> tuple[str, str]:
        """The ids of a start and of its execution, which has ended."""
        record = self.decider.send(StartJob(job_id="Demo/Job"))
        self.decider.runs(record.execution_id or "")
        self.decider.ends(record.execution_id or "")
        return record.id, record.execution_id or ""

    def files(self) -> set[str]:
        folders = (self.layout.results, self.layout.status)
        return {path.stem for folder in folders for path in folder.iterdir()}

    def lose_files(self) -> None:
        for folder in (self.layout.results, self.layout.status):
            for path in folder.iterdir():
                path.unlink()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.projections.run())
        try:
            async with asyncio.timeout(20):
                yield
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    for folder in (rig.layout.results, rig.layout.status):
        folder.mkdir()
    return rig


async def test_only_what_ended_after_the_watermark_is_written_again(rig: Rig) -> None:
    before = rig.run_one()
    rig.publish()
    async with rig.running():
        synced = await rig.projections.sync()
    assert synced == len(rig.decider.log)
    assert rig.files() == set(before)
    after = rig.run_one()
    live = rig.decider.send(StartJob(job_id="Demo/Job"))
    rig.lose_files()
    await rig.fresh().rewrite(synced)
    assert rig.files() == {*after, live.execution_id}
    await rig.fresh().rewrite()
    assert rig.files() == {*before, *after, live.execution_id}


async def test_an_old_execution_that_still_runs_is_written_again(rig: Rig) -> None:
    live = rig.decider.send(StartJob(job_id="Demo/Job")).execution_id or ""
    rig.decider.runs(live)
    rig.publish()
    async with rig.running():
        synced = await rig.projections.sync()
    assert synced == len(rig.decider.log)
    rig.lose_files()
    await rig.fresh().rewrite(synced)
    assert rig.files() == {live}
    rig.decider.send(StopJob(job_id="Demo/Job"))


async def test_the_whole_past_is_written_again_beside_the_work(rig: Rig) -> None:
    before = rig.run_one()
    rig.decider.send(StartJob(job_id="Demo/Job"))
    rig.projections.doubt_past()
    async with rig.running():
        synced = await rig.projections.sync()
    assert synced is not None
    assert rig.files() == set(before)  # and nothing of what was not published


async def test_files_of_the_past_that_is_forgotten_meanwhile_do_not_come_back(rig: Rig) -> None:
    past = [rig.run_one() for _ in range(PAST_MAX * 4)]
    kept = rig.run_one()
    rig.projections.doubt_past()
    commands, executions = zip(*past, strict=True)
    async with rig.running():
        while not rig.files():
            await asyncio.sleep(0)
        for begin in range(0, len(past), FORGET_MAX):
            some = slice(begin, begin + FORGET_MAX)
            rig.decider.report(Forget(executions=executions[some], commands=commands[some]))
        rig.projections.forget(executions, commands, commands)
        await rig.projections.drain()
    assert rig.files() == set(kept)


async def test_a_sync_waits_for_files_that_are_not_written_yet(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    ids = rig.run_one()
    rig.publish()
    blocked = rig.layout.results
    blocked.rmdir()
    blocked.write_text("in the way")
    async with rig.running():
        waiting = asyncio.create_task(rig.projections.sync())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        blocked.unlink()
        assert await waiting == len(rig.decider.log)
    assert rig.files() == set(ids)


async def test_what_is_forgotten_meanwhile_is_not_waited_for(rig: Rig) -> None:
    command_id, execution_id = rig.run_one()
    rig.publish()
    waiting = asyncio.create_task(rig.projections.sync())
    await asyncio.sleep(0)
    rig.projections.forget([execution_id], [command_id], [command_id])
    async with rig.running():
        assert await waiting == len(rig.decider.log)
    assert (rig.files(), rig.settled) == (set(), [command_id])


async def test_after_a_failed_sync_no_watermark_is_given_any_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise disk.SyncFailed("the disk is broken")

    rig.run_one()
    rig.publish()
    async with rig.running():
        with monkeypatch.context() as broken:
            broken.setattr(disk, "sync_all", fails)
            assert await rig.projections.sync() is None
        assert await rig.projections.sync() is None


async def test_files_of_the_forgotten_go_and_those_of_others_stay(rig: Rig) -> None:
    command_id, execution_id = rig.run_one()
    kept = rig.run_one()
    rig.publish()
    (rig.layout.results / "notes.txt").touch()
    spelled = "F1D02C3E-9A4B-4C5D-8E6F-7A8B9C0D1E2F"
    (rig.layout.results / f"{spelled}.json").touch()
    async with rig.running():
        await rig.projections.drain()
        assert set(kept) < rig.files()
        rig.projections.forget([execution_id], [command_id], [spelled])
        await rig.projections.drain()
    assert rig.files() == {*kept, command_id, "notes"}
