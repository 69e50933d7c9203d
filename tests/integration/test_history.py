"""The journal as history: the same changes as were sent live, from any place it still holds."""

import os
import threading
import uuid
from collections.abc import Generator
from pathlib import Path, PosixPath
from typing import ClassVar, Self

import msgspec
import pytest

from bus.changes import ChangeEncoder
from bus.events import (
    AnyEvent,
    ExecutionEnded,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStarted,
    Published,
)
from bus.feed import FellBehind, Frame
from bus.model import ExecutionStatus, Reason
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import parts_of
from handlers.history import JournalHistory, Replay
from handlers.journal.format import Record
from handlers.journal.snapshots import SnapshotHead
from tests.journal_fixture import LONG_AGO_MS, NOW_MS, reopen

ENCODER = ChangeEncoder("test", "abc123")
SEGMENT_BYTES = 8_000


def everything(_: Frame) -> bool:
    return True


class Story:
    """Executions that come and go, journaled; `live` are the frames as they were sent live."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = reopen(directory, segment_bytes=SEGMENT_BYTES).journal
        self.table = JobTable()
        self.seq = 1
        self.live: list[Frame] = []

    def run(self, count: int) -> None:
        """`count` executions from queued to ended; some numbers go to progress."""
        for _ in range(count):
            execution_id = str(uuid.uuid4())
            queued = ExecutionQueued(
                execution_id=execution_id,
                job_id="App/Job",
                command_id=str(uuid.uuid4()),
                user_id="alice",
                revision="r1",
            )
            self.decide(queued, ExecutionStarted(execution_id=execution_id))
            self.decide(ExecutionRunning(execution_id=execution_id, started_ms=NOW_MS, pid=7))
            self.seq += 3  # progress: numbers that the journal never sees
            self.decide(
                ExecutionEnded(
                    execution_id=execution_id,
                    status=ExecutionStatus.SUCCEEDED,
                    reason=Reason.EXIT_CODE,
                    ended_ms=NOW_MS,
                    exit_code=0,
                    output_end=5,
                )
            )

    def decide(self, *events: AnyEvent) -> None:
        self.journal.append([Record(seq=self.seq, at_ms=NOW_MS, events=events)])
        for event in events:
            published = Published(self.seq, NOW_MS, event)
            self.table.apply(published)
            frame = ENCODER.frame(published, self.table)
            assert frame is not None
            self.live.append(frame)
            self.seq += 1

    @property
    def head(self) -> int:
        return self.seq - 1

    def snapshot(self, at_ms: int = LONG_AGO_MS) -> None:
        head = SnapshotHead(seq=self.seq, at_ms=at_ms)
        lines = [msgspec.json.encode(part) for part in parts_of(self.table.freeze())]
        self.journal.write_snapshot(head, lines)

    def age(self) -> None:
        """The segments look as if they had been written long ago."""
        for path in self.directory.glob("*.log"):
            os.utime(path, (1, 1))

    def after(self, seq: int) -> list[tuple[int, bytes]]:
        return [(frame.seq, frame.data) for frame in self.live if frame.seq > seq]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


async def read(
    history: JournalHistory, seq: int, until: int, limit: int = 7
) -> list[tuple[int, bytes]]:
    """All changes after `seq`, batch by batch."""
    got: list[tuple[int, bytes]] = []
    while seq < until:
        batch = await history.after(seq, until, limit, 2**30, everything)
        assert batch.seq >= seq
        got += [(frame.seq, frame.data) for frame in batch.frames]
        seq = batch.seq
    return got


async def test_history_has_what_was_sent_live_from_any_place(story: Story) -> None:
    story.run(40)
    assert len(list(story.directory.glob("*.log"))) > 3
    history = JournalHistory(story.directory, ENCODER)
    assert await history.oldest() == 0
    for seq in (0, 1, 2, 5, 60, 100, story.head - 1, story.head):
        assert await read(history, seq, story.head) == story.after(seq), seq


async def test_history_ends_where_it_is_asked_to_and_goes_on_later(story: Story) -> None:
    story.run(3)
    history = JournalHistory(story.directory, ENCODER)
    first = await history.after(0, 4, 100, 2**30, everything)
    middle = story.head
    second = await read(history, first.seq, middle)
    story.run(5)
    third = await read(history, middle, story.head)
    assert [frame.seq for frame in first.frames] == [1, 2, 3]
    assert first.seq == 4
    assert second + third == story.after(4)


async def test_readers_at_different_places_do_not_take_each_others_changes(story: Story) -> None:
    story.run(60)
    history = JournalHistory(story.directory, ENCODER)
    places = (0, 50, 51, 200, 340)
    got: dict[int, list[tuple[int, bytes]]] = {place: [] for place in places}
    now = {place: place for place in places}
    while any(seq < story.head for seq in now.values()):
        for place, seq in now.items():
            batch = await history.after(seq, story.head, 11, 2**30, everything)
            got[place] += [(frame.seq, frame.data) for frame in batch.frames]
            now[place] = batch.seq
    assert {place: got[place] for place in places} == {p: story.after(p) for p in places}


async def test_what_snapshots_have_replaced_is_gone_and_the_rest_is_there(story: Story) -> None:
    for _ in range(3):
        story.run(40)
        story.age()
        story.snapshot()
    story.run(10)
    history = JournalHistory(story.directory, ENCODER)
    oldest = await history.oldest()
    assert oldest > 0
    with pytest.raises(FellBehind):
        await history.after(oldest - 1, story.head, 10, 2**30, everything)
    assert await read(history, oldest, story.head) == story.after(oldest)


class Shedding(PosixPath):
    """A folder whose snapshots are dropped by others right after somebody has listed them."""

    def iterdir(self) -> Generator[Self, None, None]:
        listed = sorted(super().iterdir())
        yield from listed
        if self._looks.pop():
            for path in listed:
                path.unlink() if path.suffix == ".snapshot" else None

    _looks: ClassVar = [True, False]


async def test_a_snapshot_that_goes_while_it_is_looked_for_is_history_that_is_gone(
    story: Story,
) -> None:
    for _ in range(3):
        story.run(40)
        story.age()
        story.snapshot()
    oldest = await JournalHistory(story.directory, ENCODER).oldest()
    history = JournalHistory(Shedding(story.directory), ENCODER)
    with pytest.raises(FellBehind):
        await history.after(oldest, story.head, 10, 2**30, everything)
    assert not list(story.directory.glob("*.snapshot"))


async def test_a_filter_sees_each_change_once(story: Story) -> None:
    story.run(30)
    history = JournalHistory(story.directory, ENCODER)
    seen: list[int] = []

    def ended(frame: Frame) -> bool:
        seen.append(frame.seq)
        return frame.type == "execution.ended"

    batch = await history.after(0, story.head, 10_000, 2**30, ended)
    assert seen == [frame.seq for frame in story.live]
    assert [frame.type for frame in batch.frames] == ["execution.ended"] * 30
    assert batch.seq == story.head


async def test_a_journal_that_is_written_meanwhile_is_read_whole(story: Story) -> None:
    """The writer is a thread ahead: a line that is half there is never taken for one."""
    story.run(5)
    history = JournalHistory(story.directory, ENCODER)
    writer = threading.Thread(target=story.run, args=(150,))
    writer.start()
    seq, got = 0, []
    while writer.is_alive() or seq < story.head:
        until = story.live[-1].seq
        batch = await history.after(seq, until, 50, 2**30, everything)
        got += [(frame.seq, frame.data) for frame in batch.frames]
        seq = batch.seq if batch.seq > seq else seq
        if seq == story.live[-1].seq and not writer.is_alive():
            break
    writer.join()
    assert got == story.after(0)


@pytest.mark.parametrize("kept", [0, 1, 0.5])
async def test_damage_in_the_middle_is_never_passed_over(story: Story, kept: float) -> None:
    story.run(60)
    segment = sorted(story.directory.glob("*.log"))[1]
    content = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(content[: int(len(content) * kept)] + b"rot"[: int(kept * 3)])
    history = JournalHistory(story.directory, ENCODER)
    with pytest.raises(FellBehind):
        await read(history, 0, story.head)


async def test_history_begins_behind_the_evidence_of_damage(story: Story) -> None:
    story.run(60)
    segments = sorted(story.directory.glob("*.log"))
    segments[0].rename(segments[0].with_name(f"{segments[0].name}.damaged"))
    history = JournalHistory(story.directory, ENCODER)
    assert await history.oldest() > story.head
    with pytest.raises(FellBehind):
        await history.after(0, story.head, 10, 2**30, everything)


def test_nothing_to_replay_is_said(tmp_path: Path) -> None:
    with pytest.raises(FellBehind):
        Replay.begin(tmp_path, ENCODER)
