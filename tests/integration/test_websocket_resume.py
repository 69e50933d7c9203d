"""Sockets and subscriptions cut at random: each goes on after its own cursor, nothing twice."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from bus.feed import Feed
from tests.fakes import ManualClock
from tests.gateway_fixture import ALICE, EPOCH, Backend, serving
from tests.socket_client import ReceivedFrame, SocketClient, open_socket
from transports.http.settings import GatewaySettings

JOBS = ("A/One", "A/Two", "B/One")
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"job": "A/One"},
    {"job": ["A/Two", "B/One"]},
    {"type": ["execution.running", "execution.ended"]},
    {"user": "bob", "type": "execution.*"},
)


@dataclass
class Tracker:
    """What a client keeps of one subscription: its cursor, and a version for each record."""

    filter: dict[str, Any]
    cursor: str | None = None
    seen: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    resets: int = 0
    _snapshot: dict[str, int] | None = None

    def take(self, received: ReceivedFrame) -> None:
        if received.op == "reset":
            self.resets += 1
            self.seen.clear()
        elif received.op == "snapshot":
            snapshot = self._snapshot = self._snapshot or {}
            snapshot |= {item["subject"]: item["version"] for item in received.data["items"]}
        elif received.op == "snapshot_end":
            self.versions, self._snapshot = self._snapshot or {}, None
        elif received.op == "change":
            assert received.id is not None
            self.seen.append(received.id)
            self.versions[received.data["subject"]] = received.data["version"]
        elif received.op == "hello":
            self._snapshot = None
        if received.id is not None:
            self.cursor = received.id


class Client:
    """Five subscriptions that go on whatever happens; `broken` counts what did."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.random = random.Random(seed)
        self.trackers = {f"s{n}": Tracker(each) for n, each in enumerate(FILTERS)}
        self.broken = 0
        self.unsubscribed = 0

    async def run(self, until: asyncio.Event, head: list[str]) -> None:
        """Comes back until the writer is done and all subscriptions know its last change."""
        while not (until.is_set() and self._knows(head)):
            async with open_socket(self.url) as socket:
                try:
                    await self._listen(socket, until, head)
                except ConnectionClosed:
                    self.broken += 1

    def _knows(self, head: list[str]) -> bool:
        return bool(head) and all(each.cursor == head[0] for each in self.trackers.values())

    async def _listen(self, socket: SocketClient, until: asyncio.Event, head: list[str]) -> None:
        for name in self.trackers:
            await self._subscribe(socket, name)
        left = self.random.randrange(1, 400)
        while not (until.is_set() and self._knows(head)):
            received = await socket.next()
            if received.sub is None:
                continue
            self.trackers[received.sub].take(received)
            if received.op == "end":
                await self._subscribe(socket, received.sub)
            if until.is_set():
                continue
            left -= 1
            if left == 0:
                socket.vanish()
            elif self.random.random() < 0.01:
                self.unsubscribed += 1
                await socket.say("unsubscribe", sub=received.sub)

    async def _subscribe(self, socket: SocketClient, name: str) -> None:
        tracker = self.trackers[name]
        members: dict[str, Any] = {"filter": tracker.filter} if tracker.filter else {}
        if tracker.cursor is not None:
            members["after"] = tracker.cursor
        else:
            members["start"] = "now"
        await socket.say("subscribe", sub=name, topic="events", **members)


async def write(
    backend: Backend, seed: int, count: int, *, pause_every: int
) -> dict[str, list[str]]:
    """`count` changes; returns the ids that each filter lets pass."""
    chance = random.Random(seed)
    expected: dict[str, list[str]] = {f"s{n}": [] for n in range(len(FILTERS))}
    live: list[tuple[str, str, str]] = []
    for number in range(count):
        act = chance.random()
        if not live or act < 0.3:
            job, user = chance.choice(JOBS), chance.choice(("alice", "bob"))
            live.append((backend.queue(job, user), job, user))
            subject, type_ = live[-1], "execution.queued"
        elif act < 0.5:
            subject, type_ = chance.choice(live), "execution.running"
            backend.run(subject[0])
        elif act < 0.7:
            subject, type_ = live.pop(chance.randrange(len(live))), "execution.ended"
            backend.end(subject[0])
        else:
            subject, type_ = chance.choice(live), "execution.progress"
            backend.progress(subject[0], number % 100)
        for at, each in enumerate(FILTERS):
            if fits(each, subject[1], subject[2], type_):
                expected[f"s{at}"].append(backend.feed.position(backend.feed.head))
        if number % pause_every == 0:
            await asyncio.sleep(chance.choice((0, 0, 0.002)))
    return expected


