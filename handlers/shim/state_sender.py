"""Sends a shim's state to the service: the latest, coalesced, never waiting. Stdlib only.

The service's socket has a name in a folder of our account, so that no other account can take its
place.

A datagram that is lost loses nothing; the files say the same. An important one that found the
socket full is sent again a moment later, since only ten datagrams wait there.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from handlers.shim.assignment import SERVICE_SOCKET
from handlers.shim.files import encode

INTERVAL_S = 0.05
RETRY_S = 0.02
DATAGRAM_BYTES_MAX = 60_000
LAST_TRIES = 5


class StateSender:
    """One sender. `due_s` is when `send_if_due` has something to do, None if nothing waits;
    `folder` is a descriptor of the folder of sockets, -1 if there is none; `_sent_s` the last
    time that a state was sent. `_path` is the folder's name, set by `send_to`; `_is_missed` says
    that the newest state found no socket."""

    def __init__(self) -> None:
        # Made before the fork and shared by all shims: the kernel still says who sent what.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.folder = -1
        self._path = ""
        self._is_missed = False
        self._sent_s = 0.0
        self.due_s: float | None = None

    def send_to(self, folder: str) -> None:
        """States go to the socket in that folder from now on."""
        if self.folder >= 0:
            os.close(self.folder)
        self._path, self.folder = folder, -1
        self._is_missed, self.due_s = False, None
        with contextlib.suppress(OSError):  # then only the files say it
            self.folder = _opened(folder)

    def look(self, *, is_in_place: bool) -> None:
        """A state that found no service is sent again. If the data directory is in its place, the
        folder is the one that has the name now, under the same descriptor."""
        if self._is_missed:
            self.changed()
        if not is_in_place:
            return
        with contextlib.suppress(OSError):
            now = os.stat(self._path)  # noqa: PTH116 - lean start
            if self.folder >= 0 and os.path.samestat(os.fstat(self.folder), now):
                return
        with contextlib.suppress(OSError):
            found = _opened(self._path)
            if self.folder < 0:
                self.folder = found
            else:
                os.dup2(found, self.folder, inheritable=False)
                os.close(found)
            self.changed()

    def changed(self, *, at_once: bool = False) -> None:
        """There is a new state to send."""
        now = time.monotonic()
        soon = now if at_once else max(now, self._sent_s + INTERVAL_S)
        self.due_s = soon if self.due_s is None else min(self.due_s, soon)

    def send_if_due(self, now_s: float, state: Callable[[], dict[str, Any]]) -> None:
        """Sends `state()` if it is time."""
        if self.due_s is None or now_s < self.due_s:
            return
        self._sent_s = now_s
        self.due_s = now_s + RETRY_S if self._send(state()) is False else None

    def send_last(self, state: dict[str, Any]) -> bool:
        """Sends the last one; False if it was lost: then the end of the process must be noticed."""
        for _ in range(LAST_TRIES):
            is_sent = self._send(state)
            if is_sent is not False:
                return is_sent is True
            time.sleep(RETRY_S / 4)
        return False

    def _send(self, state: dict[str, Any]) -> bool | None:
        """True if sent, False if the socket was full, None if there is none or it is too much."""
        data = encode(state)
        if len(data) > DATAGRAM_BYTES_MAX:
            data = encode({**state, "progress": None})
        if len(data) > DATAGRAM_BYTES_MAX:
            return None  # a large result: `exit.json` has it
        try:
            self._socket.sendto(data, f"/proc/self/fd/{self.folder}/{SERVICE_SOCKET}")
        except BlockingIOError:
            return False
        except OSError:
            self._is_missed = True
            return None
        self._is_missed = False
        return True


def _opened(folder: str) -> int:
    """A descriptor of the folder, which is made if it was removed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(folder, flags)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)  # noqa: PTH102 - lean start
        return os.open(folder, flags)
