"""Writing lines to stdout and stderr of a service, wherever they lead: a full disk, a pipe that is
not read or that is gone, a terminal that hung up, nothing at all. None of it ends or delays it.
"""

import atexit
import io
import logging
import os
import select
import stat
import sys
import threading
from typing import Final

from bus.threads import start_thread

BACKLOG_BYTES_MAX = 1 << 20
"""What waits for a reader that takes nothing; lines beyond it are lost, and counted."""

LAST_S = 1.0
"""So long an end waits for that reader."""

STDOUT: Final = 1
STDERR: Final = 2


class LineWriter(io.TextIOBase):
    """As much of a text stream as a log handler uses. `write` takes whole lines; neither it nor
    `flush` ever waits or raises.

    A regular file is written at once. Everything else can stall, so a thread writes what waits.
    """

    def __init__(self, descriptor: int, backlog_bytes_max: int = BACKLOG_BYTES_MAX) -> None:
        self._descriptor = descriptor
        self._backlog_bytes_max = backlog_bytes_max
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._is_writing = False
        self._lost = 0
        self._is_file = _is_file(descriptor)
        if not self._is_file:
            start_thread(self._write_for_ever, f"lines-{descriptor}")

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        """The lines are written, or will be; or they are lost."""
        data = text.encode("utf-8", "backslashreplace")
        if self._is_file:
            _write(self._descriptor, data)
            return len(text)
        with self._changed:
            if len(self._waiting) + len(data) > self._backlog_bytes_max:
                self._lost += 1
            else:
                self._waiting += data
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """See `finish`."""

    def finish(self, timeout_s: float = LAST_S) -> None:
        """What was written before is with its reader, or the reader takes too long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._is_writing, timeout_s)

    def _write_for_ever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data, self._waiting = bytes(self._waiting), bytearray()
                self._is_writing = True
                lost, self._lost = self._lost, 0
            _write(self._descriptor, data)
            if lost:
                logging.getLogger(__name__).warning(
                    "%d lines of this log are lost: its reader took none for a while", lost
                )
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()


_writers: dict[int, LineWriter] = {}


def writer_to(descriptor: int) -> LineWriter:
    """The one writer of this process to `descriptor`.

    Raises:
        NoThread: it needs a thread, and the system gives none.
    """
    if descriptor not in _writers:
        _writers[descriptor] = LineWriter(descriptor)
        atexit.register(_writers[descriptor].finish)
    return _writers[descriptor]


def finish_lines() -> None:
    """The end: readers have their last lines, or had their time."""
    for writer in _writers.values():
        writer.finish()


def open_missing_streams() -> None:
    """Descriptors 0 to 2 lead somewhere. Where one is closed, the next file that is opened would
    get its number, and then lines meant for people: a lock, a journal."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    for descriptor, name in ((STDOUT, "stdout"), (STDERR, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # the program that shares it with us does not want to wait
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()
    except OSError:
        return  # full, closed or gone; the next line is tried again
