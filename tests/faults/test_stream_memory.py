"""Readers of a whole service in its own process: what they cost, and that it ends all the same."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.jobs import Apps
from tests.raw_stream import RawStream
from tests.service import Http, Service, eventually_answered, running_service
from tests.stalled_reader import answered, ask, connection, get, subscribe, subscription

HOST = "127.0.0.1"
MIB = 1024 * 1024
CHANGES = 20_000
LINES = 1000
BIG = (
    'head -c 40000000 /dev/zero | tr "\\0" "x" | fold -w 99; echo done >> "$BOARD/printed"; '
    'until [ -e "$BOARD/go" ]; do sleep 0.2; done'
)


def define(apps: Apps) -> None:
    apps.shell("T/Big", BIG)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


def memory(pid: int) -> int:
    """Bytes that this process alone has in memory."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"Private_\w+:\s+(\d+) kB", rollup)) * 1024


async def tokens(http: Http, count: int) -> list[str]:
    """Tokens of as many different people."""
    made = []
    for number in range(count):
        body = {"userId": f"reader{number}", "roles": ["admin"]}
        answer = await http.call("POST", "/tokens", body)
        assert answer.status == 201, answer.body
        made.append(answer.json["token"])
    return made


async def open_count(http: Http) -> int:
    return int((await http.get("/system"))["streams"]["open"])


async def printed_execution(service: Service, http: Http) -> str:
    execution = await http.start("T/Big")
    await eventually_answered(
        lambda: as_answer(bool(service.apps.lines("printed"))), "the job has printed"
    )
    return execution


async def as_answer(fact: bool) -> bool:
    return fact


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_readers_that_never_read_cost_less_than_a_megabyte_each(service: Service) -> None:
    async with service.http() as http, AsyncExitStack() as opened:
        execution = await printed_execution(service, http)
        people = await tokens(http, 3)
        path = f"/api/v1/executions/{execution}/stream"
        more = b"".join(
            subscription(f"s{n}", topic="output", execution=execution) for n in range(60)
        )

        def requests(token: str) -> list[bytes]:
            return [
                get(HOST, path, token=token),
                get(HOST, path, "application/x-ndjson", token=token),
                subscribe(HOST, token=token, topic="output", execution=execution) + more,
            ]

        # One of each kind first: what is paid once is no reader's cost.
        for request in requests(service.token):
            deaf = await opened.enter_async_context(connection(service.port))
            await ask(deaf, request)
            await answered(deaf)
        await eventually_answered(lambda: is_open(http, 3), "the first are open")
        before = memory(service.pid)
        for request in [each for token in people for each in requests(token) * 5]:
            deaf = await opened.enter_async_context(connection(service.port))
            await ask(deaf, request)
            await answered(deaf)
        await eventually_answered(lambda: is_open(http, 48), "all are open")
        eager = await opened.enter_async_context(await service.stream(path + "?tail=1"))
        await eager.until_kind("output")
        cost = memory(service.pid) - before
        assert cost < 45 * MIB
    assert not service.complaints()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_twenty_thousand_changes_past_readers_that_never_read_cost_no_more_than_the_ring(
    service: Service,
) -> None:
    async with service.http() as http, AsyncExitStack() as opened:
        assert await stopped(http, 100) == 100
        before = memory(service.pid)
        for token in await tokens(http, 3):
            for request in (
                get(HOST, "/api/v1/events", token=token),
                get(HOST, "/api/v1/events", "application/x-ndjson", token=token),
                subscribe(HOST, token=token, topic="events"),
            ):
                deaf = await opened.enter_async_context(connection(service.port))
                await ask(deaf, request)
                await answered(deaf)
        eager = await opened.enter_async_context(await service.stream())
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(changes_of(eager, CHANGES))
            for _ in range(CHANGES // 2 // LINES):
                assert await stopped(http, LINES) == LINES
            await reading
        # The ring has 32 MiB; each reader and each command that was kept has its own little.
        assert memory(service.pid) - before < 40 * MIB
    assert not service.complaints()


async def stopped(http: Http, count: int) -> int:
    """How many of so many stops of an idle job were taken: each is two changes."""
    line = b'{"command":"stop","jobId":"T/Big"}\n'
    answer = await http.session.post(
        "/api/v1/commands", data=line * count, headers={"Content-Type": "application/x-ndjson"}
    )
    return (await answer.read()).count(b'"status":"Pending"')


async def changes_of(reader: RawStream, count: int) -> None:
    received = 0
    while received < count:
        received += (await reader.next()).kind == "change"


async def is_open(http: Http, count: int) -> bool:
    return await open_count(http) == count


async def test_interrupt_with_a_hundred_open_streams_ends_within_five_seconds(
    service: Service,
) -> None:
    async with service.http() as http, AsyncExitStack() as opened:
        execution = await printed_execution(service, http)
        people = await tokens(http, 5)
        path = f"/api/v1/executions/{execution}/stream"
        readers: list[RawStream] = []
        for token in people:
            for number in range(20):
                if number < 5:
                    readers.append(
                        await opened.enter_async_context(
                            await RawStream.open(service.port, "/api/v1/events", token)
                        )
                    )
                    continue
                request = (
                    get(HOST, path, token=token),
                    subscribe(HOST, token=token, topic="events"),
                    subscribe(HOST, token=token, topic="output", execution=execution),
                )[number % 3]
                deaf = await opened.enter_async_context(connection(service.port))
                await ask(deaf, request)
        await eventually_answered(lambda: is_open(http, 100), "all are open")
        began_s = time.monotonic()
        assert await asyncio.to_thread(service.end, signal.SIGINT) == 0
        assert time.monotonic() - began_s < 5
        for reader in readers:
            end = (await reader.rest())[-1]
            assert (end.kind, end.data["reason"]) == ("end", "shutdown")
    assert not service.complaints()
