"""The changes behind the feed's ring, read from the journal on disk. Reading blocks, on a thread.

A change shows the record as it was then, so the journal is folded into a table of its own from its
beginning on. Such a replay is kept for a moment where a reader left it: the next question from
there reads only what is new. One replay reads at a time.
"""

import asyncio
from collections import deque
from pathlib import Path

import msgspec
import structlog

from bus.changes import ChangeEncoder
from bus.events import Published
from bus.feed import Batch, FellBehind, Frame, Predicate
from bus.threads import READS
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import TableContent
from handlers.journal.disk import open_for_reading
from handlers.journal.format import Record, Torn, Unknown, decode_line
from handlers.journal.segments import first_seq_of, segments_of
from handlers.journal.snapshots import Snapshot, open_snapshot, seq_of, snapshots_of

REPLAYS_KEPT = 3
"""Tables that are held at the most, beside the one that is reading."""

KEPT_S = 30.0
READ_AHEAD = 500
SCAN_MAX = 20_000
"""Changes one question looks at before it answers with what it found and where to go on."""

NOTHING_HELD = 2**63 - 1

_content_decoder = msgspec.json.Decoder(TableContent)
log = structlog.get_logger("jobbus.history")


class JournalHistory:
    """Implements `bus.feed.History`.

    `_kept` holds replays where readers left them, for `KEPT_S`; only `after` takes them out and
    puts them back, under `_turn`. `_forgetting` is the timer that drops them.
    """

    def __init__(self, directory: Path, encoder: ChangeEncoder) -> None:
        self._directory = directory
        self._encoder = encoder
        self._turn = asyncio.Lock()
        self._kept: list[Replay] = []
        self._forgetting: asyncio.TimerHandle | None = None

    async def oldest(self) -> int:
        """See `bus.feed.History`."""
        return await READS.run(_oldest, self._directory)

    async def after(
        self, seq: int, until: int, limit: int, size_max: int, wanted: Predicate
    ) -> Batch:
        """See `bus.feed.History`."""
        async with self._turn:
            replay = self._nearest(seq)
            try:
                if replay is None:
                    replay = await READS.run(Replay.begin, self._directory, self._encoder)
                if replay.passed > seq:
                    raise FellBehind
                batch = await _next_batch(replay, seq, until, limit, size_max, wanted)
            except (OSError, AssertionError, KeyError, Torn, Unknown) as error:
                # A file was dropped meanwhile, or a file in the middle was damaged and set aside:
                # what follows it is not complete.
                log.warning("the journal cannot be read from there", seq=seq, error=repr(error))
                raise FellBehind from error
            self._keep(replay)
            return batch

    def _nearest(self, seq: int) -> "Replay | None":
        """The kept replay that has come closest to `seq` without passing it."""
        fitting = [replay for replay in self._kept if replay.passed <= seq]
        if not fitting:
            return None
        nearest = max(fitting, key=lambda replay: replay.passed)
        self._kept.remove(nearest)
        return nearest

    def _keep(self, replay: "Replay") -> None:
        self._kept.append(replay)
        del self._kept[:-REPLAYS_KEPT]
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(KEPT_S, self._kept.clear)


