"""`/session` and `/tickets`: how browsers sign in, stay, leave, and open streams from elsewhere."""

from collections.abc import Collection

import msgspec
import structlog
from aiohttp import web

from bus.clock import Clock, rfc3339
from bus.errors import NoSpace, StorageFailed
from transports.http.access.audit_notes import anonymous, note
from transports.http.access.auth import Gate, too_many
from transports.http.access.caller import credential_of
from transports.http.access.identity import Identity, Way
from transports.http.access.tickets import CODE_S, TICKET_S, TooMany, checked_target
from transports.http.access.token_records import Grant
from transports.http.api import bodies
from transports.http.ports import GatewayPorts
from transports.http.web.answers import json_response
from transports.http.web.body import decode_field, read_fields, refuse_unknown
from transports.http.web.leases import may_say
from transports.http.web.operation import JSON, READ, WRITE, Audience, Operation
from transports.http.web.problems import Problem, code_of, invalid, not_kept
from transports.http.web.query import Query
from transports.http.web.rate import peer_key

PATH = "/api/v1/session"
_PROOF_MAX = 512
_BODY_MAX = 2 * 1024
"""Bytes of a body from somebody who has shown nothing yet."""

log = structlog.get_logger("jobbus.http")


class SessionRoutes:
    """`streams` are the templates of paths that take a ticket."""

    def __init__(
        self,
        ports: GatewayPorts,
        gate: Gate,
        streams: Collection[str],
    ) -> None:
        self._tokens = ports.tokens
        self._audit = ports.audit
        self._clock: Clock = ports.clock
        self._instance = ports.instance
        self._gate = gate
        self._streams = streams

    async def sign_in(self, request: web.Request) -> web.Response:
        """A token or a one-time code becomes a cookie."""
        Query(request)
        peer = request.remote or ""
        kind, proof = _proof(await read_fields(request, most=_BODY_MAX))
        grant = self._grant_of(kind, proof)
        if grant is None:
            why = Problem(401, "unauthenticated", f"the {kind} is unknown, used or expired")
            problem = self._gate.refused(request, why)
            refused = {"error_code": code_of(problem.slug), "by": kind, "peer": peer_key(peer)}
            note(self._audit, anonymous(), "session.open", **refused)
            extra = may_say(request) if problem is why else None
            if extra is not None:
                log.warning("sign-in failed", peer=peer, by=kind, **extra)
            raise problem
        await self._end_old(request)
        try:
            cookie, identity = await self._gate.sessions.open(grant)
        except (NoSpace, StorageFailed) as exc:
            raise not_kept("you are not signed in", exc) from exc
        note(self._audit, identity.principal, "session.open", by=kind, peer=peer)
        log.info("signed in", user=identity.principal.user_id, peer=peer, by=kind)
        response = web.Response(status=204)
        self._set_cookie(request, response, cookie)
        return response

    async def show(self, request: web.Request) -> web.Response:
        Query(request)
        identity = credential_of(request)
        expires_ms = identity.expires_ms
        return json_response(
            {
                "user": identity.principal.user_id,
                "roles": identity.principal.roles,
                "by": identity.way,
                "expiresAt": rfc3339(expires_ms) if expires_ms is not None else None,
                "instance": self._instance,
            }
        )

    async def sign_out(self, request: web.Request) -> web.Response:
        Query(request)
        identity = credential_of(request)
        if identity.way is not Way.COOKIE or identity.session is None:
            raise Problem(
                409, "conflict", f"you came in by {identity.way}; only a session can be signed out"
            )
        try:
            await self._gate.sessions.end(identity.session)
        except (NoSpace, StorageFailed) as exc:
            raise not_kept("you are signed out, but a restart may not know it", exc) from exc
        note(self._audit, identity.principal, "session.close")
        log.info("signed out", user=identity.principal.user_id)
        response = web.Response(status=204)
        self._set_cookie(request, response, "")
        return response

    async def issue_code(self, request: web.Request) -> web.Response:
        """A code that signs somebody else's browser in as the caller, once."""
        Query(request)
        refuse_unknown(await read_fields(request, empty=True), ())
        identity = credential_of(request)
        if not identity.grant.token_id:
            raise Problem(409, "conflict", "the proxy signs in whom it vouches for; no code is due")
        code = self._gate.codes.issue(identity.grant, self._clock.monotonic_s())
        body = {"code": code, "path": f"/#code={code}", "expiresAt": self._in(CODE_S)}
        return json_response(body, status=201)

    async def issue_ticket(self, request: web.Request) -> web.Response:
        """Something for a URL, where a header cannot be sent: for one stream and half a minute."""
        Query(request)
        # However long the path is, what is wrong with it is said.
        fields = await read_fields(request, most=request.client_max_size)
        refuse_unknown(fields, ("path",))
        path = decode_field(fields, "path", str)
        try:
            place = checked_target(path or "", self._streams)
        except ValueError as exc:
            raise invalid("/path", str(exc)) from exc
        try:
            ticket = self._gate.tickets.issue(
                credential_of(request), place, self._clock.monotonic_s()
            )
        except TooMany:
            raise too_many("too many tickets are in use", TICKET_S) from None
        body = {"ticket": ticket, "expiresInS": int(TICKET_S), "expiresAt": self._in(TICKET_S)}
        return json_response(body, status=201)

    def _grant_of(self, kind: str, proof: str) -> Grant | None:
        if kind == "token":
            return self._tokens.check(proof)
        found = self._gate.codes.redeem(proof, self._clock.monotonic_s())
        if found is None:
            return None
        # The token behind the code may have been revoked since.
        now = self._gate.again(Identity(found, Way.BEARER))
        return now.grant if now is not None else None

    async def _end_old(self, request: web.Request) -> None:
        """The browser's earlier session ends: it never has two."""
        old = self._gate.session_of(request)
        if old is None or old.session is None:
            return
        try:
            await self._gate.sessions.end(old.session)
        except (NoSpace, StorageFailed) as exc:
            raise not_kept("you are signed out", exc) from exc

    def _set_cookie(self, request: web.Request, response: web.Response, value: str) -> None:
        """An empty value takes the cookie away. No Max-Age: it goes with the browser's window."""
        response.set_cookie(
            self._gate.cookie_name,
            value,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=request.scheme == "https",
            max_age=None if value else 0,
        )

    def _in(self, seconds: float) -> str:
        return rfc3339(self._clock.now_ms() + int(seconds * 1000))


