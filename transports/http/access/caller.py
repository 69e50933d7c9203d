"""The sender of a request, once `Gate` has found who that is, and whether they may still know."""

from collections.abc import Callable
from typing import NoReturn

import msgspec
from aiohttp import web

from bus.model import Principal
from transports.http.access.identity import Identity
from transports.http.web.problems import Problem
from transports.http.web.rate import peer_key

REALM = 'Bearer realm="jobbus"'


class _Seen(msgspec.Struct):
    """Shared by a request and the copy of it into which the proxy's headers are worked.

    `Gate.identify` writes all of it: `identity` is what was found, `again` checks it later, `peer`
    is the address that the request came from, as the proxy reports it.
    """

    identity: Identity | None = None
    again: Callable[[Identity], Identity | None] | None = None
    peer: str = ""


_SEEN = web.RequestKey("seen", _Seen)


def seen_of(request: web.Request) -> _Seen:
    """What is known of the sender; made when first asked for, before any copy of the request."""
    seen = request.get(_SEEN)
    if seen is None:
        seen = request[_SEEN] = _Seen()
    return seen


def credential_of(request: web.Request) -> Identity:
    """What `Gate.identify` found; asking on a public path is a defect."""
    identity = seen_of(request).identity
    assert identity is not None, "this operation has no principal"
    return identity


def check_again(request: web.Request) -> None:
    """The sender is still admitted; to be called after a wait.

    Raises:
        Problem: 401.
    """
    seen = seen_of(request)
    assert seen.again is not None, "this operation has no principal"
    if seen.identity is None or seen.again(seen.identity) is None:
        raise unauthenticated("your access ended while you waited", "invalid_token")


def check_while_sending(request: web.Request) -> None:
    """The same once the head of the answer is out: who is not admitted any more is cut off.

    Raises:
        ConnectionError: they were.
    """
    try:
        check_again(request)
    except Problem:
        cut_off(request, "access ended while the answer was sent")


def cut_off(request: web.Request, why: str) -> NoReturn:
    """Breaks the connection: nothing else shows the other side that the answer is not whole."""
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError(why)


def identity_of(request: web.Request) -> Identity | None:
    """What was found, if anything."""
    return seen_of(request).identity


def principal_of(request: web.Request) -> Principal:
    """Whom `Gate.identify` found; asking on a public path is a defect."""
    return credential_of(request).principal


def known_principal(request: web.BaseRequest) -> Principal | None:
    """The principal if the request got as far as having one; for the access log."""
    seen = request.get(_SEEN)
    return seen.identity.principal if seen is not None and seen.identity is not None else None


def peer_of(request: web.Request) -> str:
    """Where it came from, as the proxy says it if there is one; the /64 of IPv6, which is one
    customer's."""
    return peer_key(seen_of(request).peer or request.remote or "")


def unauthenticated(detail: str, error: str = "") -> Problem:
    challenge = f'{REALM}, error="{error}"' if error else REALM
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": challenge})
