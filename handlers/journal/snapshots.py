"""A whole table in one file, so that the journal before it need not be read. Blocking IO.

Lines with checksums like the journal's; the last one counts the others, so that a file that is not
whole is known as such and an older one is used.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bus.files import sync_directory
from handlers.journal.disk import begin_file, open_for_reading, our_errors
from handlers.journal.format import Torn, frame_line, unframe_line

_NAME = re.compile(r"[0-9]{20}\.snapshot\Z")
_TEMPORARY = re.compile(r"\.[0-9]{20}\.snapshot\.tmp\Z")


class SnapshotHead(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: all events below `seq` are contained."""

    seq: int
    at_ms: int
    reserved: int = 0
    projected: int = 0


class SnapshotEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last line: how many lines of content stand between."""

    lines: int


class Snapshot(msgspec.Struct, frozen=True):
    """A whole snapshot. Iterating reads its lines, as they were given, from the file."""

    path: Path
    head: SnapshotHead
    count: int

    def __iter__(self) -> Iterator[bytes]:
        with open_for_reading(self.path) as file:
            file.readline()
            for _ in range(self.count):
                yield unframe_line(file.readline())


def snapshots_of(directory: Path) -> list[Path]:
    """The snapshots in the order of their numbers; files with other names are none of ours."""
    return sorted(path for path in directory.iterdir() if _NAME.match(path.name))


def seq_of(path: Path) -> int:
    """The number below which the snapshot contains all events."""
    return int(path.name[:20])


def sweep_unfinished(directory: Path) -> None:
    """Snapshots that a process died of writing are gone."""
    for path in list(directory.iterdir()):
        if _TEMPORARY.match(path.name):
            path.unlink()


def write_snapshot(directory: Path, head: SnapshotHead, lines: Iterable[bytes]) -> None:
    """`{seq}.snapshot` is there, whole and durable.

    Raises:
        NoSpace: there is no room for it; nothing is left of it.
        StorageFailed: the disk is in an unknown state.
    """
    path = directory / f"{head.seq:020d}.snapshot"
    temporary = path.with_name(f".{path.name}.tmp")
    with our_errors("write a snapshot"):
        temporary.unlink(missing_ok=True)
        try:
            with os.fdopen(begin_file(temporary), "wb") as file:
                for line in _framed(head, lines):
                    file.write(line)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except Exception:  # a death leaves it to the sweep
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(directory)


def open_snapshot(path: Path) -> Snapshot:
    """The snapshot, after a look at each of its lines.

    Raises:
        Torn: the file is damaged or not whole.
    """
    count = 0
    content = b""
    with open_for_reading(path) as file:
        first = unframe_line(file.readline())
        for count, line in enumerate(file):  # noqa: B007 - the count of all lines but the last
            content = unframe_line(line)
    try:
        head = msgspec.json.decode(first, type=SnapshotHead)
        end = msgspec.json.decode(content, type=SnapshotEnd)
    except msgspec.MsgspecError as error:
        raise Torn("its first or its last line is missing") from error
    if end.lines != count or head.seq != seq_of(path):
        raise Torn(f"it has {count} lines where {end.lines} were written")
    return Snapshot(path, head, count)


def _framed(head: SnapshotHead, lines: Iterable[bytes]) -> Iterator[bytes]:
    count = 0
    yield frame_line(msgspec.json.encode(head))
    for line in lines:
        yield frame_line(line)
        count += 1
    yield frame_line(msgspec.json.encode(SnapshotEnd(lines=count)))