class Replay:
    """A table on its way through the journal. All frames after `passed` come, none before.

    `_position` is the number up to which the table is folded, `_path` and `_offset` where the next
    record is read; `read_on` writes these. `frames` are those that no reader has got yet: `read_on`
    puts them in, `_next_batch` takes them out and moves `passed`.
    """

    def __init__(self, encoder: ChangeEncoder, table: JobTable, passed: int, path: Path) -> None:
        self.passed = passed
        self.frames: deque[Frame] = deque()
        self._encoder = encoder
        self._table = table
        self._position = passed
        self._path = path
        self._offset = 0

    @classmethod
    def begin(cls, directory: Path, encoder: ChangeEncoder) -> "Replay":
        """A replay of all that the journal holds. Blocking.

        Raises:
            FellBehind: it holds nothing that can be replayed.
        """
        segments = _unbroken(directory)
        if not segments:
            raise FellBehind
        first = first_seq_of(segments[0])
        if first <= 1:
            return cls(encoder, JobTable(), 0, segments[0])
        for path in snapshots_of(directory):
            snapshot = _whole(path) if seq_of(path) >= first else None
            if snapshot is not None:
                parts = (_content_decoder.decode(line) for line in snapshot)
                return cls(encoder, JobTable.thaw(parts), snapshot.head.seq - 1, segments[0])
        raise FellBehind

    def read_on(self, until: int, skip_to: int) -> bool:
        """More frames are there, or False: all up to `until` was read. Blocking.

        No frames are made of what lies at `skip_to` or before.
        """
        while self._position < until:
            if self._read_segment(until, skip_to):
                return True
            following = self._following(until)
            if following is None:
                # Numbers that are not in the journal: progress, or none was given.
                self._position = until
                break
            self._must_be_whole()
            self._path, self._offset = following, 0
        return bool(self.frames)

    def _must_be_whole(self) -> None:
        """Raises `Torn` unless the segment holds lines up to its end, and then zeros at most."""
        with open_for_reading(self._path) as file:
            file.seek(self._offset)
            if not self._offset or any(block.strip(b"\0") for block in file):
                raise Torn(f"{self._path.name} is damaged at byte {self._offset}")

    def _following(self, until: int) -> Path | None:
        """The next segment, if it may hold something up to `until`.

        If it may not, it can be younger than our look at the segment before it, and that may have
        got another line in between. If it may, all before it was written when `until` was
        published.
        """
        for path in segments_of(self._path.parent):
            if path.name > self._path.name:
                return path if first_seq_of(path) <= until else None
        return None

    def _read_segment(self, until: int, skip_to: int) -> bool:
        """Reads on in the segment; False at its end, or at the first record after `until`."""
        with open_for_reading(self._path) as file:
            file.seek(self._offset)
            for line in file:
                record = _record_of(line)
                if record is None or record.seq > until:
                    return False
                self._offset += len(line)
                self._fold(record, skip_to)
                if len(self.frames) >= READ_AHEAD:
                    return True
        return False

    def _fold(self, record: Record, skip_to: int) -> None:
        if record.seq <= self._position:
            return  # the snapshot holds it
        for offset, event in enumerate(record.events):
            published = Published(record.seq + offset, record.at_ms, event)
            self._table.apply(published)
            self._position = published.seq
            if published.seq <= skip_to:
                self.passed = published.seq
                continue
            frame = self._encoder.frame(published, self._table)
            if frame is not None:
                self.frames.append(frame)


async def _next_batch(
    replay: Replay, seq: int, until: int, limit: int, size_max: int, wanted: Predicate
) -> Batch:
    taken: list[Frame] = []
    size = scanned = 0
    while True:
        while replay.frames and replay.frames[0].seq <= until:
            frame = replay.frames.popleft()
            replay.passed = frame.seq
            scanned += 1
            if frame.seq > seq and wanted(frame):
                taken.append(frame)
                size += len(frame.data)
            if len(taken) >= limit or size >= size_max or scanned >= SCAN_MAX:
                return Batch(taken, max(frame.seq, seq))
        if replay.frames or not await READS.run(replay.read_on, until, seq):
            return Batch(taken, max(until, seq))


def _unbroken(directory: Path) -> list[Path]:
    """The segments that no damage interrupts: those after the last evidence of any."""
    damaged = [path.name[:20] for path in directory.glob("*.damaged*")]
    last = max((name for name in damaged if name.isdigit()), default="")
    return [path for path in segments_of(directory) if path.name[:20] > last]


def _oldest(directory: Path) -> int:
    """As `Replay.begin` would find it, without reading; a damaged snapshot shows only there."""
    segments = _unbroken(directory)
    if not segments:
        return NOTHING_HELD
    first = first_seq_of(segments[0])
    if first <= 1:
        return 0
    fitting = [seq_of(path) for path in snapshots_of(directory) if seq_of(path) >= first]
    return fitting[0] - 1 if fitting else NOTHING_HELD


def _whole(path: Path) -> Snapshot | None:
    try:
        return open_snapshot(path)
    except Torn:
        return None


def _record_of(line: bytes) -> Record | None:
    """The record of a line; None where the good lines end (prepared zeros, a write under way)."""
    if not line.endswith(b"\n"):
        return None
    try:
        return decode_line(line)
    except Torn:
        return None
