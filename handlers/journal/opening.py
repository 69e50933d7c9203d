"""What a start finds in the journal's directory, and what it makes of it. Blocking IO.

A snapshot is chosen and the records after it are to be replayed. A torn end is to be cut: it was
never acknowledged. Where the numbers cannot go on a new epoch begins: the journal is a copy, or it
is damaged *before* its end. Then what stands before the damage is kept, the rest is set aside as
salvage: it cannot be applied as it is to a table that lacks what was damaged. Files called so are
salvage until what they hold has been replayed. First everything is looked at, then the few
changes are made, each so that a crash in between leads here again.
"""

from pathlib import Path

import msgspec
from msgspec.structs import replace

from bus.files import sync_directory
from bus.reserve import Ballast
from handlers.ambiguity import protect
from handlers.journal.disk import (
    EVIDENCE,
    SALVAGE,
    free_name,
    keep_good_part,
    our_errors,
    set_aside,
)
from handlers.journal.format import Outline, Torn
from handlers.journal.identity import (
    Identity,
    mark_of_path,
    new_epoch,
    read_identity,
    write_identity,
)
from handlers.journal.segment_reader import (
    Places,
    SegmentRecords,
    SegmentScan,
    forget_cached,
    scan_segment,
)
from handlers.journal.segments import first_seq_of, segments_from, segments_of
from handlers.journal.snapshots import Snapshot, open_snapshot, snapshots_of, sweep_unfinished

KEEP_MS = 900_000
REPLAY_BYTES_MAX = 64 * 1024 * 1024
"""More than this is neither replayed nor kept for the sake of the feed's window if a newer snapshot
exists: a service that has very much to do for 15 minutes must not fill the disk."""

NEW_EPOCH_FILE = "new-epoch"
"""Left by `doctor --new-epoch`: the next start begins a new epoch."""


class Findings(msgspec.Struct):
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


def examine(directory: Path, *, now_ms: int, keep_ms: int, is_copy: bool = False) -> Findings:
    """The journal is whole, in an epoch in which its numbers can go on.

    `keep_ms` is how long the feed's window is, which is to be replayed if that is affordable.

    Raises:
        DataDirectoryError: a file cannot be read by this version, or is no file at all.
        NoSpace, StorageFailed: the disk does not let it be made whole.
    """
    with our_errors("read what is there"):
        return _Examination(directory, now_ms, keep_ms, is_copy).run()


class _Plan(msgspec.Struct):
    """The segments by what is to be done with them, from `snapshot` on; `fault` is why not all."""

    snapshot: Snapshot | None
    fault: str | None = None
    readable: list[SegmentScan] = []
    damaged: SegmentScan | None = None
    behind: list[Path] = []


