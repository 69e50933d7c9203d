"""Where a reader's frames go: what every outlet can do, why it ends, and what wakes it.

An outlet is one open response, or one subscription of a WebSocket. No IO here.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

from bus.model import Principal
from transports.http.streams.encodings import Encoding


class End(StrEnum):
    """Why a stream ends; those in `ANNOUNCED` are sent to the reader, the others cannot be."""

    ROTATE = "rotate"
    SHUTDOWN = "shutdown"
    REVOKED = "revoked"
    TERMINAL = "terminal"
    UNSUBSCRIBED = "unsubscribed"
    SLOW = "slow"
    GONE = "gone"
    FAILED = "failed"
    # of a whole WebSocket
    PROTOCOL = "protocol"
    RATE = "rate"
    OVERLOADED = "overloaded"
    UNAUTHENTICATED = "unauthenticated"


ANNOUNCED = frozenset({End.ROTATE, End.SHUTDOWN, End.REVOKED, End.TERMINAL, End.UNSUBSCRIBED})


class Wakeup:
    """Wakes one waiter; what `asyncio.Event` does, at a tenth of its memory (no queue)."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        """Returns once `set` was called since the last `clear`."""
        if self._is_set:
            return
        assert self._waiter is None, "a wakeup has one waiter"
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Outlet(Protocol):
    """One reader's end. `wake` is set when its handler has something to do.

    `put` is for `Fanout`, which asks `has_room` before; everybody else sends and waits.
    """

    @property
    def principal(self) -> Principal: ...

    @property
    def encoding(self) -> Encoding: ...

    @property
    def chunked(self) -> bool:
        """Whether `framed` adds HTTP's chunk borders."""
        ...

    @property
    def wake(self) -> Wakeup: ...

    @property
    def ended(self) -> End | None: ...

    @property
    def is_quiet(self) -> bool:
        """Whether it is time to say that nothing happened."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether `put` may be called now: nothing that was put before still waits."""
        ...

    def turn(self) -> AbstractAsyncContextManager[None]:
        """More than a few bytes for this outlet are made and sent inside the block.

        Neighbours on one connection then hold what waits for its reader one at a time, and not
        all at once.
        """
        ...

    async def open(self, first: bytes) -> None:
        """The outlet has begun, with `first`."""
        ...

    def put(self, data: bytes, now_s: float) -> bool:
        """Hands framed `data` to the kernel, now; False if some of it has to wait."""
        ...

    def framed(self, data: bytes) -> bytes: ...

    async def send(self, data: bytes) -> None:
        """`data` is on its way and the reader keeps up; a reader that does not is cut off.

        Raises:
            ConnectionError: the outlet is over.
        """
        ...

    async def drained(self) -> None:
        """The reader has taken what waited for it; raises as `send` does."""
        ...

    def finish(self, why: End) -> None:
        """The handler will wake and return; the first reason counts."""
        ...
