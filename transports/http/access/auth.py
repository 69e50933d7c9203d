"""The one place where a request gets its identity, and where that of a stream is checked again."""

from aiohttp import web

from bus.clock import Clock
from bus.model import Principal
from transports.http.access.caller import seen_of, unauthenticated
from transports.http.access.identity import Identity, Way
from transports.http.access.origin_rules import Asked, own_origin, refusal
from transports.http.access.proxy import proxied_grant
from transports.http.access.session_store import Sessions
from transports.http.access.tickets import PARAMETER, CodeBook, TicketBook, place_of
from transports.http.access.token_records import Grant
from transports.http.access.token_store import TokenCheck
from transports.http.settings import GatewaySettings
from transports.http.web.accept import preferred_type
from transports.http.web.operation import Operation
from transports.http.web.problems import Problem
from transports.http.web.rate import Attempts, Limiter, Pace

_STREAM_FIRST = ("text/event-stream", "application/json", "application/x-ndjson")

_TOKEN_MAX = 512
_COOKIES_MAX = 8
_PEER_PACE = Pace(per_s=0.2, burst=20)
_ALL_PACE = Pace(per_s=5.0, burst=100)


class Gate:
    """Everything that can prove who somebody is, and the limits on trying.

    `sessions`, `tickets` and `codes` hold what was issued and write it themselves; `_posts` and
    `_attempts` are how much each principal sent and each address tried, counted here.
    """

    def __init__(
        self,
        tokens: TokenCheck,
        clock: Clock,
        settings: GatewaySettings,
        sessions: Sessions,
        cookie_name: str,
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._settings = settings
        self._posts = Limiter(Pace(settings.posts_per_s, settings.post_burst))
        self.sessions = sessions
        self.tickets = TicketBook()
        self.codes = CodeBook()
        self._attempts = Attempts(_PEER_PACE, _ALL_PACE)
        self.cookie_name = cookie_name

    def go_by(self, settings: GatewaySettings) -> None:
        """From now on these limits count."""
        self._posts.go_by(Pace(settings.posts_per_s, settings.post_burst))
        self.sessions.go_by(settings.sessions)

    def identify(self, request: web.Request, operation: Operation) -> Identity:
        """Who asks, remembered on the request.

        Raises:
            Problem: 401; it names no reason that would help to guess.
        """
        identity = self.identify_if_any(request, operation)
        if identity is None:
            raise unauthenticated("sign in, or send the header Authorization: Bearer <token>")
        return identity

    def identify_if_any(self, request: web.Request, operation: Operation) -> Identity | None:
        """Who asks, remembered on the request; None if it carries nothing that would say it.

        Raises:
            Problem: 401; what it carries proves nothing.
        """
        seen = seen_of(request)
        seen.peer = request.remote or ""
        seen.identity = self._found(request, operation)
        seen.again = self.again
        return seen.identity

    def refused(self, request: web.BaseRequest, answer: Problem) -> Problem:
        """What to answer to a proof that proves nothing: `answer`, or 429 where too many came.

        A good proof is never refused because others of its address (a proxy, a company) sent bad
        ones: secrets of 192 bits and more are not found by trying, so there is nothing to slow down
        but the noise.
        """
        peer, now_s = request.remote or "", self._clock.monotonic_s()
        wait_s = self._attempts.wait_s(peer, now_s)
        if wait_s:
            return too_many("too many wrong tokens, codes or tickets came from there", wait_s)
        self._attempts.failed(peer, now_s)
        return answer

    def by_token(self, token: str) -> Identity | None:
        """Whom a bearer token speaks for, now."""
        grant = self._tokens.check(token)
        if grant is None:
            return None
        return Identity(grant, Way.BEARER, expires_ms=grant.expires_ms)

    def again(self, identity: Identity) -> Identity | None:
        """The same identity as it is now, or None if it is none any more.

        What a proxy vouched for cannot be asked again; it ends with its stream's greatest age.
        """
        grant = identity.grant
        if identity.way is Way.PROXY or not grant.token_id:
            return identity
        if identity.session is not None:
            found = self.sessions.again(identity.session)
            return _as(found.grant, identity) if found is not None else None
        now = self._tokens.grant(grant.token_id)
        return _as(now, identity) if now is not None and now.seal == grant.seal else None

    def check_origin(
        self, request: web.Request, operation: Operation, identity: Identity | None
    ) -> None:
        """The page that asks may do so. Without an identity it is about to get one: a cookie, or
        on a WebSocket, one that it proves itself.

        Raises:
            Problem: 403.
        """
        if identity is not None and identity.way is Way.BEARER:
            return
        asked = Asked(
            method=request.method,
            upgrade=is_upgrade(request),
            stream=operation.stays_open,
            origins=tuple(request.headers.getall("Origin", ())),
            sites=tuple(request.headers.getall("Sec-Fetch-Site", ())),
        )
        own = own_origin(request.scheme, request.host)
        ambient = identity.is_ambient if identity is not None else not operation.stays_open
        # A named page brings a proof of its own; it never rides on the browser's.
        allowed = {own} if ambient else {own, *self._settings.origins}
        why = refusal(asked, allowed, ambient=ambient)
        if why is not None:
            raise Problem(403, "origin-refused", f"{why}; the service's own pages are of {own}")

    def check_pace(self, request: web.Request, identity: Identity) -> None:
        """The principal does not change things faster than it may.

        Raises:
            Problem: 429.
        """
        if request.method not in ("GET", "HEAD"):
            self.count_post(identity.principal)

    def count_post(self, principal: Principal) -> None:
        """The principal changes something once more; raises 429 if that is too fast."""
        wait_s = self._posts.take(principal.user_id, self._clock.monotonic_s())
        if wait_s:
            raise too_many("you send too much at a time", wait_s)

    def cookies(self, request: web.Request) -> list[str]:
        """All cookies of our name; another port or name of this host may have set some of them."""
        found = [
            value.strip().strip('"')
            for header in request.headers.getall("Cookie", ())
            for name, _, value in (pair.partition("=") for pair in header.split(";"))
            if name.strip() == self.cookie_name
        ]
        return found[:_COOKIES_MAX]

    def session_of(self, request: web.Request) -> Identity | None:
        """Whose session the cookie stands for. Two cookies that both count stand for none."""
        known = [self.sessions.find(cookie) for cookie in self.cookies(request)]
        live = [identity for identity in known if identity is not None]
        return live[0] if len(live) == 1 else None

    def _found(self, request: web.Request, operation: Operation) -> Identity | None:
        """By what is most explicit: a header, a ticket, the proxy's word, a cookie."""
        if "Authorization" in request.headers:
            identity = self.by_token(_bearer_token(request))
            if identity is None:
                why = "the bearer token is unknown, expired or revoked"
                raise self.refused(request, unauthenticated(why, "invalid_token"))
            return identity
        if operation.stays_open and PARAMETER in request.query:
            return self._by_ticket(request)
        vouched = proxied_grant(request)
        if vouched is not None:
            return Identity(vouched, Way.PROXY)
        return self.session_of(request)

    def _by_ticket(self, request: web.Request) -> Identity:
        tickets = request.query.getall(PARAMETER)
        streams = is_upgrade(request) or preferred_type(request, _STREAM_FIRST) == _STREAM_FIRST[0]
        found = None
        if len(tickets) == 1 and streams and request.method == "GET":
            place = _place(request)
            found = self.tickets.find(tickets[0], place, self._clock.monotonic_s())
        now = self.again(found) if found is not None else None
        if now is None:
            why = (
                "the ticket is unknown or over, or it is for another path; get one by POST "
                "/api/v1/tickets and use it for an event stream or a WebSocket"
            )
            raise self.refused(request, unauthenticated(why))
        return Identity(now.grant, Way.TICKET, session=now.session, expires_ms=now.expires_ms)


def is_upgrade(request: web.Request) -> bool:
    return "Upgrade" in request.headers


def too_many(what: str, wait_s: float) -> Problem:
    """429 with the time to come back, in whole seconds, rounded up."""
    after = {"Retry-After": str(max(1, -int(-wait_s // 1)))}
    return Problem(429, "too-many-requests", f"{what}; try again later", headers=after)


def _as(grant: Grant, identity: Identity) -> Identity:
    """The identity with the grant as it is now; the same object if nothing changed."""
    if grant is identity.grant:
        return identity
    return Identity(grant, identity.way, identity.session, identity.expires_ms)


def _place(request: web.Request) -> tuple[str, tuple[tuple[str, str], ...]]:
    try:
        return place_of(request.path_qs)
    except ValueError as exc:
        raise Problem(400, "malformed", "the query has too many parameters") from exc


def _bearer_token(request: web.Request) -> str:
    headers = request.headers.getall("Authorization")
    scheme, _, token = headers[0].strip().partition(" ")
    token = token.strip()
    usable = token.isascii() and token.isprintable() and 0 < len(token) <= _TOKEN_MAX
    if len(headers) > 1 or scheme.lower() != "bearer" or not usable or " " in token:
        raise unauthenticated(
            "the header must be one Authorization: Bearer <token>", "invalid_request"
        )
    return token
