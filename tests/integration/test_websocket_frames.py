"""The WebSocket against clients that break its rules, byte by byte (RFC 6455)."""

import asyncio
import json

import pytest

from tests.gateway_fixture import ALICE, Backend, bearer, serving
from tests.raw_socket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    client_frame,
    handshake,
    raw_socket,
)
from transports.http.settings import GatewaySettings

PINGING = b'{"op":"ping","n":1}'
PONGED = b'{"op":"pong","n":1}'


async def test_a_message_may_come_in_pieces_with_pings_between_them() -> None:
    async with serving(Backend()) as (url, _), raw_socket(url) as socket:
        for at, byte in enumerate(PINGING):
            last = at == len(PINGING) - 1
            opcode = TEXT if at == 0 else CONTINUATION
            await socket.send(client_frame(bytes((byte,)), opcode, fin=last))
            if at == 3:
                await socket.send(client_frame(b"between", PING))
        first, second = await socket.next(), await socket.next()
    assert (first, second) == ((PONG, b"between"), (TEXT, PONGED))


async def test_a_frame_may_come_byte_by_byte() -> None:
    async with serving(Backend()) as (url, _), raw_socket(url) as socket:
        for byte in client_frame(PINGING) + client_frame(PINGING):
            await socket.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert [await socket.text(), await socket.text()] == [PONGED, PONGED]


async def test_frames_may_come_in_one_piece_with_the_handshake() -> None:
    frames = client_frame(PINGING) * 3
    async with serving(Backend()) as (url, _), raw_socket(url, behind=frames) as socket:
        assert [await socket.text() for _ in range(3)] == [PONGED] * 3


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (client_frame(PINGING, masked=False), 1002),
        (client_frame(b"", PING, masked=False), 1002),
        (client_frame(b"\x03\xe8", CLOSE, masked=False), 1002),
        (client_frame(b"{}", masked=False, claimed=70_000), 1002),
        (client_frame(b"\xff\xfe{}"), 1007),
        (client_frame(b"{", fin=False) + client_frame(b"\xc3", CONTINUATION), 1007),
        (client_frame(b"x" * 65_537), 1009),
        (client_frame(b"", claimed=2**40), 1009),
        (client_frame(b"", claimed=2**63), 1009),
        (client_frame(b"", claimed=2**64 - 1), 1009),
        (client_frame(b"x" * 40_000, fin=False) + client_frame(b"x" * 40_000, CONTINUATION), 1009),
        (
            client_frame(b"", TEXT, fin=False) + client_frame(b"", CONTINUATION, fin=False) * 2_000,
            1002,
        ),
        (client_frame(PINGING, reserved=4), 1002),
        (client_frame(PINGING, reserved=1), 1002),
        (client_frame(PINGING, opcode=0x3), 1002),
        (client_frame(PINGING, opcode=0xB), 1002),
        (client_frame(PINGING, CONTINUATION), 1002),
        (client_frame(b"{", fin=False) + client_frame(PINGING), 1002),
        (client_frame(b"x" * 126, PING), 1002),
        (client_frame(b"", PING, fin=False), 1002),
        (client_frame(b"\x03", CLOSE), 1002),
        (client_frame(b"\x03\xed", CLOSE), 1002),
        (client_frame(b"\x00\x01", BINARY), 4500),
        (client_frame(b"", BINARY), 4500),
        (client_frame(b""), 4500),
        (client_frame(b"\xef\xbb\xbf{}"), 4500),
    ],
    ids=lambda value: f"{len(value)}-bytes" if isinstance(value, bytes) else str(value),
)
async def test_a_broken_frame_closes_its_socket_with_the_right_code_and_no_other(
    bad: bytes, code: int
) -> None:
    backend = Backend()
    async with (
        serving(backend) as (url, session),
        raw_socket(url) as other,
        raw_socket(url) as socket,
    ):
        await socket.send(bad)
        assert await socket.close_code() == code
        await socket.send(client_frame(code.to_bytes(2, "big"), CLOSE))
        await socket.ends()
        await other.send(client_frame(PINGING))
        assert await other.text() == PONGED
        alive = await session.get("/livez")
    assert alive.status == 200


@pytest.mark.parametrize("cut", range(8))
async def test_a_frame_without_a_mask_is_seen_wherever_it_is_cut(cut: int) -> None:
    good, bad = client_frame(PINGING), client_frame(PINGING, masked=False)
    stream = good + bad
    at = len(good) - 3 + cut
    async with serving(Backend()) as (url, _), raw_socket(url, behind=stream[:at]) as socket:
        await socket.send(stream[at:])
        sent = await socket.next()
        assert sent == (TEXT, PONGED) or sent[0] == CLOSE
        if sent[0] != CLOSE:
            assert await socket.close_code() == 1002


