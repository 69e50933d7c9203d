"""The way through the disk is shared: what is urgent goes first, and each principal has a turn."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from bus.commands import StartJob, StopJob
from bus.envelope import Envelope, seal
from bus.errors import StorageFailed, TransportBusy
from bus.layout import DataLayout
from bus.model import Principal
from tests.directory_fixture import QUICK, drop, origins_fields, received, running
from transports.directory.commit import Piece
from transports.directory.committer import Committer
from transports.directory.settings import DirectorySettings

MANY = 600


def envelope(user: str, *, stop: bool = False) -> Envelope:
    command = StopJob(job_id="A/B") if stop else StartJob(job_id="A/B")
    return seal(command, Principal(user_id=user, roles=("operator",), via="http"), now_ms=1)


def test_before_the_disk_a_stop_is_first_and_alone_and_a_start_in_the_next_batch(
    tmp_path: Path,
) -> None:
    layout, batches = DataLayout(tmp_path), list[list[str]]()
    layout.queue_tmp.mkdir(parents=True)

    def done(pieces: Sequence[Piece], failure: StorageFailed | None) -> None:
        assert failure is None
        batches.append([piece.owner for piece in pieces])

    committer = Committer(layout, DirectorySettings(batch_max=50), done)
    pieces = [Piece(f"greedy-{n}", b"{}", owner="greedy") for n in range(MANY)]
    committer.put([*pieces, Piece("modest", b"{}", owner="modest")])
    committer.put([Piece("stop", b"{}", urgent=True, owner="admin")])
    committer.start()
    committer.stop()
    assert batches[0] == ["admin"]
    assert batches[1][1] == "modest"
    assert sum(map(len, batches)) == MANY + 2
    assert len(list(layout.queue.glob("*.json"))) == MANY + 2


def test_stops_do_not_hold_up_everything_else(tmp_path: Path) -> None:
    layout, batches = DataLayout(tmp_path), list[list[str]]()
    layout.queue_tmp.mkdir(parents=True)
    committer = Committer(
        layout,
        DirectorySettings(batch_max=10),
        lambda pieces, _: batches.append([piece.owner for piece in pieces]),
    )
    committer.put([Piece(f"stop-{n}", b"{}", urgent=True, owner="a") for n in range(15)])
    committer.put([Piece("start", b"{}", owner="b")])
    committer.start()
    committer.stop()
    assert batches == [["a"] * 10, ["a"] * 5 + ["b"]]


async def test_of_what_waits_each_principal_has_a_turn(tmp_path: Path) -> None:
    async with running(tmp_path) as transport:
        await asyncio.gather(*(transport.publish(envelope("greedy")) for _ in range(MANY)))
        await transport.publish(envelope("modest"))
        await transport.publish(envelope("admin", stop=True))
        first = [each.principal.user_id for each in await transport.receive(10)]
        assert (first[0], first.index("modest")) == ("admin", 2)
        await received(transport, MANY + 2 - len(first))


async def test_of_dropped_files_each_writer_has_a_turn(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    for _ in range(100):
        drop(layout, origins_fields(UserID="greedy"))
    async with running(tmp_path) as transport:
        drop(layout, origins_fields(UserID="modest"))
        while transport.waiting < 101:
            await asyncio.sleep(0.01)
        first = [each.principal.user_id for each in await transport.receive(10)]
        assert first.index("modest") <= 1


async def test_who_fills_the_queue_leaves_room_for_others(tmp_path: Path) -> None:
    settings = DirectorySettings(settle_s=QUICK.settle_s, inbox_max=100)
    async with running(tmp_path, settings=settings) as transport:
        await asyncio.gather(*(transport.publish(envelope("greedy")) for _ in range(100)))
        with pytest.raises(TransportBusy):
            await transport.publish(envelope("greedy"))
        for _ in range(5):
            await transport.publish(envelope("modest"))
        with pytest.raises(TransportBusy):
            await transport.publish(envelope("modest"))
        await transport.publish(envelope("greedy", stop=True))
