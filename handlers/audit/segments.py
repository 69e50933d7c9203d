"""Writing the audit's segments: lines that are only ever appended. Blocking.

`{YYYYMMDD}-{number of the first entry}.log`, lines as the journal's: `crc32hex SP json LF`. A line
that was not written whole is passed over. Old segments go as wholes.
"""

import fcntl
import os
import pwd
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from bus.audit import NOTE, AuditEntry, cut
from bus.clock import rfc3339
from bus.errors import StorageFailed
from bus.files import write_all
from bus.layout import DIRECTORY_MODE, FILE_MODE, DataLayout
from bus.reserve_spares import Need, keep_room, take
from bus.retention_settings import DAY_MS
from bus.scarcity import NO_ROOM
from handlers.audit.reading import day_of, segments_of
from handlers.audit.resume_point import ResumePoint, find_resume_point, sync
from handlers.journal.format import frame_line

SEGMENT_BYTES = 4 << 20
"""One segment is read as a whole, so this bounds what a question costs in memory."""

AHEAD_BYTES = 128 << 10
"""Room that a segment has behind its end: some hundred entries find it on a full disk."""

_encoder = msgspec.json.Encoder()


class AuditSegments:
    """The one writer; `resume_point` is what `open` found. Only one thread at a time writes.

    `_file` is the open segment of `_day`, with `_size` bytes of lines and room up to `_ahead`;
    `_unsynced` says that lines wait for a sync, `_failed` why no sync is tried any more. `next_n`
    and `last_seq` are the numbers to go on with.
    """

    def __init__(
        self, directory: Path, resume_point: ResumePoint, *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._file: int | None = None
        self._day = ""
        self._size = 0
        self._ahead = 0
        self._unsynced = False
        self._failed: StorageFailed | None = None
        self.resume_point = resume_point
        self.next_n = resume_point.next_n
        self.last_seq = resume_point.last_seq

    @classmethod
    def open(cls, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> "AuditSegments":
        """The directory exists, and what a dead service left in it is followed on."""
        directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        resume_point = find_resume_point(directory)
        _give_back_ahead(directory)
        return cls(directory, resume_point, segment_bytes=segment_bytes)

    def append(self, entries: Sequence[AuditEntry], now_ms: int) -> None:
        """The entries, which get their numbers here, are in the file.

        Raises:
            OSError: none of them is, as far as any reader sees.
        """
        numbered = [
            msgspec.structs.replace(entry, n=self.next_n + index)
            for index, entry in enumerate(entries)
        ]
        data = b"".join(frame_line(_encoder.encode(entry)) for entry in numbered)
        descriptor = self._open_for(now_ms)
        try:
            write_all(descriptor, data)
        except OSError:
            # A second try must not stand behind half a line.
            os.ftruncate(descriptor, self._size)
            raise
        self._size += len(data)
        if self._ahead - self._size < AHEAD_BYTES // 2:
            self._keep_ahead()
        self._unsynced = True
        self.next_n += len(numbered)
        if numbered:
            self.last_seq = numbered[-1].seq

    def sync(self) -> None:
        """What was appended survives a power cut.

        Raises:
            OSError: there is no room for it.
            StorageFailed: it may be lost, and another try would report success: restart from the
                journal.
        """
        if self._file is not None and self._unsynced:
            self._sync(self._file)
            self._unsynced = False

    def close(self) -> None:
        self.sync()
        if self._file is not None:
            with suppress(OSError):  # the next start does it
                os.ftruncate(self._file, self._size)  # the room behind its end is free for others
            os.close(self._file)
            self._file = None

    def drop_before(self, at_ms: int, now_ms: int) -> int:
        """Segments whose last entries are older are gone; how many. The newest always stays."""
        day, today = day_of(at_ms), day_of(now_ms + DAY_MS)
        paths = segments_of(self._directory)
        days = [path.name[:8] for path in paths]
        gone = 0
        for index, path in enumerate(paths[:-1]):
            # A segment ends before the next begins. A segment from the future proves nothing: the
            # clock was wrong, which must not keep what follows for ever.
            ended = next((begun for begun in days[index + 1 :] if begun <= today), None)
            if ended is None or ended >= day or day <= days[index] <= today:
                break
            path.unlink()
            gone += 1
        return gone

    def _open_for(self, now_ms: int) -> int:
        """The segment of this day, with room."""
        day = day_of(now_ms)
        if self._file is not None and day == self._day and self._size < self._segment_bytes:
            return self._file
        self.close()
        name = f"{day}-{self.next_n:012d}.log"
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            descriptor = _begin(name, directory)
            self._sync(directory)
        finally:
            os.close(directory)
        self._file, self._day, self._size, self._ahead = descriptor, day, 0, AHEAD_BYTES
        return descriptor

    def _keep_ahead(self) -> None:
        """The segment has room behind its end, if there is any."""
        assert self._file is not None
        with suppress(OSError):
            keep_room(self._file, self._size, AHEAD_BYTES)
        self._ahead = self._size + AHEAD_BYTES  # found or not: not tried again for each entry

    def _sync(self, descriptor: int) -> None:
        if self._failed is not None:
            raise self._failed
        try:
            sync(descriptor)
        except StorageFailed as error:
            self._failed = error
            raise


def _begin(name: str, directory: int) -> int:
    """A descriptor of the empty segment, on a full disk of a spare.

    It exists if it could not be written before: nothing of it was ever counted.
    """
    try:
        descriptor = _create(name, directory)
        try:
            keep_room(descriptor, 0, AHEAD_BYTES)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        spare = take(name, directory, Need.RECORD)
        descriptor = _create(name, directory) if spare is None else spare
    if os.fstat(descriptor).st_size:
        os.ftruncate(descriptor, 0)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    return descriptor


def _create(name: str, directory: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, FILE_MODE, dir_fd=directory)


def _give_back_ahead(directory: Path) -> None:
    """The room behind the end of a dead service's last segment is free again."""
    for path in segments_of(directory)[-1:]:
        with suppress(OSError):
            os.truncate(path, path.stat().st_size)


def note_offline(layout: DataLayout, action: str, **detail: str) -> None:
    """The act stands in the audit, durably, as one of this account; no service runs, and the caller
    holds the lock."""
    segments = AuditSegments.open(layout.audit)
    now_ms = time.time_ns() // 1_000_000
    entry = AuditEntry(
        seq=segments.last_seq,
        at=rfc3339(now_ms),
        kind=NOTE,
        actor=_account(),
        via="cli",
        action=action,
        status="Completed",
        detail={name: cut(text) for name, text in detail.items() if text},
    )
    segments.append([entry], now_ms)
    segments.close()


def _account() -> str:
    """The name of the account, not what the environment calls it."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
