"""Reads `output.idx`: which bytes came when, on which stream, in which line. Blocking IO.

A header of 32 bytes (magic, head_bytes, segment_bytes, reserved), then records of 32 bytes in the
order of their offsets. The file is searched where it lies and never held as a whole. A torn last
record does not count, nor does what a power cut left as zeros; holes between records are possible.
"""

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"JBIDX001"
HEADER = struct.Struct("<8sQQQ")
RECORD = struct.Struct("<QQQII")

STREAMS = {1: "out", 2: "err"}

_BEYOND = 2**64
_BLOCK_RECORDS = 256
_STEPS_MAX = 64
"""Records that a cursor walks over before it searches instead."""


class Record(NamedTuple):
    """One read of the writer. `line` is the number of the line its first byte belongs to."""

    offset: int
    time_ms: int
    line: int
    length: int
    stream: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class Span(NamedTuple):
    """Bytes from `start` on that came on one stream; `record` is None where none covers them."""

    start: int
    record: Record | None

    @property
    def stream(self) -> str:
        return STREAMS[self.record.stream] if self.record else "out"

    @property
    def kind(self) -> int:
        """Equal for spans that belong together."""
        return self.record.stream if self.record else 0

    @property
    def time_ms(self) -> int | None:
        return self.record.time_ms if self.record else None


class OutputIndex:
    """An index as it was when opened; what is appended later is not seen."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self.head_bytes: int | None = None
        self.segment_bytes = 0
        self._count = 0
        header = b"" if descriptor is None else os.pread(descriptor, HEADER.size, 0)
        if len(header) == HEADER.size:
            magic, head_bytes, segment_bytes, _ = HEADER.unpack(header)
            if magic == MAGIC and segment_bytes > 0:
                self.head_bytes, self.segment_bytes = head_bytes, segment_bytes

    def refresh(self) -> None:
        """Records written up to now are seen."""
        if self._descriptor is None or self.head_bytes is None:
            return
        size = os.fstat(self._descriptor).st_size
        # Zeros at the end sort behind everything, as do all records that cannot be.
        whole = range(max(size - HEADER.size, 0) // RECORD.size)
        self._count = bisect_left(whole, _BEYOND, key=self._offset)

    @property
    def is_valid(self) -> bool:
        """Whether there is an index that covers, or will cover, the bytes."""
        return self.head_bytes is not None

    @property
    def covered(self) -> int:
        """The offset after the last byte that a record covers."""
        return self.record(self._count - 1).end if self._count else 0

    def record(self, position: int) -> Record:
        return self._block(position, 1)[0]

    def records(self, position: int) -> Iterator[Record]:
        """The records from `position` on."""
        while position < self._count:
            block = self._block(position, min(_BLOCK_RECORDS, self._count - position))
            yield from block
            position += len(block)

    def at_or_before(self, offset: int) -> int | None:
        """The position of the last record that begins at or before `offset`."""
        position = bisect_right(range(self._count), offset, key=self._offset)
        return position - 1 if position else None

    def before_line(self, number: int) -> int | None:
        """The position of the last record that begins in a line before `number`."""
        position = bisect_left(range(self._count), number, key=self._line)
        return position - 1 if position else None

    def next_after(self, position: int) -> Record | None:
        return self.record(position + 1) if position + 1 < self._count else None

    def _block(self, position: int, count: int) -> list[Record]:
        assert self._descriptor is not None, "an index without a file has no records"
        start = HEADER.size + position * RECORD.size
        data = os.pread(self._descriptor, count * RECORD.size, start)
        records = [Record(*fields) for fields in RECORD.iter_unpack(data)]
        # Only a file that was cut meanwhile is shorter than it was.
        return records or [Record(_BEYOND, 0, _BEYOND, 0, 1)]

    def _offset(self, position: int) -> int:
        record = self.record(position)
        return record.offset if record.length and record.stream in STREAMS else _BEYOND

    def _line(self, position: int) -> int:
        return self.record(position).line


class RecordCursor:
    """Gives the streams of places that are asked for in ascending order."""

    def __init__(self, index: OutputIndex) -> None:
        self._index = index
        self._rest: Iterator[Record] = iter(())
        self._now: Record | None = None
        self._next: Record | None = None
        self._seek(0)

    def spans(self, start: int, end: int) -> Iterator[Span]:
        """The bytes from `start` to `end`, cut where the stream changes; at least one span."""
        self._advance(start)
        span, at = Span(start, self._record_of(start)), start
        while True:
            at = self._known_until(at, end)
            if at >= end:
                yield span
                return
            self._advance(at)
            following = Span(at, self._record_of(at))
            if following.kind != span.kind:
                yield span
                span = following

    def _known_until(self, at: int, end: int) -> int:
        """Where another record, or a hole between records, may begin."""
        upcoming = self._next.offset if self._next else end
        record = self._record_of(at)
        return min(record.end, upcoming) if record else upcoming

    def _advance(self, offset: int) -> None:
        for _ in range(_STEPS_MAX):
            if self._next is None or self._next.offset > offset:
                return
            self._now, self._next = self._next, next(self._rest, None)
        self._seek(offset)

    def _seek(self, offset: int) -> None:
        position = self._index.at_or_before(offset)
        self._rest = self._index.records(position or 0)
        self._now = next(self._rest, None) if position is not None else None
        self._next = next(self._rest, None)

    def _record_of(self, offset: int) -> Record | None:
        return self._now if self._now and self._now.offset <= offset < self._now.end else None
