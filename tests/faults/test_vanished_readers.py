"""Readers behind a cable that is cut: no FIN, no RST, nothing. Needs a network namespace."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest

from tests.gateway_fixture import ADMIN, Backend, bearer
from tests.stalled_reader import get, subscribe
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

PATIENCE_S = 40.0
NAMESPACE = f"jobbus{os.getpid()}"
OUTSIDE, INSIDE = f"jb{os.getpid()}a", f"jb{os.getpid()}b"
ADDRESS, PEER = "10.231.77.1", "10.231.77.2"
EXECUTION = "0190a1b2-c3d4-4e5f-8a9b-0c1d2e3f4a5b"

READER = """
import socket, sys, threading
request = bytes.fromhex(sys.argv[3])
made = socket.create_connection((sys.argv[1], int(sys.argv[2])))
made.sendall(request)
assert made.recv(65536)
print("reading", flush=True)
threading.Thread(target=sys.stdin.read, daemon=True).start()
while made.recv(65536):
    pass
"""
"""A client that reads all it is sent."""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def cable() -> Iterator[None]:
    """Two ends of a cable: one here, one in a network namespace of its own."""
    try:
        ip("netns", "add", NAMESPACE)
    except (OSError, subprocess.SubprocessError) as exc:
        # Not required anywhere: whether it is allowed depends on the machine, not on its packages.
        pytest.skip(f"no network namespaces here: {exc}")
    try:
        ip("link", "add", OUTSIDE, "type", "veth", "peer", "name", INSIDE, "netns", NAMESPACE)
        ip("addr", "add", f"{ADDRESS}/30", "dev", OUTSIDE)
        ip("link", "set", OUTSIDE, "up")
        ip("-n", NAMESPACE, "addr", "add", f"{PEER}/30", "dev", INSIDE)
        ip("-n", NAMESPACE, "link", "set", INSIDE, "up")
        yield
    finally:
        # The cable first: connections that are still closing keep the namespace for a while.
        subprocess.run(["ip", "link", "del", OUTSIDE], check=False, capture_output=True, timeout=20)
        ip("netns", "del", NAMESPACE)


@asynccontextmanager
async def reader(url: str, request: bytes) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client at the other end that has begun to read."""
    process = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", NAMESPACE, sys.executable, "-c", READER),
        *(ADDRESS, url.rpartition(":")[2], request.hex()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            assert await process.stdout.readline() == b"reading\n"
        yield process
    finally:
        process.kill()
        await process.wait()


async def open_streams(url: str, wanted: Callable[[int], bool]) -> None:
    """Waits until as many streams are open as wanted."""
    async with aiohttp.ClientSession(url) as session, asyncio.timeout(PATIENCE_S):
        while True:
            response = await session.get("/api/v1/system", headers=bearer(ADMIN))
            if wanted((await response.json())["streams"]["open"]):
                return
            await asyncio.sleep(0.05)


async def test_readers_that_vanish_without_a_word_are_found_and_their_places_freed(
    cable: None,
) -> None:
    backend = Backend()
    backend.queue("App/Job", execution_id=EXECUTION)
    settings = GatewaySettings(heartbeat_s=0.3, user_timeout_s=2.0, socket_heartbeat_s=60.0)
    gateway = Gateway(backend.ports(), settings)
    url = await gateway.start(ADDRESS, 0)
    requests = [
        get(ADDRESS, "/api/v1/events?start=now"),
        get(ADDRESS, "/api/v1/events?start=now", "application/x-ndjson"),
        get(ADDRESS, f"/api/v1/executions/{EXECUTION}/stream"),
        subscribe(ADDRESS, topic="events", start="now"),
    ]
    try:
        async with AsyncExitStack() as opened:
            readers = [await opened.enter_async_context(reader(url, each)) for each in requests]
            await open_streams(url, lambda count: count == len(requests))
            ip("-n", NAMESPACE, "addr", "del", f"{PEER}/30", "dev", INSIDE)
            await open_streams(url, lambda count: count == 0)
            assert all(process.returncode is None for process in readers)
    finally:
        await gateway.aclose()
