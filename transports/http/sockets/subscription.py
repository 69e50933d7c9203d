"""One subscription of a WebSocket: an outlet with a name, a position and an end of its own."""

import random
from contextlib import AbstractAsyncContextManager

import msgspec

from bus.clock import Clock
from bus.model import Principal
from transports.http.settings import GatewaySettings
from transports.http.sockets.encoding import SocketEncoding
from transports.http.sockets.link import SocketLink
from transports.http.streams.outlets import End, Wakeup
from transports.http.streams.reader_frames import Framing
from transports.http.streams.streams import RETRY_MS


class Subscription:
    """Implements `Outlet`. Its frames share the link with those of its neighbours."""

    __slots__ = (
        "_clock",
        "_framing",
        "_last_write_s",
        "_link",
        "_settings",
        "encoding",
        "ended",
        "principal",
        "wake",
    )

    chunked = False

    def __init__(
        self,
        name: str,
        principal: Principal,
        link: SocketLink,
        framing: Framing,
        clock: Clock,
        settings: GatewaySettings,
    ) -> None:
        self.encoding = SocketEncoding(name)
        self.principal = principal
        self.wake = Wakeup()
        self.ended: End | None = None
        self._link = link
        self._clock = clock
        self._framing = framing
        self._settings = settings
        self._last_write_s = clock.monotonic_s()

    @property
    def is_quiet(self) -> bool:
        silent_s = self._clock.monotonic_s() - self._last_write_s
        return silent_s >= self._settings.heartbeat_s

    @property
    def has_room(self) -> bool:
        return self._link.has_room

    def turn(self) -> AbstractAsyncContextManager[None]:
        return self._link.turn()

    async def open(self, first: bytes) -> None:
        await self.send(first)

    def put(self, data: bytes, now_s: float) -> bool:
        self._last_write_s = now_s
        return self._link.put(data)

    def framed(self, data: bytes) -> bytes:
        return data

    async def send(self, data: bytes) -> None:
        await self._link.send(data)
        self._last_write_s = self._clock.monotonic_s()

    async def drained(self) -> None:
        await self._link.drained()

    def renew(self, principal: Principal) -> None:
        """From the next frame on, what the principal may see now decides."""
        self.principal = principal
        self.wake.set()

    def finish(self, why: End) -> None:
        if self.ended is None:
            self.ended = why
        self.wake.set()

    def last_frame(self, position: str | None) -> bytes:
        """The frame after which nothing follows; it says from where to go on."""
        retry_ms = random.randint(*RETRY_MS)  # noqa: S311
        data = msgspec.json.encode({"reason": self.ended, "retryMs": retry_ms})
        return self._framing.frame(self.encoding, "end", data, id=position)
