"""The append-only record of decisions: the truth after any crash. Blocking, one thread at a time.

    Journal/epoch.json                 whose journal this is
            {first seq}.log            segments of at most `segment_bytes`
            {seq}.snapshot             a table that holds all events below seq; two are kept
            *.damaged                  evidence that is never read again and never deleted
            .ballast                   room that is given up when the disk is full

At start a snapshot is chosen and the records after it are replayed. A torn end is cut: it was
never acknowledged. Damage *before* the end breaks the continuity of the numbers: what stands before
it is kept, the rest is set aside, and a new epoch begins.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from bus.errors import NoSpace, StorageFailed
from bus.instance import sync_directory
from handlers.ballast import Ballast
from handlers.journal_format import Record, Torn, encode_line
from handlers.journal_identity import Identity, new_epoch, read_identity, write_identity
from handlers.segments import Segment, SegmentEnd, read_records, segment_name
from handlers.snapshots import SUFFIX, SnapshotHead, read_snapshot, write_snapshot

SEGMENT_BYTES = 16 * 1024 * 1024
KEEP_MS = 900_000
REPLAY_BYTES_MAX = 64 * 1024 * 1024
"""More than this is not replayed for the sake of the feed's window if a newer snapshot exists."""

SNAPSHOTS_KEPT = 2
NEW_EPOCH_FILE = "new-epoch"
"""Left by `doctor --new-epoch`: the next start begins a new epoch."""


@dataclass
class Recovered:
    """What the journal holds. `snapshot` are lines as they were given to `write_snapshot`.

    `continuous` is false when the numbers cannot go on: `epoch` is then a new one, and the table
    may lack what was acknowledged.
    """

    journal: "Journal"
    epoch: str
    snapshot: list[bytes] | None
    snapshot_seq: int
    records: list[Record] = field(default_factory=list)
    next_seq: int = 1
    clean: bool = True
    continuous: bool = True
    projected: int = 0
    torn_bytes: int = 0
    notes: tuple[str, ...] = ()


class Journal:
    """An open journal. `append` is durable on return."""

    def __init__(self, directory: Path, identity: Identity, segment_bytes: int) -> None:
        self._directory = directory
        self._identity = identity
        self._segment_bytes = segment_bytes
        self._segment: Segment | None = None
        self._broken: str | None = None
        self._last_snapshot_bytes = 0
        self.ballast = Ballast(directory)
        self.bytes_since_snapshot = 0

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        now_ms: int,
        segment_bytes: int = SEGMENT_BYTES,
        keep_ms: int = KEEP_MS,
    ) -> Recovered:
        """The journal with all that is to be replayed; made if there is none."""
        return _Opening(directory, now_ms, segment_bytes, keep_ms).run()

    def append(self, records: Sequence[Record]) -> None:
        """All records are synced, with one write.

        Raises:
            NoSpace: none of them was written.
            StorageFailed: the disk is in an unknown state; the process must restart from it.
        """
        if self._broken is not None:
            raise StorageFailed(self._broken)
        lines = b"".join(_lines_of_one_write(records))
        try:
            self._append(records[0].seq, lines)
        except NoSpace:
            # The ballast is there for exactly this: stops and exits must be recorded.
            if not self.ballast.release():
                raise
            self._append(records[0].seq, lines)
        except StorageFailed as error:
            self._broken = str(error)
            raise
        self.bytes_since_snapshot += len(lines)

    def write_snapshot(
        self, head: SnapshotHead, lines: Iterable[bytes], *, keep_ms: int = KEEP_MS
    ) -> None:
        """A table that holds all events below `head.seq` is durable; what it covers is dropped
        as far as neither the snapshot before it nor the feed's window needs it."""
        write_snapshot(self._directory, head, lines)
        self.bytes_since_snapshot = 0
        self._drop_covered(head.at_ms - keep_ms)

    def close(self, next_seq: int, now_ms: int) -> None:
        """The end in order is on record; nothing may be appended afterwards."""
        if self._broken is None:
            self.append([Record(seq=next_seq, at_ms=now_ms, clean=True)])
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _append(self, first_seq: int, lines: bytes) -> None:
        segment = self._segment
        if segment is None or segment.offset + len(lines) > self._segment_bytes:
            segment = self._rotate(first_seq)
        segment.append(lines)

    def _rotate(self, first_seq: int) -> Segment:
        """A new segment is on record before it holds anything."""
        path = self._directory / segment_name(first_seq)
        if self._segment is not None and (self._segment.path == path or not self._segment.offset):
            return self._segment
        fresh = Segment.create(path)
        self._identity.inodes[path.name] = fresh.inode
        write_identity(self._directory, self._identity)
        if self._segment is not None:
            self._segment.close()
        self._segment = fresh
        return fresh

    def _drop_covered(self, since_ms: int) -> None:
        snapshots = sorted(self._directory.glob(f"*{SUFFIX}"))
        for path in snapshots[:-SNAPSHOTS_KEPT]:
            path.unlink()
        needed_from = int(snapshots[-SNAPSHOTS_KEPT:][0].stem)
        segments = sorted(self._directory.glob("*.log"))
        for path, following in pairwise(segments):
            covered = int(following.stem) <= needed_from
            if covered and following.stat().st_mtime * 1000 < since_ms:
                path.unlink()
                self._identity.inodes.pop(path.name, None)
        write_identity(self._directory, self._identity)


