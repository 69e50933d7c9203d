"""`/events`: all changes one may see, as a stream (SSE, NDJSON) or as pages of JSON."""

import msgspec
from aiohttp import web

from bus.feed import FellBehind, Frame, ResetReason
from bus.model import Principal
from transports.http.accept import preferred_type
from transports.http.auth import principal_of
from transports.http.encodings import NDJSON, SSE, Encoding
from transports.http.fanout import Fanout, Reader, View
from transports.http.filters import NAMES, Filters
from transports.http.problems import Problem, bad_parameter
from transports.http.publishing import json_response
from transports.http.query import Query
from transports.http.settings import GatewayPorts, GatewaySettings
from transports.http.snapshot import Snapshots
from transports.http.stream_registry import StreamRegistry
from transports.http.streams import Stream
from transports.http.visibility import Visibility

JSON_TYPE = "application/json"
_ENCODINGS: dict[str, Encoding] = {SSE.content_type: SSE, NDJSON.content_type: NDJSON}
_PAGE_BYTES = 1024 * 1024


class EventRoutes:
    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        visibility: Visibility,
        registry: StreamRegistry,
        fanout: Fanout,
    ) -> None:
        self._ports = ports
        self._feed = ports.feed
        self._settings = settings
        self._visibility = visibility
        self._registry = registry
        self._fanout = fanout
        self._snapshots = Snapshots(ports.table, ports.feed, ports.clock, settings, visibility)

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/v1/events", self.show)]

    async def show(self, request: web.Request) -> web.StreamResponse:
        query = Query(request, (*NAMES, "last_event_id", "start", "limit"))
        filters = Filters.of(query)
        cursor = cursor_of(request, query)
        kind = preferred_type(request, (*_ENCODINGS, JSON_TYPE))
        if kind == JSON_TYPE:
            return self._page(request, query, filters, cursor)
        if query.text("limit") is not None:
            raise bad_parameter("limit", "is for pages; a stream has none")
        start = query.choice("start", ("snapshot", "now", "earliest"), "snapshot")
        if start == "earliest":
            raise bad_parameter("start", "earliest is not served yet; use snapshot or now")
        if request.method == "HEAD":
            return web.Response(headers={"Content-Type": kind})
        principal = principal_of(request)
        self._registry.admit(principal)
        stream = Stream(request, _ENCODINGS[kind], self._ports.clock, self._settings)
        self._registry.add(stream)
        try:
            return await self._follow(stream, filters, cursor, start)
        finally:
            self._registry.remove(stream)

    async def _follow(
        self, stream: Stream, filters: Filters, cursor: str | None, start: str
    ) -> web.StreamResponse:
        reader, frames = self._begin(stream, filters, cursor, start)
        try:
            await stream.open(frames[0])
            await self._send_all(stream, frames[1:])
            while stream.ended is None:
                await self._serve_until_woken(reader)
        except ConnectionError:
            pass  # it left or was cut off; `stream.ended` says which, and `close` does the rest
        finally:
            self._fanout.leave(reader)
        return await stream.close(self._feed.position(reader.seq))

    def _begin(
        self, stream: Stream, filters: Filters, cursor: str | None, start: str
    ) -> tuple[Reader, list[bytes]]:
        """Where the reader begins and what it is told first: one step, so nothing falls between."""
        view = View(stream.principal, filters, stream.encoding, stream.chunked)
        reader = Reader(stream, view, self._feed.head)
        encoding = stream.encoding
        if cursor is None:
            hello = self._hello(stream, resumed=False)
            if start == "now":
                bookmark = encoding.frame("bookmark", b"{}", id=self._feed.position(reader.seq))
                return reader, [hello + bookmark]
            return reader, [hello, *self._snapshots.take(stream.principal, filters, encoding)]
        resumed = self._feed.resume(cursor, lambda frame: self._wanted(frame, view))
        if isinstance(resumed, ResetReason):
            if encoding is NDJSON:
                raise self._gone(resumed)
            hello = self._hello(stream, resumed=False)
            return reader, [hello, *self._reset(reader, resumed)]
        reader.seq = resumed
        return reader, [self._hello(stream, resumed=True)]

    async def _serve_until_woken(self, reader: Reader) -> None:
        """The reader was brought to the head, then fed by the fan-out until something is up."""
        stream = reader.stream
        if stream.principal is not reader.view.principal:
            old = reader.view
            reader.view = View(stream.principal, old.filters, old.encoding, old.chunked)
        await self._catch_up(reader)
        if stream.is_quiet:
            position = self._feed.position(reader.seq)
            await stream.send(stream.encoding.frame("bookmark", b"{}", id=position))
            return
        if stream.ended is None:
            self._fanout.join(reader)
            await stream.wake.wait()
            self._fanout.leave(reader)
        stream.wake.clear()
        if stream.ended is None:
            await stream.drained()

    async def _catch_up(self, reader: Reader) -> None:
        """The reader knows all up to the head; no await lies between the last look and return."""
        stream = reader.stream
        while stream.ended is None:
            try:
                batch = self._fanout.batch(reader)
            except FellBehind:
                frames = self._reset(reader, ResetReason.HISTORY_GONE)
                await self._send_all(stream, frames)
                continue
            reader.seq = batch.seq
            if not batch.frames:
                return
            await stream.send(self._fanout.joined_bytes(batch, stream.encoding))

    def _reset(self, reader: Reader, reason: ResetReason) -> list[bytes]:
        """The frames that start the reader anew at the head."""
        reader.seq = self._feed.head
        data = msgspec.json.encode(
            {
                "reason": reason.value,
                "oldest": self._feed.position(self._feed.oldest),
                "head": self._feed.position(self._feed.head),
            }
        )
        encoding, view = reader.stream.encoding, reader.view
        snapshot = self._snapshots.take(view.principal, view.filters, encoding)
        return [encoding.frame("reset", data), *snapshot]

    async def _send_all(self, stream: Stream, frames: list[bytes]) -> None:
        """All frames, joined up to the size of one write."""
        waiting: list[bytes] = []
        size = 0
        for frame in frames:
            if waiting and size + len(frame) > self._settings.write_max:
                await stream.send(b"".join(waiting))
                waiting, size = [], 0
            waiting.append(frame)
            size += len(frame)
        if waiting:
            await stream.send(b"".join(waiting))

    def _hello(self, stream: Stream, *, resumed: bool) -> bytes:
        return stream.encoding.frame(
            "hello", hello_data(self._ports, self._settings, stream.principal, resumed=resumed)
        )

    def _wanted(self, frame: Frame, view: View) -> bool:
        return view.filters.fit(frame) and self._visibility.of_frame(view.principal, frame)

    def _page(
        self, request: web.Request, query: Query, filters: Filters, cursor: str | None
    ) -> web.Response:
        """Changes after the cursor, or from the oldest held; `next` is where to go on, always."""
        start = query.choice("start", ("now", "earliest"), "earliest")
        limit = query.number("limit", low=1, high=500) or 100
        view = View(principal_of(request), filters, NDJSON, chunked=True)
        seq = self._feed.head if start == "now" else self._feed.oldest
        if cursor is not None:
            resumed = self._feed.resume(cursor, lambda _: False)
            if isinstance(resumed, ResetReason):
                raise self._gone(resumed)
            seq = resumed
        batch = self._feed.after(seq, limit, _PAGE_BYTES, lambda frame: self._wanted(frame, view))
        return json_response(
            {
                "items": [msgspec.Raw(frame.data) for frame in batch.frames],
                "next": self._feed.position(batch.seq),
                "asOf": self._feed.position(self._feed.head),
            }
        )

    def _gone(self, reason: ResetReason) -> Problem:
        oldest = self._feed.position(self._feed.oldest)
        head = self._feed.position(self._feed.head)
        return Problem(
            410,
            "cursor-gone",
            "changes after this position are not all held; read the state anew and go on from "
            "its asOf",
            extra={"reason": reason.value, "oldest": oldest, "head": head},
        )


def cursor_of(request: web.Request, query: Query) -> str | None:
    """Where the reader was. The header wins: a browser reconnects with its first, old query."""
    return request.headers.get("Last-Event-ID") or query.text("last_event_id") or None


def hello_data(
    ports: GatewayPorts, settings: GatewaySettings, principal: Principal, *, resumed: bool
) -> bytes:
    """The first frame of every stream: what it is and what to expect of it."""
    feed = ports.feed
    return msgspec.json.encode(
        {
            "epoch": feed.epoch,
            "head": feed.position(feed.head),
            "oldest": feed.position(feed.oldest),
            "resumed": resumed,
            "heartbeatS": settings.heartbeat_s,
            "maxAgeS": settings.age_s,
            "version": settings.version,
            "user": principal.user_id,
        }
    )
