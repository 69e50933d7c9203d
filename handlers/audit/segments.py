"""The segments of the audit on disk: lines that are only ever appended. Blocking.

`{YYYYMMDD}-{number of the first entry}.log`, lines as the journal's: `crc32hex SP json LF`. A line
that was not written whole is passed over. Old segments go as wholes.
"""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec

from bus.audit import AuditEntry, AuditPage, AuditQuery
from bus.clock import rfc3339
from bus.keeping import DAY_MS
from bus.layout import DIRECTORY_MODE, FILE_MODE
from handlers.journal.format import Torn, frame_line, unframe_line

SEGMENT_BYTES = 4 << 20
"""One segment is read as a whole, so this bounds what a question costs in memory."""

LINES_A_PAGE = 50_000
"""Lines that one question looks at before it answers with what it found."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AuditEntry)


class AuditSegments:
    """The one writer, and what readers are shown. Only one thread at a time writes."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._file: int | None = None
        self._day = ""
        self._size = 0
        self._unsynced = False
        directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        last = self._last_entry()
        self.next_n = last.n + 1 if last is not None else 1
        self.last_seq = last.seq if last is not None else 0

    def append(self, entries: Sequence[AuditEntry], now_ms: int) -> None:
        """The entries, which get their numbers here, are in the file.

        Raises:
            OSError: none of them is, as far as anybody will ever read.
        """
        numbered = [
            msgspec.structs.replace(entry, n=self.next_n + index)
            for index, entry in enumerate(entries)
        ]
        data = b"".join(frame_line(_encoder.encode(entry)) for entry in numbered)
        descriptor = self._open_for(now_ms)
        try:
            _write_all(descriptor, data)
        except OSError:
            # A second try must not stand behind half a line.
            os.ftruncate(descriptor, self._size)
            raise
        self._size += len(data)
        self._unsynced = True
        self.next_n += len(numbered)
        if numbered:
            self.last_seq = numbered[-1].seq

    def sync(self) -> None:
        """What was appended survives a power cut."""
        if self._file is not None and self._unsynced:
            os.fsync(self._file)
            self._unsynced = False

    def close(self) -> None:
        self.sync()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def drop_before(self, at_ms: int) -> int:
        """Segments whose last entries are older are gone; how many. The newest always stays."""
        day, gone = _day_of(at_ms), 0
        paths = segments_of(self._directory)
        for path, following in pairwise(paths):
            # A segment ends before the next one begins.
            if following.name[:8] >= day:
                break
            path.unlink()
            gone += 1
        return gone

    def _open_for(self, now_ms: int) -> int:
        """The segment of this day, with room."""
        day = _day_of(now_ms)
        if self._file is not None and day == self._day and self._size < self._segment_bytes:
            return self._file
        self.close()
        name = f"{day}-{self.next_n:012d}.log"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._directory / name, flags, FILE_MODE)
        # It exists if it could not be written before: nothing of it was ever counted.
        os.ftruncate(descriptor, 0)
        _sync_directory(self._directory)
        self._file, self._day, self._size = descriptor, day, 0
        return descriptor

    def _last_entry(self) -> AuditEntry | None:
        for path in reversed(segments_of(self._directory)):
            found = [decoded for line in _lines(path) if (decoded := _decoded(line)) is not None]
            if found:
                return max(found, key=lambda entry: entry.n)
        return None


def page(directory: Path, query: AuditQuery, limit: int) -> AuditPage:
    """The newest `limit` entries that are wanted, newest first."""
    items: list[msgspec.Raw] = []
    looked = 0
    for path in reversed(segments_of(directory)):
        if not _may_hold(path, query):
            continue
        for line in reversed(_lines(path)):
            entry = _decoded(line)
            if entry is None or (query.before_n is not None and entry.n >= query.before_n):
                continue
            looked += 1
            if is_wanted(entry, query):
                items.append(msgspec.Raw(unframe_line(line)))
            if len(items) == limit or looked == LINES_A_PAGE:
                return AuditPage(items=tuple(items), next=entry.n if entry.n > 1 else None)
    return AuditPage(items=tuple(items), next=None)


def pieces(directory: Path, query: AuditQuery, size: int) -> Iterator[bytes]:
    """All wanted entries, oldest first, as NDJSON in pieces of about `size` bytes."""
    piece = bytearray()
    for path in segments_of(directory):
        if not _may_hold(path, query):
            continue
        for line in _lines(path):
            entry = _decoded(line)
            if entry is not None and is_wanted(entry, query):
                piece += unframe_line(line) + b"\n"
            if len(piece) >= size:
                yield bytes(piece)
                piece.clear()
        # However little was found, others may do something between two segments.
        yield bytes(piece)
        piece.clear()


def is_wanted(entry: AuditEntry, query: AuditQuery) -> bool:
    """Whether the question asks for this one."""
    return (
        (not query.actors or entry.actor in query.actors)
        and (not query.jobs or entry.job in query.jobs)
        and (not query.actions or entry.action in query.actions)
        and (query.since_ms is None or entry.at >= rfc3339(query.since_ms))
        and (query.until_ms is None or entry.at < rfc3339(query.until_ms))
    )


def segments_of(directory: Path) -> list[Path]:
    """The segments in order of their entries, whatever the clock did."""
    found = [path for path in directory.glob("*.log") if _is_name(path.stem)]
    return sorted(found, key=lambda path: int(path.stem[9:]))


def _is_name(stem: str) -> bool:
    day, dash, number = stem.partition("-")
    return len(day) == 8 and day.isdecimal() and bool(dash) and number.isdecimal()


def _may_hold(path: Path, query: AuditQuery) -> bool:
    """By its name; with doubt on both sides: entries tell when it was, not when it was written."""
    if query.before_n is not None and int(path.stem[9:]) >= query.before_n:
        return False
    day = path.name[:8]
    if query.since_ms is not None and day < _day_of(query.since_ms - DAY_MS):
        return False
    return query.until_ms is None or day <= _day_of(query.until_ms + 2 * DAY_MS)


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []  # dropped meanwhile


def _decoded(line: bytes) -> AuditEntry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return _decoder.decode(unframe_line(line))
    except (Torn, msgspec.MsgspecError):
        return None


def _day_of(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(max(0, at_ms) / 1000, tz=UTC):%Y%m%d}"


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
