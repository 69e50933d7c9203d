"""One file of the journal: lines, then zeros up to where it was prepared. Blocking IO.

Zeros are written ahead of the lines, so that a sync of new lines has no file size to write and a
full disk is met before a record, never inside one.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bus.errors import NoSpace, StorageFailed
from bus.layout import FILE_MODE
from handlers.journal_format import Record, Torn, decode_line

AHEAD_BYTES = 1024 * 1024
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def segment_name(first_seq: int) -> str:
    return f"{first_seq:020d}.log"


@dataclass
class SegmentEnd:
    """Where the readable lines of a segment end, filled in while they are read.

    `broken` says that lines of a later write follow the fault: bytes that were synced are damaged.
    """

    offset: int = 0
    size: int = 0
    broken: bool = False

    @property
    def is_torn(self) -> bool:
        return self.size > 0


class Segment:
    """An open segment. `offset` is where the next line goes."""

    def __init__(self, path: Path, descriptor: int, offset: int, prepared: int) -> None:
        self.path = path
        self.offset = offset
        self._descriptor = descriptor
        self._prepared = prepared

    @classmethod
    def create(cls, path: Path) -> "Segment":
        """An empty segment; its name is not synced yet."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        segment = cls(path, os.open(path, flags, FILE_MODE), 0, 0)
        try:
            segment._prepare(1)
        except NoSpace:
            segment.close()
            path.unlink()
            raise
        return segment

    @classmethod
    def reopen(cls, path: Path, end: SegmentEnd) -> "Segment":
        """An existing one, to be continued at the end of its readable lines; the rest is zeroed."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        segment = cls(path, descriptor, end.offset, os.fstat(descriptor).st_size)
        if end.is_torn:
            os.ftruncate(descriptor, end.offset)
            os.fsync(descriptor)
            segment._prepared = end.offset
        return segment

    @property
    def inode(self) -> int:
        return os.fstat(self._descriptor).st_ino

    def append(self, lines: bytes) -> None:
        """The lines are synced.

        Raises:
            NoSpace: nothing was written.
            StorageFailed: what the disk holds is unknown; never sync this file again.
        """
        self._prepare(len(lines))
        try:
            _write_all(self._descriptor, lines, self.offset)
            os.fdatasync(self._descriptor)
        except OSError as error:
            if error.errno in _NO_SPACE:  # a file system that copies on write
                self._wipe(len(lines))
                raise NoSpace(f"no room for the journal: {error.strerror}") from error
            raise StorageFailed(f"the journal could not be synced: {error}") from error
        self.offset += len(lines)

    def close(self) -> None:
        os.close(self._descriptor)

    def _prepare(self, size: int) -> None:
        """Zeros are on disk for `size` bytes from `offset` on."""
        if self.offset + size <= self._prepared:
            return
        wanted = -(-(self.offset + size) // AHEAD_BYTES) * AHEAD_BYTES
        try:
            _write_all(self._descriptor, bytes(wanted - self._prepared), self._prepared)
        except OSError as error:
            os.ftruncate(self._descriptor, self._prepared)
            if error.errno in _NO_SPACE:
                raise NoSpace(f"no room for the journal: {error.strerror}") from error
            raise StorageFailed(f"the journal cannot grow: {error}") from error
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise StorageFailed(f"the journal could not be synced: {error}") from error
        self._prepared = wanted

    def _wipe(self, size: int) -> None:
        """No trace of lines that do not count is left behind the end."""
        try:
            os.ftruncate(self._descriptor, self.offset)
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StorageFailed(f"the journal could not be cut back: {error}") from error
        self._prepared = self.offset


def read_records(path: Path, end: SegmentEnd) -> Iterator[Record]:
    """The records of a segment in order; afterwards `end` says where and how they end."""
    with path.open("rb") as file:
        for line in file:
            try:
                record = decode_line(line) if line.endswith(b"\n") else None
            except Torn:
                record = None
            if record is None:
                tail = line + file.read()
                if tail.strip(b"\0"):  # more than prepared zeros
                    end.size = len(tail)
                    end.broken = _begins_a_write(tail)
                return
            end.offset += len(line)
            yield record


def _begins_a_write(tail: bytes) -> bool:
    """Whether a whole line in `tail` is the first of a write, so that the write before was synced.

    Pages of one unsynced write may reach the disk in any order: whole lines behind a torn one that
    belong to the same write prove nothing.
    """
    for line in tail.split(b"\n"):
        try:
            record = decode_line(line.lstrip(b"\0"))
        except Torn:
            continue
        if record.batch is None:
            return True
    return False


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
