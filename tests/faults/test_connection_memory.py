"""What hundreds of peers make a whole service hold, each of them within every bound on one."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_stream_memory import MIB, memory
from tests.jobs import Apps
from tests.proxies import make_certificate
from tests.raw_socket import client_frame, handshake
from tests.service import Http, Service, running_service

PEERS = 200
GROWTH_MAX = 32 * MIB
"""Over all tests: an open connection with its objects takes about 40 KiB, and may hold a little."""

BODY = b"x" * 990_000
KIND = "Content-Type: application/json\r\n"


def define(apps: Apps) -> None:
    apps.shell("T/Long", "head -c 3000000 /dev/zero | tr '\\0' x | fold -w 99")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), define) as running:
        yield running


@pytest.fixture(scope="module")
def before(service: Service) -> int:
    """What the service takes before anybody came: its heap does not shrink between the tests."""
    return memory(service.pid)


def announced(head: str) -> bytes:
    return f"{head}Content-Length: {len(BODY) + 1}\r\n\r\n".encode() + BODY


def chunked(head: str) -> bytes:
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"1\r\nx\r\n" * 150_000


SIGN_IN = f"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\n{KIND}"
COMMANDS = f"POST /api/v1/commands HTTP/1.1\r\nHost: localhost\r\n{KIND}"
UNPROVEN: dict[str, bytes] = {
    "bodies of signing in": announced(SIGN_IN),
    "bodies of signing in in chunks": chunked(SIGN_IN),
    "bodies of anonymous commands": announced(COMMANDS),
    "bodies of anonymous commands in chunks": chunked(COMMANDS),
    "bodies of a path that is none": announced(f"PUT /x HTTP/1.1\r\nHost: localhost\r\n{KIND}"),
    "bodies of a GET": announced(f"GET /livez HTTP/1.1\r\nHost: localhost\r\n{KIND}"),
    "heads of long lines": b"GET / HTTP/1.1\r\n" + b"".join(
        b"X-%d: %s\r\n" % (n, b"y" * 8000) for n in range(120)
    ),
    "heads of short lines": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 120,
    "one line without an end": b"GET /" + b"y" * 8000,
    "many requests in one piece": b"GET /console/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000,
    "many requests and half of one": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20
    + b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100,
    "an upgrade and what comes behind": b"GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + BODY,
    "sockets that prove nothing": handshake("localhost", "").replace(
        b"Authorization: Bearer \r\n", b""
    ) + client_frame(b"y" * 60_000, fin=False) + client_frame(b"y" * 900_000, 0, fin=False),
}  # fmt: skip


def some(kinds: Iterable[str], always: tuple[str, ...]) -> list[Any]:
    """All kinds; those that are not among `always` only in the exhaustive runs."""
    marks = {True: (), False: (pytest.mark.exhaustive,)}
    return [pytest.param(kind, marks=marks[kind in always]) for kind in kinds]


ALWAYS = ("bodies of signing in", "bodies of signing in in chunks", "heads of long lines")


@pytest.mark.parametrize("kind", some(UNPROVEN, ALWAYS))
async def test_many_who_prove_nothing_are_held_in_little_memory(
    service: Service, before: int, kind: str
) -> None:
    async with sending(service.port, UNPROVEN[kind]):
        grown = memory(service.pid) - before
        async with service.http() as http:
            assert (await http.get("/session"))["user"]  # others are served as ever
    print(f"{kind}: {PEERS} connections, {grown / MIB:.1f} MiB")
    assert grown < GROWTH_MAX


def commands(token: str) -> bytes:
    return announced(f"{COMMANDS}Authorization: Bearer {token}\r\n")


def lines(token: str) -> bytes:
    head = COMMANDS.replace("application/json", "application/x-ndjson")
    return chunked(f"{head}Authorization: Bearer {token}\r\n")


PROVEN: dict[str, Callable[[str], bytes]] = {
    "bodies of commands": commands,
    "lines of commands": lines,
    "messages in pieces": lambda token: (
        handshake("localhost", token) + client_frame(b"y" * 60_000, fin=False)
    ),
}


@pytest.mark.parametrize("kind", some(PROVEN, ("bodies of commands",)))
async def test_one_principal_holds_no_more_than_their_share(
    service: Service, before: int, kind: str
) -> None:
    async with service.http() as http:
        made = await http.call("POST", "/tokens", {"userId": "greedy", "roles": ["viewer"]})
        async with sending(service.port, PROVEN[kind](made.json["token"])):
            grown = memory(service.pid) - before
            assert (
                await http.call("POST", "/commands", {"command": "status", "jobId": "T/Long"})
            ).status == 202
    print(f"{kind}: {PEERS} connections, {grown / MIB:.1f} MiB")
    assert grown < GROWTH_MAX + 32 * MIB  # without a share it is six times that


async def test_answers_that_are_never_taken_count(service: Service, before: int) -> None:
    async with service.http() as http:
        execution = await http.start("T/Long")
        await http.ended(execution)
        path = f"/api/v1/executions/{execution}/output?limit=1048576&format=json"
        asked = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {service.token}"
        async with sending(service.port, asked.encode() + b"\r\n\r\n", buffer=4096):
            grown = memory(service.pid) - before
            assert 'http_held_refusals_total{by="proven"}' in await metrics(http)
    print(f"answers of 1 MiB: {PEERS} connections, {grown / MIB:.1f} MiB")
    assert grown < GROWTH_MAX + 48 * MIB


async def metrics(http: Http) -> str:
    async with http.session.get("/metrics") as answer:
        return await answer.text()


async def test_handshakes_that_do_not_go_on_are_held_in_little_memory(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    service = Service(tmp_path)
    process = service.spawn(
        *("--listen", "127.0.0.1:0", "--tls-cert", str(made.cert), "--tls-key", str(made.key))
    )
    try:
        assert process.stdout is not None
        ready = await asyncio.to_thread(process.stdout.readline)
        port = int(ready.decode().strip().rpartition(":")[2])
        before = memory(process.pid)
        async with sending(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            grown = memory(process.pid) - before
            trusted = ssl.create_default_context(cafile=str(made.cert))
            trusted.check_hostname = False
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()
    finally:
        process.kill()
        process.communicate()
        service.clear_away()
    print(f"handshakes: {PEERS} connections, {grown / MIB:.1f} MiB")
    assert grown < GROWTH_MAX + 32 * MIB  # without a share it is six times that


@asynccontextmanager
async def sending(port: int, data: bytes, *, buffer: int = 0) -> AsyncIterator[None]:
    """So many connections have sent of `data` what is taken, and stay open."""
    with ExitStack() as stack:
        async with asyncio.TaskGroup() as group:
            for _ in range(PEERS):
                peer = stack.enter_context(socket.socket())
                if buffer:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                peer.setblocking(False)
                group.create_task(send(peer, port, data))
        yield


async def send(peer: socket.socket, port: int, data: bytes) -> None:
    """Ends when all was sent, or nothing more is taken for a while."""
    loop = asyncio.get_running_loop()
    await loop.sock_connect(peer, ("127.0.0.1", port))
    left = memoryview(data)
    try:
        while left:
            try:
                left = left[peer.send(left[:65_536]) :]
            except BlockingIOError:
                if not await is_writable(peer):
                    return
    except ConnectionError:
        return  # refused: nothing of it is held


async def is_writable(peer: socket.socket) -> bool:
    loop = asyncio.get_running_loop()
    free = loop.create_future()
    loop.add_writer(peer, free.cancel)
    try:
        return bool((await asyncio.wait({free}, timeout=0.3))[0])
    finally:
        loop.remove_writer(peer)
