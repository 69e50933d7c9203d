"""Which requests of a browser's page are refused, because of the page they come from. Pure.

A cookie says which browser asks, not which page. `SameSite=Strict` keeps other sites out, but not
another port or a sibling name of this host; `Origin` and `Sec-Fetch-Site` distinguish those
(Fetch §3.2, Fetch Metadata §2.4). A WebSocket handshake has `Origin` only.
"""

from collections.abc import Collection

import msgspec

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_PAGES = frozenset({"same-origin", "none"})
"""`none` is the person: an address typed, a bookmark. `same-site` is what another port sends."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules look at. `origins` and `sites` are all headers of that name."""

    method: str
    upgrade: bool
    stream: bool
    origins: tuple[str, ...]
    sites: tuple[str, ...]


def refusal(asked: Asked, allowed: Collection[str], *, ambient: bool) -> str | None:
    """Why the request is refused, or None.

    `allowed` are origins to the letter. `ambient`: the browser added the proof by itself. Tickets
    are no such proof, but they stand in URLs: who opens a stream with one must be allowed, too.
    """
    if len(asked.origins) > 1 or len(asked.sites) > 1:
        return "Origin and Sec-Fetch-Site may be sent once"
    origin = asked.origins[0] if asked.origins else None
    if not ambient:
        return None if origin is None or origin in allowed else _not_allowed(origin)
    if not (asked.upgrade or asked.stream or asked.method not in SAFE_METHODS):
        return None
    if origin is not None and origin not in allowed:
        return _not_allowed(origin)
    if origin is None and asked.upgrade:
        return "a WebSocket that relies on a cookie needs the header Origin"
    if asked.sites and asked.sites[0] not in OWN_PAGES:
        return f"a page of this service must ask, not one that is {asked.sites[0][:20]!r}"
    return None


def own_origin(scheme: str, host: str) -> str:
    """The origin of pages served under `host` (a Host header), as browsers write it."""
    name = host.lower()
    default = {"http": ":80", "https": ":443"}.get(scheme, "")
    return f"{scheme}://{name.removesuffix(default) if default else name}"


def _not_allowed(origin: str) -> str:
    return f"pages of {origin[:100]!r} may not do this"
