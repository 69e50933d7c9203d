"""Open streams: one object a connection, one registry that admits, checks, and ends them."""

import asyncio
import random
import socket
from collections import Counter
from enum import StrEnum

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from bus.clock import Clock
from bus.model import Principal
from transports.http.auth import credential_of, principal_of
from transports.http.encodings import Encoding
from transports.http.problems import Problem
from transports.http.settings import GatewayPorts, GatewaySettings

RETRY_MS = (500, 3000)
"""The bounds of a client's first reconnect delay; drawn, so that they do not all come at once."""

_DEFAULT_HIGH_WATER = 64 * 1024


class End(StrEnum):
    """Why a stream ends; those in `TOLD` are told to the reader, the others cannot be."""

    ROTATE = "rotate"
    SHUTDOWN = "shutdown"
    REVOKED = "revoked"
    TERMINAL = "terminal"
    SLOW = "slow"
    GONE = "gone"
    FAILED = "failed"


TOLD = frozenset({End.ROTATE, End.SHUTDOWN, End.REVOKED, End.TERMINAL})


class Bell:
    """Wakes one waiter; what `asyncio.Event` does, at a tenth of its memory (no queue)."""

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._rung = False

    async def wait(self) -> None:
        """Returns once the bell was rung since the last `clear`."""
        if self._rung:
            return
        assert self._waiter is None, "a bell wakes one"
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Stream:
    """One open response. Bytes go straight to its transport; what is slow is waited for here.

    `wake` is set when the stream's own handler has something to do: more to read, or `ended`.
    """

    __slots__ = (
        "_clock",
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
        self, request: web.Request, encoding: Encoding, clock: Clock, settings: GatewaySettings
    ) -> None:
        self.principal = principal_of(request)
        self.credential = credential_of(request)
        self.encoding = encoding
        self.wake = Bell()
        self.ended: End | None = None
        self.opened_s = self.last_write_s = self.checked_s = clock.monotonic_s()
        self.rotate_at_s = self.opened_s + settings.age_s * random.uniform(0.8, 1.0)  # noqa: S311
        self._clock = clock
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
        self._tune(transport)
        # Through aiohttp, since the head leaves with the first write; later ones go direct.
        opening = self.encoding.opening(random.randint(*RETRY_MS))  # noqa: S311
        await response.write(opening + first)
        # The head is out; what lives as long as the stream should be small.
        response.headers.clear()

    @property
    def gone(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def put(self, data: bytes) -> bool:
        """Hands `data` (framed by `framed`) to the kernel; False if some of it has to wait.

        After False, `drained` must come before the next `put`: that bounds what a reader holds.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            self.finish(End.GONE)
            return False
        transport.write(data)
        self.last_write_s = self._clock.monotonic_s()
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
        if not self.put(self.framed(data)):
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

    def finish(self, why: End) -> None:
        """The handler will wake, tell the reader if it can be told, and return."""
        if self.ended is None:
            self.ended = why
        self.wake.set()

    async def close(self, id: str | None) -> web.StreamResponse:
        """The reader was told why it ends, if it can be told, and the answer is complete."""
        assert self._response is not None
        if self.ended not in TOLD or self.gone:
            return self._response
        retry_ms = random.randint(*RETRY_MS)  # noqa: S311
        data = msgspec.json.encode({"reason": self.ended, "retryMs": retry_ms})
        try:
            await self.send(self.encoding.frame("end", data, id=id))
            await self._response.write_eof()
        except ConnectionError:
            return self._response  # it left first: nobody is there to be told
        if self._transport is not None and not self.gone:
            # The connection may live on for other requests of the same client.
            self._transport.set_write_buffer_limits(high=_DEFAULT_HIGH_WATER)
        return self._response

    def _tune(self, transport: asyncio.Transport) -> None:
        """Small buffers, and a peer that answers nothing is given up by the kernel."""
        # With no tolerance, `drain` waits exactly as long as anything is left in user space.
        transport.set_write_buffer_limits(high=0)
        connection = transport.get_extra_info("socket")
        if connection is None:
            return
        settings = self._settings
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer)
        if hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
            timeout_ms = int(settings.user_timeout_s * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


class StreamRegistry:
    """All open streams: how many there may be, whose they are, and when each must end."""

    def __init__(self, ports: GatewayPorts, settings: GatewaySettings) -> None:
        self._ports = ports
        self._settings = settings
        self._open: set[Stream] = set()
        self._by_user: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._inhabited = asyncio.Event()
        self._vacant = asyncio.Event()
        self._vacant.set()
        self.draining = False

    def admit(self, principal: Principal) -> None:
        """Room for one more stream of this principal.

        Raises:
            Problem: 503 or 429, with a time to come back.
        """
        if self.draining:
            raise Problem(
                503, "draining", "the service is shutting down", headers={"Retry-After": "2"}
            )
        if len(self._open) >= self._settings.streams_max:
            raise Problem(
                503,
                "too-many-streams",
                f"all {self._settings.streams_max} streams are taken",
                headers={"Retry-After": "5"},
            )
        if self._by_user[principal.user_id] >= self._settings.streams_per_principal:
            raise Problem(
                429,
                "too-many-streams",
                f"you have {self._settings.streams_per_principal} open streams; close one",
                headers={"Retry-After": "5"},
            )

    def add(self, stream: Stream) -> None:
        self._open.add(stream)
        self._by_user[stream.principal.user_id] += 1
        self._inhabited.set()
        self._vacant.clear()

    def remove(self, stream: Stream) -> None:
        self._open.discard(stream)
        self._by_user[stream.principal.user_id] -= 1
        self._ended[stream.ended or End.GONE] += 1
        if not self._by_user[stream.principal.user_id]:
            del self._by_user[stream.principal.user_id]
        if not self._open:
            self._inhabited.clear()
            self._vacant.set()

    def counts(self) -> dict[str, object]:
        return {
            "open": len(self._open),
            "byUser": dict(self._by_user),
            "ended": {str(why): count for why, count in self._ended.items()},
        }

    async def watch(self) -> None:
        """Looks after all streams for ever, about once a second while there are any."""
        look_s = min(1.0, self._settings.heartbeat_s / 3, self._settings.recheck_s / 3)
        while True:
            await self._inhabited.wait()
            self.look()
            await asyncio.sleep(look_s)

    def look(self, *, recheck: bool = False) -> None:
        """Ends what is gone, too old or revoked; with `recheck` every principal is asked anew."""
        now_s = self._ports.clock.monotonic_s()
        for stream in list(self._open):
            if stream.ended is not None:
                continue
            if stream.gone:
                stream.finish(End.GONE)
            elif now_s >= stream.rotate_at_s:
                stream.finish(End.ROTATE)
            elif recheck or now_s - stream.checked_s >= self._settings.recheck_s:
                self._recheck(stream, now_s)
            if stream.is_quiet:
                stream.wake.set()

    async def shut(self) -> None:
        """Every stream was told `shutdown`, one after the other, and had a moment to end.

        Takes at most `shutdown_s`; readers that take nothing are left to their timeouts.
        """
        self.draining = True
        streams = list(self._open)
        step_s = min(0.005, self._settings.shutdown_s / 2 / max(len(streams), 1))
        for stream in streams:
            stream.finish(End.SHUTDOWN)
            await asyncio.sleep(step_s)
        try:
            async with asyncio.timeout(self._settings.shutdown_s / 2):
                await self._vacant.wait()
        except TimeoutError:
            return

    def _recheck(self, stream: Stream, now_s: float) -> None:
        stream.checked_s = now_s
        principal = self._ports.authenticate(stream.credential)
        if principal is None or principal.user_id != stream.principal.user_id:
            stream.finish(End.REVOKED)
        elif principal != stream.principal:
            stream.principal = principal
            stream.wake.set()
