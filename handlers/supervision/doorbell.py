"""The service's end of the doorbell: datagrams of shims, checked by who sent them. Never blocks.

Its socket and those of the shims have names in one folder of the data directory, where only our
account can make any. A name that every account can take, as an abstract one, would bring what jobs
say and who stops them to the account that takes it while we, or a shim, are away.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from bus.layout import DIRECTORY_MODE, FILE_MODE
from bus.recurring import Backoff, Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from handlers.shim.assignment import CHECK, ORDER, READY_SEEN, SERVICE_SOCKET, WAKE
from handlers.supervision.record import ShimState, decode_state

log = structlog.get_logger("jobbus.doorbell")

DATAGRAM_BYTES_MAX = 65_536
DATAGRAMS_A_TURN = 256
_CREDENTIALS = struct.Struct("3i")

Received = Callable[[int, ShimState], None]
"""Called with the sender's pid, as the kernel reports it, and what it says."""


LOOK_S = 5.0
"""So often it is looked whether the names are still there."""

AGAIN_S_MAX = 60.0
"""Pauses between tries to bind where that fails grow up to this."""


class Doorbell:
    """One bound socket that is read while `listening`; `folder` is where the names are.

    The folder, or names in it, may be removed while programs run; then another socket gets the same
    name. `_handle` is a descriptor of the folder, -1 without one; `_bound` says which file
    the name stands for, None if there is none. `listening` and `watch` write them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._socket = _unbound()
        self._handle = -1
        self._bound: tuple[int, int] | None = None
        self._troubles = Recurring(log)

    @contextmanager
    def listening(self, received: Received) -> Iterator[None]:
        """Datagrams are passed to `received` inside the block."""
        loop = asyncio.get_running_loop()
        self._bind()
        loop.add_reader(self._socket, self._read, received)
        try:
            yield
        finally:
            loop.remove_reader(self._socket)
            self._socket.close()
            if self._handle >= 0:
                with suppress(OSError):
                    os.unlink(SERVICE_SOCKET, dir_fd=self._handle)
                os.close(self._handle)
                self._handle = -1

    async def watch(self, received: Received) -> None:
        """While `listening`: the socket has its name, again if it was removed, for ever."""
        pauses = Backoff(LOOK_S, AGAIN_S_MAX)
        while True:
            await asyncio.sleep(pauses.next_s())
            found = await DISK.run(_identity, self.folder / SERVICE_SOCKET)
            if self._bound is not None and found == self._bound:
                pauses.reset()
            else:
                self._bind_again(received)

    def _bind_again(self, received: Received) -> None:
        was_bound = self._bound is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._read(received)  # what was sent before the name was gone
        self._socket.close()
        if self._handle >= 0:
            os.close(self._handle)
        self._socket, self._handle = _unbound(), -1
        self._bind()
        loop.add_reader(self._socket, self._read, received)
        if was_bound and self._bound is not None:
            log.warning(
                "sockets of running jobs were removed and are made again; leave that folder alone",
                folder=str(self.folder),
            )

    def wake(self, execution_id: str, address: str, order: bytes | None = None) -> bool:
        """The execution's shim looks at its files now; False: its socket is full, try again.

        `order` is the content of its `control`, for a shim that has lost its folder. `address` is
        what the shim has said of its socket. An abstract one, of an earlier version or where the
        file system has no sockets, may be another account's by now: what goes there says nothing.

        One that is not there yet, or not any more, needs no hint: it looks when it begins.
        """
        if order is None or address.startswith("@"):
            return self._send(execution_id, address, WAKE)
        return self._send(execution_id, address, b"%b\n%b=%b" % (WAKE, ORDER.encode(), order))

    def say_ready(self, execution_id: str, address: str) -> None:
        """The execution's shim takes its program for ready, if it receives this."""
        self._send(execution_id, address, b"%b\n%b=1" % (WAKE, READY_SEEN.encode()))

    def ask_check(self, execution_id: str, address: str, number: int) -> None:
        """The execution's shim makes the check of that number, if it receives this."""
        self._send(execution_id, address, b"%b\n%b=%d" % (WAKE, CHECK.encode(), number))

    def _send(self, execution_id: str, address: str, words: bytes) -> bool:
        is_abstract = address.startswith("@")
        target = "\0" + address[1:] if is_abstract else self._path(execution_id)
        try:
            self._socket.sendto(words, target)
        except BlockingIOError:
            return False
        except OSError as error:
            log.debug("no shim to wake", execution=execution_id, error=str(error))
        return True

    def _path(self, name: str) -> str:
        """A path that fits into an address, however long that of the folder is (unix(7))."""
        return f"/proc/self/fd/{self._handle}/{name}"

    def _bind(self) -> None:
        self._bound = None
        try:
            self.folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._handle = os.open(self.folder, flags)
            self._sweep()
            self._socket.bind(self._path(SERVICE_SOCKET))
            self._bound = _identity(self.folder / SERVICE_SOCKET)
        except OSError as error:
            self._troubles.say(
                f"no socket can be made in {self.folder}: {reason_of(error)}; news of running jobs "
                "comes by the slow look"
            )
        else:
            self._troubles.over(f"sockets can be made in {self.folder} again")

    def _sweep(self) -> None:
        """The names of sockets that no process reads are free again: of what was killed."""
        for name in os.listdir(self._handle):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
                try:
                    link.connect(self._path(name))
                except OSError as error:
                    if error.errno == errno.ECONNREFUSED:
                        with suppress(OSError):
                            os.unlink(name, dir_fd=self._handle)

    def _read(self, received: Received) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    DATAGRAM_BYTES_MAX, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except BlockingIOError:
                return
            pid = _sender(ancillary)
            state = decode_state(data) if pid is not None else None
            if pid is not None and state is not None:
                received(pid, state)


def _unbound() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with suppress(OSError):  # of its name, which `bind` makes; not on every system
        os.fchmod(made.fileno(), FILE_MODE)
    return made


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None if there is no such name."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The pid of a sender that runs under our account or root's."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid, uid, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
            return int(pid) if uid in (0, os.geteuid()) else None
    return None
