"""The listening side of aiohttp, changed in six points: connections are bounded, the kernel gives
up peers that take nothing, unreadable requests get a problem, frames of WebSockets are looked at
before they are read, a peer that leaves is no error, and who is accepted at the very end is
not left to nobody.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

from transports.http.connections import Connections
from transports.http.middleware import HEADERS, request_id_of
from transports.http.problems import Problem, problem_response
from transports.http.sockets.masking import FrameCheck

_TURNS_TO_CLOSE = 10
"""Turns of the event loop in which an aborted connection is closed, with TLS and to spare."""

_log = structlog.get_logger("jobbus.http")


class ProblemProtocol(web.RequestHandler):
    """One connection, among the `held` while it is open.

    Its peer may leave what was sent to it untaken for `user_timeout_s`.
    """

    __slots__ = ("_is_proven", "_peer", "held", "user_timeout_s")

    held: Connections
    user_timeout_s: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Whatever is answered here, a peer that vanished or never reads does not hold it for ever:
        aiohttp waits without a limit, and a closing transport keeps its bytes until they are taken.
        """
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._peer = transport
        self._is_proven = False
        self.held.add(self)
        connection = transport.get_extra_info("socket")
        if hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
            timeout_ms = int(self.user_timeout_s * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.held.remove(self)
        handler = self._task_handler
        super().connection_lost(exc)
        if handler is not None and not self._request_in_progress:
            handler.cancel()  # it would wait out `lingering_s` for the rest of a body

    @property
    def is_idle(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def drop(self) -> None:
        self._peer.abort()

    def prove(self) -> None:
        """Somebody has shown on it who they are."""
        if not self._is_proven:
            self._is_proven = True
            self.held.prove(self)

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """aiohttp calls this when a connection becomes a WebSocket."""
        super().set_parser(FrameCheck(parser), data_received_cb)  # type: ignore[arg-type]  # same use

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Not of a peer that left in the middle of a body or an answer: anybody can do that, and
        each time would be a trace in the log."""
        if isinstance(kwargs.get("exc_info"), ConnectionError):
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
        request_id = request_id_of(request)
        if isinstance(exc, ConnectionError):
            raise exc  # nobody is there to be answered
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun when it broke") from exc
        if status >= 500:
            _log.error("request failed", request_id=request_id, exc_info=exc)
            problem = Problem(status, "internal", f"see the log of the service for {request_id}")
        else:
            detail = (message or "the request is not valid HTTP").strip().partition("\n")[0]
            _log.info("unreadable request", request_id=request_id, reason=detail)
            problem = Problem(status, "malformed", detail)
        response = problem_response(problem, request_id)
        response.headers.update(HEADERS)
        response.headers["Server"] = "jobbus"
        response.headers["X-Request-Id"] = request_id
        response.force_close()
        return response


class ProblemServer(web.Server):
    held: Connections
    user_timeout_s: float

    def __call__(self) -> web.RequestHandler:
        protocol = ProblemProtocol(self, loop=self._loop, **self._kwargs)
        protocol.held = self.held
        protocol.user_timeout_s = self.user_timeout_s
        return protocol


class ProblemRunner(web.AppRunner):
    """An AppRunner whose connections are `ProblemProtocol`s.

    aiohttp has no public place for this; a test sends an unreadable request and would notice.
    """

    def __init__(
        self, app: web.Application, *, user_timeout_s: float, connections_max: int, **kwargs: Any
    ) -> None:
        super().__init__(app, **kwargs)
        self._held = Connections(connections_max)
        self._user_timeout_s = user_timeout_s

    async def cleanup(self) -> None:
        """Nothing is open any more. What a peer has not taken by now it will not get: aiohttp would
        leave that to connections that outlive it."""
        await super().cleanup()
        for connection in self._held:
            connection.drop()
        for _ in range(_TURNS_TO_CLOSE):
            if len(self._held):
                await asyncio.sleep(0)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        kwargs: dict[str, Any] = made._kwargs
        server = ProblemServer(made.request_handler, request_factory=made.request_factory, **kwargs)
        server.held = self._held
        server.user_timeout_s = self._user_timeout_s
        return server


BACKLOG = 4096
"""How many connections may wait while nobody accepts them: from one service to the next."""


class _OrderlyEnd(web.BaseSite):
    async def stop(self) -> None:
        """Who was accepted in this turn of the event loop is a connection before the listener is
        closed: asyncio would leave it open, with nobody to answer or to close it."""
        loop = asyncio.get_running_loop()
        for listening in getattr(self._server, "sockets", ()):
            loop.remove_reader(listening.fileno())
        await asyncio.sleep(0)
        await super().stop()


class Listener(_OrderlyEnd, web.TCPSite):
    """Listens on an address."""


class GivenListener(_OrderlyEnd, web.SockSite):
    """Listens on a socket that somebody else made, and who may keep it: then connections wait in
    there until the next service accepts them."""

    def __init__(
        self, runner: web.AppRunner, listening: socket.socket, *, ssl_context: Any = None
    ) -> None:
        super().__init__(runner, listening, ssl_context=ssl_context, backlog=BACKLOG)


def prove(request: web.Request) -> None:
    """Whoever sent the request has shown who they are."""
    if isinstance(request.protocol, ProblemProtocol):
        request.protocol.prove()
