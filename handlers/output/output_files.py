"""The files of one execution's output as one run of bytes with gaps. Blocking IO, bounded memory.

`output.log` holds the first `head_bytes`; what stands behind them there is a marker for people and
has no offsets. `output.N` holds the Nth `segment_bytes` after them; the writer removes old ones.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

import msgspec

from bus.files import READ_FLAGS, NotRegular, open_regular
from bus.ports import OutputChunk
from handlers.output.index import OutputIndex

BLOCK = 256 * 1024
BACK_BLOCK = 64 * 1024
READ_MAX = 4 * 1024 * 1024
SEGMENTS_MAX = 256
"""Segments that are looked at, the newest; a writer keeps about nine."""

_SEGMENT = re.compile(r"output\.([1-9][0-9]{0,11})")


class Extent:
    """A file and the logical bytes `start` to `end` that it holds from its beginning on."""

    def __init__(self, name: str, start: int, end: int) -> None:
        self.name = name
        self.start = start
        self.end = end
        self.descriptor: int | None = None


class Part(msgspec.Struct, frozen=True):
    """A file that holds the logical bytes `start` to `end`, at the first of them."""

    file: FileIO
    start: int
    end: int


class OutputFiles:
    """An output as it was when opened. What is appended later is not seen; what the writer removes
    meanwhile becomes a gap.

    `ended_at` is where the output of an ended execution ends. What is missing up to there was cut
    off by somebody else and is a gap as well: nothing will ever be written behind it.
    """

    def __init__(self, folder: int | None, closing: ExitStack, ended_at: int | None = None) -> None:
        self._folder = folder
        self._closing = closing
        self._ended_at = ended_at
        self.index = OutputIndex(self._open("output.idx"))
        self._extents = list(self._found())
        if not self.index.is_valid and self.end:
            # It is there before the first byte: so it is gone, or has come since.
            self.index = OutputIndex(self._open("output.idx"))
            self._extents = list(self._found())
        self.index.refresh()  # after the bytes, as it is written: it covers all of them or more

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self._extents[-1].end if self._extents else 0

    @property
    def kept_end(self) -> int:
        """The offset after the last byte that is kept; less than `end` where the end is a gap."""
        return max((e.end for e in self._extents if e.end > e.start), default=0)

    def read(self, start: int, limit: int) -> OutputChunk:
        """Up to `limit` bytes from `start` or, if those were dropped, from the next kept one on."""
        start, limit = max(start, 0), min(limit, READ_MAX)
        data = bytearray()
        while True:
            at = self.kept_from(start)
            while len(data) < limit:
                piece = self._piece(at + len(data), limit - len(data))
                if not piece:
                    break
                data += piece
            if data or at == self.kept_from(start):
                break  # else its file has gone meanwhile: on behind the gap
        gap = (start, at) if at > start else None
        return OutputChunk(start=at, end=at + len(data), data=bytes(data), gap=gap)

    def part(self, start: int, end: int) -> Part | None:
        """The file that holds `start` or, if that was dropped, the next kept byte before `end`;
        None if there is none. The file is the caller's to close."""
        while (at := self.kept_from(start)) < end:
            extent = self._extent_of(at)
            if extent is None:
                return None
            if extent.descriptor is None:
                self._forget(extent)  # it has gone meanwhile: on behind the gap
                continue
            file = FileIO(os.dup(extent.descriptor))
            file.seek(at - extent.start)
            return Part(file, at, min(extent.end, end))
        return None

    def kept_from(self, offset: int) -> int:
        """`offset` if its byte is kept or still to come, else the next kept one."""
        for extent in self._extents:
            if offset < extent.end or extent is self._extents[-1]:
                return max(offset, extent.start)
        return offset

    def forward(self, start: int, until: int) -> Iterator[tuple[int, bytes]]:
        """Blocks with their offsets; after a gap the offset jumps."""
        while start < until:
            chunk = self.read(start, min(BLOCK, until - start))
            if not chunk.data or chunk.start >= until:
                return
            yield chunk.start, chunk.data
            start = chunk.end

    def backward(self, end: int) -> Iterator[tuple[int, bytes]]:
        """Blocks that end at `end`, then before them, up to the beginning or a gap."""
        edge = self._edge_before(end)
        while end > edge:
            start = max(end - BACK_BLOCK, edge)
            chunk = self.read(start, end - start)
            if (chunk.start, chunk.end) != (start, end):
                return  # its file has gone meanwhile
            yield start, chunk.data
            end = start

    def byte_before(self, offset: int) -> bytes:
        """The byte before `offset`; nothing at the beginning or if it was dropped."""
        if offset <= 0:
            return b""
        chunk = self.read(offset - 1, 1)
        return chunk.data if chunk.gap is None else b""

    def line_at(self, offset: int) -> int:
        """The number of the line that the byte at `offset` belongs to.

        Counted from the nearest place the index knows; exact unless the bytes between were
        dropped on both sides.
        """
        position = self.index.at_or_before(offset)
        start, number = 0, 1
        if position is not None:
            record = self.index.record(position)
            start, number = record.offset, record.line
            following = self.index.next_after(position)
            if following is not None and not self._is_whole(start, offset):
                newlines = self._newlines(offset, following.offset)
                return number if newlines is None else max(following.line - newlines, 1)
        return number + (self._newlines(start, offset) or 0)

    def offset_of_line(self, number: int) -> int:
        """Where a line begins; the end if there is no such line yet.

        A line whose beginning was dropped gives an offset in the gap, so that reading there
        reports the gap.
        """
        if number <= 1:
            return 0
        position = self.index.before_line(number)
        record = self.index.record(position) if position is not None else None
        at, missing = (record.offset, number - record.line) if record else (0, number - 1)
        if self.kept_from(at) != at:
            return at
        for offset, block in self.forward(at, self.end):
            if offset > at:
                return at  # the beginning lies in a gap
            newlines = block.count(b"\n")
            if newlines >= missing:
                return offset + _nth(block, b"\n", missing) + 1
            missing -= newlines
            at = offset + len(block)
        return min(at, self.end)  # before the end only if what follows there was cut off

    def _is_whole(self, start: int, end: int) -> bool:
        extents = [e for e in self._extents if e.start < end and e.end > start]
        reached = start
        for extent in extents:
            if extent.start > reached:
                return False
            reached = extent.end
        return reached >= end

    def _newlines(self, start: int, end: int) -> int | None:
        """Newlines among these bytes; None if some of them were dropped."""
        count, reached = 0, start
        for offset, block in self.forward(start, end):
            if offset != reached:
                return None
            count += block.count(b"\n")
            reached = offset + len(block)
        return count if reached >= end else None

    def _edge_before(self, end: int) -> int:
        """Where the run of kept bytes that ends at `end` begins."""
        edge = end
        for extent in reversed(self._extents):
            if extent.start < edge <= extent.end:
                edge = extent.start
        return edge

    def _piece(self, offset: int, limit: int) -> bytes:
        """Bytes of the file that holds `offset`; none if there is no such file (any more)."""
        extent = self._extent_of(offset)
        if extent is None:
            return b""
        if extent.descriptor is None:
            self._forget(extent)
            return b""
        size = min(limit, extent.end - offset)
        piece = os.pread(extent.descriptor, size, offset - extent.start)
        if not piece:
            extent.end = offset  # cut under our eyes
        return piece

    def _extent_of(self, offset: int) -> Extent | None:
        """What holds the byte at `offset`, open if its file is still there."""
        for extent in self._extents:
            if extent.start <= offset < extent.end:
                if extent.descriptor is None:
                    extent.descriptor = self._open(extent.name)
                return extent
        return None

    def _forget(self, extent: Extent) -> None:
        if extent is self._extents[-1]:
            extent.start = extent.end  # the end of the output stays where it was
        else:
            self._extents.remove(extent)

    def _found(self) -> Iterator[Extent]:
        """The files in the order of their bytes; where they end too early, an empty extent at the
        end that is on record."""
        end = 0
        for extent in self._files():
            end = extent.end
            yield extent
        if self._ended_at is not None and self._ended_at > end:
            yield Extent("", self._ended_at, self._ended_at)

    def _files(self) -> Iterator[Extent]:
        """The files in the order of their bytes. Without a valid index only `output.log` is known,
        and everything in it counts."""
        head_bytes, segment_bytes = self.index.head_bytes, self.index.segment_bytes
        size = self._size("output.log")
        if size is not None:
            yield Extent("output.log", 0, size if head_bytes is None else min(size, head_bytes))
        if head_bytes is None or self._folder is None:
            return
        matches = map(_SEGMENT.fullmatch, os.listdir(self._folder))
        numbers = sorted(int(match.group(1)) for match in matches if match)
        for number in numbers[-SEGMENTS_MAX:]:
            size = self._size(f"output.{number}")
            if size is not None:
                start = head_bytes + (number - 1) * segment_bytes
                yield Extent(f"output.{number}", start, start + min(size, segment_bytes))

    def _size(self, name: str) -> int | None:
        if self._folder is None:
            return None
        try:
            status = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def _open(self, name: str) -> int | None:
        """The descriptor of a regular file, closed with the rest; None if there is none."""
        if self._folder is None:
            return None
        try:
            descriptor = open_regular(name, inside=self._folder)
        except (FileNotFoundError, NotRegular):
            return None
        self._closing.callback(os.close, descriptor)
        return descriptor


@contextmanager
def open_output(folder: Path, ended_at: int | None = None) -> Iterator[OutputFiles]:
    """The output in an execution's folder; without files if there is none."""
    with ExitStack() as closing:
        try:
            descriptor = os.open(folder, os.O_DIRECTORY | READ_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            yield OutputFiles(None, closing, ended_at)
            return
        closing.callback(os.close, descriptor)
        yield OutputFiles(descriptor, closing, ended_at)


def _nth(block: bytes, needle: bytes, count: int) -> int:
    """Where `needle` stands for the `count`th time; it does."""
    at = -1
    for _ in range(count):
        at = block.index(needle, at + 1)
    return at