def fits(wanted: dict[str, Any], job: str, user: str, type_: str) -> bool:
    """An own, plain reading of the contract's filters."""

    def listed(name: str) -> list[str]:
        value = wanted.get(name, [])
        return [value] if isinstance(value, str) else list(value)

    return (
        (not listed("job") or job in listed("job"))
        and (not listed("user") or user in listed("user"))
        and (
            not listed("type")
            or any(
                t == type_ or (t[-1] == "*" and type_.startswith(t[:-1])) for t in listed("type")
            )
        )
    )


@pytest.mark.parametrize(
    ("seed", "changes"),
    [(0, 1_000), *(pytest.param(n, 2_000, marks=pytest.mark.exhaustive) for n in range(1, 4))],
)
async def test_cuts_of_sockets_and_subscriptions_lose_and_repeat_nothing(
    seed: int, changes: int
) -> None:
    backend = Backend()
    settings = GatewaySettings(
        streams_per_principal=50, heartbeat_s=0.2, socket_frames_per_s=1e6, socket_frames_burst=1e6
    )
    done, head = asyncio.Event(), list[str]()
    async with serving(backend, settings) as (url, _):
        clients = [Client(url, seed * 100 + number) for number in range(3)]
        for client in clients:
            for tracker in client.trackers.values():
                tracker.cursor = backend.feed.position(0)
        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(done, head), name="client")
            expected = await write(backend, seed, changes, pause_every=5)
            head.append(backend.feed.position(backend.feed.head))
            done.set()
    for client in clients:
        assert client.broken > 0
        assert client.unsubscribed > 0
        for name, tracker in client.trackers.items():
            assert tracker.resets == 0
            assert tracker.seen == expected[name], name


async def test_what_was_lost_is_a_reset_and_the_table_is_right_again() -> None:
    clock = ManualClock()
    backend = Backend(clock)
    backend.feed = Feed(EPOCH, 0, clock)
    executions = [backend.queue(JOBS[n % 3], "bob") for n in range(30)]
    async with serving(backend, GatewaySettings(heartbeat_s=0.2)) as (url, _):
        tracker = Tracker({})
        async with open_socket(url, ALICE) as socket:
            await socket.say("subscribe", sub="a", topic="events")
            for received in await socket.until("snapshot_end"):
                tracker.take(received)
            socket.vanish()
        for _ in range(10_100):  # more than the ring may hold
            clock.advance_s(1)
            backend.progress(executions[0], 1)
        for execution in executions[10:]:
            backend.end(execution)
        async with open_socket(url, ALICE) as socket:
            await socket.say("subscribe", sub="a", topic="events", after=tracker.cursor)
            for received in await socket.until("snapshot_end"):
                tracker.take(received)
    assert tracker.resets == 1
    assert tracker.versions == {
        f"executions/{each.id}": each.version for each in backend.table.executions()
    }


async def test_output_cut_at_random_is_whole_and_sent_once() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    backend.run(execution)
    chance = random.Random(7)
    settings = GatewaySettings(streams_per_principal=50, write_max=512, output_batch_s=0.001)
    text: list[str] = []
    cursor: str | None = None

    async def print_lines() -> None:
        for number in range(400):
            await backend.output.append(execution, f"line {number} grüße\n".encode())
            await asyncio.sleep(0.001)
        backend.end(execution)

    async def follow() -> int:
        nonlocal cursor
        cuts = 0
        while True:
            async with open_socket(url) as socket:
                members = {"after": cursor} if cursor is not None else {}
                await socket.say(
                    "subscribe", sub="o", topic="output", execution=execution, **members
                )
                for _ in range(chance.randrange(4, 20)):
                    received = await socket.next()
                    cursor = received.id or cursor
                    if received.op == "output":
                        text.extend(whole_lines(received.data))
                    if received.op == "end":
                        return cuts
                socket.vanish()
                cuts += 1

    async with (
        serving(backend, settings) as (url, _),
        asyncio.timeout(50),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(print_lines(), name="printer")
        following = group.create_task(follow(), name="follower")
    assert following.result() > 3
    assert text == [f"line {number} grüße" for number in range(400)]


def whole_lines(data: dict[str, Any]) -> list[str]:
    """The lines of an `output` frame that are not open any more."""
    return [line["text"] for line in data["lines"] if not line.get("partial")]
