"""Writing one file of the journal: lines, then zeros up to where it was prepared. Blocking IO.

Zeros are written ahead of the lines, so that a sync of new lines has no file size to write (twice
as fast) and a full disk is met before a record, never inside one.
"""

import os
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from bus.errors import NoSpace
from bus.file_marks import FileMark, mark_of
from bus.files import write_all
from handlers.journal.disk import begin_file, open_file, our_errors, sync_content

AHEAD_BYTES = 1024 * 1024
PAGE_BYTES = 4096

_NAME = re.compile(r"[0-9]{20}\.log\Z")


def segment_name(first_seq: int) -> str:
    return f"{first_seq:020d}.log"


def segments_of(directory: Path) -> list[Path]:
    """The segments in the order of their numbers; files with other names are none of ours."""
    return sorted(path for path in directory.iterdir() if _NAME.match(path.name))


def first_seq_of(path: Path) -> int:
    """The smallest number that may stand in the segment."""
    return int(path.name[:20])


def segments_from(segments: Sequence[Path], seq: int) -> list[Path]:
    """Those of the segments that may hold events from `seq` on."""
    return [
        path
        for path, after in zip_longest(segments, segments[1:])
        if after is None or first_seq_of(after) > seq
    ]


class Segment:
    """An open segment. `offset` is where the next line goes; zeros are written up to
    `_prepared`."""

    def __init__(self, path: Path, descriptor: int, offset: int, prepared: int) -> None:
        self.path = path
        self.offset = offset
        self._descriptor = descriptor
        self._prepared = prepared

    @classmethod
    def create(cls, path: Path) -> "Segment":
        """An empty segment with room for lines; its name is not synced yet.

        Raises:
            NoSpace: there is none; the name is free again.
        """
        with our_errors("begin a new segment"):
            segment = cls(path, begin_file(path), 0, 0)
        try:
            segment._prepare(1)
        except (NoSpace, MemoryError):
            segment.discard()
            raise
        return segment

    @classmethod
    def reopen(cls, path: Path, offset: int, *, cut: bool) -> "Segment":
        """An existing one, to be continued at `offset`; with `cut`, what stands there goes."""
        with our_errors("continue a segment"):
            descriptor = open_file(path)
            if cut:
                os.ftruncate(descriptor, offset)
                os.fsync(descriptor)
            return cls(path, descriptor, offset, os.fstat(descriptor).st_size)

    @property
    def mark(self) -> FileMark:
        return mark_of(self._descriptor)

    def append(self, lines: bytes) -> None:
        """The lines are synced.

        Raises:
            NoSpace: nothing was written.
            StorageFailed: what the disk holds is unknown; never sync this file again.
        """
        self._prepare(len(lines))
        try:
            with our_errors("sync what it wrote"):
                write_all(self._descriptor, lines, self.offset)
                sync_content(self._descriptor)
        except NoSpace:  # from a file system that takes new room for old bytes, as btrfs does
            self._cut_back(self.offset)
            raise
        self.offset += len(lines)

    def close(self) -> None:
        os.close(self._descriptor)

    def discard(self) -> None:
        """The file is gone; for one that never held a line."""
        self.close()
        self.path.unlink()

    def _prepare(self, size: int) -> None:
        """Zeros are on disk for `size` bytes from `offset` on, and for more if there is room."""
        needed = self.offset + size
        if needed <= self._prepared:
            return
        try:
            self._zero_up_to(-(-needed // AHEAD_BYTES) * AHEAD_BYTES)
        except NoSpace:
            self._zero_up_to(-(-needed // PAGE_BYTES) * PAGE_BYTES)

    def _zero_up_to(self, end: int) -> None:
        try:
            with our_errors("prepare room for records"):
                write_all(self._descriptor, bytes(end - self._prepared), self._prepared)
                os.fsync(self._descriptor)
        except NoSpace:
            self._cut_back(self._prepared)
            raise
        self._prepared = end

    def _cut_back(self, end: int) -> None:
        """No trace of what does not count is left behind `end`."""
        with our_errors("cut back a write that found no room"):
            os.ftruncate(self._descriptor, end)
            os.fsync(self._descriptor)
        self._prepared = end
