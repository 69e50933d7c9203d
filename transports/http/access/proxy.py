"""A reverse proxy in front: only its headers say who asks, from where and over what."""

import ipaddress
from collections.abc import Callable, Iterable

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp_remotes import XForwardedFiltered

from bus.model import Principal
from transports.http.access.caller import seen_of
from transports.http.access.token_records import Grant, checked_roles, checked_user
from transports.http.settings import Network, ProxySettings
from transports.http.web.leases import may_say
from transports.http.web.probes import is_probe
from transports.http.web.problems import Problem

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK = ("127.0.0.0/8", "::1/128")
"""The peers that a service behind a proxy trusts by default: this machine."""

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")
_VOUCHED = web.RequestKey("vouched", Grant)
log = structlog.get_logger("jobbus.http")


def behind_proxy(current: Callable[[], ProxySettings]) -> Middleware:
    """Serves the proxy, and programs on this machine that do not pretend to be one.

    All others reached a door that speaks plain text and was not meant for them.
    """
    made = current()
    forwarded = XForwardedFiltered(made.trusted)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal made, forwarded
        seen_of(request)  # before `forwarded` makes a copy of the request
        settings = current()
        if settings is not made:
            made, forwarded = settings, XForwardedFiltered(settings.trusted)
        if is_probe(request) and not any(name in request.headers for name in _FORWARDED):
            return await handler(request)
        peer = _peer(request)
        if peer is None or not _is_in(peer, settings.trusted):
            _refuse_pretenders(request, peer, settings)
            return await handler(request)
        vouched = _vouched_for(request, settings)
        if vouched is not None:
            request[_VOUCHED] = vouched
        if any(name in request.headers for name in _FORWARDED[2:]) and (
            "X-Forwarded-For" not in request.headers
        ):
            raise Problem(400, "malformed", "the proxy must send X-Forwarded-For, too")
        return await forwarded.middleware(request, handler)

    return middleware


def proxied_grant(request: web.Request) -> Grant | None:
    """Whom the proxy vouched for, if it is trusted and did."""
    return request.get(_VOUCHED)


def networks(words: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks such as `10.0.0.5` or `10.1.0.0/16`.

    Raises:
        ValueError: one is neither.
    """
    return tuple(ipaddress.ip_network(word.strip()) for word in words)


def _refuse_pretenders(request: web.Request, peer: Address | None, settings: ProxySettings) -> None:
    claims = [name for name in (settings.user_header, settings.roles_header) if name]
    pretends = any(name in request.headers for name in (*_FORWARDED, *claims))
    if peer is not None and peer.is_loopback and not pretends:
        return
    extra = may_say(request)
    if extra is not None:
        log.warning("peer is no trusted proxy", peer=str(peer), forwarded=pretends, **extra)
    raise Problem(
        403,
        "proxy-refused",
        "only the proxy in front is served here; if you are it, your address must be in [proxy] "
        "trusted",
    )


def _vouched_for(request: web.Request, settings: ProxySettings) -> Grant | None:
    """Whom the proxy names.

    Raises:
        Problem: 400 or 403; what it sends is no possible user.
    """
    user = _one(request, settings.user_header)
    if not user:
        return None
    words = (_one(request, settings.roles_header) or "").replace(",", " ").split()
    try:
        roles = checked_roles(words) if words else settings.default_roles
        principal = Principal(user_id=checked_user(user), roles=roles, via="http")
    except ValueError as exc:
        raise Problem(403, "proxy-refused", f"the proxy names a user who cannot be: {exc}") from exc
    return Grant(principal=principal, token_id="", seal="")


def _one(request: web.Request, name: str | None) -> str | None:
    values = request.headers.getall(name, ()) if name is not None else ()
    if len(values) > 1:
        # One of them may be the client's own, let through by the proxy.
        raise Problem(400, "malformed", f"the header {name} may be sent once")
    return values[0].strip() if values else None


def _peer(request: web.Request) -> Address | None:
    """The other end of the connection, whatever headers say."""
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not isinstance(name, tuple):
        return None
    address = ipaddress.ip_address(name[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_in(address: Address, trusted: tuple[Network, ...]) -> bool:
    return any(address in network for network in trusted)
