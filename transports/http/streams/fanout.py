"""Sends all readers what is new: one pass over them a flush, one joined write each.

A reader that keeps up costs no task switch and no encoding of its own: those at the same position
with the same view share their bytes. A reader that does not keep up is handed back to its own
handler, and no other reader waits for it.
"""

import asyncio
from collections import defaultdict

import msgspec

from bus.clock import Clock
from bus.feed import Batch, Feed, FellBehind, Frame
from bus.model import Principal
from transports.http.access.visibility import Visibility
from transports.http.settings import GatewaySettings
from transports.http.streams.encodings import SSE, Encoding
from transports.http.streams.filters import EVERYTHING, Filters
from transports.http.streams.metrics import StreamMetrics
from transports.http.streams.outlets import Outlet

FRAMES_A_WRITE = 2_000
NEWEST_BYTES_MAX = 512 * 1024
"""Frames kept as they were written for one reader, for the next one with another view."""
_SLICE_S = 0.005
"""How long a flush may hold the event loop before it lets others run."""

SHARES_BYTES_MAX = 4 * 1024 * 1024
"""Joined bytes that are kept for further readers of one view during a flush."""

_READERS_A_LOOK = 32
"""So many are written to between two looks at the clock."""

Share = tuple[bytes, int, int]
"""What all readers of one view at one position are sent: framed bytes, the position behind them,
and how many changes they hold."""


class View(msgspec.Struct, frozen=True):
    """What decides which bytes a reader gets: readers with equal views can share them."""

    principal: Principal
    filters: Filters
    encoding: Encoding
    chunked: bool


class Reader:
    """A stream's position in the feed. The fan-out moves it on while the stream is joined.

    A `deep` one that falls behind the ring goes on in the journal.
    """

    __slots__ = ("deep", "seq", "stream", "view")

    def __init__(self, stream: Outlet, view: View, seq: int) -> None:
        self.stream = stream
        self.view = view
        self.seq = seq
        self.deep = False


