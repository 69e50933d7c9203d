"""Pages of lists: cursors, limits, `asOf`."""

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec
from aiohttp import web

from bus.feed import Feed
from transports.http.web.answers import etag_of, json_response, matches
from transports.http.web.problems import bad_parameter

T = TypeVar("T")

SCAN_MAX = 20_000
"""Records one request looks at before it answers with what it found and where to go on."""


class Place(msgspec.Struct, frozen=True):
    """Where a record stands in a newest-first list."""

    at_ms: int
    id: str


class Cursor:
    """A place as pages name it: no client can read from it which record that is, nor make a cursor
    for an id to find out whether there is such a record."""

    __slots__ = ("_key", "_mark", "at_ms")

    def __init__(self, key: bytes, at_ms: int, mark: str) -> None:
        self._key = key
        self._mark = mark
        self.at_ms = at_ms

    def names(self, place: Place) -> bool:
        return place.at_ms == self.at_ms and _mark(self._key, place) == self._mark


class Cursors:
    """Of one instance, whose `secret` keeps them readable for itself alone."""

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"cursors").digest()

    def text(self, place: Place) -> str:
        raw = f"{place.at_ms}.{_mark(self._key, place)}".encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def parse(self, text: str | None) -> Cursor | None:
        """The cursor an earlier page gave, or None for the first page.

        Raises:
            Problem: 400; this was never given.
        """
        if text is None:
            return None
        try:
            raw = base64.urlsafe_b64decode(text[:200] + "=" * (-len(text[:200]) % 4))
            at_ms, _, mark = raw.decode("ascii").partition(".")
            return Cursor(self._key, int(at_ms), mark)
        except ValueError as exc:
            raise bad_parameter("cursor", "use `next` of an earlier page as it is") from exc


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some records, newest first, and the place of the rest, if there may be more."""

    items: list[T]
    next: Place | None

    @classmethod
    def of(
        cls,
        records: Iterable[T],
        wanted: Callable[[T], bool],
        *,
        key: Callable[[T], Place],
        after: Cursor | None,
        limit: int,
    ) -> "Page[T]":
        """The next `limit` wanted ones after the cursor; fewer if `SCAN_MAX` did not hold more.

        There is a next page if there is another wanted one: that others exist is not revealed.
        """
        items: list[T] = []
        last: Place | None = None
        for scanned, record in enumerate(_after(records, key, after)):
            if scanned == SCAN_MAX:
                return cls(items, last)
            if wanted(record):
                if len(items) == limit:
                    return cls(items, key(items[-1]))
                items.append(record)
            last = key(record)
        return cls(items, None)


def page_response(
    request: web.Request,
    items: list[object] | list[dict[str, object]],
    following: str | None,
    feed: Feed,
) -> web.Response:
    """One page; its ETag is of the items alone, since `asOf` moves with every change."""
    tag = etag_of({"items": items, "next": following})
    as_of = feed.position(feed.head)
    if matches(request, tag):
        return web.Response(status=304, headers={"ETag": tag})
    headers = {"ETag": tag}
    if following is not None:
        url = request.rel_url.update_query(cursor=following)
        headers["Link"] = f'<{url}>; rel="next"'
    return json_response({"items": items, "next": following, "asOf": as_of}, headers=headers)


def _mark(key: bytes, place: Place) -> str:
    return hashlib.blake2b(place.id.encode(), digest_size=12, key=key).hexdigest()


def _after(records: Iterable[T], key: Callable[[T], Place], after: Cursor | None) -> Iterable[T]:
    """The records after the cursor: behind its record, or by its time if that is gone."""
    if after is None:
        yield from records
        return
    held = iter(records)
    older: list[T] = []
    for record in held:
        place = key(record)
        if after.names(place):
            yield from held
            return
        if place.at_ms < after.at_ms and len(older) <= SCAN_MAX:
            older.append(record)
    yield from older