def _proof(fields: dict[str, msgspec.Raw]) -> tuple[str, str]:
    """`token` or `code`, and its text.

    Raises:
        Problem: 422; there must be one of them.
    """
    refuse_unknown(fields, ("token", "code"))
    given = [(name, decode_field(fields, name, str)) for name in ("token", "code")]
    proofs = [(name, text.strip()) for name, text in given if text]
    if len(proofs) != 1 or len(proofs[0][1]) > _PROOF_MAX:
        raise invalid("", "send a token or a code")
    return proofs[0]


OPERATIONS = (
    Operation(
        method="POST",
        path=PATH,
        id="createSession",
        handler=SessionRoutes.sign_in,
        summary="Sign in: a token or a one-time code becomes a cookie",
        audience=Audience.SIGNING_IN,
        body=((JSON, bodies.SignIn),),
        answers={204: ()},
        refuses=WRITE | {503, 507},
    ),
    Operation(
        method="GET",
        path=PATH,
        id="getSession",
        handler=SessionRoutes.show,
        summary="Who you are",
        answers={200: ((JSON, bodies.Session),)},
        refuses=READ,
    ),
    Operation(
        method="DELETE",
        path=PATH,
        id="deleteSession",
        handler=SessionRoutes.sign_out,
        summary="Sign out",
        answers={204: ()},
        refuses=READ | {409, 503, 507},
    ),
    Operation(
        method="POST",
        path=f"{PATH}/code",
        id="createSignInCode",
        handler=SessionRoutes.issue_code,
        summary="A code that signs another browser in as you, once",
        body=((JSON, bodies.Empty),),
        body_required=False,
        answers={201: ((JSON, bodies.SignInCode),)},
        refuses=WRITE | {409},
    ),
    Operation(
        method="POST",
        path="/api/v1/tickets",
        id="createTicket",
        handler=SessionRoutes.issue_ticket,
        summary="A ticket for one stream, for half a minute",
        body=((JSON, bodies.TicketRequest),),
        answers={201: ((JSON, bodies.Ticket),)},
        refuses=WRITE,
    ),
)
