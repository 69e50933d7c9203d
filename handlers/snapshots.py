"""A whole table in one file, so that the journal before it need not be read. Blocking IO.

Lines with checksums like the journal's; the last one counts the others, so that a file that is not
whole is known as such and an older one is used.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bus.errors import NoSpace, StorageFailed
from bus.instance import sync_directory
from bus.layout import FILE_MODE
from handlers.journal_format import Torn, frame_line, unframe_line

SUFFIX = ".snapshot"


class SnapshotHead(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: all events below `seq` are contained."""

    seq: int
    at_ms: int
    reserved: int = 0
    projected: int = 0


class SnapshotEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last line: how many lines of content stand between."""

    lines: int


def write_snapshot(directory: Path, head: SnapshotHead, lines: Iterable[bytes]) -> None:
    """`{seq}.snapshot` is there, whole and durable."""
    path = directory / f"{head.seq:020d}{SUFFIX}"
    temporary = path.with_name(f".{path.name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, FILE_MODE), "wb") as file:
            file.write(frame_line(msgspec.json.encode(head)))
            count = 0
            for line in lines:
                file.write(frame_line(line))
                count += 1
            file.write(frame_line(msgspec.json.encode(SnapshotEnd(lines=count))))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(directory)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no room for a snapshot: {error.strerror}") from error
        raise StorageFailed(f"the snapshot could not be written: {error}") from error


def read_snapshot(path: Path) -> tuple[SnapshotHead, list[bytes]]:
    """The head and the lines of a whole snapshot.

    Raises:
        Torn: the file is damaged or not whole.
    """
    framed = path.read_bytes().splitlines()
    if len(framed) < 2:
        raise Torn("too short")
    content = [unframe_line(line) for line in framed]
    try:
        head = msgspec.json.decode(content[0], type=SnapshotHead)
        end = msgspec.json.decode(content[-1], type=SnapshotEnd)
    except msgspec.MsgspecError as error:
        raise Torn(str(error)) from error
    if end.lines != len(content) - 2:
        raise Torn(f"{len(content) - 2} lines where {end.lines} were written")
    return head, content[1:-1]