class Fanout:
    """`_joined` are the readers that `run` writes to, by view: their handlers `join` and `leave`,
    and `run` hands back those that do not keep up. `_watched` are outlets to be woken by changes of
    an execution, `_woken_to` is how far that was done. `_newest` are frames as they were last
    written, of `_newest_bytes` in all. Only the loop's thread, and no await in between.
    """

    def __init__(
        self,
        feed: Feed,
        clock: Clock,
        settings: GatewaySettings,
        visibility: Visibility,
        metrics: StreamMetrics,
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._settings = settings
        self._visibility = visibility
        self._joined: dict[View, dict[Reader, None]] = {}
        self._watched: defaultdict[str, set[Outlet]] = defaultdict(set)
        self._woken_to = feed.head
        self._metrics = metrics
        self._newest: dict[int, bytes] = {}
        self._newest_bytes = 0

    def join(self, reader: Reader) -> None:
        """From now on `run` writes to the reader's stream, until it leaves or cannot keep up."""
        self._joined.setdefault(reader.view, {})[reader] = None

    def leave(self, reader: Reader) -> None:
        """The stream is its handler's alone again."""
        readers = self._joined.get(reader.view)
        if readers is not None:
            readers.pop(reader, None)
            if not readers:
                del self._joined[reader.view]

    def watch(self, execution_id: str, stream: Outlet) -> None:
        """The stream is woken by each change of the execution."""
        self._watched[execution_id].add(stream)

    def unwatch(self, execution_id: str, stream: Outlet) -> None:
        self._watched[execution_id].discard(stream)
        if not self._watched[execution_id]:
            del self._watched[execution_id]

    def batch(self, reader: Reader) -> Batch:
        """What the reader is to be sent next.

        Raises:
            FellBehind: what it lacks is no longer held.
        """
        view, visibility = reader.view, self._visibility
        fit = view.filters.fit if view.filters != EVERYTHING else None
        # Grants cannot change in here, and a batch is mostly about few jobs and users.
        granted: dict[tuple[str | None, str | None], bool] = {}

        def wanted(frame: Frame) -> bool:
            if fit is not None and not fit(frame):
                return False
            about = frame.job_id, frame.user_id
            known = granted.get(about)
            if known is None:
                known = granted[about] = visibility.of_frame(view.principal, frame)
            return known

        return self._feed.after(reader.seq, FRAMES_A_WRITE, self._settings.write_max, wanted)

    def joined_bytes(self, batch: Batch, encoding: Encoding) -> bytes:
        if encoding.name != SSE.name:
            position = self._feed.position
            return b"".join([encoding.change(frame, position) for frame in batch.frames])
        return b"".join([self._sse_bytes(frame) for frame in batch.frames])

    def _sse_bytes(self, frame: Frame) -> bytes:
        """Readers with different views mostly want the same newest frames: those are kept as they
        were last written, up to a bound of their own."""
        known = self._newest.get(frame.seq)
        if known is not None:
            return known
        made = SSE.change(frame, self._feed.position)
        if self._newest_bytes > NEWEST_BYTES_MAX:
            self._newest.clear()
            self._newest_bytes = 0
        self._newest[frame.seq] = made
        self._newest_bytes += len(made)
        return made

    async def run(self) -> None:
        """Flushes for ever: the first change at once, then at most one flush each 2 ms, or as
        long as the last one took."""
        sent = self._feed.head
        while True:
            await self._feed.changed(sent)
            began_s = self._clock.monotonic_s()
            self._wake_watchers()
            sent = await self._flush()
            took_s = self._clock.monotonic_s() - began_s
            await asyncio.sleep(max(self._settings.flush_s_min, took_s))

    async def _flush(self) -> int:
        """Every joined reader was sent one batch; returns the lowest position among them."""
        loop = asyncio.get_running_loop()
        lowest = self._feed.head
        pause_at_s = loop.time() + _SLICE_S
        for readers in list(self._joined.values()):
            shares: dict[int, Share] = {}
            everybody = list(readers)
            for at in range(0, len(everybody), _READERS_A_LOOK):
                some = everybody[at : at + _READERS_A_LOOK]
                lowest = min(lowest, self._write_to(some, readers, shares))
                if sum(len(data) for data, _, _ in shares.values()) > SHARES_BYTES_MAX:
                    shares.clear()  # readers far apart: each position has bytes of its own
                if loop.time() > pause_at_s:
                    await asyncio.sleep(0)
                    pause_at_s = loop.time() + _SLICE_S
        return lowest

    def _write_to(
        self, some: list[Reader], joined: dict[Reader, None], shares: dict[int, Share]
    ) -> int:
        """One joined write to each that is still joined; the lowest position among them.

        `shares` holds what their view is sent, by position. Each line in the loop runs for every
        reader and event: what is the same for all stands outside.
        """
        head = lowest = self._feed.head
        now_s = self._clock.monotonic_s()
        writes: dict[int, int] = {}
        for reader in some:
            if reader not in joined:
                continue  # it left during a pause
            stream, seq = reader.stream, reader.seq
            # One with new rights has a view that does not know them: it would be led past what
            # it may see by now. Its handler, which is about to wake, gives it another.
            has_new_rights = stream.principal is not reader.view.principal
            if stream.ended is not None or not stream.has_room or has_new_rights:
                self._hand_back(reader)
                continue
            if seq >= head:
                continue
            share = shares.get(seq)
            if share is None:
                try:
                    share = shares[seq] = self._share(reader)
                except FellBehind:
                    self._hand_back(reader)
                    continue
            data, reader.seq, _ = share
            if data:
                writes[seq] = writes.get(seq, 0) + 1
                if not stream.put(data, now_s):
                    self._hand_back(reader)
                    continue
            if reader.seq < lowest:
                lowest = reader.seq
        for seq, readers in writes.items():
            data, _, count = shares[seq]
            name = some[0].view.encoding.name
            self._metrics.changes(name, count, len(data), behind=head - seq, readers=readers)
        return lowest

    def _share(self, reader: Reader) -> Share:
        batch = self.batch(reader)
        data = self.joined_bytes(batch, reader.view.encoding)
        return reader.stream.framed(data) if data else b"", batch.seq, len(batch.frames)

    def _hand_back(self, reader: Reader) -> None:
        self.leave(reader)
        reader.stream.wake.set()

    def _wake_watchers(self) -> None:
        """Wakes the streams that watch one execution."""
        since, self._woken_to = max(self._woken_to, self._feed.oldest), self._feed.head
        if not self._watched:
            return
        watched = self._watched
        batch = self._feed.after(
            since, FRAMES_A_WRITE * 10, 2**31, lambda frame: frame.execution_id in watched
        )
        for execution_id in {frame.execution_id for frame in batch.frames}:
            for stream in watched.get(execution_id or "", ()):
                stream.wake.set()
