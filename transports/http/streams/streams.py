"""One open response: its connection, its pace, and its last words."""

import asyncio
import random
import socket
from contextlib import AbstractAsyncContextManager, nullcontext

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from bus.clock import Clock
from bus.model import Principal
from transports.http.access.caller import credential_of, principal_of
from transports.http.settings import GatewaySettings
from transports.http.streams.encodings import Encoding
from transports.http.streams.outlets import ANNOUNCED, End, Wakeup
from transports.http.streams.reader_frames import Framing

RETRY_MS = (500, 3000)
"""The bounds of a client's first reconnect delay; drawn, so that they do not all come at once."""

_DEFAULT_HIGH_WATER = 64 * 1024


class Stream:
    """One open response. Bytes go straight to its transport; what is slow is waited for here.

    `wake` is set when the stream's own handler has something to do: more to read, or `ended`.
    """

    __slots__ = (
        "_clock",
        "_framing",
        "_request",
        "_response",
        "_settings",
        "_transport",
        "_writer",
        "checked_s",
        "chunked",
        "credential",
        "encoding",
        "ended",
        "last_write_s",
        "opened_s",
        "principal",
        "rotate_at_s",
        "wake",
    )

    def __init__(
        self,
        request: web.Request,
        encoding: Encoding,
        framing: Framing,
        clock: Clock,
        settings: GatewaySettings,
    ) -> None:
        self.principal = principal_of(request)
        self.credential = credential_of(request)
        self.encoding = encoding
        self.wake = Wakeup()
        self.ended: End | None = None
        self.opened_s = self.last_write_s = self.checked_s = clock.monotonic_s()
        self.rotate_at_s = self.opened_s + settings.age_s * random.uniform(0.8, 1.0)  # noqa: S311
        self._clock = clock
        self._framing = framing
        self._settings = settings
        self._request = request
        self._response: web.StreamResponse | None = None
        self._writer: AbstractStreamWriter | None = None
        self._transport: asyncio.Transport | None = None
        self.chunked = request.version >= (1, 1)

    async def open(self, first: bytes) -> None:
        """The head of the answer is on its way, with the opening and `first` behind it."""
        response = web.StreamResponse(
            headers={
                "Content-Type": self.encoding.content_type,
                "Cache-Control": "no-store, no-transform",
                "X-Accel-Buffering": "no",
            }
        )
        self._response = response
        self._writer = await response.prepare(self._request)
        transport = self._request.transport
        if transport is None or self._writer is None:
            raise ConnectionResetError("the reader left before the answer began")
        self._transport = transport
        tune(transport, self._settings)
        # Through aiohttp, since the head leaves with the first write; later ones go direct.
        opening = self.encoding.opening(random.randint(*RETRY_MS))  # noqa: S311
        await response.write(opening + first)
        # The head is out; what lives as long as the stream should be small.
        response.headers.clear()

    @property
    def transport(self) -> str:
        return self.encoding.name

    @property
    def gone(self) -> bool:
        # One that has not begun yet is not gone: what it begins with may take a while to find.
        transport = self._transport or self._request.transport
        return transport is None or transport.is_closing()

    has_room = True
    """Always: after a `put` that had to wait, the fan-out gives the stream back."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Always its own: nothing else writes to this connection."""
        return nullcontext()

    def put(self, data: bytes, now_s: float) -> bool:
        """Hands `data` (framed by `framed`) to the kernel; False if some of it has to wait.

        After False, `drained` must come before the next `put`: that bounds what a reader holds.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            self.finish(End.GONE)
            return False
        transport.write(data)
        self.last_write_s = now_s
        return transport.get_write_buffer_size() == 0

    @property
    def is_quiet(self) -> bool:
        """Whether it is time to say that nothing happened."""
        silent_s = self._clock.monotonic_s() - self.last_write_s
        return silent_s >= self._settings.heartbeat_s

    def framed(self, data: bytes) -> bytes:
        """`data` as one HTTP chunk, where the connection needs chunks."""
        return b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data

    async def send(self, data: bytes) -> None:
        """`data` is on its way and the reader keeps up; a reader that does not is cut off.

        Raises:
            ConnectionError: the stream is over.
        """
        if not self.put(self.framed(data), self._clock.monotonic_s()):
            await self.drained()

    async def drained(self) -> None:
        """The reader has taken what waited for it.

        Raises:
            ConnectionError: it left, or took nothing for too long and was cut off.
        """
        if self.gone or self._writer is None:
            self.finish(End.GONE)
            raise ConnectionResetError("the reader left")
        try:
            async with asyncio.timeout(self._settings.write_timeout_s):
                await self._writer.drain()
        except TimeoutError:
            self.finish(End.SLOW)
            if self._transport is not None:
                self._transport.abort()
            raise ConnectionResetError("the reader takes nothing") from None

    def look(self) -> None:
        if self.is_quiet:
            self.wake.set()

    def renew(self, principal: Principal) -> None:
        self.principal = principal
        self.wake.set()

    def finish(self, why: End) -> None:
        """The handler will wake, send the reader the reason if it can, and return."""
        if self.ended is None:
            self.ended = why
        self.wake.set()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def close(self, id: str | None) -> web.StreamResponse:
        """Sends the reader why it ends, if it can be sent; the answer is complete."""
        assert self._response is not None
        if self.ended not in ANNOUNCED or self.gone:
            return self._response
        retry_ms = random.randint(*RETRY_MS)  # noqa: S311
        data = msgspec.json.encode({"reason": self.ended, "retryMs": retry_ms})
        try:
            await self.send(self._framing.frame(self.encoding, "end", data, id=id))
            await self._response.write_eof()
        except ConnectionError:
            return self._response  # it left first
        if self._transport is not None and not self.gone:
            # The connection may live on for other requests of the same client.
            self._transport.set_write_buffer_limits(high=_DEFAULT_HIGH_WATER)
        return self._response


def tune(transport: asyncio.Transport, settings: GatewaySettings) -> None:
    """Small buffers: what a reader has not taken waits in our files and in the ring."""
    # With no tolerance, `drain` waits exactly as long as anything is left in user space.
    transport.set_write_buffer_limits(high=0)
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer)
