"""Reading the files of the journal: where their good lines end, and the records. Blocking IO.

A file is first looked through without a look at its events, then its records are read one by one:
memory does not grow with the journal.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bus.errors import DataDirectoryError
from handlers.journal.disk import open_for_reading, our_errors, sync_content
from handlers.journal.format import (
    Outline,
    Record,
    Torn,
    Unknown,
    decode_line,
    decode_outline,
    unframe_line,
)

_RESERVED = b'"reserved":'
_PROJECTED = b'"projected":'


class SegmentScan(msgspec.Struct, frozen=True):
    """What a look through a segment found.

    `end` is where the good lines end and `torn` how many bytes of something else follow (prepared
    zeros are nothing). `broken` says that lines of a later write follow the fault: bytes that were
    synced are damaged. `last` is the last good line.
    """

    path: Path
    end: int
    torn: int
    broken: bool
    last: Outline | None
    reserved: int
    projected: int

    @property
    def is_whole(self) -> bool:
        return self.torn == 0


def scan_segment(path: Path) -> SegmentScan:
    """Looks through all lines of one segment.

    Raises:
        DataDirectoryError: a newer version of jobbus wrote what this one cannot read.
    """
    end = reserved = projected = 0
    last = tail = b""
    with open_for_reading(path) as file, _newer_is_refused(path):
        for line in file:
            if not _is_whole(line):
                tail = (line + file.read()).rstrip(b"\0")
                break
            end += len(line)
            last = line
            if _RESERVED in line or _PROJECTED in line:  # a search costs a tenth of decoding
                outline = decode_outline(line)
                reserved = max(reserved, outline.reserved or 0)
                projected = max(projected, outline.projected or 0)
        broken = any(_begins_a_write(line) for line in _candidates(tail))
        outline_of_last = decode_outline(last) if last else None
    return SegmentScan(path, end, len(tail), broken, outline_of_last, reserved, projected)


def read_records(path: Path, end: int) -> Iterator[Record]:
    """The records of a segment that was found good up to `end`.

    Raises:
        DataDirectoryError: a newer version of jobbus wrote what this one cannot read.
    """
    offset = 0
    with open_for_reading(path) as file, _newer_is_refused(path):
        while offset < end:
            line = file.readline()
            offset += len(line)
            yield decode_line(line)


def read_salvage(path: Path, begin: int) -> Iterator[Record]:
    """The records that can still be read in a damaged file from `begin` on."""
    with open_for_reading(path) as file:
        file.seek(begin)
        for line in _candidates(file.read()):
            try:
                yield decode_line(line)
            except (Torn, Unknown):
                continue


Places = tuple[tuple[Path, int], ...]
"""Files, each with an offset."""


class SegmentRecords(msgspec.Struct, frozen=True):
    """Records in the order of their numbers, read from disk each time they are iterated.

    `parts` are files with the offset up to which they are good. `salvage` are files with the offset
    from which whatever is readable counts. Records wholly below `from_seq` are left out.
    """

    from_seq: int
    parts: Places = ()
    salvage: Places = ()

    def __iter__(self) -> Iterator[Record]:
        for record in self._all():
            if max(record.next_seq, record.seq + 1) > self.from_seq:
                yield record

    def _all(self) -> Iterator[Record]:
        for path, end in self.parts:
            yield from read_records(path, end)
        for path, begin in self.salvage:
            yield from read_salvage(path, begin)


def forget_cached(path: Path) -> None:
    """What is read from here on is what the disk holds.

    A process that was killed leaves lines that are not synced yet, and one that met a failed sync
    leaves lines in the page cache that the disk never got, marked as clean: both would be believed
    now and lost at the next power cut.

    Raises:
        StorageFailed: the disk does not take what was written.
    """
    with open_for_reading(path) as file, our_errors("sync what an earlier start wrote"):
        sync_content(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _is_whole(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        unframe_line(line)
    except Torn:
        return False
    return True


def _candidates(tail: bytes) -> Iterator[bytes]:
    """Pieces of damaged content that may be whole lines; zeros stand where a page never came."""
    for line in tail.split(b"\n")[:-1]:
        yield line.lstrip(b"\0")


def _begins_a_write(line: bytes) -> bool:
    """Whether this is a whole line and the first of its write, so that the write before was synced.

    Pages of one unsynced write may reach the disk in any order: whole lines behind a torn one that
    belong to the same write prove nothing.
    """
    try:
        return decode_outline(line).batch is None
    except Torn:
        return False


@contextmanager
def _newer_is_refused(path: Path) -> Iterator[None]:
    try:
        yield
    except Unknown as error:
        raise DataDirectoryError(
            f"{path} holds a record that this version of jobbus does not know ({error}); a newer "
            "version wrote it: start that one. Nothing is lost"
        ) from error
