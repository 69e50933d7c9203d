"""The numbered changes in memory: one ring, written by the owner, read by each at its own pace.

A reader is a position, a predicate and a wake-up: no queue of its own, so a slow one costs nothing.
Publishing never waits. A reader that asks for more than the ring still holds gets a reset, never a
part of it.
"""

import asyncio
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from bus.clock import Clock

FRAMES_MAX = 10_000
BYTES_MAX = 32 * 1024 * 1024
FRAME_BYTES = 384
"""What a frame takes beside its data: the object, its texts and numbers, its place in the ring."""
AGE_MAX_S = 900.0
REPLAY_MAX = 5_000
"""Matching frames a reader may be behind and still get each of."""

_POSITION = re.compile(r"([a-z0-9]{6,16})-(0|[1-9][0-9]{0,18})\Z")


class ResetReason(StrEnum):
    """Why a reader cannot go on from where it was."""

    EPOCH_CHANGED = "epoch_changed"
    HISTORY_GONE = "history_gone"
    CURSOR_AHEAD = "cursor_ahead"
    CURSOR_INVALID = "cursor_invalid"
    GAP_TOO_LARGE = "gap_too_large"


class Frame(msgspec.Struct):
    """One change. `data` is the CloudEvent as JSON, encoded once; nothing else of a frame that
    grows with it is kept here, so that what the ring holds is what it counts.

    `job_id`, `execution_id` and `user_id` never change for a subject: filters may rely on them.
    """

    seq: int
    type: str
    data: bytes
    job_id: str | None = None
    execution_id: str | None = None
    user_id: str | None = None
    born_s: float = 0.0

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return len(self.data) + FRAME_BYTES


Predicate = Callable[[Frame], bool]


class Feed:
    """The ring of one epoch: `head` is the last number given, `oldest` the first resumable one.

    Not thread-safe: it lives in the event loop.
    """

    def __init__(self, epoch: str, head: int, clock: Clock) -> None:
        self.epoch = epoch
        self.head = head
        self._floor = head  # a cursor at or after this number can be served
        self._clock = clock
        self._seqs: list[int] = []
        self._frames: list[Frame] = []
        self._bytes = 0
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def oldest(self) -> int:
        """The smallest cursor from which everything after it is still held."""
        return self._floor

    def __len__(self) -> int:
        return len(self._frames)

    def refill(self, frames: Sequence[Frame], floor: int) -> None:
        """Takes frames of before the start; `floor` is the number up to which they are missing."""
        assert not self._frames, "refill comes before the first publish"
        self._append(frames)
        self._floor = floor
        self._trim()

    def publish(self, frames: Sequence[Frame], head: int) -> None:
        """`frames` are readable and `head` is the last number given; readers are woken."""
        assert head >= self.head, (head, self.head)
        self._append(frames)
        self.head = head
        self._trim()
        self._wake()

    def after(self, seq: int, limit: int, size_max: int, predicate: Predicate) -> "Batch":
        """At most `limit` matching frames after `seq`, about `size_max` bytes; and where it ends.

        Raises:
            FellBehind: frames after `seq` are gone from the ring.
        """
        if seq < self._floor:
            raise FellBehind
        taken: list[Frame] = []
        size = 0
        frames = self._frames
        index = bisect_right(self._seqs, seq)
        while index < len(frames):
            frame = frames[index]
            index += 1
            if not predicate(frame):
                continue
            taken.append(frame)
            size += len(frame.data)
            if len(taken) >= limit or size >= size_max:
                return Batch(taken, frame.seq)
        return Batch(taken, self.head)

    def count_after(self, seq: int, limit: int, predicate: Predicate) -> int:
        """How many matching frames a reader at `seq` has to get, counted up to `limit`."""
        count = 0
        for index in range(bisect_right(self._seqs, seq), len(self._frames)):
            if predicate(self._frames[index]):
                count += 1
                if count >= limit:
                    break
        return count

    def resume(self, cursor: str, predicate: Predicate) -> int | ResetReason:
        """The number after which a reader with this cursor goes on, or why it needs a snapshot."""
        seq = self.number_of(cursor)
        if isinstance(seq, ResetReason):
            return seq
        if seq < self._floor:
            return ResetReason.HISTORY_GONE
        if self.count_after(seq, REPLAY_MAX + 1, predicate) > REPLAY_MAX:
            return ResetReason.GAP_TOO_LARGE
        return seq

    def number_of(self, cursor: str) -> int | ResetReason:
        """The number that a cursor of this epoch stands for, held or not; or why it is none."""
        match = _POSITION.match(cursor)
        if match is None:
            return ResetReason.CURSOR_INVALID
        if match[1] != self.epoch:
            return ResetReason.EPOCH_CHANGED
        seq = int(match[2])
        return ResetReason.CURSOR_AHEAD if seq > self.head else seq

    def position(self, seq: int) -> str:
        """`seq` as the outside writes it: `<epoch>-<seq>`."""
        return f"{self.epoch}-{seq}"

    async def changed(self, seq: int) -> None:
        """Returns as soon as a number after `seq` was given."""
        if self.head > seq:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _append(self, frames: Sequence[Frame]) -> None:
        now_s = self._clock.monotonic_s()
        for frame in frames:
            frame.born_s = now_s
            self._seqs.append(frame.seq)
            self._frames.append(frame)
            self._bytes += frame.size_bytes

    def _trim(self) -> None:
        """Keeps 10 000 frames or 15 minutes, whichever is more, but never over 32 MiB."""
        drop = 0
        count = len(self._frames)
        too_old_s = self._clock.monotonic_s() - AGE_MAX_S
        while drop < count:
            frame = self._frames[drop]
            old = frame.born_s < too_old_s and count - drop > FRAMES_MAX
            if not old and self._bytes <= BYTES_MAX:
                break
            self._bytes -= frame.size_bytes
            self._floor = frame.seq
            drop += 1
        if drop:
            del self._frames[:drop]
            del self._seqs[:drop]

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Batch(msgspec.Struct, frozen=True):
    """Frames to send, and the number up to which the reader then has everything it may see."""

    frames: list[Frame]
    seq: int


class History(Protocol):
    """What lies behind the ring: the changes that the journal still holds, but for progress."""

    async def oldest(self) -> int:
        """The smallest number after which every change is kept; one beyond all if none is."""
        ...

    async def after(
        self, seq: int, until: int, limit: int, size_max: int, wanted: Predicate
    ) -> Batch:
        """As `Feed.after`, of the changes after `seq` and up to `until`; what it gives may be less
        than there is, its number says up to where. `until` must be readable already.

        Raises:
            FellBehind: changes after `seq` are not kept any more.
        """
        ...


class FellBehind(Exception):
    """The reader's position is no longer held: reset it."""
