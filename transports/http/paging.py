"""Pages and conditional answers: cursors, limits, `asOf`, ETags."""

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec
from aiohttp import web

from bus.feed import Feed
from transports.http.problems import bad_parameter
from transports.http.publishing import json_response

T = TypeVar("T")

SCAN_MAX = 20_000
"""Records one request looks at before it answers with what it found and where to go on."""


class Cursor(msgspec.Struct, frozen=True):
    """The place of a record in a newest-first list."""

    at_ms: int
    id: str

    def __str__(self) -> str:
        raw = f"{self.at_ms}.{self.id}".encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str | None) -> "Cursor | None":
        """The cursor an earlier page gave, or None for the first page.

        Raises:
            Problem: 400; this was never given.
        """
        if text is None:
            return None
        try:
            raw = base64.urlsafe_b64decode(text[:200] + "=" * (-len(text[:200]) % 4))
            at_ms, _, record_id = raw.decode("ascii").partition(".")
            return cls(int(at_ms), record_id)
        except ValueError as exc:
            raise bad_parameter("cursor", "use `next` of an earlier page as it is") from exc


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some records, newest first, and the cursor of the rest, if there may be more."""

    items: list[T]
    next: Cursor | None

    @classmethod
    def of(
        cls,
        records: Iterable[T],
        wanted: Callable[[T], bool],
        *,
        key: Callable[[T], Cursor],
        after: Cursor | None,
        limit: int,
    ) -> "Page[T]":
        """The next `limit` wanted ones after the cursor; fewer if `SCAN_MAX` did not hold more.

        There is a next page if there is another wanted one: that others exist is not told.
        """
        items: list[T] = []
        last: Cursor | None = None
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
    after: Cursor | None,
    feed: Feed,
) -> web.Response:
    """One page; its ETag is of the items alone, since `asOf` moves with every change."""
    following = str(after) if after is not None else None
    tag = etag_of({"items": items, "next": following})
    as_of = feed.position(feed.head)
    if matches(request, tag):
        return web.Response(status=304, headers={"ETag": tag})
    headers = {"ETag": tag}
    if following is not None:
        url = request.rel_url.update_query(cursor=following)
        headers["Link"] = f'<{url}>; rel="next"'
    return json_response({"items": items, "next": following, "asOf": as_of}, headers=headers)


def conditional(request: web.Request, body: object) -> web.Response:
    """`body` with its ETag, or 304 if the caller has it."""
    raw = msgspec.json.encode(body)
    tag = _tag(raw)
    if matches(request, tag):
        return web.Response(status=304, headers={"ETag": tag})
    return web.Response(body=raw, content_type="application/json", headers={"ETag": tag})


def etag_of(body: object) -> str:
    return _tag(msgspec.json.encode(body))


def matches(request: web.Request, tag: str) -> bool:
    """Whether `If-None-Match` names `tag` (RFC 9110 §13.1.2, weak comparison)."""
    header = ",".join(request.headers.getall("If-None-Match", []))
    given = {part.strip().removeprefix("W/") for part in header.split(",")}
    return tag in given or "*" in given


def _tag(raw: bytes) -> str:
    return f'"{hashlib.blake2b(raw, digest_size=12).hexdigest()}"'


def _after(records: Iterable[T], key: Callable[[T], Cursor], after: Cursor | None) -> Iterable[T]:
    """The records after the cursor: by its id, or by its time if its record is gone."""
    if after is None:
        yield from records
        return
    held = iter(records)
    older: list[T] = []
    for record in held:
        place = key(record)
        if place.id == after.id:
            yield from held
            return
        if place.at_ms < after.at_ms and len(older) <= SCAN_MAX:
            older.append(record)
    yield from older
