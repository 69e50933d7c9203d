"""Whatever is cut, restarted or killed, and however small the ring: no change is lost or repeated
unless a reset says so.

Many readers with filters of their own, each cut at random places of its bytes; a service that ends
in order or as if killed, and goes on with what its journal holds.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import pytest

import bus.feed
from jobbus.client.frames import decode_frame
from jobbus.client.sse import SseEvent, SseParser
from jobbus.client.state import StateMap
from tests.feed_service import JOBS, USERS, Fact, FeedService
from tests.gateway_fixture import ADMIN, bearer
from tests.tally import Kind, Tally
from transports.http.settings import GatewaySettings

SETTINGS = GatewaySettings(
    heartbeat_s=0.3, shutdown_s=0.2, streams_per_principal=100, age_s=20.0, version="test"
)
QUERIES: tuple[dict[str, str], ...] = (
    {},
    {"job": JOBS[0]},
    {"user": USERS[1]},
    {"type": "execution.ended"},
    {"type": "execution.*", "job": JOBS[2], "user": USERS[0]},
)

CUTS = (1, 500, 5_000, 20_000, 200_000, 10**9)
"""After so many bytes a reader drops its connection."""


class Reader:
    """Follows the feed over many connections and keeps what it received, stretch by stretch.

    A stretch begins with a snapshot and goes on over resumed connections; only a reset, or the
    first connection, begins another.
    """

    def __init__(self, service: FeedService, query: dict[str, str], seed: int) -> None:
        self.query = query
        self.state = StateMap()
        self.stretches: list[tuple[int, list[int]]] = []
        self.ends: list[int] = []
        self.resets: Counter[str] = Counter()
        self.connections = 0
        self.position = -1
        self._service = service
        self._random = Random(seed)
        self._cursor = ""
        self._epoch = ""
        self._expects = ""

    async def follow(self, until: Callable[[], int]) -> None:
        """Until the number that `until` gives was reached; it is negative while there is more."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            while not 0 <= until() <= self.position:
                try:
                    await self._connection(session, until)
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.01)  # no service is there just now
        self.ends.append(self.position)

    async def _connection(self, session: aiohttp.ClientSession, until: Callable[[], int]) -> None:
        headers = bearer(ADMIN) | ({"Last-Event-ID": self._cursor} if self._cursor else {})
        url = f"http://127.0.0.1:{self._service.port}/api/v1/events"
        left = self._random.choice(CUTS)
        async with session.get(url, params=self.query, headers=headers) as response:
            if response.status == 503:  # it is just going away
                raise aiohttp.ClientConnectionError
            assert response.status == 200, await response.read()
            self.connections += 1
            parser = SseParser(last_event_id=self._cursor)
            asked = bool(self._cursor)
            while not 0 <= until() <= self.position:
                data = await response.content.readany()
                for event in parser.feed(data[:left]):
                    self._take(event, asked)
                left -= len(data)
                if not data or left <= 0:
                    response.close()
                    return
            response.close()

    def _take(self, event: SseEvent, asked: bool) -> None:
        data: Any = msgspec.json.decode(event.data)
        match event.event:
            case "hello":
                self._expects = "change" if data["resumed"] else "reset" if asked else "snapshot"
                assert self._epoch in ("", data["epoch"])
                self._epoch = data["epoch"]
            case "reset":
                self.resets[data["reason"]] += 1
                self._expects = "snapshot"
            case "snapshot_end":
                assert self._expects == "snapshot"
                self._begin(_number(event.id))
                self._expects = "change"
            case "change":
                assert self._expects == "change"
                self.stretches[-1][1].append(_number(event.id))
            case _:
                pass
        frame = decode_frame(event)
        if frame is not None:
            self.state.take(frame)
        if event.id:
            self._cursor = event.id
            self.position = _number(event.id)

    def _begin(self, number: int) -> None:
        if self.stretches:
            self.ends.append(self.position)
        self.stretches.append((number, []))

    def wants(self, fact: Fact) -> bool:
        query = self.query
        return (
            query.get("job", fact.job) == fact.job
            and query.get("user", fact.user) == fact.user
            and query.get("type", fact.type) in (fact.type, "execution.*")
        )

    def check(self) -> tuple[int, int, int]:
        """Changes received, state changes missing, changes received twice or out of order."""
        count = gaps = repeats = 0
        facts = self._service.facts
        for (begin, numbers), end in zip(self.stretches, self.ends, strict=True):
            count += len(numbers)
            repeats += sum(after <= before for before, after in pairwise(numbers))
            assert all(number in facts and self.wants(facts[number]) for number in numbers)
            due = {
                n for n in _between(facts, begin, end) if facts[n].is_state and self.wants(facts[n])
            }
            gaps += len(due.difference(numbers))
        return count, gaps, repeats


