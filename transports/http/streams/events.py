"""`/events`: all changes one may see, as a stream (SSE, NDJSON) or as pages of JSON."""

from enum import StrEnum
from typing import Any, Literal

import msgspec
from aiohttp import web

from bus.feed import Batch, FellBehind, Frame, ResetReason
from transports.http.access.caller import principal_of
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.streams import encodings
from transports.http.streams.changes import Changes
from transports.http.streams.encodings import Encoding
from transports.http.streams.fanout import View
from transports.http.streams.filters import EventType, EventTypeFilter, Filters
from transports.http.streams.reader_frames import Framing
from transports.http.streams.registry import StreamRegistry
from transports.http.streams.streams import Stream
from transports.http.web.accept import preferred_type
from transports.http.web.answers import json_response
from transports.http.web.operation import JSON, NDJSON, SSE, STREAM, Operation, Parameter
from transports.http.web.parameters import JOB, POSITION, USER, PageSize, Time, Uuid, Uuids, several
from transports.http.web.problems import bad_parameter
from transports.http.web.query import Query

_ENCODINGS: dict[str, Encoding] = {SSE: encodings.SSE, NDJSON: encodings.NDJSON}
_PAGE_BYTES = 1024 * 1024


class StreamStart(StrEnum):
    SNAPSHOT = "snapshot"
    NOW = "now"
    EARLIEST = "earliest"


class EventRoutes:
    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        registry: StreamRegistry,
        changes: Changes,
        framing: Framing,
    ) -> None:
        self._ports = ports
        self._feed = ports.feed
        self._settings = settings
        self._registry = registry
        self._changes = changes
        self._framing = framing

    async def show(self, request: web.Request) -> web.StreamResponse:
        query = Query(request)
        filters = Filters.of(query)
        cursor = cursor_of(request, query)
        kind = preferred_type(request, (*_ENCODINGS, JSON))
        if kind == JSON:
            return await self._page(request, query, filters, cursor)
        if query.text("limit") is not None:
            raise bad_parameter("limit", "is for pages; a stream has none")
        start = query.choice("start", tuple(StreamStart), StreamStart.SNAPSHOT)
        if request.method == "HEAD":
            return web.Response(headers={"Content-Type": kind})
        principal = principal_of(request)
        self._registry.admit(principal)
        stream = Stream(request, _ENCODINGS[kind], self._framing, self._ports.clock, self._settings)
        self._registry.add(stream)
        try:
            return await stream.close(await self._changes.follow(stream, filters, cursor, start))
        finally:
            self._registry.remove(stream)

    async def _page(
        self, request: web.Request, query: Query, filters: Filters, cursor: str | None
    ) -> web.Response:
        """Changes after the cursor, or from the oldest kept; `next` is where to go on, always."""
        start = query.choice("start", ("now", "earliest"), "earliest")
        limit = query.number("limit", low=1, high=500) or 100
        oldest = min(await self._ports.history.oldest(), self._feed.oldest)
        seq = self._feed.head if start == "now" else oldest
        if cursor is not None:
            known = self._feed.number_of(cursor)
            if isinstance(known, ResetReason):
                raise self._changes.gone(known, oldest)
            seq = known
        batch = await self._batch(
            seq, limit, View(principal_of(request), filters, encodings.NDJSON, True)
        )
        return json_response(
            {
                "items": [msgspec.Raw(frame.data) for frame in batch.frames],
                "next": self._feed.position(batch.seq),
                "asOf": self._feed.position(self._feed.head),
            }
        )

    async def _batch(self, seq: int, limit: int, view: View) -> Batch:
        """From the ring if it goes back so far, else from the journal; then it may be less than
        `limit` although there is more.

        Raises:
            Problem: 410; neither goes back so far.
        """

        def wanted(frame: Frame) -> bool:
            return self._changes.wanted(frame, view)

        try:
            return self._feed.after(seq, limit, _PAGE_BYTES, wanted)
        except FellBehind:
            pass  # the journal goes back further
        try:
            return await self._ports.history.after(
                seq, self._feed.oldest, limit, _PAGE_BYTES, wanted
            )
        except FellBehind as exc:
            oldest = min(await self._ports.history.oldest(), self._feed.oldest)
            raise self._changes.gone(ResetReason.HISTORY_GONE, oldest) from exc


def cursor_of(request: web.Request, query: Query) -> str | None:
    """Where the reader was. The header wins: a browser reconnects with its first, old query."""
    return request.headers.get("Last-Event-ID") or query.position() or None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A change: a CloudEvent 1.0; `data` is the record as it was then."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: EventType
    subject: str
    time: Time
    datacontenttype: str
    data: dict[str, Any]
    job: str | None = None
    execution: Uuid | None = None
    user: str | None = None
    traceparent: str | None = None
    version: int = 0


class EventPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[Event, ...]
    next: str
    as_of: str


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/events",
        id="listEvents",
        handler=EventRoutes.show,
        summary="All changes that you may see: a stream, or a page of JSON",
        stays_open=True,
        parameters=(
            JOB,
            Parameter(name="execution", about="Executions; any will do.", type=Uuids),
            USER,
            Parameter(
                name="type",
                about="Types of changes, or a family such as `execution.*`.",
                type=several(EventTypeFilter),
            ),
            Parameter(
                name="start",
                about="Where to begin without a position; pages know no snapshot.",
                type=StreamStart,
            ),
            Parameter(name="limit", about="Items a page; pages only.", type=PageSize),
            *POSITION,
        ),
        answers={200: ((SSE, None), (NDJSON, None), (JSON, EventPage))},
        refuses=STREAM | {410},
    ),
)
