"""What a start finds in the journal's directory, and what it makes of it. Blocking IO.

A snapshot is chosen and the records after it are to be replayed. A torn end is to be cut: it was
never acknowledged. Where the numbers cannot go on a new epoch begins: the journal is a copy, or it
is damaged *before* its end. Then what stands before the damage is kept, the rest is set aside: it
cannot be applied to a table that lacks what was damaged. First everything is looked at, then the
few changes are made, each so that a crash in between leads here again.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from bus.instance import sync_directory
from handlers.ballast import Ballast
from handlers.journal_disk import (
    create_file,
    evidence_name,
    open_for_reading,
    our_errors,
    set_aside,
    write_all,
)
from handlers.journal_format import Outline, Record, Torn
from handlers.journal_identity import (
    Identity,
    mark_of_path,
    new_epoch,
    read_identity,
    write_identity,
)
from handlers.segment_reader import (
    SegmentScan,
    forget_cached,
    read_records,
    read_salvage,
    scan_segment,
)
from handlers.segments import first_seq_of, segments_of
from handlers.snapshots import Snapshot, open_snapshot, snapshots_of, sweep_unfinished

KEEP_MS = 900_000
REPLAY_BYTES_MAX = 64 * 1024 * 1024
"""More than this is not replayed for the sake of the feed's window if a newer snapshot exists."""

NEW_EPOCH_FILE = "new-epoch"
"""Left by `doctor --new-epoch`: the next start begins a new epoch."""


_Places = tuple[tuple[Path, int], ...]
"""Files, each with an offset."""


@dataclass(frozen=True)
class SegmentRecords:
    """Records in the order of their numbers, read from disk each time they are iterated.

    `parts` are files with the offset up to which they are good. `salvage` are files with the offset
    from which whatever is readable counts. Records wholly below `from_seq` are left out.
    """

    from_seq: int
    parts: _Places = ()
    salvage: _Places = ()

    def __iter__(self) -> Iterator[Record]:
        for record in self._all():
            if max(record.next_seq, record.seq + 1) > self.from_seq:
                yield record

    def _all(self) -> Iterator[Record]:
        for path, end in self.parts:
            yield from read_records(path, end)
        for path, begin in self.salvage:
            yield from read_salvage(path, begin)


@dataclass
class Findings:
    """What is known after a look at all files; `end` is the segment to go on with."""

    identity: Identity
    snapshot: Snapshot | None
    records: SegmentRecords
    salvaged: SegmentRecords
    end: SegmentScan | None
    next_seq: int
    reserved: int
    projected: int
    clean: bool
    continuous: bool
    torn_bytes: int
    bytes_since_snapshot: int
    notes: list[str]


def examine(directory: Path, *, since_ms: int) -> Findings:
    """The journal is whole, in an epoch in which its numbers can go on.

    `since_ms` is where the feed's window begins, which is to be replayed if that is affordable.

    Raises:
        DataDirectoryError: a file cannot be read by this version, or is no file at all.
        NoSpace, StorageFailed: the disk does not let it be made whole.
    """
    with our_errors("read what is there"):
        return _Examination(directory, since_ms).run()


@dataclass
class _Plan:
    """The segments by what is to be done with them."""

    readable: list[SegmentScan] = field(default_factory=list)
    damaged: SegmentScan | None = None
    behind: list[Path] = field(default_factory=list)


