"""Shims that wait for work: forked before they are needed, used again as long as they are sound.

A fork of the interpreter costs more than all else that a shim does for a short program: its pages
are copied, its caches are cold, and everything is thrown away at the end. So a shim that has put
one execution on record takes the next; never two at a time. Stdlib only, blocking.

On the line between spawner and shim, to the shim: 4 bytes big endian length, then an `Assignment`
as JSON. Back: one byte each time it is free. Either end is closed by the death of the other side.
"""

import _socket
import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import NoReturn

from handlers.shim.process_tree import process

LENGTH = struct.Struct(">I")
FREE = b"f"

LINES_FROM = 64
"""Our ends of the lines have numbers from here on, so that a fork closes all of them at once; from
half of the limit on, if that is less."""

SPARE = 1
SPARE_AFTER_S = 0.02
"""The fork of the next spare waits until the start that took the last one is out of the way."""

SURPLUS_AFTER_S = 1.0
"""So long after a burst the shims that it left are sent home, all but the spare."""

LINES_MAX = 256
"""Of more shims than that the spawner keeps no line: they see their execution through and end."""

LINES_SPARE = 8
"""So many numbers above the first line are kept for what a start opens for a moment."""

SEND_TIMEOUT = struct.pack("@ll", 1, 0)
"""A struct timeval. A waiting shim reads at once, unless it is stopped (SIGSTOP) just then."""

_FAMILY, _KIND = int(socket.AF_UNIX), int(socket.SOCK_STREAM)
_LEVEL, _SEND_TIMEOUT = int(socket.SOL_SOCKET), int(socket.SO_SNDTIMEO)
"""Plain numbers, and `_socket`, which `socket` wraps: what the spawner touches after a fork stays
behind in the shim as pages of its own."""


class Pool:
    """The shims that the spawner has forked. `become` is what a forked one does with its line.

    `_pids` are the shims by our end of their line, `_free` the lines of those that wait, the newest
    last: `_fork` adds, `_drop` takes out, `give` and `receive` move a line out of `_free` and back.
    `_quiet_since_s` is the last start, `_lines_from` the lowest number of a line, `_lines_max` how
    many there may be.
    """

    def __init__(self, poll: select.poll, become: Callable[[int], NoReturn]) -> None:
        self._poll = poll
        self._become = become
        self._pids: dict[int, int] = {}
        self._free: list[int] = []
        self._quiet_since_s = time.monotonic()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._lines_from = min(LINES_FROM, limit // 2)
        self._lines_max = max(1, min(LINES_MAX, limit - self._lines_from - LINES_SPARE))

    def give(self, work: bytes) -> int:
        """The pid of the shim that has the work now.

        Raises:
            OSError: none waits, and none can be forked.
        """
        self._quiet_since_s = time.monotonic()
        frame = LENGTH.pack(len(work)) + work
        while self._free:
            line = self._free.pop()  # the newest is the warmest
            pid = self._pids[line]
            if self._send(line, frame):
                return pid
        line = self._fork()
        pid = self._pids[line]
        if not self._send(line, frame):
            raise BrokenPipeError(errno.EPIPE, "the shim was killed before it had work")
        if len(self._pids) > self._lines_max:
            self._drop(line)
        return pid

    def receive(self, line: int) -> None:
        """The shim behind `line` is free, or gone."""
        if line not in self._pids:
            return  # given up a moment ago
        try:
            is_free = os.read(line, len(FREE)) == FREE
        except OSError:
            is_free = False
        if is_free:
            self._free.append(line)
        else:
            self._drop(line)

    def reap(self) -> None:
        """Ended shims are no zombies any more; their pids may be given to others from now on."""
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                for line in [line for line, its in self._pids.items() if its == pid]:
                    self._drop(line)

    def wait_ms(self) -> int | None:
        """When `tend` has something to do at the latest; None: never."""
        surplus = len(self._free) - SPARE
        if surplus == 0:
            return None
        due_s = self._quiet_since_s + (SURPLUS_AFTER_S if surplus > 0 else SPARE_AFTER_S)
        return max(0, int((due_s - time.monotonic()) * 1000) + 1)

    def tend(self) -> None:
        """As many shims wait as should, if it is time to see to it."""
        if self.wait_ms() != 0:
            return
        while len(self._free) > SPARE:
            self._drop(self._free[0])
        if len(self._free) < SPARE:
            try:
                self._free.append(self._fork())
            except OSError:
                self._quiet_since_s = time.monotonic() + SURPLUS_AFTER_S  # tried again later

    def _fork(self) -> int:
        line, its = _make_line(self._lines_from)
        try:
            pid = os.fork()
        except OSError:
            os.close(line)
            os.close(its)
            raise
        if pid == 0:
            os.closerange(self._lines_from, max(line, *self._pids, 0) + 1)
            self._become(its)
        os.close(its)
        self._pids[line] = pid
        self._poll.register(line, select.POLLIN)
        return line

    def _send(self, line: int, frame: bytes) -> bool:
        pid, view = self._pids[line], memoryview(frame)
        try:
            if _is_stopped(pid):
                raise BlockingIOError(errno.EAGAIN, "stopped")
            while view:
                view = view[os.write(line, view) :]
        except OSError:
            # Dead, or stopped by a signal: with half an assignment it must never run.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._drop(line)
            return False
        return True

    def _drop(self, line: int) -> None:
        """The shim ends when it is free, since its line does; it is reaped like all."""
        self._poll.unregister(line)
        os.close(line)
        del self._pids[line]
        with contextlib.suppress(ValueError):
            self._free.remove(line)


def _is_stopped(pid: int) -> bool:
    """Whether that shim was stopped by a signal: it would keep work for ever (proc(5))."""
    found = process(pid)
    return found is not None and found.state in "Tt"


def _make_line(lines_from: int) -> tuple[int, int]:
    """Our end, with a number from `lines_from` on, and the shim's end of a new line."""
    ours, theirs = _socket.socketpair(_FAMILY, _KIND)
    try:
        ours.setsockopt(_LEVEL, _SEND_TIMEOUT, SEND_TIMEOUT)
        return fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, lines_from), theirs.detach()
    finally:
        ours.close()
        theirs.close()
