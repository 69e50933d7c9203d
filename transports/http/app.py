"""The gateway as one object: routes put together, a listening socket, an orderly end."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from bus.access import RoleDefaults
from transports.http.access.accesslog import AccessLogger
from transports.http.access.admission import admission
from transports.http.access.audit_notes import note_refusal
from transports.http.access.auth import Gate
from transports.http.access.proxy import behind_proxy
from transports.http.access.session_store import Sessions
from transports.http.access.token_records import ADMIN_ID
from transports.http.access.visibility import Visibility
from transports.http.api.audit import AuditRoutes
from transports.http.api.commands import CommandRoutes
from transports.http.api.executions import ExecutionRoutes
from transports.http.api.groups import GroupRoutes
from transports.http.api.jobs import JobRoutes
from transports.http.api.longpoll import LongPoll
from transports.http.api.metrics import Metrics
from transports.http.api.origin import OriginRoutes
from transports.http.api.publishing import Publishing
from transports.http.api.schedule import ScheduleRoutes
from transports.http.api.sessions import SessionRoutes
from transports.http.api.system import SystemRoutes
from transports.http.api.tokens import TokenRoutes
from transports.http.console.routes import PageRoutes
from transports.http.document import document
from transports.http.operations import OPERATIONS, STREAMS, by_route, routes_of
from transports.http.output.artifacts import ArtifactRoutes
from transports.http.output.follow import FollowRoutes
from transports.http.output.followers import Followers
from transports.http.output.routes import OutputRoutes
from transports.http.ports import GatewayPorts
from transports.http.server import GivenListener, Listener, ProblemRunner
from transports.http.settings import GatewaySettings, ProxySettings
from transports.http.sockets.routes import SocketRoutes
from transports.http.sockets.topics import Topics
from transports.http.streams.changes import Changes
from transports.http.streams.events import EventRoutes
from transports.http.streams.fanout import Fanout
from transports.http.streams.metrics import StreamMetrics
from transports.http.streams.reader_frames import Framing
from transports.http.streams.registry import StreamRegistry
from transports.http.web.cors import preflights
from transports.http.web.memory_budget import RECEIVE_MAX, Memory
from transports.http.web.middleware import (
    allowed_hosts,
    headers_for,
    host_check,
    problems,
)

__all__ = ["Gateway", "GatewayPorts", "GatewaySettings"]

_CLEANUP_S = 0.5
log = structlog.get_logger("jobbus.http")


class Gateway:
    """The HTTP side of one service. `start` it once, `aclose` it once.

    It holds what its parts share; each part writes its own state. `_hosts` follows the addresses
    and the settings, `_runner` and `_streaming` are set between `start` and `aclose`, and `_broken`
    once the loops behind the streams have failed.
    """

    def __init__(self, ports: GatewayPorts, settings: GatewaySettings | None = None) -> None:
        self._ports = ports
        self._settings = settings or GatewaySettings()
        self._addresses = ["127.0.0.1"]
        self._hosts = self._allowed_hosts()
        self._visibility = Visibility(ports.table, ports.roles)
        self._publishing = Publishing(ports, self._settings)
        ports.tokens.listen(self.recheck)
        sessions = Sessions(
            ports.sessions, ports.tokens, ports.clock, self._settings.sessions, self.recheck
        )
        self._gate = Gate(
            ports.tokens, ports.clock, self._settings, sessions, f"jobbus_{ports.instance}"
        )
        self._registry = StreamRegistry(ports, self._settings, self._gate.again)
        self._memory = Memory(
            proven=self._settings.held_proven, unproven=self._settings.held_unproven
        )
        sent = StreamMetrics()
        self._framing = Framing(sent)
        self._fanout = Fanout(ports.feed, ports.clock, self._settings, self._visibility, sent)
        self.metrics = Metrics(ports, self._settings, self._registry, self._memory, sent, STREAMS)
        """To be called with every batch of changes."""
        self._streaming: asyncio.Task[None] | None = None
        self._broken = False
        self._runner: ProblemRunner | None = None

    async def start(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        listeners: Sequence[socket.socket] = (),
    ) -> str:
        """Listens and returns the URL; port 0 takes a free one. With `listeners`, which are closed
        with it, these and no address."""
        assert self._runner is None, "a gateway starts once"
        addresses = [listener.getsockname()[0] for listener in listeners] or [host]
        self._addresses = addresses
        self._hosts = self._allowed_hosts()
        settings = self._settings
        self._runner = ProblemRunner(
            self._application(),
            user_timeout_s=settings.user_timeout_s,
            connections_max=settings.connections_max,
            memory=self._memory,
            tls=tls,
            read_bufsize=RECEIVE_MAX,
            handle_signals=False,
            access_log_class=AccessLogger,
            keepalive_timeout=settings.keepalive_s,
            lingering_time=settings.lingering_s,
            shutdown_timeout=_CLEANUP_S,
            max_line_size=settings.header_line_max,
            max_field_size=settings.header_line_max,
            # It would be done before anybody has shown who they are, and what is no such encoding
            # would break inside of aiohttp; `body` refuses what comes encoded.
            auto_decompress=False,
        )
        await self._runner.setup()
        try:
            for listener in listeners:
                await GivenListener(self._runner, listener).start()
            if not listeners:
                await Listener(self._runner, host, port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._streaming = asyncio.create_task(self._stream(), name="gateway-streams")
        bound = self._runner.addresses[0]
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        return f"{'https' if tls is not None else 'http'}://{name}:{bound[1]}"

    def go_by(self, settings: GatewaySettings, roles: RoleDefaults) -> None:
        """From now on these count, for requests, and for streams and sessions that are open; but
        for how many connections there may be, which is bound to the limits of the process."""
        for field in fields(GatewaySettings):
            setattr(self._settings, field.name, getattr(settings, field.name))
        self._hosts = self._allowed_hosts()
        self._visibility.go_by(roles)
        self._gate.go_by(settings)
        self._publishing.waits.go_by(settings.waits_max, settings.waits_per_principal)
        self.recheck()

    def _allowed_hosts(self) -> frozenset[str]:
        found = (allowed_hosts(each, self._settings.hosts) for each in self._addresses)
        return frozenset().union(*found)

    async def aclose(self) -> None:
        """Takes nothing more, ends waits and streams, then closes what is left."""
        if self._runner is None:
            return
        self._publishing.closing.set()
        for site in list(self._runner.sites):
            await site.stop()
        await self._registry.shut()
        await self._runner.cleanup()
        self._runner = None
        if self._streaming is not None:
            self._streaming.cancel()
            await asyncio.wait([self._streaming])
        await self._gate.sessions.aclose()
        await self._ports.tokens.aclose()

    def shed_connections(self) -> None:
        """The system has no descriptor for another connection: some of those that wait go."""
        if self._runner is not None:
            self._runner.shed()

    def sign_in_code(self) -> str:
        """A code that signs one browser in as this account's admin, for a short while."""
        grant = self._ports.tokens.grant(ADMIN_ID)
        assert grant is not None, "the account's own token does not expire"
        return self._gate.codes.issue(grant, self._ports.clock.monotonic_s())

    def recheck(self) -> None:
        """Checks again who the principal of each open stream is, and ends those that have none."""
        self._registry.look(recheck=True)

    async def _stream(self) -> None:
        """The loops behind all streams and sign-ins. If one breaks, streams end and `/readyz`
        says so."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._fanout.run(), name="fanout")
                group.create_task(self._registry.watch(), name="stream-registry")
                group.create_task(self._gate.sessions.run(), name="sessions")
                group.create_task(self._ports.tokens.run(), name="tokens")
        except* Exception:
            log.exception("streams broke")
            self._broken = True
            await self._registry.shut()

    def _why_not_ready(self) -> str | None:
        if self._publishing.closing.is_set():
            return "shutting down"
        return "the streams broke; restart the service" if self._broken else self._ports.ready()

    def _proxy(self) -> ProxySettings:
        assert self._settings.proxy is not None, "asked only where one is in front"
        return self._settings.proxy

    def _application(self) -> web.Application:
        middlewares: list[Middleware] = [
            problems(partial(note_refusal, self._ports.audit)),
            self.metrics.middleware(),
            *([behind_proxy(self._proxy)] if self._settings.proxy is not None else []),
            host_check(lambda: self._hosts),
            preflights(lambda: self._settings.origins),
            admission(self._gate, by_route(OPERATIONS)),
        ]
        app = web.Application(client_max_size=self._settings.body_max, middlewares=middlewares)
        ports, settings, visibility = self._ports, self._settings, self._visibility
        polls = LongPoll(ports.feed, settings, self._publishing.closing, self._publishing.waits)
        framing, fanout = self._framing, self._fanout
        changes = Changes(ports, settings, visibility, fanout, framing)
        followers = Followers(ports, settings, visibility, fanout, framing)
        topics = Topics(ports, visibility, changes, followers)
        parts = (
            CommandRoutes(ports, self._publishing, visibility, polls, self._gate.count_post),
            OriginRoutes(self._publishing),
            JobRoutes(ports, visibility, polls),
            ScheduleRoutes(ports, visibility),
            GroupRoutes(ports, visibility, polls),
            ExecutionRoutes(ports, self._publishing, visibility, polls),
            OutputRoutes(ports, settings, visibility),
            ArtifactRoutes(ports, settings, visibility),
            EventRoutes(ports, settings, self._registry, changes, framing),
            FollowRoutes(ports, settings, visibility, self._registry, followers, framing),
            SocketRoutes(
                ports, settings, self._gate, self._registry, topics, self._publishing, framing
            ),
            SessionRoutes(ports, self._gate, STREAMS),
            TokenRoutes(ports, visibility),
            AuditRoutes(ports, settings),
            PageRoutes(),
            self.metrics,
            SystemRoutes(ports, settings, self._registry.counts, self._why_not_ready, document),
        )
        app.add_routes(routes_of(OPERATIONS, parts))
        app.on_response_prepare.append(headers_for(lambda: self._settings.origins))
        return app
