"""The connection under one WebSocket: messages in, whole frames out at the reader's pace, the end.

Nothing here knows what the frames say.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from bus.clock import Clock
from transports.http.settings import GatewaySettings
from transports.http.sockets.encoding import SUBPROTOCOL
from transports.http.streams.outlets import End
from transports.http.streams.streams import tune

CLOSE_CODES: dict[End, int] = {
    End.SHUTDOWN: 1001,
    End.FAILED: 1011,
    End.ROTATE: 4000,
    End.SLOW: 4008,
    End.OVERLOADED: 4013,
    End.RATE: 4029,
    End.PROTOCOL: 4500,
    End.UNAUTHENTICATED: 4501,
    End.REVOKED: 4504,
}
"""Below 4500 a client comes back with its cursors; from 4500 on it must change something first."""


class Pace:
    """How many frames a client may send: `per_s`, after a burst. Time is handed in."""

    __slots__ = ("_at_s", "_burst", "_level", "_per_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s = per_s
        self._burst = self._level = burst
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether one more is in order; then it is counted."""
        self._level = min(self._burst, self._level + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True


class SocketLink:
    """`ended` says why it is over, as soon as it is; `receive` then returns.

    At most one `put` waits in user space, from any writer: who finds no room waits for it.
    """

    __slots__ = (
        "_clock",
        "_draining",
        "_group",
        "_pace",
        "_receiving",
        "_request",
        "_settings",
        "_transport",
        "_turn",
        "_writer",
        "ended",
        "response",
    )

    def __init__(
        self,
        request: web.Request,
        clock: Clock,
        settings: GatewaySettings,
        group: asyncio.TaskGroup,
    ) -> None:
        self.ended: End | None = None
        self._request = request
        self._clock = clock
        self._settings = settings
        self._group = group
        self._pace = Pace(
            settings.socket_frames_per_s, settings.socket_frames_burst, clock.monotonic_s()
        )
        self._writer: AbstractStreamWriter | None = None
        self._transport: asyncio.Transport | None = None
        self._turn = asyncio.Lock()
        self._draining: asyncio.Task[None] | None = None
        self._receiving: asyncio.Timeout | None = None
        self.response = web.WebSocketResponse(
            timeout=settings.socket_close_s,
            autoping=False,  # answered here, where they are counted and the room is looked at
            heartbeat=settings.socket_heartbeat_s,
            protocols=(SUBPROTOCOL,),
            compress=False,
            max_msg_size=settings.socket_message_max + 1,  # the first size that is refused
        )

    async def open(self) -> None:
        """The handshake is answered.

        Raises:
            web.HTTPBadRequest: it is none.
            ConnectionError: the client has left.
        """
        self._writer = await self.response.prepare(self._request)
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client left before the socket was open")
        self._transport = transport
        tune(transport, self._settings)
        # The head is out; what lives as long as the socket should be small.
        self.response.headers.clear()

    @property
    def gone(self) -> bool:
        return self._transport is not None and self._transport.is_closing()

    @property
    def has_room(self) -> bool:
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() == 0

    def put(self, data: bytes) -> bool:
        """Hands whole frames to the kernel; False if some of it waits. Ask `has_room` first."""
        transport = self._transport
        if transport is None or transport.is_closing():
            self.finish(End.GONE)
            return False
        transport.write(data)
        return transport.get_write_buffer_size() == 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """First come, first served, and there is room when it begins.

        Raises:
            ConnectionError: the socket is over.
        """
        async with self._turn:
            while not self.has_room:
                await self.drained()
            yield

    async def send(self, data: bytes) -> None:
        """`data` was put as soon as there was room, and does not wait any more.

        Raises:
            ConnectionError: the socket is over.
        """
        while not self.has_room:
            await self.drained()
        if not self.put(data):
            await self.drained()

    async def drained(self) -> None:
        """The client has taken what waited for it; one that takes nothing ends the socket.

        Raises:
            ConnectionError: the socket is over.
        """
        if not self.gone and not self.has_room:
            # One task waits for all: aiohttp's waiter would be cancelled for all with the first.
            if self._draining is None or self._draining.done():
                self._draining = self._group.create_task(self._drain(), name="socket drain")
            done, _ = await asyncio.wait({self._draining}, timeout=self._settings.write_timeout_s)
            if not done:
                self.finish(End.SLOW)
        if self.gone or self.ended is End.SLOW:
            self.finish(End.GONE)
            raise ConnectionResetError("the client left, or takes nothing")

    async def receive(self) -> str | None:
        """The next message, or None as soon as the socket is over."""
        while self.ended is None:
            try:
                async with asyncio.timeout(None) as self._receiving:
                    message = await self.response.receive()
            except TimeoutError:
                break  # `finish` did it
            finally:
                self._receiving = None
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED):
                self.finish(End.GONE)
            elif message.type is WSMsgType.ERROR:
                # aiohttp has answered with the code of RFC 6455 §7.4.1 for what it met.
                self.finish(End.PROTOCOL if self.response.close_code != 1006 else End.GONE)
            elif not self._pace.take(self._clock.monotonic_s()):
                self.finish(End.RATE)
            elif message.type is WSMsgType.TEXT:
                return str(message.data)
            elif message.type is WSMsgType.BINARY:
                self.finish(End.PROTOCOL)
            elif message.type is WSMsgType.PING:
                await self._pong(message.data)
        return None

    def finish(self, why: End) -> None:
        """The socket is over; the first reason counts."""
        if self.ended is None:
            self.ended = why
        if self._receiving is not None and not self._receiving.expired():
            self._receiving.reschedule(0)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def stop_waiting(self) -> None:
        """Nothing more will be sent; all who wait for room were ended before."""
        if self._draining is not None:
            self._draining.cancel()

    async def close(self) -> web.WebSocketResponse:
        """Sends the client the reason, if it can be sent, and closes the connection."""
        why = self.ended or End.FAILED
        if why in CLOSE_CODES and not self.gone:
            # Without draining: a client that takes nothing gets no more time than this.
            await self.response.close(
                code=CLOSE_CODES[why], message=why.value.encode(), drain=False
            )
        if self._transport is not None and self._transport.get_write_buffer_size():
            self._transport.abort()
        return self.response

    async def _pong(self, payload: bytes) -> None:
        try:
            await self.send(b"\x8a%c%s" % (len(payload), payload))
        except ConnectionError:
            return  # `ended` says why

    async def _drain(self) -> None:
        assert self._writer is not None
        try:
            await self._writer.drain()
        except ConnectionError:
            return  # it left; who waited sees `gone`
