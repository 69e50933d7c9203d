"""One connection of the listening side, changed beside aiohttp's in some points: what it holds is
counted, the kernel gives up peers that take nothing, unreadable requests get a problem, frames of
WebSockets are looked at before they are read, and a peer that leaves is no error.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

import structlog
from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from transports.http.web.connections import Connections
from transports.http.web.handshake import Handshake
from transports.http.web.log_quota import Quiet
from transports.http.web.masking import FrameCheck
from transports.http.web.memory_budget import LINE_WEIGHT, RECEIVE_MAX, Lease, Memory
from transports.http.web.middleware import HEADERS, request_id_of
from transports.http.web.problems import Problem, problem_response
from transports.http.web.rate import peer_key

HEAD_MAX = 64 * 1024
"""Weight of a request's head: its bytes, and `LINE_WEIGHT` for each line."""

WRITE_BUFFER = 16 * 1024
"""What of an answer may wait in user space before its handler waits."""

_REASON_MAX = 120
"""Characters that the log quotes of what could not be read."""

log = structlog.get_logger("jobbus.http")


class Overdrawn(Exception):
    """The connection would hold more than it may; `problem` is the answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class ProblemProtocol(web.RequestHandler):
    """One connection, among the `held` while it is open.

    Its peer may leave what was sent to it untaken for `user_timeout_s`. `lease` counts what it
    holds: all bytes of the requests under way, until they are answered, and the answer until it is
    taken. `_head` is the weight of a head that is not whole yet. With `_is_last` the answer under
    way is the last, and nothing that still arrives is kept. `_arriving` is the body of the last
    whole head.
    """

    __slots__ = (
        "_arriving",
        "_head",
        "_is_last",
        "_is_over",
        "_is_proven",
        "_peer",
        "handshake",
        "held",
        "lease",
        "memory",
        "quiet",
        "user_timeout_s",
    )

    held: Connections
    memory: Memory
    quiet: Quiet
    user_timeout_s: float
    handshake: Handshake | None
    lease: Lease

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Whatever is answered here, a peer that vanished or never reads does not hold it for ever:
        aiohttp waits without a limit, and a closing transport keeps its bytes until they are taken.
        """
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._peer = transport
        self._is_proven = False
        self._head = 0
        self._is_last = False
        self._arriving: StreamReader | None = None
        self._is_over = asyncio.Event()
        name = transport.get_extra_info("peername")
        address = name[0] if isinstance(name, tuple) else ""
        self.lease = Lease(self.memory.unproven, peer_key(address))
        if self.handshake is not None:
            self.held.remove(self.handshake)
        self.held.add(self)
        if hasattr(transport, "max_size"):
            transport.max_size = RECEIVE_MAX
        if hasattr(transport, "set_read_buffer_limits"):  # under TLS
            transport.set_read_buffer_limits(high=2 * RECEIVE_MAX)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        connection = transport.get_extra_info("socket")
        if hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
            timeout_ms = int(self.user_timeout_s * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.held.remove(self)
        self.lease.set_size(0)
        self._is_over.set()
        self._arriving = None  # it knows this connection, too
        handler = self._task_handler
        super().connection_lost(exc)
        if handler is not None and not self._request_in_progress:
            handler.cancel()  # it would wait out `lingering_s` for the rest of a body

    @property
    def is_idle(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def drop(self) -> None:
        self._peer.abort()

    def prove(self, user_id: str) -> None:
        """Somebody has shown on it who they are: what it holds is theirs.

        Raises:
            Problem: 503; they hold too much.
        """
        if not self.lease.move_to(self.memory.proven, user_id):
            raise no_memory()
        if not self._is_proven:
            self._is_proven = True
            self.held.prove(self)
        self.read_on()

    def read_on(self) -> None:
        """Somebody wants what still comes of the request, or to see its end."""
        if not (self._reading_paused or self._buffer_paused):
            self._peer.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Counted before it is kept. What is too much ends the request, or the head that would
        become one, with an answer."""
        if self._is_last:
            return
        if self._upgraded:
            super().data_received(data)
            return
        in_body = self._unread_body() is not None
        weight = len(data) if in_body else len(data) + LINE_WEIGHT * _lines_of_head(data)
        count = self._request_count
        if not self.lease.grow(weight):
            self._refuse(no_memory())
        elif not in_body and self._head + weight > HEAD_MAX and not self._messages:
            self._refuse(Problem(431, "too-large", "the head of the request is too long"))
        else:
            super().data_received(data)
            is_part = self._request_count == count and not in_body
            self._head = self._head + weight if is_part else 0
            if self._request_count != count and self._messages:
                self._arriving = self._messages[-1][1]
                if not self._arriving.is_eof():
                    self._peer.pause_reading()  # until it is known who asks, or the body is read

    def _unread_body(self) -> StreamReader | None:
        """The body that is arriving, if one is."""
        body = self._arriving
        return None if body is None or body.is_eof() else body

    def _refuse(self, problem: Problem) -> None:
        """Nothing more is kept; what reads the body, or the next request, answers with it."""
        self._is_last = True
        refused = Overdrawn(problem)
        body = self._unread_body()
        if body is not None:
            body.set_exception(refused)
            return
        # As aiohttp does with a head that it cannot read.
        said = _ErrInfo(status=problem.status, exc=refused, message=problem.detail)
        self._messages.append((said, EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _handle_request(self, *arguments: Any) -> tuple[web.StreamResponse, bool]:
        """What the request held is free as soon as its answer is taken."""
        try:
            response, is_over = await super()._handle_request(*arguments)
        finally:
            self._settle()
        if self._is_last and not is_over:
            self._forget(arguments[0].content)
            await self._farewell()
            return response, True
        return response, is_over

    def _forget(self, body: StreamReader) -> None:
        """What has come of the body is gone, and what still comes is not kept."""
        if body.exception() is None:
            body.read_nowait()
        self.resume_reading(resume_parser=False)

    async def _farewell(self) -> None:
        """The peer has gone, or had time to read the answer: closed at once while it still sends,
        the kernel would take that back."""
        with contextlib.suppress(OSError):  # it has gone already
            if self._peer.can_write_eof():
                self._peer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._lingering_time):
                await self._is_over.wait()

    def _settle(self) -> None:
        waiting = len(self._messages)
        # Of requests that came in one piece it is not known which holds how much.
        self.lease.set_size(self.lease.size * waiting // (waiting + 1))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """The answer counts while it is not taken; one for which there is no room is not sent."""
        body = resp.body if isinstance(resp, web.Response) else None
        if isinstance(body, bytes) and not self.lease.grow(len(body)):
            resp = _answer_to(request, no_memory())
        # What is left of the body is not read to keep the connection: that could take for ever.
        self._is_last = self._is_last or not request.content.is_eof()
        if self._is_last:
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """aiohttp calls this when a connection becomes a WebSocket."""
        check = FrameCheck(parser, self._holds)
        super().set_parser(check, data_received_cb)  # type: ignore[arg-type]  # same use

    def _holds(self, size: int) -> bool:
        """A message of which `size` bytes have come is not whole; if that is too much, the
        connection is over: its other side comes back when there is room."""
        if size <= self.lease.size:
            self.lease.set_size(size)
        elif not self.lease.grow(size - self.lease.size):
            self.drop()
            return False
        return True

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Not of a peer that left in the middle of a body or an answer: anybody can do that, and
        each time would be a trace in the log."""
        if isinstance(kwargs.get("exc_info"), (ConnectionError, Overdrawn)):
            self.log_debug("the peer left")
        else:
            super().log_exception(*args, **kwargs)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what the HTTP parser could not read; everything else never comes here."""
        self._is_last = True
        request_id = request_id_of(request)
        if isinstance(exc, ConnectionError):
            raise exc  # the peer has left
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun when it broke") from exc
        if isinstance(exc, Overdrawn):
            problem = exc.problem
        elif status >= 500:
            log.error("request failed", request_id=request_id, exc_info=exc)
            problem = Problem(status, "internal", f"see the log of the service for {request_id}")
        else:
            detail = (message or "the request is not valid HTTP").strip().partition("\n")[0]
            extra = self.quiet.may_say(monotonic())
            if extra is not None:
                reason = detail[:_REASON_MAX]
                log.info("unreadable request", request_id=request_id, reason=reason, **extra)
            problem = Problem(status, "malformed", detail)
        response = _answer_to(request, problem)
        response.force_close()
        return response


def _lines_of_head(data: bytes) -> int:
    end = data.find(b"\r\n\r\n")
    return data.count(b"\n", 0, end if end >= 0 else len(data))


def no_memory() -> Problem:
    """What is answered where more would have to be held than there is room for."""
    return Problem(
        503,
        "overloaded",
        "too much is being sent or fetched at the same time; try again later",
        headers={"Retry-After": "2"},
    )


def _answer_to(request: web.BaseRequest, problem: Problem) -> web.Response:
    """The problem where no middleware adds the headers."""
    request_id = request_id_of(request)
    response = problem_response(problem, request_id)
    response.headers.update(HEADERS)
    response.headers["Server"] = "jobbus"
    response.headers["X-Request-Id"] = request_id
    return response
