"""One look at whether the program is well: a command beside it, of which nothing is left. Stdlib
only.

The service says when; its end is seen to here, so that a service that dies meanwhile leaves
nothing behind. The command is of the program's tree, as all that the shim starts: what ends that
ends the command, too.
"""

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import Any

from handlers.shim.assignment import Assignment
from handlers.shim.masking import Masking, masked
from handlers.shim.program_start import Launched, failure_sentence, launch, no_process_sentence
from handlers.shim.tree import Tree

MARKER_NAME = "JOBBUS_HEALTH_CHECK"

OWN_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "JOBBUS_PROGRESS", "JOBBUS_RESULT")
"""Of the program alone: a check must not say for it that it is ready, or what came of it."""

TAIL_BYTES = 2048
MESSAGE_MAX = 200
READ_BYTES = 65_536


class Check:
    """At most one check at a time. `result` is what the last one came to.

    While one runs: `_called` is what was called, `_launched` its process, `_number` which it is,
    `_until_s` when it is ended, `_open` the descriptors that are read, `_tail` the end of what it
    printed (`_is_cut`: the beginning was not kept), `_error` why it was not executed; `_is_late`
    says that it was ended for its time.
    """

    def __init__(
        self,
        work: Assignment,
        tree: Tree,
        poll: select.poll,
        masking: Masking | None,
        changed: Callable[[], None],
    ) -> None:
        self._work = self._called = work
        self._tree = tree
        self._poll = poll
        self._masking = masking
        self._changed = changed
        self.result: dict[str, Any] | None = None
        self._launched: Launched | None = None
        self._number = 0
        self._until_s: float | None = None
        self._tail = b""
        self._error = ""
        self._is_late = False
        self._is_cut = False
        self._open: list[int] = []

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._open

    @property
    def deadline_s(self) -> float | None:
        return self._until_s

    def begin(self, number: int) -> None:
        """The check of that number runs, unless it did just before, or another one does."""
        command = self._work.health
        if command is None or self._launched is not None or number == self._number:
            return
        self._number, self._tail, self._error = number, b"", ""
        self._is_late = self._is_cut = False
        env = {name: value for name, value in self._work.env.items() if name not in OWN_NAMES}
        env[MARKER_NAME] = str(number)
        self._called = self._work._replace(argv=command, env=env, stdin_file=None, stdin_text=None)
        if self._tree.limits_memory:
            self._called = self._called._replace(memory_bytes=None)
        try:
            self._launched = launched = launch(
                self._called, self._tree.fork_beside, dies_with_shim=True
            )
        except OSError as error:
            self._conclude(None, f"no process for it: {no_process_sentence(error)}")
            return
        self._tree.take_beside(launched.pid)
        self._open = [launched.out, launched.err, launched.failure]
        for descriptor in self._open:
            self._poll.register(descriptor, select.POLLIN)
        self._until_s = time.monotonic() + self._work.health_timeout_s
        launched.release()

    def read(self, descriptor: int) -> None:
        """Keeps the end of what was printed."""
        launched = self._launched
        assert launched is not None
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close(descriptor)
        elif descriptor == launched.failure:
            self._error = failure_sentence(self._called, data)
        else:
            self._tail = (self._tail + data)[-TAIL_BYTES:]
            self._is_cut = self._is_cut or len(self._tail) == TAIL_BYTES

    def pass_time(self, now_s: float, *, is_over: bool) -> None:
        """A check that has ended is concluded, one that takes too long is ended. `is_over`: the
        program has ended or is to end, and what the check says is of no use any more."""
        launched = self._launched
        if launched is None:
            return
        status = self._tree.status_beside(launched.pid)
        if status is None:
            is_late = self._until_s is not None and now_s >= self._until_s
            if not (is_late or is_over):
                return
            self._is_late = is_late and not is_over
            self._tree.kill_beside(launched.pid, self._entry)
            status = self._tree.status_beside(launched.pid)
            if status is None:
                self._until_s = now_s + 0.05  # killed, and not yet gone
                return
        else:
            self._tree.kill_beside(launched.pid, self._entry)
        self._tree.leave_beside(launched.pid)
        for descriptor in list(self._open):
            with contextlib.suppress(BlockingIOError):
                self.read(descriptor)
            if descriptor in self._open:
                self._close(descriptor)
        self._launched, self._until_s = None, None
        if not is_over:
            self._conclude(status, self._error or _last_line(self._tail, self._is_cut))

    def close(self) -> None:
        """Nothing is read any more."""
        for descriptor in list(self._open):
            self._close(descriptor)

    @property
    def _entry(self) -> bytes:
        return f"{MARKER_NAME}={self._number}".encode()

    def _close(self, descriptor: int) -> None:
        self._open.remove(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)

    def _conclude(self, status: int | None, message: str) -> None:
        code = None if status is None else os.waitstatus_to_exitcode(status)
        self.result = {
            "number": self._number,
            "exit_code": None if code is None or code < 0 or self._error else code,
            "signal": -code if code is not None and code < 0 and not self._is_late else None,
            "is_late": self._is_late,
            "message": masked(self._masking, message)[:MESSAGE_MAX],
        }
        self._changed()


def _last_line(tail: bytes, is_cut: bool) -> str:
    """The last line that says something. One whose beginning was not kept is left out: it could
    hold the end of a secret, which is not known as such."""
    lines = tail.decode("utf-8", "replace").split("\n")[1 if is_cut else 0 :]
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
