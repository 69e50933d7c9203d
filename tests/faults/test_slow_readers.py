"""Readers that are slow, gone or hostile: each is cut off in bounded time, and no other waits."""

import asyncio
import json
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from bus.job_definition import RolesSpec
from tests.gateway_fixture import ADMIN, ALICE, Backend, bearer, serving
from tests.raw_socket import client_frame, handshake, raw_socket
from tests.socket_client import open_socket
from tests.stalled_reader import answered, ask, connection, get, is_held, subscribe, subscription
from tests.stream_reader import open_stream
from transports.http.settings import GatewaySettings

PATIENCE_S = 25.0
HOST = "127.0.0.1"
EXECUTION = "0190a1b2-c3d4-4e5f-8a9b-0c1d2e3f4a5b"
LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="reads the kernel's table of connections"
)

READERS: dict[str, bytes] = {
    "sse": get(HOST, "/api/v1/events?start=now"),
    "ndjson": get(HOST, "/api/v1/events?start=now", "application/x-ndjson"),
    "follow": get(HOST, f"/api/v1/executions/{EXECUTION}/stream"),
    "socket": subscribe(HOST, topic="events", start="now"),
    "socket-output": subscribe(HOST, topic="output", execution=EXECUTION),
    "socket-many": subscribe(HOST, topic="output", execution=EXECUTION)
    + b"".join(subscription(f"s{n}", topic="events", start="now") for n in range(63)),
}


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def streams(session: aiohttp.ClientSession) -> dict[str, Any]:
    response = await session.get("/api/v1/system", headers=bearer(ADMIN))
    return dict((await response.json())["streams"])


