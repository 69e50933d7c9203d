"""`/ws`: the handshake of a WebSocket, its place among the streams, and the client's proof."""

import asyncio
import re

import structlog
from aiohttp import web

from transports.http.access.audit_notes import note_refusal
from transports.http.access.auth import Gate, is_upgrade
from transports.http.access.caller import identity_of
from transports.http.access.identity import Identity
from transports.http.api.publishing import Publishing
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.sockets.encoding import SUBPROTOCOL, problem_frame
from transports.http.sockets.link import SocketLink
from transports.http.sockets.requests import Auth, BadFrame, decode
from transports.http.sockets.session import Socket
from transports.http.sockets.topics import Topics
from transports.http.streams.outlets import End
from transports.http.streams.reader_frames import Framing
from transports.http.streams.registry import StreamRegistry
from transports.http.web.leases import prove
from transports.http.web.middleware import request_id_of
from transports.http.web.operation import READ, Audience, Operation, Parameter
from transports.http.web.problems import Problem
from transports.http.web.query import Query
from transports.http.web.rate import Places, peer_key

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==\Z")
log = structlog.get_logger("jobbus.streams")


class SocketRoutes:
    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        gate: Gate,
        registry: StreamRegistry,
        topics: Topics,
        publishing: Publishing,
        framing: Framing,
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._gate = gate
        self._registry = registry
        self._topics = topics
        self._publishing = publishing
        self._framing = framing
        most = settings.sockets_unproven_max
        self._unproven = Places(most, max(2, most // 4))

    async def show(self, request: web.Request) -> web.StreamResponse:
        Query(request)
        _check_handshake(request)
        group = asyncio.TaskGroup()
        link = SocketLink(request, self._ports.clock, self._settings, group)
        identity = identity_of(request)
        if identity is None:
            identity = await self._proven(request, link)
            if identity is None or not self._admitted(request, link, identity):
                return await link.close()
            prove(request, identity.principal.user_id)
            return await self._serve(request, link, group, identity)
        self._registry.admit(identity.principal)
        return await self._serve(request, link, group, identity)

    async def _serve(
        self,
        request: web.Request,
        link: SocketLink,
        group: asyncio.TaskGroup,
        identity: Identity,
    ) -> web.StreamResponse:
        """The socket was served to its end. No await lies between its admission and here."""
        socket = Socket(
            link,
            identity,
            request_id_of(request),
            self._ports,
            self._settings,
            self._gate,
            self._topics,
            self._publishing,
            self._framing,
        )
        self._registry.add(socket)
        try:
            if not link.response.prepared:
                await link.open()
            await self._run(socket, link, group)
            return await link.close()
        finally:
            self._registry.remove(socket)

    async def _run(self, socket: Socket, link: SocketLink, group: asyncio.TaskGroup) -> None:
        try:
            async with group:
                await socket.serve(group)
        except* Exception:
            log.exception("socket failed")
            link.finish(End.FAILED)

    async def _proven(self, request: web.Request, link: SocketLink) -> Identity | None:
        """Who the first frame says that this is; None if it says nothing in time.

        Raises:
            Problem: 503; too many are at this point already.
        """
        after = {"Retry-After": "5"}
        if self._registry.draining:
            raise Problem(503, "draining", "the service is shutting down", headers=after)
        with self._unproven.one_for(peer_key(request.remote or "")) as any_place:
            if not any_place:
                why = (
                    "too many sockets have not proven yet whose they are; send a credential with "
                    "the handshake, or come back"
                )
                raise Problem(503, "too-many-streams", why, headers=after)
            await link.open()
            return await self._by_first_frame(request, link)

    async def _by_first_frame(self, request: web.Request, link: SocketLink) -> Identity | None:
        found = await self._proof(request, link)
        if isinstance(found, Identity):
            return found
        self._say(request, link, found)
        link.finish(End.UNAUTHENTICATED if found.status == 401 else End.RATE)
        return None

    async def _proof(self, request: web.Request, link: SocketLink) -> Identity | Problem:
        """Whom the first frame proves, or what is wrong with it."""
        try:
            async with asyncio.timeout(self._settings.socket_auth_s):
                text = await link.receive()
            frame = decode(text) if text is not None else None
        except TimeoutError:
            frame = None
        except BadFrame as bad:
            return _unproven(bad.problem.detail)
        if not isinstance(frame, Auth):
            return _unproven(f"send auth with a token within {self._settings.socket_auth_s:g} s")
        identity = self._gate.by_token(frame.token)
        if identity is not None:
            return identity
        wrong = _unproven("the token is unknown, expired or revoked")
        problem = self._gate.refused(request, wrong)
        note_refusal(self._ports.audit, request, problem, is_proof=True)
        return problem

    def _admitted(self, request: web.Request, link: SocketLink, identity: Identity) -> bool:
        try:
            self._registry.admit(identity.principal)
        except Problem as problem:
            self._say(request, link, problem)
            link.finish(End.RATE if problem.status == 429 else End.OVERLOADED)
            return False
        return True

    def _say(self, request: web.Request, link: SocketLink, problem: Problem) -> None:
        if link.has_room:
            link.put(problem_frame(problem, request_id_of(request), {}))


def _unproven(why: str) -> Problem:
    return Problem(401, "unauthenticated", why)


def _check_handshake(request: web.Request) -> None:
    """Raises the problem that explains to a client of another protocol what is served here."""
    if not is_upgrade(request) or request.headers.get("Sec-WebSocket-Version") != "13":
        raise Problem(
            426,
            "upgrade-required",
            f"this is a WebSocket; open it with version 13 and the subprotocol {SUBPROTOCOL}",
            headers={
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
            },
        )
    offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", ()))
    offers = [name.strip() for name in offered.split(",")]
    if SUBPROTOCOL not in offers:
        raise Problem(
            400,
            "unknown-subprotocol",
            f"offer the subprotocol {SUBPROTOCOL} in Sec-WebSocket-Protocol",
        )
    key = request.headers.get("Sec-WebSocket-Key", "")
    # The key first: aiohttp breaks on one that is not ASCII.
    if not _KEY.match(key) or not web.WebSocketResponse(protocols=offers).can_prepare(request):
        raise Problem(
            400,
            "malformed",
            "a handshake has Upgrade: websocket, Connection: Upgrade and a Sec-WebSocket-Key of 16 "
            "bytes in base64 (RFC 6455)",
        )


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/ws",
        id="openSocket",
        handler=SocketRoutes.show,
        summary="A WebSocket, subprotocol `jobbus.v1`: subscribe and publish",
        audience=Audience.CONNECTING,
        stays_open=True,
        parameters=(Parameter(name="ticket", about="A ticket for the socket."),),
        answers={101: ()},
        refuses=READ | {426, 503},
    ),
)
