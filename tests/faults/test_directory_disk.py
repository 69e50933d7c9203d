"""A disk that is full, refuses or lies: publishers get to know, nothing half-written counts."""

import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from bus.clock import SystemClock
from bus.commands import StartJob
from bus.envelope import Envelope, seal
from bus.errors import BusError, NoSpace, StorageFailed, TransportBusy
from bus.layout import DataLayout
from bus.model import Principal
from tests.directory_fixture import (
    QUICK,
    SECRET,
    drop,
    names,
    origins_fields,
    reasons,
    received,
    running,
)
from tests.small_disk import mounted
from transports.directory import disk
from transports.directory.commit import Piece, can_group, commit
from transports.directory.offline_publisher import publish_offline
from transports.directory.transport import DirectoryTransport

ALICE = Principal(user_id="alice", roles=("operator",), via="http")


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    return DataLayout(tmp_path)


def envelope(n: int = 0) -> Envelope:
    return seal(StartJob(job_id="A/B", variables={"text": "x" * n}), ALICE, now_ms=0)


def failing(number: int) -> Callable[..., int]:
    def call(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


CALLS = [
    ("write", errno.ENOSPC),
    ("write", errno.EDQUOT),
    ("open", errno.ENOSPC),
    ("fdatasync", errno.ENOSPC),
    ("link", errno.ENOSPC),
]


@pytest.mark.parametrize(("call", "number"), CALLS)
async def test_a_full_disk_refuses_the_command_and_recovers(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    settings = msgspec.structs.replace(QUICK, scan_interval_s=60)
    async with running(layout.root, settings=settings) as transport:
        with monkeypatch.context() as patched:
            real_open = os.open

            def no_new_file(path: str, flags: int, *args: int, **kwargs: int) -> int:
                if flags & os.O_CREAT:
                    raise OSError(number, os.strerror(number))
                return real_open(path, flags, *args, **kwargs)

            patched.setattr(os, call, no_new_file if call == "open" else failing(number))
            with pytest.raises(NoSpace):
                await transport.publish(envelope())
        assert names(layout.queue) == []
        assert list(layout.queue_tmp.iterdir()) == []
        after = envelope()
        await transport.publish(after)
        assert [one.id for one in await transport.receive(9)] == [after.id]


@pytest.mark.parametrize("call", ["write", "rename"])
def test_a_file_that_cannot_be_replaced_stays_and_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with disk.open_directory(tmp_path) as inside:
        disk.replace_file("a.json", inside, b"old")
        monkeypatch.setattr(os, call, failing(errno.ENOSPC))
        with pytest.raises(OSError, match="No space"):
            disk.replace_file("a.json", inside, b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("group", [False, True], ids=["one by one", "group"])
async def test_a_failed_sync_ends_the_transport_for_good(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, group: bool
) -> None:
    settings = msgspec.structs.replace(QUICK, group_from=1 if group else 1000)
    transport = DirectoryTransport(
        layout, clock=SystemClock(), known=lambda _: None, secret=SECRET, settings=settings
    )
    ready = asyncio.Event()
    running_part = asyncio.create_task(transport.run(ready))
    await ready.wait()
    with monkeypatch.context() as patched:
        if group and disk.CAN_SYNC_ALL:
            patched.setattr(disk, "_syncfs", failing(errno.EIO))
        else:
            patched.setattr(os, "fdatasync", failing(errno.EIO))
        ends = await asyncio.gather(
            *(transport.publish(envelope()) for _ in range(5)), return_exceptions=True
        )
    assert [type(end) for end in ends] == [StorageFailed] * 5
    with pytest.raises(StorageFailed):  # a sync that is tried again would report success
        await transport.publish(envelope())
    with pytest.raises(StorageFailed, match="restart"):
        await running_part
    assert names(layout.queue) == []


async def test_a_failed_sync_of_the_directory_leaves_the_outcome_to_the_restart(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.queue_tmp.mkdir(parents=True)
    sent = envelope()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(StorageFailed):
            publish_offline(layout, sent, SECRET)
    async with running(layout.root) as transport:
        [got] = await received(transport, 1)
    assert got.id == sent.id


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EMFILE, TransportBusy), (errno.EROFS, TransportBusy)]
)
async def test_other_refusals_of_the_system_are_said_and_pass(
    layout: DataLayout,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[BusError],
) -> None:
    async with running(layout.root) as transport:
        with monkeypatch.context() as patched:
            patched.setattr(os, "link", failing(number))
            with pytest.raises(kind, match="could not be written"):
                await transport.publish(envelope())
        await transport.publish(envelope())


async def test_a_system_without_descriptors_keeps_files_waiting_and_hands_out_the_rest(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transports.directory.receiver.READ_RETRY_S", 0.05)
    fields, sent = origins_fields(), envelope()
    drop(layout, fields)
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def refuse(*_: object, **__: object) -> int:
        loop.call_soon_threadsafe(asked.set)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with running(layout.root) as transport:
        await transport.publish(sent)
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            assert [one.id for one in await transport.receive(9)] == [sent.id]
            receiving = asyncio.create_task(transport.receive(9))
            asked.clear()
            await asked.wait()
        assert [one.id for one in await receiving] == [fields["CommandID"]]


async def test_a_command_that_cannot_be_opened_for_want_of_descriptors_is_not_rejected(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open, fields, refused = os.open, origins_fields(), 0

    def no_file(path: str, flags: int, *args: int, **kwargs: int) -> int:
        nonlocal refused
        if flags & os.O_DIRECTORY or "JobCommandQueue" in str(path):
            return real_open(path, flags, *args, **kwargs)
        refused += str(path).startswith(fields["CommandID"])
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with running(layout.root) as transport:
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", no_file)
            drop(layout, fields)
            while refused < 9 and names(layout.queue):  # each look a moment after the last
                await asyncio.sleep(0.01)
        [one] = await received(transport, 1)
        assert one.id == fields["CommandID"]


async def test_a_file_that_the_disk_cannot_read_delays_no_other(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_read, broken, good = os.read, origins_fields(CommandID=str(UUID(int=1))), origins_fields()
    inode = drop(layout, broken).stat().st_ino
    drop(layout, good)

    def read(handle: int, size: int) -> bytes:
        if os.fstat(handle).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_read(handle, size)

    monkeypatch.setattr(os, "read", read)
    async with running(layout.root) as transport:
        [one] = await received(transport, 1)
        assert one.id == good["CommandID"]
        while names(layout.queue) != [f"{good['CommandID']}.json"]:
            await asyncio.sleep(0.01)
    assert "cannot be read" in reasons(layout)[f"{broken['CommandID']}.json"]


async def test_what_cannot_go_to_rejects_delays_no_other_and_goes_when_it_can(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, asked, real_open = asyncio.get_running_loop(), asyncio.Event(), os.open

    def no_new_file(path: str, flags: int, *args: int, **kwargs: int) -> int:
        if flags & os.O_CREAT:
            loop.call_soon_threadsafe(asked.set)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_open(path, flags, *args, **kwargs)

    broken = origins_fields()
    async with running(layout.root) as transport:
        with monkeypatch.context() as patched:
            drop(layout, broken, b"{")
            patched.setattr(os, "open", no_new_file)
            await asked.wait()
            stop = origins_fields(Command="stop")
            drop(layout, stop)
            assert [one.id for one in await received(transport, 1)] == [stop["CommandID"]]
        shutil.rmtree(layout.rejects)
        while len(names(layout.queue)) > 1:
            await asyncio.sleep(0.01)
    assert list(reasons(layout)) == [f"{broken['CommandID']}.json"]


async def test_a_queue_that_was_taken_away_with_what_waited_is_made_again(
    layout: DataLayout,
) -> None:
    drop(layout, origins_fields())
    async with running(layout.root) as transport:
        assert transport.waiting == 1
        shutil.rmtree(layout.queue)
        receiving = asyncio.create_task(transport.receive(9))
        sent = envelope()
        while transport.waiting:
            await asyncio.sleep(0.01)
        await transport.publish(sent)
        assert [one.id for one in await receiving] == [sent.id]
        shutil.rmtree(layout.queue)


async def test_an_unlink_that_fails_is_tried_again_and_runs_nothing_twice(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transports.directory.settled_files.UNLINK_RETRY_S", 0.05)
    sent = envelope()
    async with running(layout.root) as transport:
        await transport.publish(sent)
        await transport.receive(1)
        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", failing(errno.EROFS))
            transport.settle(sent.id)
            await asyncio.sleep(0.1)
            assert transport.waiting == 0
        while names(layout.queue):
            await asyncio.sleep(0.01)


async def test_a_name_on_the_way_that_stays_takes_no_command_back(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = envelope()
    async with running(layout.root) as transport:
        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", failing(errno.EIO))
            await transport.publish(sent)
        assert [one.id for one in await received(transport, 1)] == [sent.id]
        await transport.publish(sent)


async def test_a_command_whose_publisher_died_on_the_way_is_accepted_when_it_is_repeated_at_once(
    layout: DataLayout,
) -> None:
    sent = envelope()
    async with running(layout.root) as transport:
        publish_offline(layout, sent, SECRET)
        (layout.queue_tmp / f"{sent.id}.twin").hardlink_to(layout.queue / f"{sent.id}.json")
        await transport.publish(sent)  # without a rest, in which the twin would be swept
        assert [one.id for one in await received(transport, 1)] == [sent.id]


async def test_a_slow_sync_of_all_makes_the_next_ones_go_file_by_file(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[str] = []

    def slow(handle: int) -> None:
        syncs.append("all")
        time.sleep(1)

    def single(handle: int) -> None:
        syncs.append("one")

    monkeypatch.setattr(disk, "_syncfs", slow)
    monkeypatch.setattr(os, "fdatasync", single)
    monkeypatch.setattr(disk, "syncs_all_for_real", lambda _: True)
    settings = msgspec.structs.replace(QUICK, syncfs_pause_s=600)
    async with running(layout.root, settings=settings) as transport:
        for _ in range(3):
            await asyncio.gather(*(transport.publish(envelope()) for _ in range(4)))
    assert syncs == ["all"] + ["one"] * 8


async def test_where_syncfs_does_nothing_every_file_is_synced(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    real_fdatasync = os.fdatasync

    def single(handle: int) -> None:
        syncs.append(handle)
        real_fdatasync(handle)

    monkeypatch.setattr(os, "fdatasync", single)
    monkeypatch.setattr(disk, "syncs_all_for_real", lambda _: False)
    async with running(layout.root) as transport:
        await asyncio.gather(*(transport.publish(envelope()) for _ in range(40)))
    assert len(syncs) == 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few commands."""
    with mounted(tmp_path, "size=200k,nr_inodes=60") as place:
        yield place


@pytest.mark.parametrize("size", [20_000, 10], ids=["bytes", "inodes"])
async def test_a_disk_that_really_fills_up_loses_nothing_it_took(
    small_disk: Path, size: int
) -> None:
    layout = DataLayout(small_disk)
    async with running(small_disk) as transport:
        taken: list[str] = []
        refused = 0
        for _ in range(30):
            batch = [envelope(size) for _ in range(4)]
            ends = await asyncio.gather(
                *(transport.publish(one) for one in batch), return_exceptions=True
            )
            for one, end in zip(batch, ends, strict=True):
                if end is None:
                    taken.append(one.id)
                else:
                    assert isinstance(end, NoSpace)
                    refused += 1
        assert refused
        assert taken
        assert list(layout.queue_tmp.iterdir()) == []
        got = await received(transport, len(taken))
        assert [one.id for one in got] == taken
        for one in got:
            transport.settle(one.id)
        while names(layout.queue):
            await asyncio.sleep(0.01)
        await transport.publish(envelope(size))


def test_grouping_is_used_where_it_works(layout: DataLayout) -> None:
    layout.queue_tmp.mkdir(parents=True)
    assert can_group(layout) is disk.CAN_SYNC_ALL
    pieces = [Piece(str(n), b"{}") for n in range(20)]
    commit(layout, pieces, group=can_group(layout))
    assert len(names(layout.queue)) == 20
    assert list(layout.queue_tmp.iterdir()) == []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that matter for a power cut, in their order; each one is really made."""
    made: list[str] = []

    def record(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: object, **kwargs: object) -> object:
            answer = real(*args, **kwargs)
            made.append(name)
            return answer

        monkeypatch.setattr(owner, name, call)

    for name in ("write", "fdatasync", "link", "unlink", "fsync"):
        record(os, name)
    record(disk, "_syncfs")
    return made


def test_one_command_is_synced_before_it_has_a_name_and_its_name_before_the_answer(
    layout: DataLayout, calls: list[str]
) -> None:
    layout.queue_tmp.mkdir(parents=True)
    commit(layout, [Piece("one", b"{}")], group=False)
    assert calls == ["write", "fdatasync", "link", "unlink", "fsync"]


@pytest.mark.skipif(not disk.CAN_SYNC_ALL, reason="no syncfs here")
def test_many_commands_share_one_sync_before_any_of_them_has_a_name(
    layout: DataLayout, calls: list[str]
) -> None:
    layout.queue_tmp.mkdir(parents=True)
    commit(layout, [Piece(str(n), b"{}") for n in range(5)], group=True)
    assert calls == ["write"] * 5 + ["_syncfs"] + ["link"] * 5 + ["unlink"] * 5 + ["fsync"]


async def test_no_publisher_is_answered_and_nothing_handed_out_before_the_last_sync(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, entered = threading.Event(), threading.Event()
    real_fsync = os.fsync

    def hold(handle: int) -> None:
        entered.set()
        assert held.wait(20)
        real_fsync(handle)

    async with running(layout.root) as transport:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", hold)
            sent = envelope()
            publishing = asyncio.create_task(transport.publish(sent))
            await asyncio.to_thread(entered.wait, 20)
            assert (layout.queue / f"{sent.id}.json").exists()
            await asyncio.sleep(0.2)  # several looks pass meanwhile: the file must be skipped
            assert not publishing.done()
            assert transport.waiting == 0
            held.set()
            await publishing
        assert [one.id for one in await transport.receive(9)] == [sent.id]