async def until(session: aiohttp.ClientSession, wanted: Callable[[dict[str, Any]], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(await streams(session)):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", READERS)
async def test_a_reader_that_never_reads_is_cut_off_and_delays_no_other(kind: str) -> None:
    backend = Backend()
    execution = backend.queue("App/Job", execution_id=EXECUTION)
    settings = GatewaySettings(write_timeout_s=1.0, send_buffer=8192, socket_close_s=0.2)
    async with serving(backend, settings) as (url, session), connection(port_of(url)) as deaf:
        await ask(deaf, READERS[kind])
        await answered(deaf)
        await until(session, lambda counts: counts["open"] == 1)
        eager = await open_stream(session, "/api/v1/events?start=now", ADMIN)
        try:
            await eager.until("bookmark")
            await backend.output.append(execution, (b"y" * 99 + b"\n") * 20_000)
            for step in range(2_000):
                backend.progress(execution, step % 100, "x" * 500)
                if step % 20 == 19:
                    ids = [(await eager.next_change()).id for _ in range(20)]
                    assert ids == [f"abc123-{step - 17 + n}" for n in range(20)]
            await until(session, lambda counts: counts["ended"].get("slow") == 1)
            assert (await streams(session))["open"] == 1
        finally:
            eager.close()


async def test_a_socket_that_wakes_up_in_time_reads_that_it_was_too_slow() -> None:
    backend = Backend()
    settings = GatewaySettings(write_timeout_s=0.3, send_buffer=8192, socket_close_s=20.0)
    async with serving(backend, settings) as (url, _), raw_socket(url, buffer=4096) as socket_:
        await socket_.send(subscription("a", topic="events", start="now"))
        while b'"bookmark"' not in await socket_.text():
            pass
        execution = backend.queue("App/Job")
        for step in range(1_000):
            backend.progress(execution, step % 100, "x" * 500)
        # Longer than the patience of the service with a write, shorter than that with the close.
        await asyncio.sleep(0.8)
        assert await socket_.close_code() == 4008


async def test_subscriptions_beside_one_that_reads_much_wait_for_room_and_lose_nothing() -> None:
    backend = Backend()
    execution = backend.queue("App/Job", execution_id=EXECUTION)
    await backend.output.append(execution, (b"y" * 99 + b"\n") * 8_000)
    settings = GatewaySettings(send_buffer=8192)
    async with serving(backend, settings) as (url, _), open_socket(url) as client:
        for name in ("a", "b"):
            await client.subscribe(name, start="now")
        await client.say("subscribe", sub="o", topic="output", execution=execution)
        for step in range(300):
            backend.progress(execution, step % 100, "x" * 200)
            if step % 50 == 0:
                await asyncio.sleep(0.001)
        backend.end(execution)
        received = []
        done: set[str | None] = set()
        while len(done) < 3:
            received.append(await client.next())
            if received[-1].op == "end" or (
                received[-1].op == "change"
                and received[-1].sub != "o"
                and received[-1].data["type"] == "execution.ended"
            ):
                done.add(received[-1].sub)
    expected = [f"abc123-{number}" for number in range(2, 303)]
    for name in ("a", "b"):
        assert [
            each.id for each in received if each.op == "change" and each.sub == name
        ] == expected
    lines = sum(len(each.data["lines"]) for each in received if each.op == "output")
    assert lines == 8_000


async def test_a_grant_that_is_taken_away_ends_a_long_output_in_its_middle() -> None:
    backend = Backend()
    backend.define("App/Job")
    execution = backend.queue("App/Job", "root", EXECUTION)
    await backend.output.append(execution, (b"y" * 99 + b"\n") * 50_000)
    backend.end(execution)
    settings = GatewaySettings(send_buffer=8192)
    async with serving(backend, settings) as (url, _), raw_socket(url, buffer=4096) as slow:
        await slow.send(subscription("o", topic="output", execution=execution))
        while b'"op":"output"' not in await slow.text():
            pass
        backend.define("App/Job", roles=RolesSpec(output=("insider",)))
        received = [json.loads(await slow.text())]
        while received[-1]["op"] != "end":
            received.append(json.loads(await slow.text()))
    assert received[-1]["data"]["reason"] == "revoked"
    assert sum(len(each["data"]["lines"]) for each in received if each["op"] == "output") < 40_000


@pytest.mark.parametrize("kind", READERS)
async def test_a_reader_that_resets_its_connection_makes_room_at_once(kind: str) -> None:
    backend = Backend()
    backend.queue("App/Job", execution_id=EXECUTION)
    settings = GatewaySettings(heartbeat_s=0.3)
    async with serving(backend, settings) as (url, session):
        async with connection(port_of(url)) as leaving:
            await ask(leaving, READERS[kind])
            await answered(leaving)
            await until(session, lambda counts: counts["open"] == 1)
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(session, lambda counts: counts["open"] == 0)


@LINUX
async def test_a_plain_answer_that_is_never_taken_is_given_up() -> None:
    """aiohttp would keep it as long as the other side's kernel says that it is alive."""
    backend = Backend()
    execution = backend.queue("App/Job", execution_id=EXECUTION)
    await backend.output.append(execution, b"y" * 30_000_000)
    settings = GatewaySettings(user_timeout_s=0.5, keepalive_s=0.5)
    async with serving(backend, settings) as (url, session), AsyncExitStack() as opened:
        requests = [
            get(HOST, f"/api/v1/executions/{EXECUTION}/output", "*/*"),
            get(HOST, "/api/v1/executions/" + EXECUTION, "application/json") * 20_000,
        ]
        deaf = [await opened.enter_async_context(connection(port_of(url))) for _ in requests]
        sending = [
            asyncio.create_task(send_what_is_taken(each, request))
            for each, request in zip(deaf, requests, strict=True)
        ]
        for each in deaf:
            await answered(each)
            assert is_held(each)
        assert (await session.get("/livez")).status == 200
        async with asyncio.timeout(PATIENCE_S):
            while any(is_held(each) for each in deaf):
                await asyncio.sleep(0.1)
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)


async def send_what_is_taken(deaf: socket.socket, request: bytes) -> None:
    try:
        await ask(deaf, request)
    except ConnectionError:
        return


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET /livez HTTP/1.1\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /api/v1/commands HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    ],
)
async def test_a_head_that_trickles_is_cut_off_however_steadily_it_comes(head: bytes) -> None:
    settings = GatewaySettings(keepalive_s=0.5)
    async with serving(Backend(), settings) as (url, session), AsyncExitStack() as opened:
        slow = [await opened.enter_async_context(connection(port_of(url))) for _ in range(50)]
        tasks = [asyncio.create_task(trickle(each, head, b"a" * 10_000)) for each in slow]
        assert (await session.get("/livez")).status == 200
        done, _ = await asyncio.wait(tasks, timeout=PATIENCE_S)
        assert len(done) == 50
        assert all(task.result() < 10_000 for task in done)


async def trickle(made: socket.socket, head: bytes, rest: bytes) -> int:
    """Sends `rest` byte by byte as long as it is taken; returns how many bytes were."""
    loop = asyncio.get_running_loop()
    sent = 0
    try:
        await loop.sock_sendall(made, head)
        for sent in range(len(rest)):
            await loop.sock_sendall(made, rest[sent : sent + 1])
            await asyncio.sleep(0.02)
    except ConnectionError:
        pass
    return sent