class _Opening:
    """The steps of one start."""

    def __init__(self, directory: Path, now_ms: int, segment_bytes: int, keep_ms: int) -> None:
        self._directory = directory
        self._window_from_ms = now_ms - keep_ms
        self._segment_bytes = segment_bytes
        self._notes: list[str] = []
        self._continuous = True

    def run(self) -> Recovered:
        identity = self._identity()
        segments = sorted(self._directory.glob("*.log"))
        head, snapshot = self._choose_snapshot(segments)
        journal = Journal(self._directory, identity, self._segment_bytes)
        found = Recovered(journal, identity.epoch, snapshot, head.seq)
        found.next_seq, found.projected = head.seq, head.projected
        reserved = max(head.reserved, head.seq)
        last: tuple[Path, SegmentEnd] | None = None
        for path in self._needed(segments, head.seq):
            end = SegmentEnd()
            for record in read_records(path, end):
                if record.seq + max(1, len(record.events)) <= head.seq and not record.clean:
                    continue
                found.records.append(record)
                found.clean = record.clean
                found.next_seq = max(found.next_seq, record.next_seq)
                reserved = max(reserved, record.reserved or 0)
                found.projected = max(found.projected, record.projected or 0)
            found.torn_bytes = end.size
            last = (path, end)
            if not self._is_whole(path, end, is_last=path == segments[-1]):
                self._set_aside(path, end, [p for p in segments if p.name > path.name])
                break
        found.continuous = self._continuous
        found.clean = found.clean and found.torn_bytes == 0 and self._continuous
        if not found.clean:
            found.next_seq = max(found.next_seq, reserved)
        if not self._continuous:
            found.epoch = self._begin_anew(journal)
        elif last is not None:
            journal._segment = Segment.reopen(*last)
        found.notes = tuple(self._notes)
        journal.ballast.hold()
        return found

    def _identity(self) -> Identity:
        found = read_identity(self._directory)
        segments = list(self._directory.glob("*.log"))
        if found is None:
            if segments:
                self._break("epoch.json is missing or damaged")
            identity = Identity(epoch=new_epoch())
            write_identity(self._directory, identity)
            return identity
        for path in segments:
            if found.inodes.get(path.name) != path.stat().st_ino and _holds_records(path):
                self._break(f"{path.name} is a copy: the journal was copied or restored")
        marker = self._directory / NEW_EPOCH_FILE
        if marker.exists():
            self._break("a new epoch was asked for")
            marker.unlink()
        return found

    def _choose_snapshot(self, segments: Sequence[Path]) -> tuple[SnapshotHead, list[bytes] | None]:
        """The newest snapshot from before the feed's window, so that the window is replayed; a
        newer one if that would be too much, or if the records in between are gone."""
        chosen: tuple[SnapshotHead, list[bytes]] | None = None
        for path in sorted(self._directory.glob(f"*{SUFFIX}"), reverse=True):
            try:
                head, lines = read_snapshot(path)
            except Torn as fault:
                self._notes.append(f"{path.name} is damaged and was set aside: {fault}")
                path.rename(path.with_name(f"{path.name}.damaged"))
                continue
            if chosen is not None and not self._can_replay(segments, head.seq):
                break
            chosen = head, lines
            if head.at_ms <= self._window_from_ms:
                break
        if chosen is None:
            if segments and int(segments[0].stem) > 1:
                self._break("the snapshot before the oldest segment cannot be read")
            return SnapshotHead(seq=1, at_ms=0), None
        return chosen

    def _can_replay(self, segments: Sequence[Path], seq: int) -> bool:
        """All records from `seq` on are there, and not too many."""
        if not segments or int(segments[0].stem) > seq:
            return False
        size = sum(path.stat().st_size for path in self._needed(segments, seq))
        return size <= REPLAY_BYTES_MAX

    @staticmethod
    def _needed(segments: Sequence[Path], seq: int) -> Iterator[Path]:
        """The segments that may hold events from `seq` on."""
        for path, following in pairwise([*segments, None]):
            if path is not None and (following is None or int(following.stem) > seq):
                yield path

    def _is_whole(self, path: Path, end: SegmentEnd, *, is_last: bool) -> bool:
        if end.broken or (end.is_torn and not is_last):
            self._break(f"{path.name} is damaged at byte {end.offset}, before its end")
            return False
        if end.is_torn:
            self._notes.append(f"{path.name}: a torn end of {end.size} bytes was cut")
        return True

    def _set_aside(self, path: Path, end: SegmentEnd, later: Sequence[Path]) -> None:
        """What follows the damage cannot be applied to a table that lacks what was damaged; it is
        kept as evidence under names that are never read again."""
        shutil.copy2(path, path.with_name(f"{path.name}.damaged"))
        os.truncate(path, end.offset)
        for lost in later:
            lost.rename(lost.with_name(f"{lost.name}.damaged"))
        sync_directory(self._directory)

    def _break(self, why: str) -> None:
        self._continuous = False
        self._notes.append(f"continuity is broken, a new epoch begins: {why}")

    def _begin_anew(self, journal: Journal) -> str:
        """The segments that are there are read from now on, but never written again."""
        segments = self._directory.glob("*.log")
        journal._identity = Identity(
            epoch=new_epoch(), inodes={path.name: path.stat().st_ino for path in segments}
        )
        write_identity(self._directory, journal._identity)
        return journal._identity.epoch


def _holds_records(path: Path) -> bool:
    return next(read_records(path, SegmentEnd()), None) is not None


def _lines_of_one_write(records: Sequence[Record]) -> Iterator[bytes]:
    first = records[0]
    yield encode_line(first)
    for record in records[1:]:
        yield encode_line(
            Record(
                seq=record.seq,
                at_ms=record.at_ms,
                events=record.events,
                reserved=record.reserved,
                clean=record.clean,
                projected=record.projected,
                batch=first.seq,
            )
        )
