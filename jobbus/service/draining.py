"""How a service ends that is ordered to: at once, or when nothing runs any more."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from bus.commands import PassTime, SetMaintenance
from bus.dispatch import Inbox
from bus.events import ExecutionEnded, Published
from bus.model import HOLDS_SLOT
from bus.tasks import stopped
from handlers.owner import Owner
from transports.directory.transport import DirectoryTransport

DRAIN = "system:drain"
"""Who began the maintenance of a drain; the next start ends it."""

log = structlog.get_logger("jobbus")


class ForeignFiles:
    """Whether files that other programs put into the queue wait, but for their stops.

    `_is_draining` is written by `drain`, for good.
    """

    def __init__(self, transport: DirectoryTransport, inbox: Inbox) -> None:
        self._transport = transport
        self._inbox = inbox
        self._is_draining = False

    def space_changed(self, is_low: bool) -> None:
        """Room got scarce, or is there again."""
        self._transport.hold_foreign(is_low or self._is_draining)
        if not is_low:
            self._inbox.report(PassTime())  # what is queued may start now

    def drain(self) -> None:
        """They wait for the next start."""
        self._is_draining = True
        self._transport.hold_foreign(True)


class Orders:
    """The signals to a service: that ends it, one more of these, and that its settings changed."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.end_now = asyncio.Event()
        self.reload = asyncio.Event()
        self._terminals = [number for number in (0, 1, 2) if os.isatty(number)]

    def take(self) -> None:
        (self.end_now if self.end.is_set() else self.end).set()

    def hang_up(self) -> None:
        """Settings are to be read again; or the terminal is gone on which somebody started it."""
        if all(os.isatty(number) for number in self._terminals):
            self.reload.set()
        else:
            self.take()

    async def next(self) -> bool:
        """Whether the next order is to read the settings again, and not to end."""
        waits = [
            asyncio.create_task(event.wait(), name="order") for event in (self.end, self.reload)
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stopped(*waits)
        is_reload = not self.end.is_set()
        self.reload.clear()
        return is_reload


@contextmanager
def orders_by_signal() -> Iterator[Orders]:
    """SIGTERM, SIGINT and SIGHUP are orders inside the block."""
    orders = Orders()
    loop = asyncio.get_running_loop()
    takers = {
        signal.SIGTERM: orders.take,
        signal.SIGINT: orders.take,
        signal.SIGHUP: orders.hang_up,
    }
    before = {number: signal.getsignal(number) for number in takers}
    for number, take in takers.items():
        loop.add_signal_handler(number, take)
    try:
        yield orders
    finally:
        for number in takers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


async def drained(owner: Owner) -> None:
    """Nothing new was started, and what ran has ended. What waits, waits for the next start."""
    if owner.published.maintenance is None:
        await owner.order(SetMaintenance(on=True, by=DRAIN, reason="the service is shutting down"))
    ended = asyncio.Event()

    def listener(batch: Sequence[Published]) -> None:
        if any(isinstance(published.event, ExecutionEnded) for published in batch):
            ended.set()

    owner.listen(listener)
    logged = 0
    while running := [e for e in owner.published.live_executions() if e.status in HOLDS_SLOT]:
        if len(running) != logged:
            logged = len(running)
            log.info(
                "draining: waiting for executions; a second signal ends at once", running=logged
            )
        ended.clear()
        await ended.wait()


async def until_drained(orders: Orders, owner: Owner) -> None:
    """Returns when nothing runs any more, or at the second order to end."""
    ends = [
        asyncio.create_task(drained(owner), name="drain"),
        asyncio.create_task(orders.end_now.wait(), name="second order"),
    ]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in ends:
            task.cancel()
        await asyncio.wait(ends)
