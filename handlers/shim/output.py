"""Writes the output of one execution: the raw bytes, their index, and the cap. Stdlib only.

The format is that of docs/protocol: `output.log` holds the first half of the cap, `output.N` a ring
of the newest rest, `output.idx` the time, stream and line of each read. A full disk costs output,
never the job: what could not be kept is replaced by one line that says how much it was.
"""

import contextlib
import os
import struct
from typing import Final

from handlers.shim.files import Folder
from handlers.shim.kernel import start_write_back

MAGIC: Final = b"JBIDX001"
HEADER: Final = struct.Struct("<8sQQQ")
RECORD: Final = struct.Struct("<QQQII")
SEGMENT_BYTES_MIN: Final = 65_536
SEGMENTS: Final = 8
WRITE_BACK_BYTES: Final = 8 << 20
RETRY_AFTER_BYTES: Final = 1 << 20
"""After a failed write the next try comes when that much more was dropped, or with a note."""

OUT, ERR = 1, 2


class OutputWriter:
    """The one writer of an execution's output. No method raises for a full or broken disk.

    `end` is the length of all output so far, `_line` the number of the line that is open there,
    `_pending` the record of the newest read, which goes to the index when another follows.
    `_segment` is the file that `_log` writes (0: `output.log`), `_oldest` the first that is kept.
    `dropped` bytes were not written, and no try is made before there are `_drop_until` of them.
    """

    def __init__(self, folder: Folder, max_bytes: int) -> None:
        self._folder = folder
        self._head_bytes = max_bytes // 2
        ring = max_bytes - self._head_bytes
        self._segment_bytes = max(SEGMENT_BYTES_MIN, -(-ring // SEGMENTS))
        self._keep = ring // self._segment_bytes
        self._segment = 0
        self._oldest = 1
        self.end = 0
        self.dropped = 0
        self._drop_until = 0
        self._line = 1
        self._written_back = 0
        self._log = folder.open("output.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._index = folder.open("output.idx", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._index_end = 0
        self._pending: tuple[int, int, int, int, int] | None = None
        self._index_write(HEADER.pack(MAGIC, self._head_bytes, self._segment_bytes, 0))

    def write(self, data: bytes, stream: int, time_ms: int) -> None:
        """The bytes are in the files, or counted as dropped."""
        if self.dropped:
            if self.dropped < self._drop_until:
                self.dropped += len(data)
                return
            self._note_drop(time_ms)
        self._append(data, stream, time_ms)

    def note(self, text: str, time_ms: int) -> None:
        """One line of our own in the output, marked as such."""
        if self.dropped:
            self._note_drop(time_ms)
        self._append(f"[jobbus: {text}]\n".encode(), ERR, time_ms)

    def flush_index(self) -> None:
        """What was written can be found by time and line."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._index_write(RECORD.pack(*pending))

    def close(self, time_ms: int) -> None:
        """All that can be kept is in the files."""
        if self.dropped:
            self._note_drop(time_ms)
        self.flush_index()
        os.close(self._log)
        os.close(self._index)

    def _note_drop(self, time_ms: int) -> None:
        lost, self.dropped = self.dropped, 0
        line = f"[jobbus: {lost} bytes of output were dropped: the disk took no more]\n".encode()
        if self._append(line, ERR, time_ms) < len(line):
            self.dropped = lost
            self._drop_until = lost + RETRY_AFTER_BYTES

    def _append(self, data: bytes, stream: int, time_ms: int) -> int:
        """Stores what fits; returns how many bytes that was and counts the rest as dropped."""
        stored = 0
        view = memoryview(data)
        while stored < len(data):
            if self.end >= self._segment_end() and not self._next_segment():
                break
            part = view[stored : stored + self._segment_end() - self.end]
            try:
                written = os.write(self._log, part)
            except OSError:
                break
            self.end += written
            self._index_read(data[stored : stored + written], stream, time_ms)
            stored += written
        if stored:
            self._write_back()
        if stored < len(data):
            self.dropped += len(data) - stored
            self._drop_until = self.dropped + RETRY_AFTER_BYTES
        return stored

    def _segment_end(self) -> int:
        return self._head_bytes + self._segment * self._segment_bytes

    def _next_segment(self) -> bool:
        """The following bytes go to a fresh file; the oldest one makes room."""
        if self._segment == 0:
            self._end_head()
        number = self._segment + 1
        try:
            fresh = self._folder.open(f"output.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        except OSError:
            return False
        self.flush_index()  # a file begins with a record of its own: its lines keep their numbers
        os.close(self._log)
        self._log, self._segment, self._written_back = fresh, number, 0
        while number - self._oldest > self._keep:
            with contextlib.suppress(OSError):
                os.unlink(f"output.{self._oldest}", dir_fd=self._folder.descriptor)
            self._oldest += 1
        return True

    def _end_head(self) -> None:
        """A line for people with `tail`; it has no offset, readers by offset never see it."""
        text = "the first half ends here; the newest output goes on in output.N"
        try:
            os.ftruncate(self._log, self._head_bytes)  # a second try must not leave two markers
            os.pwrite(self._log, f"\n[jobbus: {text}]\n".encode(), self._head_bytes)
        except OSError:
            pass

    def _index_read(self, data: bytes, stream: int, time_ms: int) -> None:
        start, pending = self.end - len(data), self._pending
        joins = pending is not None and pending[4] == stream and pending[1] == time_ms
        if pending is not None and joins:
            self._pending = (*pending[:3], pending[3] + len(data), stream)
        else:
            self.flush_index()
            self._pending = (start, time_ms, self._line, len(data), stream)
        self._line += data.count(b"\n")

    def _index_write(self, record: bytes) -> None:
        """Whole records only: a torn one would shift all that follow."""
        try:
            written = os.pwrite(self._index, record, self._index_end)
        except OSError:
            return
        if written == len(record):
            self._index_end += written

    def _write_back(self) -> None:
        base = self._segment_end() - (self._segment_bytes if self._segment else self._head_bytes)
        held = self.end - base
        if held - self._written_back >= WRITE_BACK_BYTES:
            start_write_back(self._log, self._written_back, held - self._written_back)
            self._written_back = held