class _Examination:
    def __init__(self, directory: Path, now_ms: int, keep_ms: int, is_copy: bool) -> None:
        self._directory = directory
        self._is_copy = is_copy
        self._now_ms = now_ms
        self._since_ms = now_ms - keep_ms
        self._identity: Identity | None = None
        self._segments: list[Path] = []
        self._snapshots: list[Snapshot] = []
        self._damaged_snapshots: list[Path] = []
        self._notes: list[str] = []
        self._continuous = True

    def run(self) -> Findings:
        sweep_unfinished(self._directory)
        self._identity = read_identity(self._directory)
        self._segments = self._segments_on_record()
        if self._segments:
            forget_cached(self._segments[-1])
        self._judge_files()
        self._look_at_snapshots()
        plan = self._best_plan()
        if plan.fault:
            self._break(plan.fault)
        places = self._set_aside(plan)
        return self._sum_up(plan, places)

    # -- looking ---------------------------------------------------------------------------------

    def _segments_on_record(self) -> list[Path]:
        """All segments but a last one that was made and not put on record: it is empty."""
        segments = segments_of(self._directory)
        if self._identity and segments and segments[-1].name not in self._identity.files:
            scan = scan_segment(segments[-1])
            if scan.last is None and scan.is_whole:
                segments.pop().unlink()
        return segments

    def _judge_files(self) -> None:
        """Whether these are the files for which the numbers were given out."""
        if self._identity is None:
            if self._segments or snapshots_of(self._directory):
                self._break("epoch.json is missing or damaged")
            return
        for path in self._segments:
            known = self._identity.files.get(path.name)
            if known is None or not known.may_be(mark_of_path(path)):
                self._break(f"{path.name} is a copy: the journal was copied or restored")
                return
        if self._is_copy:
            self._break("the data directory is a copy")
        if (self._directory / NEW_EPOCH_FILE).exists():
            self._break("a new epoch was asked for")

    def _look_at_snapshots(self) -> None:
        """The readable snapshots, newest first, no further back than they are of use."""
        for path in reversed(snapshots_of(self._directory)):
            try:
                snapshot = open_snapshot(path)
            except Torn as fault:
                self._notes.append(f"{path.name} is damaged and was set aside: {fault}")
                self._damaged_snapshots.append(path)
                continue
            self._snapshots.append(snapshot)
            if snapshot.head.at_ms <= self._since_ms or not self._can_replay(snapshot.head.seq):
                return

    def _best_plan(self) -> _Plan:
        """From the newest snapshot from before the feed's window, so that the window is replayed;
        from a newer snapshot if that would be too much, or if a fault lies in between."""
        newest = self._snapshots[0] if self._snapshots else None
        for older in reversed(self._snapshots[1:]):
            if self._can_replay(older.head.seq):
                plan = self._plan(older)
                if plan.fault is None:
                    return plan
                self._notes.append(f"{plan.fault}: {self._snapshots[0].path.name} is newer")
        return self._plan(newest)

    def _can_replay(self, seq: int) -> bool:
        """All records from `seq` on are there, and not too many."""
        if self._lacks_before(seq) or self._gone(seq):
            return False
        size = sum(path.stat().st_size for path in segments_from(self._segments, seq))
        return size <= REPLAY_BYTES_MAX

    def _plan(self, snapshot: Snapshot | None) -> _Plan:
        """Looks through what is to be replayed, up to the end or the first fault."""
        plan = _Plan(snapshot)
        from_seq = _first_seq_after(snapshot)
        needed = segments_from(self._segments, from_seq)
        gone = self._gone(from_seq)
        if self._lacks_before(from_seq):
            plan.fault = "the records before the oldest segment are gone, and so is a snapshot"
            plan.behind = needed
            return plan
        for index, path in enumerate(needed):
            if gone and gone[0] < path.name:
                plan.fault = f"{gone[0]} is missing"
                plan.behind = needed[index:]
                return plan
            scan = scan_segment(path)
            is_end = path == needed[-1] and not gone
            if scan.broken or not (scan.is_whole or is_end):
                plan.fault = f"{path.name} is damaged at byte {scan.end}, before its end"
                plan.damaged = scan
                plan.readable.append(replace(scan, torn=0))
                plan.behind = needed[index + 1 :]
                return plan
            plan.readable.append(scan)
        if gone:
            plan.fault = f"{gone[0]} is missing"
        return plan

    def _lacks_before(self, seq: int) -> bool:
        """Whether records from `seq` on were dropped, in the belief that a snapshot has them."""
        if self._identity is not None:
            return self._identity.dropped_below > seq
        return bool(self._segments) and first_seq_of(self._segments[0]) > seq

    def _gone(self, seq: int) -> list[str]:
        """Names on record of files that may have held events from `seq` on, and are not there."""
        there = {path.name for path in self._segments}
        on_record = self._identity.files if self._identity else {}
        known = [self._directory / name for name in sorted({*on_record, *there})]
        return [path.name for path in segments_from(known, seq) if path.name not in there]

    def _break(self, why: str) -> None:
        if self._continuous:
            self._notes.append(f"continuity is broken, a new epoch begins: {why}")
        else:
            self._notes.append(why)
        self._continuous = False

    # -- changing --------------------------------------------------------------------------------

    def _set_aside(self, plan: _Plan) -> Places:
        """What is of no use any more is evidence; gives the places with readable records in it."""
        for path in self._damaged_snapshots:
            set_aside(path)
        # From the end: whatever is done already, the damage is still found where it was, and what
        # followed it is missed by its name.
        for path in reversed(plan.behind):
            set_aside(path, SALVAGE)
        begins: dict[Path, int] = {}
        if plan.damaged is not None:
            Ballast(self._directory).release()  # the copy needs room
            evidence = keep_good_part(plan.damaged.path, plan.damaged.end, SALVAGE)
            begins[evidence] = plan.damaged.end
        sync_directory(self._directory)
        salvage = salvage_of(self._directory)
        if salvage:
            names = ", ".join(path.name for path in salvage)
            self._notes.append(f"what can be read in these is replayed: {names}")
        return tuple((path, begins.get(path, 0)) for path in salvage)

    def _identity_to_go_on(self, chosen: Snapshot | None) -> Identity:
        """On record already, or from here on."""
        if self._identity is not None and self._continuous:
            return self._identity
        left = segments_of(self._directory)
        dropped_below = 0  # the table began empty, with the oldest segment or after it
        if chosen is not None:
            dropped_below = min([chosen.head.seq, *map(first_seq_of, left[:1])])
        files = {path.name: mark_of_path(path) for path in left}
        # First, so that a death right here changes nothing; and at the latest time known, so that a
        # clock that is behind leaves no evidence unprotected.
        latest_ms = max([self._now_ms, *(snapshot.head.at_ms for snapshot in self._snapshots)])
        protect(self._directory, latest_ms)
        identity = Identity(epoch=new_epoch(), files=files, dropped_below=dropped_below)
        write_identity(self._directory, identity)
        (self._directory / NEW_EPOCH_FILE).unlink(missing_ok=True)
        return identity

    # -- summing up ------------------------------------------------------------------------------

    def _sum_up(self, plan: _Plan, places: Places) -> Findings:
        heads = [snapshot.head for snapshot in self._snapshots]
        scans = plan.readable
        salvaged = SegmentRecords(0, salvage=places)
        last = self._last_line(plan)
        torn = scans[-1].torn if scans else 0
        fresh = segments_from([s.path for s in scans], max((head.seq for head in heads), default=1))
        clean = self._continuous and not torn and (last.clean if last else not heads)
        reserved = max([0, *(s.reserved for s in scans), *(head.reserved for head in heads)])
        next_seq = max(
            0 if clean else reserved,
            last.next_seq if last else 1,
            max((head.seq for head in heads), default=1),
            max((record.next_seq for record in salvaged), default=1),
        )
        if torn and self._continuous:
            self._notes.append(f"{scans[-1].path.name}: a torn end of {torn} bytes was cut")
        return Findings(
            identity=self._identity_to_go_on(plan.snapshot),
            snapshot=plan.snapshot,
            records=SegmentRecords(
                _first_seq_after(plan.snapshot), tuple((s.path, s.end) for s in scans)
            ),
            salvaged=salvaged,
            end=scans[-1] if scans else None,
            next_seq=next_seq,
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


def salvage_of(directory: Path) -> list[Path]:
    """What is still to be replayed, in the order of its numbers."""
    return sorted(path for path in directory.iterdir() if f".log{SALVAGE}" in path.name)


def close_salvage(directory: Path) -> None:
    """What was salvage is evidence: all that can be read in it has been replayed, durably."""
    with our_errors("put away what was replayed"):
        for path in salvage_of(directory):
            name = path.name.partition(SALVAGE)[0]
            path.rename(free_name(directory / name, EVIDENCE))
        sync_directory(directory)


def _first_seq_after(snapshot: Snapshot | None) -> int:
    return snapshot.head.seq if snapshot else 1
