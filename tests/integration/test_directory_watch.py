"""The watch on the queue: it notifies in time, survives everything, and nothing depends on it."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from bus.commands import StartJob
from bus.envelope import seal
from bus.layout import DataLayout
from bus.model import Principal
from tests.directory_fixture import QUICK, drop, origins_fields, received, running, until
from transports.directory import watch
from transports.directory.watch import DirectoryWatch

RARE = msgspec.structs.replace(QUICK, scan_interval_s=3600)
"""So rare are scans without a notification that the test would time out waiting for one."""


@asynccontextmanager
async def watched(
    path: Path, ours: set[str]
) -> AsyncIterator[tuple[DirectoryWatch, asyncio.Event]]:
    notified = asyncio.Event()
    made = DirectoryWatch(path, lambda _: notified.set(), ours.__contains__)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(made.run(), name="watch")
        await until(lambda: made.armed)
        notified.clear()
        yield made, notified
        task.cancel()


async def test_a_foreign_file_is_received_without_waiting_for_a_scan(tmp_path: Path) -> None:
    async with running(tmp_path, settings=RARE) as transport:
        for _ in range(20):
            fields = origins_fields()
            drop(DataLayout(tmp_path), fields)
            [got] = await received(transport, 1)
            assert got.id == fields["CommandID"]


async def test_without_a_watch_the_slow_scan_finds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def blind(self: DirectoryWatch) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(DirectoryWatch, "run", blind)
    async with running(tmp_path) as transport:
        fields = origins_fields()
        drop(DataLayout(tmp_path), fields)
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]


async def test_files_of_others_are_announced_and_ours_are_not(tmp_path: Path) -> None:
    async with watched(tmp_path, {"ours.json"}) as (_, notified):
        (tmp_path / "ours.json").write_bytes(b"x")
        (tmp_path / "other.json").write_bytes(b"x")
        await notified.wait()
        notified.clear()
        (tmp_path / "ours.json").write_bytes(b"y")
        await asyncio.sleep(0.05)
        assert not notified.is_set()


async def test_a_name_that_is_not_utf8_is_announced(tmp_path: Path) -> None:
    async with watched(tmp_path, set()) as (_, notified):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")).touch()
        await notified.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
async def test_lost_events_are_announced(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 50_000:
        pytest.skip(f"the queue of this system is too long to overflow quickly ({limit})")
    names = [str(tmp_path / str(n)) for n in (1, 2)]
    async with watched(tmp_path, {"1", "2"}) as (_, notified):
        for n in range(limit + 10):  # the loop does not run meanwhile; equal neighbours would merge
            os.close(os.open(names[n % 2], os.O_WRONLY | os.O_CREAT))
        await notified.wait()


async def test_the_watch_is_made_again_when_the_directory_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "REARM_S", 0.02)
    folder = tmp_path / "queue"
    folder.mkdir()
    async with watched(folder, set()) as (made, notified):
        for way in ("moved", "removed"):
            armed = made.armed
            if way == "moved":
                folder.rename(tmp_path / "elsewhere")
            else:
                folder.rmdir()
            folder.mkdir()
            await until(lambda before=armed: made.armed > before)  # type: ignore[misc]
            notified.clear()
            (folder / "new").touch()
            await notified.wait()
            (folder / "new").unlink()


async def test_a_replaced_queue_directory_goes_on_working(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    alice = Principal(user_id="alice")
    async with running(tmp_path) as transport:
        shutil.rmtree(layout.queue)
        fields = origins_fields()
        drop(layout, fields)
        [got] = await received(transport, 1)
        assert got.id == fields["CommandID"]
        shutil.rmtree(layout.queue)
        sent = seal(StartJob(job_id="A/B"), alice, now_ms=0)
        await transport.publish(sent)
        [got] = await received(transport, 1)
        assert got.id == sent.id
        assert (layout.queue / f"{sent.id}.json").exists()
