"""Brings orders to shims: written durably, then the shim is woken. Whoever dies loses nothing.

The order goes with the wake-up, too: a program that has removed its folder, or a disk without any
room, must not keep a stop from its shim.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog

from bus.descriptors import DESCRIPTORS
from bus.layout import DataLayout
from bus.model import StopRequest
from bus.recurring import Backoff, Recurring
from bus.scarcity import reason_of
from bus.threads import STOPS
from handlers.supervision import execution_files
from handlers.supervision.asking import Start
from handlers.supervision.doorbell import Doorbell
from handlers.supervision.record import encode_control
from handlers.supervision.watched import Watched

log = structlog.get_logger("jobbus.supervisor")

WRITE_AGAIN_S = 0.2
WRITE_AGAIN_S_MAX = 5.0
WAKE_AGAIN_S = 0.05
WAKES_MAX = 200
"""A program can fill its shim's socket again and again; after 10 s the shim's own look must do."""


class Orders:
    """The orders of one service. `is_watched` tells whether an execution still needs any."""

    def __init__(
        self,
        layout: DataLayout,
        bell: Doorbell,
        is_watched: Callable[[Watched], bool],
        start: Start,
    ) -> None:
        self._layout = layout
        self._bell = bell
        self._is_watched = is_watched
        self._start = start
        self._troubles = Recurring(log)

    def pass_on(self, watched: Watched) -> None:
        """The newest order of `watched` will be durable and the shim woken."""
        if not watched.is_ordering:
            watched.is_ordering = True
            self._start(partial(self._pass_on, watched), f"order {watched.execution.id}")

    async def _pass_on(self, watched: Watched) -> None:
        watched.is_ordering = True
        pauses = Backoff(WRITE_AGAIN_S, WRITE_AGAIN_S_MAX)
        try:
            while self._is_watched(watched):
                order = watched.stop
                assert order is not None
                is_written = await self._write(watched, order)
                await self._wake(watched, order)
                if not is_written:
                    await asyncio.sleep(pauses.next_s())
                elif watched.stop == order:
                    return
        finally:
            watched.is_ordering = False

    async def _write(self, watched: Watched, order: StopRequest) -> bool:
        execution_id = watched.execution.id
        try:
            await STOPS.run(execution_files.write_control, self._layout, execution_id, order)
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError) and DESCRIPTORS.release_for(error):
                return await self._write(watched, order)
            self._troubles.say(f"stops cannot be written, only sent: {reason_of(error)}")
            return False
        self._troubles.over("stops can be written again")
        return True

    async def _wake(self, watched: Watched, order: StopRequest) -> None:
        for _ in range(WAKES_MAX):
            if watched.stop != order or not self._is_watched(watched):
                return
            _set_going(watched)
            order_bytes = encode_control(order)
            if self._bell.wake(watched.execution.id, watched.socket, order_bytes):
                return
            await asyncio.sleep(WAKE_AGAIN_S)


def _set_going(watched: Watched) -> None:
    """A shim that somebody has stopped (SIGSTOP) hears no bell, and its program would live on."""
    if watched.pidfd is not None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(watched.pidfd, signal.SIGCONT)
