"""Brings orders to shims: written durably, then the shim is woken. Whoever dies loses nothing.

The order goes with the wake-up, too: a program that has removed its folder, or a disk without any
room, must not keep a stop from its shim.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

import structlog

from bus.layout import DataLayout
from bus.model import StopRequest
from handlers.supervision import adoption
from handlers.supervision.asking import Start
from handlers.supervision.doorbell import Doorbell, shim_name
from handlers.supervision.record import encode_control
from handlers.supervision.watched import Watched

log = structlog.get_logger("jobbus.supervisor")

WRITE_AGAIN_S = 0.2
WAKE_AGAIN_S = 0.05
WAKES_MAX = 200
"""A program can fill its shim's socket again and again; after 10 s the shim's own look must do."""


class Orders:
    """The orders of one service. `is_watched` tells whether an execution still needs any."""

    def __init__(
        self,
        layout: DataLayout,
        instance: str,
        bell: Doorbell,
        is_watched: Callable[[Watched], bool],
        start: Start,
    ) -> None:
        self._layout = layout
        self._instance = instance
        self._bell = bell
        self._is_watched = is_watched
        self._start = start

    def pass_on(self, watched: Watched) -> None:
        """The newest order of `watched` will be durable and the shim woken."""
        if not watched.is_ordering:
            watched.is_ordering = True
            self._start(self._pass_on(watched), f"order {watched.execution.id}")

    async def _pass_on(self, watched: Watched) -> None:
        fault: str | None = None
        try:
            while self._is_watched(watched):
                order = watched.stop
                assert order is not None
                before, fault = fault, await self._write(watched, order)
                if fault is not None and before is None:
                    log.error("a stop could not be written; tried again and again", error=fault)
                await self._wake(watched, order)
                if fault is not None:
                    await asyncio.sleep(WRITE_AGAIN_S)
                elif watched.stop == order:
                    return
        finally:
            watched.is_ordering = False

    async def _write(self, watched: Watched, order: StopRequest) -> str | None:
        """Why it was not written; None if it was."""
        execution_id = watched.execution.id
        try:
            await asyncio.to_thread(adoption.write_control, self._layout, execution_id, order)
        except OSError as error:
            return str(error)
        return None

    async def _wake(self, watched: Watched, order: StopRequest) -> None:
        for _ in range(WAKES_MAX):
            if watched.stop != order or not self._is_watched(watched):
                return
            _set_going(watched)
            address = watched.socket or shim_name(self._instance, watched.execution.id)
            if self._bell.wake(address, encode_control(order)):
                return
            await asyncio.sleep(WAKE_AGAIN_S)


def _set_going(watched: Watched) -> None:
    """A shim that somebody has stopped (SIGSTOP) hears no bell, and its program would live on."""
    if watched.pidfd is not None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(watched.pidfd, signal.SIGCONT)
