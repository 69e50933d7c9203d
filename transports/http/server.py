"""The listening side of aiohttp: connections are bounded and of our own kind, and what was accepted
at the very end is answered or closed."""

import asyncio
import re
import socket
import ssl
from typing import Any

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from yarl import URL

from transports.http.web.connections import Connections
from transports.http.web.handshake import Handshake
from transports.http.web.log_quota import Quiet
from transports.http.web.memory_budget import Memory
from transports.http.web.protocol import ProblemProtocol

SHED_AT_ONCE = 16

_JOB_IN_ONE = re.compile(r"\A(/api/v1/jobs/[^/?#]+?)%2[Ff](?=[^/?#])")

_TURNS_TO_CLOSE = 10
"""Turns of the event loop in which an aborted connection is closed, with TLS and to spare."""


def with_plain_slash(message: RawRequestMessage) -> RawRequestMessage:
    """The id of a job is two segments of a path, also for clients that encode it in one piece."""
    if "%2" not in message.path:
        return message
    path = _JOB_IN_ONE.sub(r"\1/", message.path)
    return message._replace(path=path, url=URL(path, encoded=True))


class ProblemServer(web.Server):
    """Makes the connections; with `tls` their handshake comes first."""

    held: Connections
    memory: Memory
    quiet: Quiet
    user_timeout_s: float
    tls: ssl.SSLContext | None

    def __call__(self) -> "ProblemProtocol | Handshake":  # type: ignore[override]
        protocol = ProblemProtocol(self, loop=self._loop, **self._kwargs)
        protocol.held = self.held
        protocol.memory = self.memory
        protocol.quiet = self.quiet
        protocol.user_timeout_s = self.user_timeout_s
        protocol.handshake = None
        if self.tls is None:
            return protocol
        protocol.handshake = Handshake(self._loop, protocol, self.tls, self.held)
        return protocol.handshake


class ProblemRunner(web.AppRunner):
    """An AppRunner whose connections are `ProblemProtocol`s.

    aiohttp has no public place for this; a test sends an unreadable request and would notice.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        user_timeout_s: float,
        connections_max: int,
        memory: Memory,
        tls: ssl.SSLContext | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(app, **kwargs)
        self._tls = tls
        self._memory = memory
        self._held = Connections(connections_max)
        self._user_timeout_s = user_timeout_s

    def shed(self) -> None:
        """The system has no descriptor for another connection: some of those that wait go."""
        self._held.shed(SHED_AT_ONCE)

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
        make = made.request_factory

        def factory(message: RawRequestMessage, *rest: Any) -> web.BaseRequest:
            return make(with_plain_slash(message), *rest)

        server = ProblemServer(made.request_handler, request_factory=factory, **kwargs)
        server.held = self._held
        server.memory = self._memory
        server.quiet = Quiet()
        server.tls = self._tls
        server.user_timeout_s = self._user_timeout_s
        return server


BACKLOG = 4096
"""How many connections may wait to be accepted, from one service to the next."""


class _OrderlyEnd(web.BaseSite):
    async def stop(self) -> None:
        """Who was accepted in this turn of the event loop is a connection before the listener is
        closed: asyncio would leave it open, neither answered nor closed."""
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

    def __init__(self, runner: web.AppRunner, listening: socket.socket) -> None:
        super().__init__(runner, listening, backlog=BACKLOG)
