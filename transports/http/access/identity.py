"""Who a request comes from and how they proved it. Pure records: no request, no IO, no clock."""

from enum import StrEnum

import msgspec

from bus.model import Principal
from transports.http.access.token_records import Grant


class Way(StrEnum):
    """What the request carried as proof."""

    BEARER = "bearer"
    COOKIE = "cookie"
    TICKET = "ticket"
    PROXY = "proxy"


AMBIENT = frozenset({Way.COOKIE, Way.PROXY})
"""Proofs that a browser adds by itself, whichever page made the request: those need more care."""


class Identity(msgspec.Struct, frozen=True):
    """The principal, with what is needed to ask again later whether it still is one.

    `session` is the key of the sign-in, where there is one. `expires_ms` is known in advance;
    revocations are not.
    """

    grant: Grant
    way: Way
    session: str | None = None
    expires_ms: int | None = None

    @property
    def principal(self) -> Principal:
        return self.grant.principal

    @property
    def is_ambient(self) -> bool:
        return self.way in AMBIENT

    def is_over(self, now_ms: int) -> bool:
        return self.expires_ms is not None and now_ms >= self.expires_ms
