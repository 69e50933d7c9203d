"""A service reduced to what streams depend on: the real journal, table, feed and gateway, by hand.

It makes changes as fast as they can be journaled, ends in order or as if it had been killed, and
starts again on the same port. `facts` holds every change that any reader may ever receive.
"""

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import msgspec

from bus.clock import SystemClock
from bus.envelope import new_uuid
from bus.events import (
    AnyEvent,
    ExecutionDeleted,
    ExecutionEnded,
    ExecutionProgress,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStarted,
    Published,
    type_of,
)
from bus.feed import Frame
from bus.model import ExecutionStatus, Progress, Reason
from handlers.decisions.table_content import parts_of
from handlers.history import JournalHistory
from handlers.journal.format import Record
from handlers.journal.recovery import RecoveredTable, recover
from handlers.journal.snapshots import SnapshotHead
from tests.gateway_fixture import Backend
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

JOBS = ("A/One", "A/Two", "B/One")
USERS = ("alice", "bob", "carol")
BLOCK = 1_000
KEPT = 300
"""Ended executions that are not deleted again."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A change that was made; `is_state` says that it must never be lost."""

    type: str
    job: str
    execution: str
    user: str
    is_state: bool


class FeedService:
    def __init__(self, directory: Path, seed: int) -> None:
        self.facts: dict[int, Fact] = {}
        self.lives = 0
        self.port = 0
        self._directory = directory
        self._random = Random(seed)
        self._clock = SystemClock()
        self._backend = Backend(self._clock)
        self._owners: dict[str, tuple[str, str]] = {}
        self._stories: list[Iterator[AnyEvent]] = []
        self._ended: deque[str] = deque()
        self._snapshot_at = 20_000

    @property
    def head(self) -> int:
        return self._next - 1

    async def start(self, settings: GatewaySettings) -> None:
        self.lives += 1
        found: RecoveredTable = await asyncio.to_thread(
            recover, self._directory, "test", self._clock
        )
        self._journal, self.table, self.feed = found.journal, found.table, found.feed
        self._encoder, self._next = found.encoder, found.next_seq
        self._reserved = found.next_seq
        ports = replace(
            self._backend.ports(),
            table=found.table,
            feed=found.feed,
            history=JournalHistory(self._directory, found.encoder),
        )
        self._gateway = Gateway(ports, settings)
        url = await self._gateway.start("127.0.0.1", self.port)
        self.port = int(url.rpartition(":")[2])

    async def end(self) -> None:
        """In order, as by SIGTERM."""
        await self._gateway.aclose()
        await asyncio.to_thread(self._journal.close, self._next, self._clock.now_ms())

    async def die(self) -> None:
        """As by kill -9: connections break where they are, the last write may be half there, and
        what was journaled last may not have been sent to any reader."""
        if self._random.random() < 0.5:
            await self.change(self._random.randrange(1, 40), send=False)
        for stream in list(self._gateway._registry._open):
            transport = getattr(stream, "_transport", None)
            if transport is not None:
                transport.abort()
        await self._gateway.aclose()
        segment = self._journal._segment
        assert segment is not None
        if self._random.random() < 0.5:
            os.pwrite(segment._descriptor, b'0badc0de {"seq":1,"at_', segment.offset)
        segment.close()

    async def change(self, count: int, *, send: bool = True) -> None:
        """`count` changes are journaled with one write, then sent."""
        now_ms = self._clock.now_ms()
        batch: list[Published] = []
        records: list[Record] = []
        if self._next > self._reserved - BLOCK // 2:
            self._reserved = self._next + max(BLOCK, 2 * count)
            records.append(Record(seq=self._next, at_ms=now_ms, reserved=self._reserved))
        for _ in range(count):
            event = self._event()
            if not isinstance(event, ExecutionProgress):
                records.append(Record(seq=self._next, at_ms=now_ms, events=(event,)))
            elif not send:
                continue
            batch.append(Published(self._next, now_ms, event))
            self._next += 1
        await asyncio.to_thread(self._journal.append, records)
        frames: list[Frame] = []
        for published in batch:
            self.table.apply(published)
            frame = self._encoder.frame(published, self.table)
            assert frame is not None
            frames.append(frame)
            self._remember(frame)
        if send and batch:
            self.feed.publish(frames, batch[-1].seq)
        await self._snapshot_now_and_then()

    def _remember(self, frame: Frame) -> None:
        assert frame.job_id is not None
        assert frame.execution_id is not None
        assert frame.user_id is not None
        self.facts[frame.seq] = Fact(
            frame.type,
            frame.job_id,
            frame.execution_id,
            frame.user_id,
            frame.type != type_of_progress,
        )

    async def _snapshot_now_and_then(self) -> None:
        if self._next < self._snapshot_at:
            return
        self._snapshot_at = self._next + 20_000
        head = SnapshotHead(seq=self._next, at_ms=self._clock.now_ms(), reserved=self._reserved)
        lines = [msgspec.json.encode(part) for part in parts_of(self.table.freeze())]
        await asyncio.to_thread(self._journal.write_snapshot, head, lines)

    def _event(self) -> AnyEvent:
        """The next event of one of a few executions that live at the same time."""
        while True:
            if len(self._stories) < 6:
                self._stories.append(self._story())
            story = self._random.choice(self._stories)
            event = next(story, None)
            if event is not None:
                return event
            self._stories.remove(story)

    def _story(self) -> Iterator[AnyEvent]:
        random, now_ms = self._random, self._clock.now_ms()
        id_, job, user = new_uuid(now_ms), random.choice(JOBS), random.choice(USERS)
        self._owners[id_] = job, user
        yield ExecutionQueued(
            execution_id=id_, job_id=job, command_id=id_, user_id=user, revision="r1"
        )
        yield ExecutionStarted(execution_id=id_)
        yield ExecutionRunning(execution_id=id_, started_ms=now_ms, pid=7)
        for step in range(random.randrange(4)):
            yield ExecutionProgress(execution_id=id_, progress=Progress(percent=step * 20.0))
        yield ExecutionEnded(
            execution_id=id_,
            status=ExecutionStatus.SUCCEEDED,
            reason=Reason.EXIT_CODE,
            ended_ms=now_ms,
            exit_code=0,
            output_end=0,
        )
        self._ended.append(id_)
        if len(self._ended) > KEPT:
            old = self._ended.popleft()
            job, user = self._owners.pop(old)
            yield ExecutionDeleted(execution_id=old, job_id=job, user_id=user)


type_of_progress = type_of(ExecutionProgress(execution_id="", progress=Progress()))
