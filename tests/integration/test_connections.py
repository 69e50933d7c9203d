"""What is asked of ports and URLs: every answer has its sentence, every connection an end."""

import asyncio
import os
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from bus.clock import SystemClock
from bus.health import HealthSpec, HealthStatus
from handlers.catalog.probe_targets import HttpTarget, TcpTarget, http_target
from handlers.supervision import connections
from handlers.supervision.connections import Connections, NoAnswer, NotAsked
from handlers.supervision.health_checks import Checked, HealthChecks
from handlers.supervision.health_count import Verdict
from tests.proxies import make_certificate
from tests.scarce_resources import limited

NOBODY = HttpTarget("127.0.0.1", 1, "/", is_tls=False)
"""A port on which nothing listens."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server; each connection has been served when it ends."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def answering(answer: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return serve


async def ask(port: int, timeout_s: float = 5.0) -> str:
    return await Connections().ask(http_target(f"http://127.0.0.1:{port}/a?b=c"), timeout_s)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "/a?b=c answered 200 OK"),
        (b"HTTP/1.0 204\r\n\r\n", "/a?b=c answered 204"),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 200 OK\r\n\r\n",
            "/a?b=c answered 200 OK",
        ),
        (b"HTTP/1.1 299 \x1b[31mred\r\n\r\n", "/a?b=c answered 299 \ufffd[31mred"),
    ],
)
async def test_answer_of_2xx_is_a_good_one(answer: bytes, said: str) -> None:
    async with serving(answering(answer)) as port:
        assert await ask(port) == f"127.0.0.1:{port}{said}"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "answered 302 Found"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", "answered 500 Oh"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 No\r\n\r\n", "answered 503 No"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000, "does not speak HTTP"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"x" * 100_000, "does not speak HTTP"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200", "does not speak HTTP"),
    ],
)
async def test_any_other_answer_is_a_sentence(answer: bytes, said: str) -> None:
    async with serving(answering(answer)) as port:
        with pytest.raises(NoAnswer, match=said):
            await ask(port)


async def test_server_that_never_answers_is_left_after_its_time() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as port:
        with pytest.raises(NoAnswer, match=f"127.0.0.1 port {port} did not answer within 0.05 s"):
            await ask(port, 0.05)


async def test_request_is_one_that_every_server_understands() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()

    async with serving(serve) as port:
        await ask(port)
        head = f"GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n"
        assert heads == [f"{head}User-Agent: jobbus\r\nConnection: close\r\n\r\n".encode()]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (TcpTarget("127.0.0.1", 1), "nothing listens on 127.0.0.1 port 1"),
        (TcpTarget("", 1), "nothing listens on this machine port 1"),
        (HttpTarget("::1", 1, "/", is_tls=True), "nothing listens on ::1 port 1|cannot be reached"),
        (TcpTarget("no-such-host.invalid", 80), "cannot be found|cannot be reached"),
        (TcpTarget("255.255.255.255", 80), "cannot be reached"),
    ],
)
async def test_what_cannot_be_reached_is_named(target: TcpTarget | HttpTarget, said: str) -> None:
    with pytest.raises(NoAnswer, match=said):
        await Connections().ask(target, 5.0)


async def test_certificate_that_is_not_trusted_is_no_good_answer(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made.cert, made.key)
    asking = Connections()
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n"), tls) as port:
        target = http_target(f"https://127.0.0.1:{port}/")
        with pytest.raises(NoAnswer, match=r"certificate of 127.0.0.1 port .* is not trusted"):
            await asking.ask(target, 5.0)
        context = await asking._context()
        context.load_verify_locations(made.cert)
        assert await asking.ask(target, 5.0) == f"127.0.0.1:{port}/ answered 200 OK"
        plain = http_target(f"http://127.0.0.1:{port}/")
        with pytest.raises(NoAnswer, match=r"closed the connection|does not speak HTTP"):
            await asking.ask(plain, 5.0)


async def test_few_connections_are_open_at_a_time_and_none_is_left() -> None:
    open_now = most = 0
    full = asyncio.Event()
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if open_now == connections.AT_ONCE:
            full.set()
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()
        open_now -= 1

    before = len(os.listdir("/proc/self/fd"))
    asking = Connections()
    async with serving(serve) as port, asyncio.TaskGroup() as group:
        target = http_target(f"http://127.0.0.1:{port}/")
        for _ in range(3 * connections.AT_ONCE):
            group.create_task(asking.ask(target, 20.0))
        async with asyncio.timeout(20):
            await full.wait()
        release.set()
    assert most == connections.AT_ONCE
    async with asyncio.timeout(20):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.01)


async def test_servers_that_never_answer_keep_none_from_one_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "TURN_S", 0.1)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    asking = Connections()
    async with serving(silent) as port, serving(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as well:
        never = http_target(f"http://127.0.0.1:{port}/")
        hanging = [
            asyncio.create_task(asking.ask(never, 3600.0)) for _ in range(3 * connections.AT_ONCE)
        ]
        async with asyncio.timeout(20):
            said = await asking.ask(http_target(f"http://127.0.0.1:{well}/"), 10.0)
        assert said.endswith("answered 200 OK")
        assert not any(each.done() for each in hanging)
        for each in hanging:
            each.cancel()
        await asyncio.wait(hanging)
    assert asking._turns._value == connections.AT_ONCE


@contextmanager
def no_descriptor() -> Iterator[None]:
    """This process can open nothing more."""
    lowest = os.open("/", os.O_RDONLY)
    os.close(lowest)
    with limited(os.getpid(), resource.RLIMIT_NOFILE, lowest):
        yield


async def test_service_without_descriptors_has_not_asked() -> None:
    asking = Connections()
    with no_descriptor(), pytest.raises(NotAsked):
        await asking.ask(NOBODY, 5.0)
    with pytest.raises(NoAnswer) as there:
        await asking.ask(NOBODY, 5.0)
    assert not isinstance(there.value, NotAsked)


async def test_lack_of_the_service_makes_no_program_ill() -> None:
    """Checks go on and find out nothing as long as the service can open no connection."""
    found: list[Verdict] = []
    checks = HealthChecks(
        SystemClock(), Connections(), lambda *_: None, lambda _, verdict: found.append(verdict)
    )
    spec = HealthSpec(url="http://127.0.0.1:1/", every_s=0.01, failures=1)
    checked = Checked(spec=spec, target=NOBODY, status=HealthStatus.HEALTHY, ready_ms=0)
    running = asyncio.create_task(checks.run())
    with no_descriptor():
        checks.watch("e-1", checked)
        first = checks._checking["e-1"].number
        async with asyncio.timeout(20):
            while checks._checking["e-1"].number < first + 5:
                await asyncio.sleep(0.01)
        assert not found
    async with asyncio.timeout(20):
        while not found:  # now it is asked, and nothing listens
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