class _Examination:
    def __init__(self, directory: Path, since_ms: int) -> None:
        self._directory = directory
        self._since_ms = since_ms
        self._snapshots: list[Snapshot] = []
        self._damaged_snapshots: list[Path] = []
        self._notes: list[str] = []
        self._continuous = True

    def run(self) -> Findings:
        sweep_unfinished(self._directory)
        identity = read_identity(self._directory)
        segments = self._segments(identity)
        if segments:
            forget_cached(segments[-1])
        self._judge(identity, segments)
        self._look_at_snapshots(segments)
        chosen = self._choose_snapshot(segments)
        from_seq = chosen.head.seq if chosen else 1
        plan = self._plan(segments, from_seq, identity)
        salvage = self._set_aside(plan)
        return self._sum_up(self._settle_identity(identity), chosen, plan, salvage)

    # -- looking ---------------------------------------------------------------------------------

    def _segments(self, identity: Identity | None) -> list[Path]:
        """All segments but a last one that was made and not put on record: it is empty."""
        segments = segments_of(self._directory)
        if identity is None or not segments or segments[-1].name in identity.files:
            return segments
        scan = scan_segment(segments[-1])
        if scan.last is None and scan.is_whole:
            segments.pop().unlink()
        return segments

    def _judge(self, identity: Identity | None, segments: Sequence[Path]) -> None:
        """Whether these files are the ones that the numbers were given out of."""
        if identity is None:
            if segments or snapshots_of(self._directory):
                self._break("epoch.json is missing or damaged")
            return
        for path in segments:
            known = identity.files.get(path.name)
            if known is None or not known.may_be(mark_of_path(path)):
                self._break(f"{path.name} is a copy: the journal was copied or restored")
                return
        if (self._directory / NEW_EPOCH_FILE).exists():
            self._break("a new epoch was asked for")

    def _look_at_snapshots(self, segments: Sequence[Path]) -> None:
        """The readable snapshots, newest first, no further back than they are of use."""
        for path in reversed(snapshots_of(self._directory)):
            try:
                snapshot = open_snapshot(path)
            except Torn as fault:
                self._notes.append(f"{path.name} is damaged and was set aside: {fault}")
                self._damaged_snapshots.append(path)
                continue
            self._snapshots.append(snapshot)
            if snapshot.head.at_ms <= self._since_ms:
                return
            if not self._can_replay(segments, snapshot.head.seq):
                return

    def _choose_snapshot(self, segments: Sequence[Path]) -> Snapshot | None:
        """The newest snapshot from before the feed's window, so that the window is replayed; a
        newer one if that would be too much."""
        chosen = self._snapshots[0] if self._snapshots else None
        for older in self._snapshots[1:]:
            if not self._can_replay(segments, older.head.seq):
                break
            chosen = older
        return chosen

    def _can_replay(self, segments: Sequence[Path], seq: int) -> bool:
        """All records from `seq` on are there, and not too many."""
        if not segments or first_seq_of(segments[0]) > seq:
            return False
        size = sum(path.stat().st_size for path in _needed(segments, seq))
        return size <= REPLAY_BYTES_MAX

    def _plan(self, segments: Sequence[Path], from_seq: int, identity: Identity | None) -> _Plan:
        """Looks through what is to be replayed, up to the end or the first damage."""
        plan = _Plan()
        needed = _needed(segments, from_seq)
        gone = _gone(identity, segments, from_seq)
        if needed and self._begins_too_late(needed[0], from_seq, identity):
            plan.behind = needed
            return plan
        for index, path in enumerate(needed):
            if gone and gone[0] < path.name:
                self._break(f"{gone[0]} is missing")
                plan.behind = needed[index:]
                return plan
            scan = scan_segment(path)
            if scan.broken or not (scan.is_whole or path == needed[-1]):
                self._break(f"{path.name} is damaged at byte {scan.end}, before its end")
                plan.damaged = scan
                plan.readable.append(replace(scan, torn=0))
                plan.behind = needed[index + 1 :]
                return plan
            plan.readable.append(scan)
        if gone:
            self._break(f"{gone[0]} is missing")
        return plan

    def _begins_too_late(self, first: Path, from_seq: int, identity: Identity | None) -> bool:
        """Whether records between the snapshot and the first segment are gone."""
        if self._snapshots and identity is not None:
            return False  # the names on record tell; numbers may leave holes
        if first_seq_of(first) <= from_seq:
            return False
        self._break(f"what {first.name} goes on from is gone or damaged")
        return True

    def _break(self, why: str) -> None:
        if self._continuous:
            self._notes.append(f"continuity is broken, a new epoch begins: {why}")
        else:
            self._notes.append(why)
        self._continuous = False

    # -- changing --------------------------------------------------------------------------------

    def _set_aside(self, plan: _Plan) -> _Places:
        """What is of no use any more is evidence; gives the places with readable records in it."""
        salvage: list[tuple[Path, int]] = []
        for path in self._damaged_snapshots:
            set_aside(path)
        if plan.damaged is not None:
            salvage.append((self._keep_good_part(plan.damaged), plan.damaged.end))
        salvage.extend((set_aside(path), 0) for path in plan.behind)
        if salvage:
            lost = ", ".join(path.name for path, _ in salvage)
            self._notes.append(f"what follows was set aside and is not in the table: {lost}")
        sync_directory(self._directory)
        return tuple(salvage)

    def _keep_good_part(self, scan: SegmentScan) -> Path:
        """The segment ends before the damage; the whole file goes on as evidence."""
        Ballast(self._directory).release()  # the copy needs room
        temporary = scan.path.with_name(f".{scan.path.name}.tmp")
        temporary.unlink(missing_ok=True)
        with open_for_reading(scan.path) as file:
            good = file.read(scan.end)
        descriptor = create_file(temporary)
        try:
            write_all(descriptor, good, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        evidence = evidence_name(scan.path)
        os.link(scan.path, evidence)
        temporary.replace(scan.path)
        return evidence

    def _settle_identity(self, identity: Identity | None) -> Identity:
        if identity is not None and self._continuous:
            return identity
        files = {path.name: mark_of_path(path) for path in segments_of(self._directory)}
        settled = Identity(epoch=new_epoch(), files=files)
        write_identity(self._directory, settled)
        (self._directory / NEW_EPOCH_FILE).unlink(missing_ok=True)
        return settled

    # -- summing up ------------------------------------------------------------------------------

    def _sum_up(
        self, identity: Identity, chosen: Snapshot | None, plan: _Plan, salvage: _Places
    ) -> Findings:
        from_seq = chosen.head.seq if chosen else 1
        heads = [snapshot.head for snapshot in self._snapshots]
        scans = plan.readable
        salvaged = SegmentRecords(0, salvage=salvage)
        last = self._last_line(plan)
        torn = scans[-1].torn if scans else 0
        fresh = _needed([s.path for s in scans], max((head.seq for head in heads), default=1))
        clean = self._continuous and not torn and (last.clean if last else not heads)
        next_seq = max(
            last.next_seq if last else 1,
            max((head.seq for head in heads), default=1),
            max((record.next_seq for record in salvaged), default=1),
        )
        reserved = max([0, *(s.reserved for s in scans), *(head.reserved for head in heads)])
        if torn and self._continuous:
            self._notes.append(f"{scans[-1].path.name}: a torn end of {torn} bytes was cut")
        return Findings(
            identity=identity,
            snapshot=chosen,
            records=SegmentRecords(from_seq, tuple((s.path, s.end) for s in scans)),
            salvaged=salvaged,
            end=scans[-1] if scans else None,
            next_seq=next_seq if clean else max(next_seq, reserved),
            reserved=reserved,
            projected=max([0, *(s.projected for s in scans), *(head.projected for head in heads)]),
            clean=clean,
            continuous=self._continuous,
            torn_bytes=torn,
            bytes_since_snapshot=sum(s.end for s in scans if s.path in fresh),
            notes=self._notes,
        )

    def _last_line(self, plan: _Plan) -> Outline | None:
        """The last line of all that is kept: an empty last segment says nothing about the end."""
        for scan in reversed(plan.readable):
            if scan.last is not None:
                return scan.last
        scanned = {scan.path for scan in plan.readable}
        for path in reversed(segments_of(self._directory)):
            if path not in scanned and (last := scan_segment(path).last) is not None:
                return last
        return None


def _needed(segments: Sequence[Path], seq: int) -> list[Path]:
    """The segments that may hold events from `seq` on."""
    return [
        path
        for path, after in zip_longest(segments, segments[1:])
        if after is None or first_seq_of(after) > seq
    ]


def _gone(identity: Identity | None, segments: Sequence[Path], seq: int) -> list[str]:
    """Names on record of files that may have held events from `seq` on, and are not there."""
    if identity is None or not identity.files:
        return []
    directory = Path()
    there = {path.name for path in segments}
    known = [directory / name for name in sorted({*identity.files, *there})]
    return [path.name for path in _needed(known, seq) if path.name not in there]
