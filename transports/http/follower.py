"""One reader of one execution: the changes from the feed, the bytes from the output, in order."""

import asyncio
import re
from dataclasses import dataclass

import msgspec
import structlog

from bus.access import Action
from bus.errors import BusError
from bus.events import ExecutionEnded
from bus.feed import FellBehind, Frame, ResetReason
from bus.model import Execution
from transports.http.changes import hello_data
from transports.http.outlets import End, Outlet
from transports.http.problems import Problem, problem_body
from transports.http.settings import GatewayPorts, GatewaySettings
from transports.http.snapshot import items_of, record_json
from transports.http.textparts import whole_text
from transports.http.visibility import Visibility

_CURSOR = re.compile(r"([a-z0-9]{6,16})-(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})\Z")
_KEEPS_OFFSET = frozenset({ResetReason.HISTORY_GONE, ResetReason.GAP_TOO_LARGE})
"""Losses that say nothing against the offset: the bytes of the output are still the same."""

_FAMILY = "execution."
_ENDED = ExecutionEnded.__struct_config__.tag
_FRAMES_A_LOOK = 500
_log = structlog.get_logger("jobbus.streams")


@dataclass(frozen=True, slots=True)
class Place:
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
    """The output comes first: the final change is told after the last byte, never before."""

    def __init__(
        self,
        execution_id: str,
        stream: Outlet,
        ports: GatewayPorts,
        settings: GatewaySettings,
        visibility: Visibility,
    ) -> None:
        self._id = execution_id
        self._stream = stream
        self._encoding = stream.encoding
        self._ports = ports
        self._feed = ports.feed
        self._settings = settings
        self._visibility = visibility
        self._seq = 0
        self._offset = 0

    async def run(self, cursor: str | None, start: int) -> str:
        """The reader was told everything up to the end, or the stream ended before: then the
        position is where it goes on."""
        try:
            await self._stream.open(self._begin(cursor, start))
            async with asyncio.TaskGroup() as group:
                growth = group.create_task(self._watch_growth(), name=f"growth {self._id}")
                try:
                    while self._stream.ended is None:
                        await self._tell_news()
                finally:
                    growth.cancel()
        except* ConnectionError:
            pass  # it left or was cut off; `ended` says which
        except* (BusError, OSError) as errors:
            await self._fail(errors)
        return self._position()

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

    async def _tell_news(self) -> None:
        """One round: what is new was told, or if there was nothing, something is awaited."""
        stream = self._stream
        stream.wake.clear()
        execution = self._ports.table.execution(self._id)
        if execution is None:
            stream.finish(End.TERMINAL)
        elif not self._allowed(execution):
            stream.finish(End.REVOKED)
        elif await self._tell_changes_and_output(execution):
            return
        elif execution.is_final and self._seq >= execution.version:
            stream.finish(End.TERMINAL)
        elif stream.is_quiet:
            await stream.send(self._encoding.frame("bookmark", b"{}", id=self._position()))
        else:
            await stream.wake.wait()

    async def _tell_changes_and_output(self, execution: Execution) -> bool:
        """Told what there is; returns whether there was anything."""
        limit, size_max = _FRAMES_A_LOOK, self._settings.write_max
        try:
            batch = self._feed.after(self._seq, limit, size_max, self._is_ours)
        except FellBehind:
            await self._stream.send(self._reset(ResetReason.HISTORY_GONE))
            return True
        await self._send_changes([frame for frame in batch.frames if frame.type != _ENDED])
        ended = [frame for frame in batch.frames if frame.type == _ENDED]
        self._seq = ended[0].seq - 1 if ended else batch.seq
        any_output = await self._send_output(execution.is_final)
        if ended and self._stream.ended is None:
            await self._send_changes(ended)
            self._seq = batch.seq
        elif any_output:
            # The next bytes may gather: a job that prints much costs few frames.
            await asyncio.sleep(self._settings.output_batch_s)
        return any_output or bool(batch.frames)

    async def _send_changes(self, frames: list[Frame]) -> None:
        if frames:
            # Without ids: only the offsets of the output are places to come back to.
            data = b"".join(self._encoding.frame("change", frame.data) for frame in frames)
            await self._stream.send(data)

    async def _send_output(self, is_final: bool) -> bool:
        """All output that is there now, in pieces; returns whether there was any."""
        any_output = False
        while self._stream.ended is None:
            limit = self._settings.write_max
            chunk = await self._ports.output.read(self._id, self._offset, limit)
            if chunk.gap is not None:
                self._offset = chunk.start
                await self._send_placed("gap", {"from": chunk.gap[0], "to": chunk.gap[1]})
            short = len(chunk.data) < limit
            text, end = whole_text(chunk, at_end=is_final and short)
            if end > chunk.start:
                any_output = True
                self._offset = end
                await self._send_placed("output", {"from": chunk.start, "to": end, "text": text})
            if short:
                break
        return any_output

    async def _send_placed(self, kind: str, data: dict[str, object]) -> None:
        frame = self._encoding.frame(kind, msgspec.json.encode(data), id=self._position())
        await self._stream.send(frame)

    async def _watch_growth(self) -> None:
        async for _ in self._ports.output.growth(self._id):
            self._stream.wake.set()

    async def _fail(self, errors: BaseExceptionGroup[Exception]) -> None:
        """The reader is told that it broke here, and the stream ends."""
        _log.error("stream failed", execution=self._id, exc_info=errors)
        problem = Problem(500, "internal", "the output cannot be read; see the log of the service")
        frame = self._encoding.frame("problem", problem_body(problem, self._id))
        try:
            await self._stream.send(frame)
        except ConnectionError:
            return  # it left first
        self._stream.finish(End.FAILED)

    def _snapshot(self) -> bytes:
        """The record as it is now; the changes go on from the feed's head."""
        self._seq = self._feed.head
        execution = self._ports.table.execution(self._id)
        records = [record_json(execution)] if execution is not None else []
        items = self._encoding.frame("snapshot", items_of(records))
        count = b'{"count":%d}' % len(records)
        return items + self._encoding.frame("snapshot_end", count, id=self._position())

    def _reset(self, reason: ResetReason) -> bytes:
        data = {
            "reason": reason.value,
            "oldest": self._feed.position(self._feed.oldest),
            "head": self._feed.position(self._feed.head),
            "outputFrom": self._offset,
        }
        return self._encoding.frame("reset", msgspec.json.encode(data)) + self._snapshot()

    def _hello(self, *, resumed: bool) -> bytes:
        data = hello_data(self._ports, self._settings, self._stream.principal, resumed=resumed)
        return self._encoding.hello(data, resumed=resumed)

    def _position(self) -> str:
        return f"{self._feed.position(self._seq)}-{self._offset}"

    def _is_ours(self, frame: Frame) -> bool:
        return frame.execution_id == self._id and frame.type.startswith(_FAMILY)

    def _allowed(self, execution: Execution) -> bool:
        principal, visibility = self._stream.principal, self._visibility
        return visibility.of_execution(principal, execution) and visibility.of_execution(
            principal, execution, Action.OUTPUT
        )