def _between(facts: dict[int, Fact], begin: int, end: int) -> list[int]:
    return [number for number in range(begin + 1, end + 1) if number in facts]


def _number(position: str) -> int:
    return int(position.rpartition("-")[2])


@dataclass(frozen=True)
class Outcome:
    """What happened in one run, and what was wrong with what its readers received."""

    changes: int
    received: int
    gaps: int
    repeats: int
    restarts: int
    disconnects: int
    resets: Counter[str]
    readers: int

    def __str__(self) -> str:
        lost = ", ".join(f"{n} {why}" for why, n in self.resets.most_common()) or "none"
        return (
            f"received {self.received} times by {self.readers} readers: {self.restarts} restarts,"
            f" {self.disconnects} disconnects; resets: {lost};"
            f" {self.gaps} gaps, {self.repeats} duplicates"
        )


async def run(
    directory: Path, *, seed: int, events: int, readers: int, restarts: int, step: int
) -> Outcome:
    random = Random(seed)
    service = FeedService(directory, seed)
    await service.start(SETTINGS)
    goal = -1
    all_ = [Reader(service, QUERIES[n % len(QUERIES)], seed + n) for n in range(readers)]
    restart_at = sorted(random.randrange(events * 2 // 3) for _ in range(restarts))
    async with asyncio.TaskGroup() as group:
        for number, reader in enumerate(all_):
            group.create_task(reader.follow(lambda: goal), name=f"reader {number}")
        while (made := len(service.facts)) < events:
            await service.change(random.randrange(1, step))
            await asyncio.sleep(random.choice((0, 0, 0.001, 0.01)))
            if restart_at and made >= restart_at[0]:
                restart_at.pop(0)
                await (service.end() if random.random() < 0.4 else service.die())
                await service.start(SETTINGS)
        goal = service.head
    await service.end()
    checked = [reader.check() for reader in all_]
    for reader in all_:
        check_state(reader, service)
    count, gaps, repeats = (sum(column) for column in zip(*checked, strict=True))
    return Outcome(
        len(service.facts),
        count,
        gaps,
        repeats,
        service.lives - 1,
        sum(reader.connections - 1 for reader in all_),
        sum((reader.resets for reader in all_), Counter()),
        readers,
    )


def check(outcome: Outcome, restarts: int) -> None:
    assert (outcome.gaps, outcome.repeats) == (0, 0), outcome
    assert outcome.restarts == restarts
    assert outcome.received > outcome.changes // 4, (
        "so small a ring that readers received mostly resets"
    )


def check_state(reader: Reader, service: FeedService) -> None:
    """What the reader holds is what is there, as far as it asked for it."""
    if "type" in reader.query:
        return  # who asks for some of the changes cannot know all of the state
    for key, record in reader.state.records.items():
        execution = service.table.execution(key.partition("/")[2])
        assert execution is not None, key
        assert record.version == execution.version, key


@pytest.mark.parametrize(("ring", "step", "seed"), [(50, 30, 1), (600, 60, 2), (10_000, 60, 3)])
async def test_nothing_is_lost_or_repeated_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring: int, step: int, seed: int
) -> None:
    monkeypatch.setattr(bus.feed, "FRAMES_MAX", ring)
    monkeypatch.setattr(bus.feed, "AGE_MAX_S", 0.0)
    check(await run(tmp_path, seed=seed, events=900, readers=4, restarts=3, step=step), 3)


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("ring", "step", "seed"), [(60, 40, 11), (1_000, 200, 12), (10_000, 200, 13)]
)
async def test_the_same_over_half_a_million_changes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tally: Tally,
    ring: int,
    step: int,
    seed: int,
) -> None:
    monkeypatch.setattr(bus.feed, "FRAMES_MAX", ring)
    monkeypatch.setattr(bus.feed, "AGE_MAX_S", 0.0)
    outcome = await run(tmp_path, seed=seed, events=170_000, readers=5, restarts=12, step=step)
    wrong = outcome.gaps + outcome.repeats
    tally.add(Kind.STREAMED_CHANGES, f"ring of {ring}, {outcome}", outcome.changes, wrong)
    check(outcome, 12)
