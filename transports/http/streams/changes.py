"""Changes: any outlet is sent what it may see, from its cursor or a snapshot on."""

import msgspec

from bus.feed import Batch, FellBehind, Frame, ResetReason
from bus.model import Principal
from transports.http.access.visibility import Visibility
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.streams.encodings import NDJSON, Encoding
from transports.http.streams.fanout import FRAMES_A_WRITE, Fanout, Reader, View
from transports.http.streams.filters import Filters
from transports.http.streams.outlets import Outlet
from transports.http.streams.reader_frames import Framing
from transports.http.streams.snapshot import Snapshots
from transports.http.web.problems import Problem


class Changes:
    """One for all readers; what is a reader's own is in its `Reader`."""

    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        visibility: Visibility,
        fanout: Fanout,
        framing: Framing,
    ) -> None:
        self._ports = ports
        self._feed = ports.feed
        self._framing = framing
        self._settings = settings
        self._visibility = visibility
        self._fanout = fanout
        self._snapshots = Snapshots(ports, settings, visibility, framing)

    async def follow(self, stream: Outlet, filters: Filters, cursor: str | None, start: str) -> str:
        """The stream has ended, or its reader left; the position is where it would go on.

        Raises:
            Problem: 410; the cursor cannot be served and the encoding has no resets.
        """
        try:
            reader = await self._started(stream, filters, cursor, start)
        except ConnectionError:
            return self._feed.position(self._feed.head)  # it left before it was sent anything
        try:
            while stream.ended is None:
                await self._serve_until_woken(reader)
        except ConnectionError:
            pass  # it left or was cut off; `stream.ended` says which
        finally:
            self._fanout.leave(reader)
        return self._feed.position(reader.seq)

    async def _started(
        self, stream: Outlet, filters: Filters, cursor: str | None, start: str
    ) -> Reader:
        """The reader was sent its beginning. The snapshot, which may be large, is let go of."""
        oldest = await self._ports.history.oldest() if start == "earliest" else 0
        async with stream.turn():
            reader, frames = self._begin(stream, filters, cursor, start, oldest)
            await stream.open(frames[0])
            await self._send_all(stream, frames[1:])
        return reader

    def _begin(
        self, stream: Outlet, filters: Filters, cursor: str | None, start: str, oldest: int
    ) -> tuple[Reader, list[bytes]]:
        """Where the reader begins and what it is sent first: one step, so nothing falls between.

        `oldest` is what the journal holds from.
        """
        oldest = min(oldest, self._feed.oldest)
        view = View(stream.principal, filters, stream.encoding, stream.chunked)
        reader = Reader(stream, view, self._feed.head)
        encoding = stream.encoding
        reader.deep = start == "earliest"
        if cursor is None:
            hello = self._hello(stream, resumed=False)
            if start == "earliest":
                reader.seq = oldest
                return reader, [hello]
            if start == "now":
                bookmark = self._bookmark(encoding, reader.seq)
                return reader, [hello + bookmark]
            return reader, [hello, *self._snapshots.take(stream.principal, filters, encoding)]
        resumed = self._resumed(reader, cursor, oldest)
        if isinstance(resumed, ResetReason):
            if encoding is NDJSON:
                raise self.gone(resumed, oldest if reader.deep else None)
            hello = self._hello(stream, resumed=False)
            return reader, [hello, *self._reset(reader, resumed)]
        reader.seq = resumed
        return reader, [self._hello(stream, resumed=True)]

    def _resumed(self, reader: Reader, cursor: str, oldest: int) -> int | ResetReason:
        """Where a reader with this cursor goes on. One that reads the journal is never too far
        behind, only beyond what is kept."""
        if not reader.deep:
            return self._feed.resume(cursor, lambda frame: self.wanted(frame, reader.view))
        seq = self._feed.number_of(cursor)
        if isinstance(seq, int) and seq < oldest:
            return ResetReason.HISTORY_GONE
        return seq

    async def _serve_until_woken(self, reader: Reader) -> None:
        """The reader was brought to the head, then fed by the fan-out until something is up."""
        stream = reader.stream
        if stream.principal is not reader.view.principal:
            old = reader.view
            reader.view = View(stream.principal, old.filters, old.encoding, old.chunked)
        await self._catch_up(reader)
        if stream.is_quiet:
            await stream.send(self._bookmark(stream.encoding, reader.seq))
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
            async with stream.turn():
                if await self._is_at_head(reader):
                    return

    async def _is_at_head(self, reader: Reader) -> bool:
        """Whether there is nothing to send; else the reader was sent one batch."""
        try:
            batch = self._fanout.batch(reader)
        except FellBehind:
            await self._send_what_the_ring_lacks(reader)
            return False
        await self._send_batch(reader, batch)
        return not batch.frames

    async def _send_batch(self, reader: Reader, batch: Batch) -> None:
        behind, reader.seq = self._feed.head - reader.seq, batch.seq
        if batch.frames:
            encoding = reader.stream.encoding
            data = self._fanout.joined_bytes(batch, encoding)
            self._framing.metrics.changes(
                encoding.name, len(batch.frames), len(data), behind=behind
            )
            await reader.stream.send(data)

    async def _send_what_the_ring_lacks(self, reader: Reader) -> None:
        """A piece of the journal, for those who read it; else a new beginning."""
        stream = reader.stream
        batch = await self._past(reader) if reader.deep else None
        if batch is None:
            await self._send_all(stream, self._reset(reader, ResetReason.HISTORY_GONE))
            return
        await self._send_batch(reader, batch)
        if not batch.frames and stream.is_quiet:
            await stream.send(self._bookmark(stream.encoding, batch.seq))

    async def _past(self, reader: Reader) -> Batch | None:
        """Changes up to where the ring begins; None if the journal does not go back so far."""

        def wanted(frame: Frame) -> bool:
            principal = reader.stream.principal
            return reader.view.filters.fit(frame) and self._visibility.of_frame(principal, frame)

        limit, size_max = FRAMES_A_WRITE, self._settings.write_max
        try:
            return await self._ports.history.after(
                reader.seq, self._feed.oldest, limit, size_max, wanted
            )
        except FellBehind:
            return None

    def _reset(self, reader: Reader, reason: ResetReason) -> list[bytes]:
        """The frames after which the reader begins again at the head."""
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
        return [self._framing.reset(encoding, reason.value, data), *snapshot]

    async def _send_all(self, stream: Outlet, frames: list[bytes]) -> None:
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

    def _hello(self, stream: Outlet, *, resumed: bool) -> bytes:
        data = hello_data(self._ports, self._settings, stream.principal, resumed=resumed)
        return self._framing.hello(stream.encoding, data, resumed=resumed)

    def _bookmark(self, encoding: Encoding, seq: int) -> bytes:
        return self._framing.frame(encoding, "bookmark", b"{}", id=self._feed.position(seq))

    def wanted(self, frame: Frame, view: View) -> bool:
        return view.filters.fit(frame) and self._visibility.of_frame(view.principal, frame)

    def gone(self, reason: ResetReason, oldest_held: int | None = None) -> Problem:
        """410; `oldest_held` is where the journal begins, for those who read it."""
        oldest = self._feed.position(self._feed.oldest if oldest_held is None else oldest_held)
        head = self._feed.position(self._feed.head)
        return Problem(
            410,
            "cursor-gone",
            "changes after this position are not all held; read the state again and go on from "
            "its asOf",
            extra={"reason": reason.value, "oldest": oldest, "head": head},
        )


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
            "version": settings.version_shown,
            "user": principal.user_id,
        }
    )
