"""Little room on the disk: starts are refused early, stops go on, and it ends by itself."""

import asyncio
from pathlib import Path

import pytest

from bus.changes import ChangeEncoder
from bus.commands import ApplyCatalog, Definition, RestartJob, StartJob, StopJob
from bus.dispatch import Inbox
from bus.envelope import SYSTEM, Envelope, seal
from bus.errors import NoSpace, Refused
from bus.feed import Feed
from bus.free_space import LOW_BYTES, LOW_INODES, Space
from bus.job_definition import JobSpec
from bus.model import Principal
from bus.ports import Policy
from handlers.decisions.table import JobTable
from handlers.disk_space import SpaceWatch, scarcest
from handlers.journal.journal import Journal
from handlers.owner import Owner
from tests.directory_fixture import drop, origins_fields, received, running
from tests.fakes import ManualClock

OLGA = Principal(user_id="olga", roles=("operator",), via="http")
PLENTY = Space(bytes_free=1 << 40, inodes_free=1 << 20)
FEW_BYTES = Space(bytes_free=LOW_BYTES - 1, inodes_free=1 << 20)
FEW_INODES = Space(bytes_free=1 << 40, inodes_free=LOW_INODES - 1)


class Disk:
    """What a look finds; `changes` and `held` are what came of it."""

    def __init__(self) -> None:
        self.space = PLENTY
        self.broken = False
        self.changes: list[bool] = []
        self.held = 0
        self.is_held = False
        self.watch = SpaceWatch(self._look, self.changes.append, self._hold)

    def _look(self) -> tuple[Space, bool]:
        if self.broken:
            raise OSError(5, "Input/output error")
        return self.space, self.is_held

    async def _hold(self) -> None:
        self.held += 1
        self.is_held = True


@pytest.mark.parametrize("space", [FEW_BYTES, FEW_INODES], ids=["bytes", "inodes"])
async def test_scarce_room_is_reported_once_and_so_is_its_end(space: Space) -> None:
    disk = Disk()
    await disk.watch.look()
    await disk.watch.look()
    disk.space, disk.is_held = space, False
    await disk.watch.look()
    await disk.watch.look()
    assert (disk.watch.is_low, disk.changes, disk.held) == (True, [True], 1)
    disk.space = PLENTY
    await disk.watch.look()
    assert (disk.watch.is_low, disk.changes, disk.held) == (False, [True, False], 2)


async def test_a_look_that_fails_changes_nothing() -> None:
    disk = Disk()
    disk.space = FEW_BYTES
    await disk.watch.look()
    disk.broken = True
    await disk.watch.look()
    assert (disk.watch.is_low, disk.watch.space) == (True, FEW_BYTES)


def test_the_scarcest_of_several_places_counts(tmp_path: Path) -> None:
    assert scarcest([tmp_path, tmp_path.parent]).inodes_free > 0


async def test_starts_are_refused_before_anything_is_written_and_stops_are_not(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    found = Journal.open(tmp_path, now_ms=clock.now_ms())
    low = True
    owner = Owner(
        journal=found.journal,
        table=JobTable(),
        next_seq=found.next_seq,
        inbox=Inbox(clock),
        feed=Feed(found.epoch, found.next_seq - 1, clock),
        encoder=ChangeEncoder("instance", found.epoch),
        supervisor=None,  # type: ignore[arg-type]  # nothing is spawned here
        delete_files=lambda _: None,
        clock=clock,
        policy=Policy(),
        is_low=lambda: low,
    )
    definition = Definition(job_id="Demo/A", spec=JobSpec(command=("true",)), revision="r1")
    report = ApplyCatalog(definitions=(definition,))
    await owner.handle([Envelope(id="", command=report, principal=SYSTEM, submitted_ms=0)])
    for command in (StartJob(job_id="Demo/A"), RestartJob(job_id="Demo/A")):
        with pytest.raises(NoSpace, match="little room"):
            owner.checks.check(seal(command, OLGA, now_ms=clock.now_ms()))
    # Who may not start it learns that, and nothing of the disk.
    with pytest.raises(Refused):
        owner.checks.check(seal(StartJob(job_id="Demo/Not"), OLGA, now_ms=clock.now_ms()))
    owner.checks.check(seal(StopJob(job_id="Demo/A"), OLGA, now_ms=clock.now_ms()))
    low = False
    owner.checks.check(seal(StartJob(job_id="Demo/A"), OLGA, now_ms=clock.now_ms()))
    found.journal.ballast.release()
    await owner.hold_ballast()
    assert found.journal.ballast.is_held
    owner.close()


async def test_files_of_others_wait_while_they_are_held_but_for_their_stops(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as transport:
        transport.hold_foreign(True)
        layout = transport._layout
        start = origins_fields()
        stop = origins_fields(Command="stop")
        drop(layout, start)
        drop(layout, stop)
        [first] = await received(transport, 1)
        assert first.id == stop["CommandID"]
        waiting = asyncio.ensure_future(transport.receive(1))
        while transport.waiting == 0:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        transport.hold_foreign(False)
        async with asyncio.timeout(20):
            [second] = await waiting
        assert second.id == start["CommandID"]
