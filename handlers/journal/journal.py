"""The append-only record of decisions: the truth after any crash. Blocking, one thread at a time.

    Journal/epoch.json                 whose journal this is
            {first seq}.log            segments of about `segment_bytes`
            {seq}.snapshot             a table that holds all events below seq; two are kept
            *.salvage                  set aside behind damage, until it was replayed
            *.damaged                  evidence that is never read again and never deleted
            .ballast                   the next segment, when the disk is full

What is found at start is the business of `opening`; this module writes.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bus.errors import NoSpace, StorageFailed
from bus.reserve import BALLAST_BYTES, Ballast
from handlers.journal.disk import our_errors
from handlers.journal.format import Record, encode_line
from handlers.journal.identity import Identity, write_identity
from handlers.journal.opening import KEEP_MS, REPLAY_BYTES_MAX, Findings, close_salvage, examine
from handlers.journal.segment_reader import SegmentRecords
from handlers.journal.segments import Segment, first_seq_of, segment_name, segments_of
from handlers.journal.snapshots import Snapshot, SnapshotHead, seq_of, snapshots_of, write_snapshot

SEGMENT_BYTES = 16 * 1024 * 1024
SNAPSHOTS_KEPT = 2


class Recovered(msgspec.Struct, frozen=True):
    """What the journal holds, to be read before the next snapshot is written.

    `snapshot` gives lines as they were handed to `write_snapshot`, `records` what follows it; both
    are read from disk as they are iterated, and may be iterated again. `continuous` is false when
    the numbers cannot go on: `epoch` is then a new one, and the table may lack what was
    acknowledged. `salvaged` are records behind the damage, if that is why: they may not fit as they
    are. They are given again at each start until `close_salvage` was called.
    `clean` is false unless the last service stopped in order.
    """

    journal: "Journal"
    epoch: str
    snapshot: Snapshot | None
    snapshot_seq: int
    records: SegmentRecords
    salvaged: SegmentRecords
    next_seq: int
    clean: bool
    continuous: bool
    projected: int
    torn_bytes: int
    notes: tuple[str, ...]


class Journal:
    """An open journal. `append` is durable on return.

    `_segment` takes the next lines; `_identity` is what `epoch.json` says. `_reserved` and
    `_projected` are the highest that are on record. One thread at a time calls any of it.
    """

    def __init__(
        self, directory: Path, found: Findings, segment_bytes: int, ballast_bytes: int
    ) -> None:
        self._directory = directory
        self._identity = found.identity
        self._segment_bytes = segment_bytes
        self._segment: Segment | None = None
        self._reserved = found.reserved
        self._projected = found.projected
        self.last_error: str | None = None
        """Why nothing can be appended any more: a sync failed."""
        self.bytes_since_snapshot = found.bytes_since_snapshot
        """What a start would have to replay if there were no older snapshot."""
        self.ballast = Ballast(directory, ballast_bytes)
        if found.end is not None:
            cut = not found.end.is_whole
            self._segment = Segment.reopen(found.end.path, found.end.end, cut=cut)
        self.ballast.hold()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        now_ms: int,
        segment_bytes: int = SEGMENT_BYTES,
        keep_ms: int = KEEP_MS,
        ballast_bytes: int = BALLAST_BYTES,
        is_copy: bool = False,
    ) -> Recovered:
        """The journal with all that is to be replayed; made if there is none.

        Raises:
            DataDirectoryError: it cannot be read; the message says what to do. Nothing was changed.
            NoSpace, StorageFailed: the disk does not let it be continued.
        """
        found = examine(directory, now_ms=now_ms, keep_ms=keep_ms, is_copy=is_copy)
        return Recovered(
            journal=cls(directory, found, segment_bytes, ballast_bytes),
            epoch=found.identity.epoch,
            snapshot=found.snapshot,
            snapshot_seq=found.snapshot.head.seq if found.snapshot else 1,
            records=found.records,
            salvaged=found.salvaged,
            next_seq=found.next_seq,
            clean=found.clean,
            continuous=found.continuous,
            projected=found.projected,
            torn_bytes=found.torn_bytes,
            notes=tuple(found.notes),
        )

    @property
    def segments(self) -> tuple[Path, ...]:
        """The files that hold records, oldest first."""
        return tuple(segments_of(self._directory))

    @property
    def size_bytes(self) -> int:
        """What segments and snapshots take on the disk."""
        files = [*segments_of(self._directory), *snapshots_of(self._directory)]
        return sum(path.stat().st_size for path in files)

    def append(self, records: Sequence[Record]) -> None:
        """All records are synced, with one write.

        Raises:
            NoSpace: none of them was written, and the reserve is used up; try again later.
            StorageFailed: the disk is in an unknown state; the process must restart from it.
        """
        if not records:
            return
        lines = b"".join(_lines_of_one_write(records))
        with self._unbroken():
            try:
                self._append(records[0].seq, lines)
            except NoSpace:
                # The ballast is there for exactly this: stops and exits must be recorded.
                if not (self._go_on_in_ballast(records[0].seq) or self._release_ballast()):
                    raise
                self._append(records[0].seq, lines)
        self.bytes_since_snapshot += len(lines)
        for record in records:
            self._reserved = max(self._reserved, record.reserved or 0)
            self._projected = max(self._projected, record.projected or 0)

    def write_snapshot(
        self, head: SnapshotHead, lines: Iterable[bytes], *, keep_ms: int = KEEP_MS
    ) -> None:
        """A table that holds all events below `head.seq` is durable.

        What it covers is dropped as far as neither the snapshot before it needs it nor the feed's
        window: of `keep_ms`, but of no more than is replayed for it. The journal adds its own
        knowledge of `reserved` and `projected`.

        Raises:
            NoSpace: there is no room for it; all is as before.
            StorageFailed: as in `append`.
        """
        head = replace(
            head,
            reserved=max(head.reserved, self._reserved),
            projected=max(head.projected, self._projected),
        )
        with self._unbroken():
            write_snapshot(self._directory, head, lines)
            self.bytes_since_snapshot = 0
            with our_errors("drop what a snapshot covers"):
                self._drop_covered(head.at_ms - keep_ms)
                self.ballast.hold()

    def close_salvage(self) -> None:
        """What can be read behind the damage is on record again; the files are evidence now.

        Raises:
            StorageFailed: as in `append`.
        """
        with self._unbroken():
            close_salvage(self._directory)

    def close(self, next_seq: int, now_ms: int) -> None:
        """The end in order is on record, if there is room for it; nothing may be appended after.

        Raises:
            StorageFailed: as in `append`.
        """
        try:
            if self.last_error is None:
                self.append([Record(seq=next_seq, at_ms=now_ms, clean=True)])
        except NoSpace:
            pass  # the next start then takes this for a crash and looks twice: no harm
        finally:
            if self._segment is not None:
                self._segment.close()
                self._segment = None

    def _append(self, first_seq: int, lines: bytes) -> None:
        segment = self._segment
        if segment is None or segment.offset + len(lines) > self._segment_bytes:
            segment = self._rotate(first_seq)
        segment.append(lines)

    def _rotate(self, first_seq: int) -> Segment:
        """A new segment, on record before it holds anything."""
        before = self._segment
        path = self._directory / segment_name(first_seq)
        if before is not None and before.path.name >= path.name:
            return before  # notes only: no number was given since it began
        try:
            fresh = Segment.create(path)
            try:
                self._put_on_record(fresh)
            except NoSpace:
                fresh.discard()
                raise
        except NoSpace:
            if before is None:
                raise
            return before  # without a free inode the old one still takes lines
        self._segment = fresh
        if before is not None:
            before.close()
        self.ballast.hold()
        return fresh

    def _go_on_in_ballast(self, first_seq: int) -> bool:
        """The ballast is the segment now. Set free, its room would be taken at once by the program
        that fills the disk."""
        before = self._segment
        path = self._directory / segment_name(first_seq)
        if before is not None and before.path.name >= path.name:
            return False  # notes only, as in `_rotate`
        with our_errors("go on in its reserve"):
            if not self.ballast.become(path):
                return False
            fresh = Segment.reopen(path, 0, cut=False)
            try:
                self._put_on_record(fresh)
            except NoSpace:
                fresh.close()
                self.ballast.put_back(path)
                return False
        self._segment = fresh
        if before is not None:
            before.close()
        return True

    def _release_ballast(self) -> bool:
        with suppress(NoSpace), our_errors("give up its ballast"):
            return self.ballast.release()
        return True

    def _put_on_record(self, fresh: Segment) -> None:
        files = {**self._identity.files, fresh.path.name: fresh.mark}
        self._record(replace(self._identity, files=files))

    def _record(self, identity: Identity) -> None:
        with our_errors("record its files"):
            write_identity(self._directory, identity)
        self._identity = identity

    def _drop_covered(self, since_ms: int) -> None:
        """Keeps what a start needs if the newest snapshot turns out to be damaged."""
        snapshots = snapshots_of(self._directory)
        for path in snapshots[:-SNAPSHOTS_KEPT]:
            path.unlink()
        if len(snapshots) < SNAPSHOTS_KEPT:
            return
        needed_from = seq_of(snapshots[-SNAPSHOTS_KEPT])
        files = dict(self._identity.files)
        below = self._identity.dropped_below
        segments = segments_of(self._directory)
        kept_bytes = sum(path.stat().st_size for path in segments)
        for path, following in pairwise(segments):
            if first_seq_of(following) > needed_from:
                break
            if kept_bytes <= REPLAY_BYTES_MAX and _is_younger(following, since_ms):
                break
            kept_bytes -= path.stat().st_size
            path.unlink()
            files.pop(path.name, None)
            below = first_seq_of(following)
        with suppress(NoSpace):  # names too many on record do no harm, and go the next time
            self._record(replace(self._identity, files=files, dropped_below=below))

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """After one failed sync nothing inside the block is ever tried again."""
        if self.last_error is not None:
            raise StorageFailed(self.last_error)
        try:
            yield
        except StorageFailed as error:
            self.last_error = str(error)
            raise


def _is_younger(path: Path, since_ms: int) -> bool:
    return path.stat().st_mtime * 1000 >= since_ms


def _lines_of_one_write(records: Sequence[Record]) -> Iterator[bytes]:
    first = records[0]
    yield encode_line(first)
    for record in records[1:]:
        yield encode_line(replace(record, batch=first.seq))
