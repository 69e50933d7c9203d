"""What systemd gives a service, and what it gets to know of it: listeners, states, a watchdog.

sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3). Nothing of it reaches programs: the
variables are taken out of the environment, and the descriptors are closed on exec.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog

from bus.errors import ConfigError
from bus.events import EXECUTION_EVENTS, Published
from bus.model import HOLDS_SLOT
from bus.ports import TableReader
from bus.tasks import stopped

FIRST_DESCRIPTOR: Final = 3
STATUS_S: Final = 1.0
"""The status line changes at most so often."""

PATIENCE_S: Final = 60.0
EXTEND_S: Final = 10.0
"""While it starts, every `EXTEND_S` the service asks for `PATIENCE_S` more: how long reading a
journal takes is not known before."""

log = structlog.get_logger("jobbus")


class ServiceManager:
    """The side of this process. Without systemd nothing is sent and nothing is listened on.

    `_is_ready` is written by `ready` and `reloading`; it decides what `attending` sends.
    """

    def __init__(
        self,
        address: str | None = None,
        watchdog_s: float | None = None,
        listeners: Sequence[socket.socket] = (),
    ) -> None:
        self.listeners = tuple(listeners)
        self._watchdog_s = watchdog_s
        self._is_ready = False
        self._link: socket.socket | None = None
        if address is not None:
            self._link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._link.setblocking(False)
            self._address = address.replace("@", "\0", 1) if address[0] == "@" else address

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> "ServiceManager":
        """What systemd has put into the environment, which is without it afterwards.

        Raises:
            ConfigError: it listens on something that cannot be served.
        """
        names = ("LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID", "NOTIFY_SOCKET")
        given = {name: environ.pop(name, "") for name in (*names, "LISTEN_FDNAMES")}
        count = _number(given["LISTEN_FDS"]) if _is_for_us(given["LISTEN_PID"]) else 0
        if not given["LISTEN_PID"]:
            count = 0  # somebody else's, inherited by accident
        usec = _number(given["WATCHDOG_USEC"]) if _is_for_us(given["WATCHDOG_PID"]) else 0
        listeners: list[socket.socket] = []
        try:
            listeners.extend(_listener(FIRST_DESCRIPTOR + at) for at in range(count))
        except ConfigError:
            for listener in listeners:
                listener.close()
            raise
        return cls(given["NOTIFY_SOCKET"] or None, usec / 1e6 if usec else None, listeners)

    def ready(self) -> None:
        """Commands are accepted; after `reloading`: the settings are those on disk."""
        self._is_ready = True
        self._send("READY=1")

    def reloading(self) -> None:
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping; executions go on")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    @asynccontextmanager
    async def attending(self) -> AsyncIterator[None]:
        """Inside the block the event loop itself says that it turns: one that hangs says nothing,
        and systemd starts the service again."""
        task = asyncio.create_task(self._attend(), name="service manager")
        try:
            yield
        finally:
            await stopped(task)
            for held in (*self.listeners, *([self._link] if self._link is not None else [])):
                held.close()

    @asynccontextmanager
    async def counting(self, table: TableReader) -> AsyncIterator["StatusLine"]:
        """Inside the block the status line follows the table, if the answer listens to changes."""
        line = StatusLine(self, table)
        task = asyncio.create_task(line.run(), name="status line") if self._link else None
        try:
            yield line
        finally:
            await stopped(*([task] if task is not None else []))

    async def _attend(self) -> None:
        if self._link is None:
            return
        watchdog_s = self._watchdog_s / 3 if self._watchdog_s is not None else None
        while watchdog_s is not None or not self._is_ready:
            if self._is_ready:
                self._send("WATCHDOG=1")
                await asyncio.sleep(watchdog_s or EXTEND_S)
            else:
                self._send(f"EXTEND_TIMEOUT_USEC={int(PATIENCE_S * 1e6)}", "WATCHDOG=1")
                await asyncio.sleep(min(watchdog_s or EXTEND_S, EXTEND_S))

    def _send(self, *lines: str) -> None:
        if self._link is None:
            return
        with suppress(OSError):  # no manager there, or not reading: that is for it to notice
            self._link.sendto("\n".join(lines).encode(), self._address)


class StatusLine:
    """Implements `bus.ports.ChangeListener`: how many executions run and wait, in a few words."""

    def __init__(self, manager: ServiceManager, table: TableReader) -> None:
        self._manager = manager
        self._table = table
        self._changed = asyncio.Event()

    def __call__(self, batch: Sequence[Published]) -> None:
        if any(isinstance(published.event, EXECUTION_EVENTS) for published in batch):
            self._changed.set()

    async def run(self) -> None:
        """Sends what is new, for ever; sleeps while nothing changes."""
        last = ""
        while True:
            self._changed.clear()
            text = self.text()
            if text != last:
                self._manager.status(text)
            last = text
            await asyncio.sleep(STATUS_S)
            await self._changed.wait()

    def text(self) -> str:
        live = list(self._table.live_executions())
        running = sum(execution.status in HOLDS_SLOT for execution in live)
        return f"{running} running, {len(live) - running} waiting"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def _is_for_us(pid: str) -> bool:
    return not pid or pid == str(os.getpid())


def _listener(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    try:
        listener = socket.socket(fileno=descriptor)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise ConfigError(
            f"LISTEN_FDS: descriptor {descriptor} is no socket; the unit may have sockets only"
        ) from exc
    if not listens or listener.family not in (socket.AF_INET, socket.AF_INET6):
        listener.close()
        raise ConfigError(
            f"LISTEN_FDS: descriptor {descriptor} is no listening TCP socket; write "
            "ListenStream=ADDRESS:PORT and Accept=no into the socket's unit"
        )
    return listener