async def test_a_body_that_trickles_steadily_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transports.http.web.body.BODY_TIMEOUT_S", 0.3)
    head = (
        f"POST /api/v1/commands HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    )
    backend = Backend()
    settings = GatewaySettings(lingering_s=0.1)
    async with serving(backend, settings) as (url, _), connection(port_of(url)) as slow:
        task = asyncio.create_task(trickle(slow, head.encode(), b" " * 10_000))
        status = await asyncio.get_running_loop().sock_recv(slow, 100)
        task.cancel()
        await asyncio.wait([task])
    assert status.startswith(b"HTTP/1.1 408 ")
    assert not backend.published


async def test_a_message_that_trickles_holds_one_socket_and_nothing_else() -> None:
    settings = GatewaySettings(socket_heartbeat_s=0.3)
    message = client_frame(b'{"op":"ping","n":1}' + b" " * 60_000)
    async with serving(Backend(), settings) as (url, _), raw_socket(url) as slow:
        async with open_socket(url) as other:
            for at in range(0, 2_000, 100):
                await slow.send(message[at : at + 100])
                await other.say("ping", n=at)
                assert (await other.until("pong"))[-1].whole["n"] == at
        await slow.send(message[2_000:])
        while b'"pong"' not in (await slow.next())[1]:
            pass


async def test_an_unproven_socket_that_trickles_its_proof_is_closed() -> None:
    settings = GatewaySettings(socket_auth_s=0.4)
    without = handshake(HOST).replace(f"Authorization: Bearer {ALICE}\r\n".encode(), b"")
    proof = client_frame(b'{"op":"auth","token":"' + b"x" * 500 + b'"}')
    async with (
        serving(Backend(), settings) as (url, _),
        connection(port_of(url)) as slow,
        asyncio.timeout(PATIENCE_S),
    ):
        task = asyncio.create_task(trickle(slow, without, proof))
        await read_until(slow, b"\x11\x95unauthenticated")  # the close, with 4501
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("count", [100, pytest.param(1_000, marks=pytest.mark.exhaustive)])
async def test_as_many_streams_as_allowed_are_served_and_the_next_is_asked_to_come_back(
    count: int,
) -> None:
    backend = Backend()
    settings = GatewaySettings(streams_max=count, streams_per_principal=count)
    async with serving(backend, settings) as (url, session), AsyncExitStack() as opened:
        readers = []
        for number in range(count):
            readers.append(await opened.enter_async_context(connection(port_of(url))))
            kind = ("sse", "ndjson", "socket")[number % 3]
            await ask(readers[-1], READERS[kind])
        await until(session, lambda counts: counts["open"] == count)
        full = await session.get("/api/v1/events", headers=bearer(ADMIN))
        plain = await session.get("/api/v1/jobs", headers=bearer(ADMIN))
        backend.queue("App/Job", execution_id=EXECUTION)
        async with asyncio.timeout(PATIENCE_S):
            for reader in readers:
                await read_until(reader, b"execution.queued")
        readers[0].close()
        await until(session, lambda counts: counts["open"] == count - 1)
        again = await session.get("/api/v1/events?start=now", headers=bearer(ADMIN))
        again.close()
    assert (full.status, full.headers["Retry-After"]) == (503, "5")
    assert plain.status == 200
    assert again.status == 200


async def read_until(reader: socket.socket, words: bytes) -> None:
    """The words have come."""
    loop = asyncio.get_running_loop()
    data = b""
    while words not in data:
        piece = await loop.sock_recv(reader, 65_536)
        assert piece, data
        data += piece


async def test_the_twenty_first_stream_of_one_principal_is_refused_whatever_it_speaks() -> None:
    async with serving(Backend()) as (url, session), AsyncExitStack() as opened:
        for number in range(20):
            made = await opened.enter_async_context(connection(port_of(url)))
            await ask(made, READERS[("sse", "ndjson", "socket")[number % 3]])
        await until(session, lambda counts: counts["open"] == 20)
        stream = await session.get("/api/v1/events", headers=bearer(ALICE))
        other = await session.get("/api/v1/events?start=now", headers=bearer(ADMIN))
        upgrade = await opened.enter_async_context(connection(port_of(url)))
        await ask(upgrade, handshake(HOST))
        await answered(upgrade)
        refusal = upgrade.recv(4_096)
        other.close()
    assert (stream.status, stream.headers["Retry-After"]) == (429, "5")
    assert refusal.startswith(b"HTTP/1.1 429 ")
    assert b"Retry-After: 5\r\n" in refusal
    assert other.status == 200
