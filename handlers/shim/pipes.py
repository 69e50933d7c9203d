"""The pipes of one program: read, paced, and closed when no process should write. Stdlib only.

The program waits for nothing but this loop, which only writes files.
"""

import contextlib
import fcntl
import os
import select
import time

from handlers.shim.masking import MaskedStream, Masking
from handlers.shim.output import OutputWriter

READ_BYTES = 131_072
"""Fits the cache between the copy out of the pipe and the copy into the file."""

PIPE_BYTES = 1 << 20
READS_A_TURN = 8
LARGE_READ_BYTES = 32_768
"""Half of what a pipe holds at first: a program that filled it so far gets a larger one."""

SMALL_READ_BYTES = 4096
PACE_S = 0.002
DRAIN_S = 2.0
"""How long a pipe may stay open after the tree has gone before our end is closed."""


def now_ms() -> int:
    """Wall time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Pipes:
    """Our ends. `drain_until_s` is when those still open are closed, None if nothing is due."""

    def __init__(
        self, poll: select.poll, output: OutputWriter, masking: Masking | None = None
    ) -> None:
        self._poll = poll
        self._output = output
        self._masking = masking
        self._masked: dict[int, MaskedStream] = {}
        self._streams: dict[int, int] = {}
        self._last_small_read_s = 0.0
        self.drain_until_s: float | None = None

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._streams

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, descriptor: int, stream: int) -> None:
        """What comes there is kept as output of that stream."""
        self._streams[descriptor] = stream
        if self._masking is not None:
            self._masked[descriptor] = self._masking.stream()
        self._poll.register(descriptor, select.POLLIN)

    def read(self, descriptor: int) -> int:
        """Keeps what is there, at the end closes; returns how many bytes came."""
        stream, total = self._streams[descriptor], 0
        for _ in range(READS_A_TURN):
            try:
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                self._close(descriptor)
                break
            total += len(data)
            size = len(data)
            if self._masked:
                data = self._masked[descriptor].feed(data)
            if data:
                self._output.write(data, stream, now_ms())
            if size < LARGE_READ_BYTES:
                break
        self._pace(descriptor, total)
        return total

    def drain(self, now_s: float, *, is_over: bool) -> None:
        """A pipe that a stray still holds is closed a moment after the tree has gone."""
        if not self._streams or not is_over:
            self.drain_until_s = None
        elif self.drain_until_s is None:
            self.drain_until_s = now_s + DRAIN_S
        elif now_s >= self.drain_until_s:
            self.drain_until_s = None
            for descriptor in list(self._streams):
                self._close(descriptor)
            self._output.note(
                "output closed: a process outside the execution held the pipe open", now_ms()
            )

    def _pace(self, descriptor: int, total: int) -> None:
        """A program that flushes each line wakes us 500 times a second, not 100 000 times."""
        if total >= LARGE_READ_BYTES and descriptor in self._streams:
            with contextlib.suppress(OSError):  # the user's share of pipe memory is used up
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        elif 0 < total < SMALL_READ_BYTES:
            now_s = time.monotonic()
            if now_s - self._last_small_read_s < 2 * PACE_S:
                time.sleep(PACE_S)
            self._last_small_read_s = now_s

    def _close(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        stream = self._streams.pop(descriptor)
        masked = self._masked.pop(descriptor, None)
        rest = masked.end() if masked is not None else b""
        if rest:
            self._output.write(rest, stream, now_ms())
        os.close(descriptor)
