"""From the journal on disk to a table and a feed, at start. Blocking; no effects on the outside."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bus.changes import ChangeEncoder
from bus.clock import Clock
from bus.events import Published
from bus.feed import AGE_MAX_S, BYTES_MAX, FRAMES_MAX, Feed, Frame
from handlers.decisions.table import JobTable, TableContent
from handlers.journal import Journal
from handlers.journal_format import Record

_content_decoder = msgspec.json.Decoder(TableContent)


@dataclass(frozen=True)
class RecoveredTable:
    """What the journal told. `clean` says that the last service ended in order."""

    journal: Journal
    table: JobTable
    feed: Feed
    encoder: ChangeEncoder
    epoch: str
    next_seq: int
    clean: bool
    continuous: bool
    projected: int
    notes: tuple[str, ...]


def recover(directory: Path, instance: str, clock: Clock) -> RecoveredTable:
    """Replays the journal into a table and refills the feed with the newest changes."""
    found = Journal.open(directory, now_ms=clock.now_ms())
    table = JobTable()
    if found.snapshot is not None:
        table = JobTable.thaw([_content_decoder.decode(line) for line in found.snapshot])
    encoder = ChangeEncoder(instance, found.epoch)
    tail = _Tail(table, encoder, clock.now_ms() - int(AGE_MAX_S * 1000), found.snapshot_seq)
    for record in found.records:
        tail.take(record)
    feed = Feed(found.epoch, found.next_seq - 1, clock)
    feed.refill(tail.frames, tail.floor)
    return RecoveredTable(
        journal=found.journal,
        table=table,
        feed=feed,
        encoder=encoder,
        epoch=found.epoch,
        next_seq=found.next_seq,
        clean=found.clean,
        continuous=found.continuous,
        projected=found.projected,
        notes=found.notes,
    )


class _Tail:
    """Folds records into the table and keeps frames of the newest ones, as a feed would."""

    def __init__(
        self, table: JobTable, encoder: ChangeEncoder, since_ms: int, snapshot_seq: int
    ) -> None:
        self._table = table
        self._encoder = encoder
        self._since_ms = since_ms
        self.frames: list[Frame] = []
        self.floor = max(0, snapshot_seq - 1)
        self._bytes = 0

    def take(self, record: Record) -> None:
        for published in _events_of(record):
            self._table.apply(published)
            frame = self._encoder.frame(published, self._table)
            if frame is not None:
                self._keep(frame, record.at_ms)

    def _keep(self, frame: Frame, at_ms: int) -> None:
        if at_ms < self._since_ms and len(self.frames) >= 2 * FRAMES_MAX:
            self._drop(FRAMES_MAX)
        self.frames.append(frame)
        self._bytes += len(frame.data)
        while self._bytes > BYTES_MAX:
            self._drop(max(1, len(self.frames) // 8))

    def _drop(self, count: int) -> None:
        self.floor = self.frames[count - 1].seq
        self._bytes -= sum(len(frame.data) for frame in self.frames[:count])
        del self.frames[:count]


def _events_of(record: Record) -> Iterable[Published]:
    for offset, event in enumerate(record.events):
        yield Published(record.seq + offset, record.at_ms, event)