async def test_a_frame_without_a_mask_behind_the_handshake_is_refused() -> None:
    behind = client_frame(PINGING, masked=False)
    async with serving(Backend()) as (url, _), raw_socket(url, behind=behind) as socket:
        assert await socket.close_code() == 1002


async def test_a_close_is_answered_and_ends_the_connection() -> None:
    async with serving(Backend()) as (url, session), raw_socket(url) as socket:
        await socket.send(client_frame(b"\x0f\xa1bye", CLOSE))
        assert await socket.close_code() is not None
        await socket.ends()
        async with asyncio.timeout(20):
            while True:
                system = await session.get("/api/v1/system", headers=bearer("jb_admin_secret"))
                if (await system.json())["streams"]["open"] == 0:
                    break


async def test_a_client_that_does_not_answer_the_close_is_left_behind() -> None:
    settings = GatewaySettings(socket_close_s=0.2)
    async with serving(Backend(), settings) as (url, _), raw_socket(url) as socket:
        await socket.send(client_frame(b"x", BINARY))
        assert await socket.close_code() == 4500
        await socket.ends()


async def test_a_client_that_stops_answering_pings_is_closed() -> None:
    settings = GatewaySettings(socket_heartbeat_s=0.2)
    async with serving(Backend(), settings) as (url, _), raw_socket(url) as socket:
        assert await socket.next() == (PING, b"")
        await socket.send(client_frame(b"", PONG))
        assert await socket.next() == (PING, b"")
        await socket.ends()


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ((b"Sec-WebSocket-Version: 13\r\n", b""), b"426", b"version 13"),
        ((b"Version: 13", b"Version: 8"), b"426", b"version 13"),
        ((b"Upgrade: websocket\r\n", b""), b"426", b"WebSocket"),
        ((b"Upgrade: websocket", b"Upgrade: h2c"), b"400", b"Upgrade: websocket"),
        ((b"Connection: Upgrade", b"Connection: close"), b"400", b"Connection: Upgrade"),
        ((b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b""), b"400", b"Sec-WebSocket-Key"),
        ((b"AAAAAAAAAAAAAAAAAAAAAA==", b"AAAA"), b"400", b"16 bytes"),
        ((b"AAAAAAAAAAAAAAAAAAAAAA==", b"\xff!"), b"400", b"16 bytes"),
        ((b"GET /api/v1/ws", b"POST /api/v1/ws"), b"405", b"allowed: GET"),
        ((b"GET /api/v1/ws", b"GET /api/v1/ws?jop=1"), b"400", b"jop"),
    ],
)
async def test_a_request_that_is_no_handshake_is_refused_with_what_is_missing(
    change: tuple[bytes, bytes], status: bytes, says: bytes
) -> None:
    async with serving(Backend()) as (url, session):
        host, _, port = url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(handshake(host).replace(*change))
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            problem = await reader.readuntil(b"}")
        writer.close()
        await writer.wait_closed()
        system = await session.get("/api/v1/system", headers=bearer("jb_admin_secret"))
        assert (await system.json())["streams"]["open"] == 0
    assert head.split()[1] == status
    assert says in problem


async def test_a_refused_handshake_leaves_a_connection_that_serves_on_or_closes() -> None:
    async with serving(Backend()) as (url, _):
        host, _, port = url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(handshake(host, "wrong"))
        writer.write(f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(20):
            answers = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answers.startswith(b"HTTP/1.1 401 ")
    assert answers.count(b"HTTP/1.1 ") == 1 or answers.endswith(b"alive\n")


async def test_frames_of_every_length_are_whole_and_shortest() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend) as (url, _), raw_socket(url) as socket:
        subscribe = {"op": "subscribe", "sub": "a", "topic": "events", "start": "now"}
        await socket.send(client_frame(json.dumps(subscribe).encode()))
        while b'"bookmark"' not in await socket.text():
            pass
        backend.progress(execution, 1)
        overhead = len(await socket.text())
        sizes = []
        for length in (*range(65_530 - overhead, 65_541 - overhead), 200_000):
            backend.progress(execution, 1, "x" * length)
            payload = await socket.text()
            assert json.loads(payload)["data"]["data"]["progress"]["message"] == "x" * length
            sizes.append(len(payload))
    assert {65_535, 65_536} <= set(sizes)


def test_the_token_of_these_tests_is_a_principal() -> None:
    assert ALICE in Backend().principals
