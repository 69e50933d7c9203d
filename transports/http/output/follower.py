"""One reader of one execution: the changes from the feed, the lines of the output, in order."""

import asyncio
import re

import msgspec
import structlog

from bus.access import Action
from bus.errors import BusError
from bus.events import ExecutionEnded
from bus.feed import FellBehind, Frame, ResetReason
from bus.model import Execution
from bus.ports import OutputPage
from transports.http.access.visibility import Visibility
from transports.http.output.lines import gap_data
from transports.http.output.open_lines import OpenLines
from transports.http.output.shared import SharedOutput, SharedPage, Tail
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.streams.changes import hello_data
from transports.http.streams.outlets import End, Outlet
from transports.http.streams.reader_frames import Framing
from transports.http.streams.snapshot import items_of, record_json
from transports.http.web.problems import Problem, problem_body

_CURSOR = re.compile(r"([a-z0-9]{6,16})-(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})\Z")
_KEEPS_OFFSET = frozenset({ResetReason.HISTORY_GONE, ResetReason.GAP_TOO_LARGE})
"""Losses that say nothing against the offset: the bytes of the output are still the same."""

_FAMILY = "execution."
_ENDED = ExecutionEnded.__struct_config__.tag
_FRAMES_A_LOOK = 500
_PAGES_A_ROUND = 32
"""Pages of a live output that are sent before changes are looked for again."""

log = structlog.get_logger("jobbus.streams")


class Place(msgspec.Struct, frozen=True):
    """How far a reader is: it knows the changes up to `seq` and the output up to `offset`."""

    seq: int
    offset: int


def parse_cursor(cursor: str, epoch: str) -> Place | ResetReason:
    """The place of an id that this epoch gave, or why it is none."""
    match = _CURSOR.match(cursor)
    if match is None:
        return ResetReason.CURSOR_INVALID
    if match[1] != epoch:
        return ResetReason.EPOCH_CHANGED
    return Place(int(match[2]), int(match[3]))


