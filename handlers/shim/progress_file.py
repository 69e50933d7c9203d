"""The file named in `JOBBUS_PROGRESS`, which its program appends to, rewrites or replaces at will.

Stdlib only. Everything here comes from the job and may be hostile: sizes are bounded, links are not
followed.
"""

import codecs
import contextlib
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

from handlers.shim.files import Folder, OwnFolder
from handlers.shim.masking import Masking
from handlers.shim.progress_words import JobProgress, newest_in

FILE_BYTES_MAX = 1 << 20
FLOOD_BYTES_MAX = 16 << 20
WINDOW_BYTES = 131_072
"""Only the newest counts, so of much that is new only the end is looked at."""

CHECK_BYTES = 1024
QUIET_S = 2.0
TICK_NS = 50_000_000
"""Two changes within one tick of the file system's clock have the same time."""

READS_MAX = 4
LEASE_SIGNAL = signal.SIGURG
"""Nothing happens on it by default; the usual SIGIO would end us."""

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks, and what the text behind them is written in."""


class _Piece(NamedTuple):
    """What stands in the file from `start` on; `is_wide`: not in UTF-8."""

    start: int
    data: bytes
    text: str
    is_wide: bool

    def without(self, count: int) -> "_Piece":
        """The same but for its first characters."""
        if self.is_wide:
            return self._replace(text=self.text[count:])
        size = self.bytes_to(count)
        return _Piece(self.start + size, self.data[size:], self.text[count:], is_wide=False)

    def bytes_to(self, end: int) -> int:
        """How many bytes the first `end` characters were."""
        return len(self.text[:end].encode("utf-8", "surrogateescape"))


class ProgressFile:
    """Answers with the newest whole record, or with none; cut when it is too long.

    With `masking` it is also cut when a secret stands in it, which is replaced in the answer.

    `_offset`: all before it was read, ended by a line end or a brace, and `_before` are its last
    bytes. While they still stand there, what follows was added; otherwise the file is another and
    read from its beginning. `_rest` is what followed last time, which may still grow, and
    `_rest_counted` whether it was whole nevertheless. `_holds_secret`: a secret stands in the file.
    """

    def __init__(self, folder: Folder | OwnFolder, masking: Masking | None = None) -> None:
        self._folder = folder
        self._masking = masking
        self._offset = 0
        self._before = b""
        self._rest = b""
        self._rest_counted = True
        self._signature: tuple[int, ...] = ()
        self._since_s = 0.0
        self._may_differ = True
        self._holds_secret = False
        self.miss: str | None = None
        os.close(folder.open("progress", os.O_WRONLY | os.O_CREAT))

    @property
    def is_open(self) -> bool:
        """Something stands there that may become a record."""
        return not self._rest_counted

    def read(self, now_s: float, *, is_last: bool = False) -> JobProgress | None:
        """The newest progress if the file has changed. `is_last`: no process writes to it any more.

        `miss` is the first that was not understood, in a sentence.
        """
        try:
            found = os.stat("progress", dir_fd=self._folder.descriptor, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                self.miss = self.miss or not_a_file(found.st_mode, "progress", "JOBBUS_PROGRESS")
                return None
            if not (self._is_news(found, now_s) or is_last):
                return None
            descriptor = self._folder.open("progress", os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError:
            self.miss = self.miss or (
                "the progress file cannot be read: leave it readable for the account of the service"
            )
            return None
        except OSError:
            return None
        try:
            return self._read(descriptor, now_s, is_last=is_last)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _is_news(self, found: os.stat_result, now_s: float) -> bool:
        signature = (
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )
        is_news = signature != self._signature or self._may_differ or self.is_open
        if signature != self._signature:
            self._signature, self._since_s = signature, now_s
        self._may_differ = time.time_ns() - found.st_mtime_ns < TICK_NS
        return is_news

    def _read(self, descriptor: int, now_s: float, *, is_last: bool) -> JobProgress | None:
        piece, is_whole = self._piece(descriptor), is_last
        said = newest_in(piece.text, is_whole=is_whole, clean=self._clean)
        if said.end < len(piece.text) and not is_last:
            with _unwritten(descriptor) as is_whole:
                piece = self._piece(descriptor)
            is_whole = is_whole or now_s - self._since_s >= QUIET_S
            said = newest_in(piece.text, is_whole=is_whole, clean=self._clean)
        is_known = piece.data == self._rest and (self._rest_counted or not is_whole)
        if self._masking is not None and self._masking.text(piece.text) != piece.text:
            self._holds_secret = True
        self._go_on(piece, said.end)
        self._rest_counted = is_whole or said.end == len(piece.text)
        if self._rest_counted:
            self._cut_if_due(descriptor, piece.start + len(piece.data))
        if is_known:
            return None
        self.miss = self.miss or said.miss
        return said.progress

    def _piece(self, descriptor: int) -> _Piece:
        """What is new, or everything if the file is another than before."""
        size, known = os.fstat(descriptor).st_size, self._before
        if size < self._offset or known != os.pread(
            descriptor, len(known), self._offset - len(known)
        ):
            self._forget()
        start = max(self._offset, size - WINDOW_BYTES)
        mark = os.pread(descriptor, 4, 0)
        codec = next((name for bom, name in MARKS if mark.startswith(bom)), "")
        if codec:
            start -= start % 4
        data = _stable(descriptor, start)
        text = data.decode(codec, "replace") if codec else data.decode("utf-8", "surrogateescape")
        piece = _Piece(start, data, text, bool(codec))
        return piece if start == self._offset else piece.without(_first_record(text))

    def _go_on(self, piece: _Piece, end: int) -> None:
        if piece.is_wide:
            self._rest = piece.data
            return
        size = piece.bytes_to(end)
        before = self._before if piece.start == self._offset else b""
        self._before = (before + piece.data[:size])[-CHECK_BYTES:]
        self._offset = piece.start + size
        self._rest = piece.data[size:]

    def _forget(self) -> None:
        self._offset, self._before, self._rest, self._rest_counted = 0, b"", b"", True

    def _cut_if_due(self, descriptor: int, read_to: int) -> None:
        """Only what was read goes: between this look at the size and the cut is a microsecond."""
        found = os.fstat(descriptor)
        if not self._holds_secret and found.st_size <= FILE_BYTES_MAX:
            return
        if found.st_size > read_to and found.st_size <= FLOOD_BYTES_MAX:
            return
        writable = self._folder.open("progress", os.O_WRONLY | os.O_NONBLOCK)
        try:
            if os.path.sameopenfile(descriptor, writable):
                os.ftruncate(writable, 0)
                self._holds_secret = False
                self._forget()
        finally:
            os.close(writable)

    def _clean(self, record: str) -> str:
        clean = record.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return clean if self._masking is None else self._masking.text(clean)


def not_a_file(mode: int, name: str, variable: str) -> str:
    """What stands where a file was expected, and what would be right."""
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"))
    kind = next((name for is_it, name in kinds if is_it(mode)), "no file")
    return (
        f"the {name} file was replaced by {kind}, which is not read: write to the file that"
        f" {variable} names, or rename another file over it"
    )


def _stable(descriptor: int, start: int) -> bytes:
    """What two reads agree on: one alone may be half of the old and half of the new.

    Raises:
        OSError: it changes faster than it is read.
    """
    before = os.pread(descriptor, WINDOW_BYTES, start)
    for _ in range(READS_MAX):
        data = os.pread(descriptor, WINDOW_BYTES, start)
        if data.startswith(before):
            return before
        before = data
    raise OSError("the file changes while it is read")


@contextlib.contextmanager
def _unwritten(descriptor: int) -> Iterator[bool]:
    """True if no process has the file open for writing; none can open it before the block's end.

    A read lease, see fcntl(2): a writer who comes meanwhile waits for the microseconds. False where
    the file system knows no leases, or the file is another account's.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, LEASE_SIGNAL)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except (OSError, AttributeError):
        yield False
        return
    try:
        yield True
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _first_record(text: str) -> int:
    """Where records begin in a text that begins anywhere.

    Behind the first line end; where there are objects, which go over lines, at the first of them.
    """
    line_end = min((at for at in map(text.find, "\r\n") if at >= 0), default=len(text))
    if "{" not in text and "}" not in text:
        return line_end
    objects = (at + 1 for at in map(text.find, ("\n{", "\r{")) if at >= 0)
    return min(objects, default=len(text))
