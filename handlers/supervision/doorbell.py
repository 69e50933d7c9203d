"""The service's end of the doorbell: datagrams of shims, checked by who sent them. Never blocks."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from handlers.shim.assignment import ORDER, WAKE
from handlers.supervision.record import ShimState, decode_state

log = structlog.get_logger("jobbus.doorbell")

DATAGRAM_BYTES_MAX = 65_536
DATAGRAMS_A_TURN = 256
_CREDENTIALS = struct.Struct("3i")

Ring = Callable[[int, ShimState], None]
"""Called with the sender's pid, as the kernel tells it, and what it says."""


def bell_name(instance: str) -> str:
    """The abstract name, the same after each start, so that old shims find the new service."""
    return f"jobbus-{instance}-bell"


def shim_name(instance: str, execution_id: str) -> str:
    """The abstract name on which the execution's shim listens."""
    return f"jobbus-{instance}-{execution_id}"


class Doorbell:
    """One bound socket that is read while `listening`."""

    def __init__(self, instance: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.name = bell_name(instance)

    @contextmanager
    def listening(self, ring: Ring) -> Iterator[None]:
        """Rings reach `ring` inside the block."""
        loop = asyncio.get_running_loop()
        self._bind()
        loop.add_reader(self._socket, self._read, ring)
        try:
            yield
        finally:
            loop.remove_reader(self._socket)
            self._socket.close()

    def wake(self, address: str, order: bytes | None = None) -> bool:
        """The shim at `address` looks at its files now; False: its socket is full, try again.

        `order` is the content of its `control`, for a shim that has lost its folder.

        One that is not there yet, or not any more, needs no hint: it looks when it begins.
        """
        words = WAKE if order is None else b"%b\n%b=%b" % (WAKE, ORDER.encode(), order)
        try:
            self._socket.sendto(words, "\0" + address.removeprefix("@"))
        except BlockingIOError:
            return False
        except OSError as error:
            log.debug("no shim to wake", address=address, error=str(error))
        return True

    def _bind(self) -> None:
        try:
            self._socket.bind("\0" + self.name)
        except OSError as error:
            self._socket.bind("")
            found = self._socket.getsockname()
            self.name = (found if isinstance(found, str) else found.decode())[1:]
            log.warning(
                "the doorbell's name is taken; news of running jobs comes by the slow look",
                error=str(error),
            )

    def _read(self, ring: Ring) -> None:
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
                ring(pid, state)


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The pid of a sender that runs under our account or root's."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid, uid, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
            return int(pid) if uid in (0, os.geteuid()) else None
    return None