class Follower:
    """The output comes first: the final change is sent after the last byte, never before.

    `_seq` and `_offset` are how far the reader is in changes and output; only the task in `run`
    moves them, with each frame that it sends. `_tail` is set while it follows, `_timer` while open
    lines wait for their moment.
    """

    def __init__(
        self,
        execution_id: str,
        stream: Outlet,
        ports: GatewayPorts,
        settings: GatewaySettings,
        visibility: Visibility,
        tails: SharedOutput,
        framing: Framing,
    ) -> None:
        self._id = execution_id
        self._stream = stream
        self._encoding = stream.encoding
        self._ports = ports
        self._feed = ports.feed
        self._settings = settings
        self._visibility = visibility
        self._tails = tails
        self._framing = framing
        self._latest = False
        self._tail: Tail | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._open_lines = OpenLines(settings.partial_s)
        self._seq = 0
        self._offset = 0

    async def run(self, cursor: str | None, start: int, *, latest: bool = False) -> str:
        """The reader was sent everything up to the end, or the stream ended before: then the
        position is where it goes on. With `latest`, a slow reader is sent a gap instead."""
        self._latest = latest
        try:
            async with self._stream.turn():
                await self._stream.open(self._begin(cursor, start))
            await self._follow()
        except ConnectionError:
            pass  # it left or was cut off; `ended` says which
        except (BusError, OSError) as error:
            await self._fail(error)
        return self._position()

    async def _follow(self) -> None:
        self._tail = self._tails.join(self._id, self._stream.wake)
        try:
            while self._stream.ended is None:
                await self._send_news()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._tails.leave(self._id, self._stream.wake)

    def _begin(self, cursor: str | None, start: int) -> bytes:
        """The first frames, and the place they leave the reader at: one synchronous step."""
        self._offset = start
        if cursor is None:
            return self._hello(resumed=False) + self._snapshot()
        place = parse_cursor(cursor, self._feed.epoch)
        if isinstance(place, Place):
            seq = self._feed.resume(self._feed.position(place.seq), self._is_ours)
            if not isinstance(seq, ResetReason):
                self._seq, self._offset = seq, place.offset
                return self._hello(resumed=True)
            if seq in _KEEPS_OFFSET:
                self._offset = place.offset
            place = seq
        return self._hello(resumed=False) + self._reset(place)

    async def _send_news(self) -> None:
        """One round: sends what is new; if there was nothing, waits for something."""
        stream = self._stream
        stream.wake.clear()
        execution = self._ports.table.execution(self._id)
        if execution is None:
            stream.finish(End.TERMINAL)
        elif not self._allowed(execution):
            stream.finish(End.REVOKED)
        elif await self._send_changes_and_output(execution):
            return
        elif execution.is_final and self._seq >= execution.version:
            stream.finish(End.TERMINAL)
        elif stream.is_quiet:
            await stream.send(self._frame("bookmark", b"{}", id=self._position()))
        else:
            await stream.wake.wait()

    async def _send_changes_and_output(self, execution: Execution) -> bool:
        """Sends what there is; returns whether there was anything."""
        limit, size_max = _FRAMES_A_LOOK, self._settings.write_max
        try:
            batch = self._feed.after(self._seq, limit, size_max, self._is_ours)
        except FellBehind:
            await self._stream.send(self._reset(ResetReason.HISTORY_GONE))
            return True
        await self._send_changes([frame for frame in batch.frames if frame.type != _ENDED])
        ended = [frame for frame in batch.frames if frame.type == _ENDED]
        self._seq = ended[0].seq - 1 if ended else batch.seq
        any_output, at_end = await self._send_output(execution.is_final)
        if ended and self._stream.ended is None:
            await self._send_changes(ended)
            self._seq = batch.seq
        elif any_output and at_end:
            # The next bytes may gather: a job that prints much costs few frames.
            await asyncio.sleep(self._settings.output_batch_s)
        return any_output or not at_end or bool(batch.frames)

    async def _send_changes(self, frames: list[Frame]) -> None:
        if frames:
            # Without ids: only the offsets of the output are places to come back to.
            async with self._stream.turn():
                data = b"".join(self._frame("change", frame.data) for frame in frames)
                await self._stream.send(data)

    async def _send_output(self, is_final: bool) -> tuple[bool, bool]:
        """The lines that are there now, page by page; returns whether anything was sent, and
        whether that was all. What grows faster than it is sent has no end as long as it is live.
        """
        any_sent = at_end = False
        pages = 0
        while self._stream.ended is None and not at_end and (is_final or pages < _PAGES_A_ROUND):
            pages += 1
            if not self._may_still():
                self._stream.finish(End.REVOKED)
                break
            async with self._stream.turn():
                sent, at_end = await self._send_page(is_final)
            any_sent |= sent
        return any_sent, at_end

    async def _send_page(self, is_final: bool) -> tuple[bool, bool]:
        """One page; returns whether anything was sent, and whether this was the last for now."""
        assert self._tail is not None, "the output is read while it is followed"
        shared = await self._tail.page(self._offset, self._settings.write_max, is_final=is_final)
        page = shared.page
        if self._latest and page.end - page.next > self._settings.latest_behind:
            await self._skip(page.end, is_final)
            return True, False
        if page.gap is not None:
            await self._send_gap(page.gap, page)
        any_sent = await self._send_lines(shared)
        moved, self._offset = page.next > self._offset, page.next
        return any_sent, not moved or page.next >= page.end

    def _may_still(self) -> bool:
        """Whether the reader may go on: a long output is sent for longer than a grant may last."""
        execution = self._ports.table.execution(self._id)
        return execution is None or self._allowed(execution)

    async def _send_lines(self, shared: SharedPage) -> bool:
        """Whole lines at once; open ones when they have stood for a moment, and once each state."""
        page = shared.page
        if shared.settled:
            self._open_lines.settled()
        partial = self._open_lines.due(page, self._clock_s())
        if not (shared.settled or partial):
            self._wake_later()
            return False
        data = shared.data(partial=partial)
        frame = self._frame("output", data, id=self._place(page.next))
        await self._stream.send(frame)
        self._wake_later()
        return True

    async def _skip(self, end: int, is_final: bool) -> None:
        """A reader of the latest that is too far behind goes on near the end, at a whole line."""
        assert self._tail is not None
        start = end - self._settings.latest_keep
        page = (await self._tail.page(start, self._settings.write_max, is_final=is_final)).page
        first = next((line for line in page.lines if not line.continued), None)
        to = first.at if first is not None else page.next
        number = first.number if first is not None else None
        data = gap_data((self._offset, to), number)
        self._offset = to
        await self._stream.send(self._frame("gap", data, id=self._position()))

    async def _send_gap(self, gap: tuple[int, int], page: OutputPage) -> None:
        self._offset = gap[1]
        data = gap_data(gap, page.lines[0].number if page.lines else None)
        await self._stream.send(self._frame("gap", data, id=self._position()))

    def _wake_later(self) -> None:
        """Open lines that wait for their moment wake the handler then."""
        if self._open_lines.due_s is not None and self._timer is None:
            wait_s = max(self._open_lines.due_s - self._clock_s(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._tail is not None:
            self._tail.look_again()
        self._stream.wake.set()

    def _clock_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def _fail(self, error: Exception) -> None:
        """Sends the reader a problem: it broke here; the stream ends."""
        log.error("stream failed", execution=self._id, exc_info=error)
        problem = Problem(500, "internal", "the output cannot be read; see the log of the service")
        frame = self._frame("problem", problem_body(problem, self._id))
        try:
            await self._stream.send(frame)
        except ConnectionError:
            return  # it left first
        self._stream.finish(End.FAILED)

    def _snapshot(self) -> bytes:
        """The record as it is now; the changes go on from the feed's head."""
        self._seq = self._feed.head
        execution = self._ports.table.execution(self._id)
        records = [record_json(self._ports, execution)] if execution is not None else []
        items = self._frame("snapshot", items_of(records))
        count = b'{"count":%d}' % len(records)
        return items + self._frame("snapshot_end", count, id=self._position())

    def _reset(self, reason: ResetReason) -> bytes:
        data = {
            "reason": reason.value,
            "oldest": self._feed.position(self._feed.oldest),
            "head": self._feed.position(self._feed.head),
            "outputFrom": self._offset,
        }
        return (
            self._framing.reset(self._encoding, reason.value, msgspec.json.encode(data))
            + self._snapshot()
        )

    def _hello(self, *, resumed: bool) -> bytes:
        data = hello_data(self._ports, self._settings, self._stream.principal, resumed=resumed)
        return self._framing.hello(self._encoding, data, resumed=resumed)

    def _frame(self, kind: str, data: bytes, *, id: str | None = None) -> bytes:
        return self._framing.frame(self._encoding, kind, data, id=id)

    def _position(self) -> str:
        return self._place(self._offset)

    def _place(self, offset: int) -> str:
        return f"{self._feed.position(self._seq)}-{offset}"

    def _is_ours(self, frame: Frame) -> bool:
        return frame.execution_id == self._id and frame.type.startswith(_FAMILY)

    def _allowed(self, execution: Execution) -> bool:
        principal, visibility = self._stream.principal, self._visibility
        return visibility.of_execution(principal, execution) and visibility.of_execution(
            principal, execution, Action.OUTPUT
        )
