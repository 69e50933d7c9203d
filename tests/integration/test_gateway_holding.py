"""What is refused when too much is on its way, and what is let in all the same."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tests.gateway_fixture import ADMIN, ALICE, Backend, serving
from transports.http.settings import GatewaySettings

KIB = 1024
SMALL = GatewaySettings(held_proven=256 * KIB, held_unproven=64 * KIB)
"""A quarter of it for each: 64 KiB and 16 KiB, beside the 20 KiB that are never refused."""

COMMAND = b'{"command":"start","jobId":"App/Job"}'


def head(path: str, length: int | None, *, token: str = "", expect: bool = False) -> bytes:
    """Of a POST; without a length its body comes in chunks."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked",
        *([f"Authorization: Bearer {token}"] if token else []),
        *(["Expect: 100-continue"] if expect else []),
    ]
    return "\r\n".join((*lines, "", "")).encode()


def padded(size: int) -> bytes:
    return COMMAND + b" " * (size - len(COMMAND))


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, str]:
        """Status and code of the next answer."""
        async with asyncio.timeout(20):
            start = await self._reader.readuntil(b"\r\n\r\n")
            status = int(start.split()[1])
            lower = start.lower()
            length = 0
            if b"content-length: " in lower:
                length = int(lower.partition(b"content-length: ")[2].split()[0])
            body = await self._reader.readexactly(length)
        return status, json.loads(body).get("code", "") if body else ""


@asynccontextmanager
async def peer(url: str) -> AsyncIterator[Peer]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


async def test_a_body_too_long_for_its_path_is_refused_before_it_is_sent() -> None:
    async with serving(Backend()) as (url, _), peer(url) as session, peer(url) as cancel:
        session.send(head("/api/v1/session", 2 * KIB + 1))
        cancel.send(head("/api/v1/session/code", 8 * KIB + 1, token=ALICE))
        assert await session.answer() == (413, "too_large")
        assert await cancel.answer() == (413, "too_large")


async def test_a_body_behind_its_head_signs_in() -> None:
    async with serving(Backend()) as (url, _), peer(url) as session, peer(url) as other:
        body = json.dumps({"token": ALICE}).encode()
        session.send(head("/api/v1/session", len(body)))
        other.send(head("/api/v1/commands", 2))
        assert await other.answer() == (401, "unauthenticated")  # the head has arrived by now
        session.send(body)
        assert await session.answer() == (204, "")


async def test_a_body_in_chunks_is_refused_as_soon_as_it_is_too_long() -> None:
    async with serving(Backend()) as (url, _), peer(url) as session:
        session.send(head("/api/v1/session", None) + b"400\r\n" + b" " * KIB + b"\r\n")
        session.send((b"400\r\n" + b" " * KIB + b"\r\n") * 2)
        assert await session.answer() == (413, "too_large")


async def test_only_the_client_that_holds_too_much_is_refused() -> None:
    async with serving(Backend(), SMALL) as (url, session), peer(url) as first:
        first.send(head("/api/v1/commands", 75 * KIB, token=ALICE) + padded(70 * KIB))
        async with peer(url) as second, peer(url) as admin, peer(url) as small:
            await until_held(session, 50 * KIB)
            second.send(head("/api/v1/commands", 40 * KIB, token=ALICE))
            admin.send(head("/api/v1/commands", 60 * KIB, token=ADMIN) + padded(60 * KIB))
            small.send(head("/api/v1/commands", len(COMMAND), token=ALICE) + COMMAND)
            assert await second.answer() == (503, "overloaded")
            assert await admin.answer() == (202, "")
            assert await small.answer() == (202, "")
        first.send(b" " * 5 * KIB)
        assert await first.answer() == (202, "")


async def test_a_body_that_outgrows_its_share_on_the_way_is_answered() -> None:
    async with serving(Backend(), SMALL) as (url, _), peer(url) as first:
        first.send(head("/api/v1/commands", None, token=ALICE))
        first.send((b"1000\r\n" + b" " * 4 * KIB + b"\r\n") * 30)
        assert await first.answer() == (503, "overloaded")


async def test_a_head_that_never_ends_is_answered() -> None:
    async with (
        serving(Backend()) as (url, _),
        peer(url) as one,
        serving(Backend(), SMALL) as (less, _),
    ):
        one.send(b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(600)))
        assert (await one.answer())[0] in (400, 431)
        async with peer(less) as other:
            other.send(b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(90)))
            other.send(b"".join(b"%s: %s\r\n" % (n, b"y" * 8000) for n in (b"X", b"Y", b"Z", b"Q")))
            assert await other.answer() == (503, "overloaded")


async def test_who_waits_for_an_end_holds_no_body_meanwhile() -> None:
    async with serving(Backend(), SMALL) as (url, session), peer(url) as waits:
        head_ = head("/api/v1/commands", 70 * KIB, token=ALICE)
        waits.send(head_.replace(b"\r\n\r\n", b"\r\nPrefer: wait=20\r\n\r\n") + padded(70 * KIB))
        async with peer(url) as second:
            second.send(head("/api/v1/session/code", 2, token=ALICE) + b"{}")
            await second.answer()
            await until_held(session, 0)
            second.send(head("/api/v1/commands", 70 * KIB, token=ALICE) + padded(70 * KIB))
            assert await second.answer() == (202, "")


async def test_who_is_refused_is_not_asked_for_the_body() -> None:
    async with serving(Backend()) as (url, _), peer(url) as anonymous, peer(url) as long:
        anonymous.send(head("/api/v1/commands", 100, expect=True))
        long.send(head("/api/v1/session", 5 * KIB, expect=True))
        assert await anonymous.answer() == (401, "unauthenticated")
        assert await long.answer() == (413, "too_large")
        async with peer(url) as known:
            known.send(head("/api/v1/commands", len(COMMAND), token=ALICE, expect=True))
            assert await known.answer() == (100, "")
            known.send(COMMAND)
            assert await known.answer() == (202, "")


async def until_held(session: aiohttp.ClientSession, size: int) -> None:
    """The metric says that those with a credential hold so much; with 0, nothing."""
    async with asyncio.timeout(20):
        while True:
            headers = {"Authorization": f"Bearer {ADMIN}"}
            async with session.get("/metrics", headers=headers) as answer:
                text = await answer.text()
            held = float(text.partition('jobbus_http_held_bytes{by="proven"} ')[2].split()[0])
            if held >= size if size else held == 0:
                return
            await asyncio.sleep(0.01)
