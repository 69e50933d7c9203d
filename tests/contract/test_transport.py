"""What every transport promises, proved over each of them by the same tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from bus.commands import Command, StartJob, StopJob
from bus.envelope import Envelope, new_uuid, seal
from bus.errors import IdInUse, TransportBusy
from bus.layout import DataLayout
from bus.model import CommandRecord, CommandStatus, Principal
from bus.transport import Transport
from tests.fakes import ManualClock
from transports.directory.transport import DirectoryTransport
from transports.memory import MemoryTransport

ALICE = Principal(user_id="alice", roles=("operator",), via="http")
BOB = Principal(user_id="bob", roles=("operator",), via="http")
START = StartJob(job_id="App/Job", variables={"n": 1, "name": "x", "on": True, "rate": 0.5})


class Runnable(Transport, Protocol):
    async def run(self, ready: asyncio.Event | None = None) -> None: ...


Known = dict[str, CommandRecord]
Make = Callable[[Path, Known], Runnable]


def make_directory(root: Path, known: Known) -> Runnable:
    return DirectoryTransport(
        DataLayout(root), clock=ManualClock(), known=known.get, secret=b"s" * 32
    )


def make_memory(root: Path, known: Known) -> Runnable:
    return MemoryTransport(clock=ManualClock(), known=known.get)


@pytest.fixture(params=[make_directory, make_memory], ids=["directory", "memory"])
def make(request: pytest.FixtureRequest) -> Make:
    factory: Make = request.param
    return factory


@asynccontextmanager
async def running(transport: Runnable) -> AsyncIterator[Runnable]:
    ready = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(transport.run(ready), name="transport")
        await ready.wait()
        try:
            yield transport
        finally:
            await transport.aclose()


def envelope(
    command: Command = START, principal: Principal = ALICE, command_id: str | None = None
) -> Envelope:
    return seal(command, principal, now_ms=1_769_450_400_000, command_id=command_id)


def record_of(envelope: Envelope, status: CommandStatus) -> CommandRecord:
    return CommandRecord(
        id=envelope.id,
        kind="start",
        user_id=envelope.principal.user_id,
        submitted_ms=envelope.submitted_ms,
        body_hash=envelope.body_hash,
        status=status,
    )


async def received(transport: Runnable, count: int) -> list[Envelope]:
    taken: list[Envelope] = []
    while len(taken) < count:
        taken.extend(await transport.receive(count - len(taken)))
    return taken


async def nothing_more(transport: Runnable) -> bool:
    """A command published now is the next one received: nothing stood before it."""
    marker = envelope()
    await transport.publish(marker)
    [first] = await transport.receive(1)
    return first.id == marker.id


async def test_what_is_published_is_received_word_for_word(make: Make, tmp_path: Path) -> None:
    sent = seal(
        START,
        ALICE,
        now_ms=1_769_450_400_123,
        expires_ms=1_769_450_500_456,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    async with running(make(tmp_path, {})) as transport:
        await transport.publish(sent)
        [got] = await transport.receive(10)
    assert got == msgspec.structs.replace(sent, accepted_ns=got.accepted_ns)


async def test_commands_are_received_in_the_order_of_acceptance(make: Make, tmp_path: Path) -> None:
    sent = [envelope() for _ in range(40)]
    async with running(make(tmp_path, {})) as transport:
        for one in sent:
            await transport.publish(one)
        got = await received(transport, len(sent))
    assert [one.id for one in got] == [one.id for one in sent]
    numbers = [one.accepted_ns for one in got]
    assert numbers == sorted(set(numbers))


async def test_a_stop_is_received_before_the_starts_that_wait(make: Make, tmp_path: Path) -> None:
    starts = [envelope() for _ in range(5)]
    stop = envelope(StopJob(job_id="App/Job"))
    async with running(make(tmp_path, {})) as transport:
        for one in [*starts, stop]:
            await transport.publish(one)
        got = await received(transport, 6)
    assert [one.id for one in got] == [stop.id, *(one.id for one in starts)]


async def test_receive_gives_at_most_the_limit(make: Make, tmp_path: Path) -> None:
    async with running(make(tmp_path, {})) as transport:
        for _ in range(5):
            await transport.publish(envelope())
        assert len(await transport.receive(3)) <= 3


async def test_receive_waits_for_the_first_command(make: Make, tmp_path: Path) -> None:
    sent = envelope()
    async with running(make(tmp_path, {})) as transport:
        waiting = asyncio.create_task(transport.receive(10))
        await asyncio.sleep(0)
        await transport.publish(sent)
        [got] = await waiting
    assert got.id == sent.id


async def test_a_cancelled_receive_loses_nothing(make: Make, tmp_path: Path) -> None:
    sent = envelope()
    async with running(make(tmp_path, {})) as transport:
        waiting = asyncio.create_task(transport.receive(10))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await transport.publish(sent)
        [got] = await transport.receive(10)
    assert got.id == sent.id


async def test_a_repeat_is_received_once(make: Make, tmp_path: Path) -> None:
    sent = envelope()
    async with running(make(tmp_path, {})) as transport:
        await transport.publish(sent)
        await transport.publish(sent)
        assert [one.id for one in await transport.receive(10)] == [sent.id]
        await transport.publish(sent)
        assert await nothing_more(transport)


async def test_concurrent_repeats_are_received_once(make: Make, tmp_path: Path) -> None:
    sent = envelope()
    async with running(make(tmp_path, {})) as transport:
        await asyncio.gather(*(transport.publish(sent) for _ in range(50)))
        assert [one.id for one in await transport.receive(100)] == [sent.id]
        assert await nothing_more(transport)


async def test_a_publisher_that_gives_up_does_not_take_its_repeats_along(
    make: Make, tmp_path: Path
) -> None:
    sent = envelope()
    async with running(make(tmp_path, {})) as transport:
        first = asyncio.create_task(transport.publish(sent))
        await asyncio.sleep(0)
        repeat = asyncio.create_task(transport.publish(sent))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        await repeat
        assert [one.id for one in await transport.receive(9)] == [sent.id]


@pytest.mark.parametrize("handed", [False, True], ids=["waiting", "received"])
async def test_another_body_under_an_id_is_refused(
    make: Make, tmp_path: Path, handed: bool
) -> None:
    sent = envelope()
    other = envelope(StartJob(job_id="App/Other"), command_id=sent.id)
    async with running(make(tmp_path, {})) as transport:
        await transport.publish(sent)
        if handed:
            await transport.receive(1)
        if handed and isinstance(transport, DirectoryTransport):
            assert DataLayout(tmp_path).queue.joinpath(f"{sent.id}.json").exists()
        with pytest.raises(IdInUse) as caught:
            await transport.publish(other)
    assert caught.value.same_principal


async def test_another_principal_under_an_id_is_refused(make: Make, tmp_path: Path) -> None:
    sent = envelope()
    async with running(make(tmp_path, {})) as transport:
        await transport.publish(sent)
        with pytest.raises(IdInUse) as caught:
            await transport.publish(envelope(principal=BOB, command_id=sent.id))
    assert not caught.value.same_principal


@pytest.mark.parametrize("status", [CommandStatus.RUNNING, CommandStatus.COMPLETED])
async def test_a_known_id_is_not_received_again(
    make: Make, tmp_path: Path, status: CommandStatus
) -> None:
    sent = envelope()
    async with running(make(tmp_path, {sent.id: record_of(sent, status)})) as transport:
        await transport.publish(sent)
        assert await nothing_more(transport)
        with pytest.raises(IdInUse):
            await transport.publish(envelope(principal=BOB, command_id=sent.id))


async def test_an_id_is_free_for_a_repeat_after_settling(make: Make, tmp_path: Path) -> None:
    known: Known = {}
    sent = envelope()
    async with running(make(tmp_path, known)) as transport:
        await transport.publish(sent)
        await transport.receive(1)
        known[sent.id] = record_of(sent, CommandStatus.COMPLETED)
        transport.settle(sent.id)
        transport.settle(sent.id)
        transport.settle(new_uuid(0))
        await transport.publish(sent)
        assert await nothing_more(transport)


async def test_nothing_is_accepted_after_closing(make: Make, tmp_path: Path) -> None:
    async with running(make(tmp_path, {})) as transport:
        await transport.aclose()
        with pytest.raises(TransportBusy):
            await transport.publish(envelope())


async def test_many_publishers_at_once_lose_nothing(make: Make, tmp_path: Path) -> None:
    sent = [envelope() for _ in range(600)]
    async with running(make(tmp_path, {})) as transport:
        await asyncio.gather(*(transport.publish(one) for one in sent))
        got = await received(transport, len(sent))
    assert [one.id for one in got] == [one.id for one in sent]
