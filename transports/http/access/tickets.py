"""Short-lived proofs that may stand in a URL or on a terminal: tickets and one-time codes.

Pure: no IO, and time is handed in on a clock that never jumps. Only hashes are kept.

A ticket opens one stream, named to the letter, as often as wanted while it lasts: a browser's
EventSource comes back with the URL it was made with. A code signs in once.
"""

import re
import secrets
from collections import Counter
from collections.abc import Collection
from functools import cache
from urllib.parse import parse_qsl, urlsplit

import msgspec

from transports.http.access.identity import Identity
from transports.http.access.token_records import Grant, secret_hash
from transports.http.web.query import is_cache_buster, is_position
from transports.http.web.rate import first_of_the_many

TICKET_S = 30.0
TICKETS_MAX = 10_000
TICKETS_PER_USER = 200
CODE_S = 600.0
CODES_MAX = 100
PATH_MAX = 4096
PARAMETER = "ticket"
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


Place = tuple[str, tuple[tuple[str, str], ...]]
"""A path and its query, spelling aside: two requests for the same thing have equal places."""


class TooMany(Exception):
    """There is no room for another one now."""


def place_of(target: str) -> Place:
    """What a request for `target` asks for, without what a client adds by itself: the ticket, where
    the stream goes on, what keeps caches away.

    Raises:
        ValueError: the query has too many parameters.
    """
    parts = urlsplit(target)
    pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=100)
    return parts.path.lower(), tuple(pair for pair in pairs if not _is_added(pair[0]))


def _is_added(name: str) -> bool:
    return name == PARAMETER or is_position(name) or is_cache_buster(name)


def checked_target(target: str, streams: Collection[str]) -> Place:
    """The place a ticket may be bound to: one of `streams`, which are templates of paths.

    Raises:
        ValueError: it is none.
    """
    plain = target.isascii() and target.isprintable() and len(target) <= PATH_MAX
    if not plain or "#" in target or "?ticket=" in target or "&ticket=" in target:
        raise ValueError("must be a path with its query, such as /api/v1/events?job=App/Job")
    place = place_of(target)
    known = any(_pattern_of(template).fullmatch(place[0]) for template in streams)
    if not known or not target.lower().startswith(place[0]):
        *others, last = sorted(streams)
        raise ValueError(f"must be the path of a stream: {', '.join(others)} or {last}")
    return place


@cache
def _pattern_of(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(re.escape("{id}"), _UUID))


class _Ticket(msgspec.Struct, frozen=True):
    identity: Identity
    place: Place
    ends_s: float


class TicketBook:
    """The tickets that may still be used, the oldest first."""

    def __init__(self) -> None:
        self._tickets: dict[str, _Ticket] = {}
        self._by_user: Counter[str] = Counter()

    def issue(self, identity: Identity, place: Place, now_s: float) -> str:
        """A ticket for who has `identity`.

        Raises:
            TooMany: they have too many, or all have.
        """
        self._forget_ended(now_s)
        user = identity.principal.user_id
        if len(self._tickets) >= TICKETS_MAX or self._by_user[user] >= TICKETS_PER_USER:
            raise TooMany
        ticket = secrets.token_urlsafe(24)
        self._tickets[secret_hash(ticket)] = _Ticket(identity, place, now_s + TICKET_S)
        self._by_user[user] += 1
        return ticket

    def find(self, ticket: str, place: Place, now_s: float) -> Identity | None:
        """Who may open `place` with the ticket; whether they still may is to be checked again."""
        found = self._tickets.get(secret_hash(ticket))
        fits = found is not None and now_s < found.ends_s and found.place == place
        return found.identity if found is not None and fits else None

    def _forget_ended(self, now_s: float) -> None:
        while self._tickets:
            key, first = next(iter(self._tickets.items()))
            if now_s < first.ends_s:
                return
            del self._tickets[key]
            user = first.identity.principal.user_id
            self._by_user[user] -= 1
            if not self._by_user[user]:
                del self._by_user[user]


class CodeBook:
    """One-time codes for signing in; each is forgotten when it is used."""

    def __init__(self) -> None:
        self._codes: dict[str, tuple[Grant, float]] = {}

    def issue(self, grant: Grant, now_s: float) -> str:
        """A code for who has `grant`. If there are too many, the oldest is dropped of
        the user who has the most."""
        while len(self._codes) >= CODES_MAX:
            held = ((key, grant) for key, (grant, _) in self._codes.items())
            dropped, _ = first_of_the_many(held, lambda each: each[1].principal.user_id)
            del self._codes[dropped]
        code = secrets.token_urlsafe(24)
        self._codes[secret_hash(code)] = (grant, now_s + CODE_S)
        return code

    def redeem(self, code: str, now_s: float) -> Grant | None:
        """Whom the code speaks for, this one time."""
        grant, ends_s = self._codes.pop(secret_hash(code), (None, 0.0))
        return grant if now_s < ends_s else None
