"""What holds for every request: problems, authentication, hosts, headers, health."""

import asyncio
import io
import socket
from contextlib import ExitStack, suppress
from typing import Any

import aiohttp
import pytest

from jobbus.service.logs import configure_logs
from tests.gateway_fixture import ADMIN, ALICE, Backend, bearer, serving
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

PROBLEM = "application/problem+json"


async def raw(url: str, request: bytes) -> bytes:
    """What the service answers to exactly these bytes."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/nothing", 404, "not_found", None),
        ("GET", "/api/v1/nothing", 404, "not_found", None),
        ("PUT", "/api/v1/commands", 405, "method_not_allowed", "GET, HEAD, POST"),
        ("POST", "/api/v1/events", 405, "method_not_allowed", "GET, HEAD"),
        ("DELETE", "/livez", 405, "method_not_allowed", "GET, HEAD"),
        ("GET", "/version?x=1", 400, "unknown_parameter", None),
    ],
)
async def test_every_no_is_a_problem(
    method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    async with serving(Backend()) as (_, session), session.request(method, path) as response:
        problem = await response.json(content_type=PROBLEM)
    assert (response.status, problem["status"], problem["code"]) == (status, status, code)
    assert response.headers.get("Allow") == allow
    assert problem["instance"] == response.headers["X-Request-Id"]
    assert set(problem) >= {"type", "title", "detail"}


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/v1/commands HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["rubbish", "long-header", "long-path", "bad-length", "tls"],
)
async def test_an_unreadable_request_gets_a_problem_too(request_bytes: bytes) -> None:
    async with serving(Backend()) as (url, session):
        answer = await raw(url, request_bytes + b"\r\n\r\n")
        assert (await session.get("/livez")).status == 200
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") or head.startswith(b"HTTP/1.0 400 ")
    assert b"content-type: application/problem+json" in head.lower()
    assert b'"code":"malformed"' in body
    assert b"Traceback" not in body


async def test_who_leaves_in_the_middle_of_a_body_is_no_error(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """No credential is needed for that: it must not fill the log with traces."""
    head = (
        b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    async with serving(Backend()) as (url, session):
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        assert (await session.get("/livez")).status == 200  # the body is waited for by now
        writer.close()
        await writer.wait_closed()
        assert (await session.get("/livez")).status == 200  # and by now it is known to be gone
    assert "request failed" not in capsys.readouterr().out
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_defect_is_a_500_without_a_trace() -> None:
    backend = Backend()
    backend.table.jobs = None  # type: ignore[assignment,method-assign]  # a defect on purpose
    async with serving(backend) as (_, session):
        response = await session.get("/api/v1/jobs", headers=bearer(ALICE))
        text = await response.text()
    assert (response.status, response.content_type) == (500, PROBLEM)
    assert "TypeError" not in text
    assert "NoneType" not in text
    assert response.headers["X-Request-Id"] in text


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (None, None),
        ("Bearer wrong", "invalid_token"),
        ("Basic YTpi", "invalid_request"),
        ("Bearer", "invalid_request"),
        ("Bearer a b", "invalid_request"),
        ("Bearer " + "x" * 600, "invalid_request"),
    ],
)
async def test_no_or_a_wrong_token_is_401_everywhere(header: str | None, error: str | None) -> None:
    headers = {"Authorization": header} if header is not None else {}
    backend = Backend()
    async with serving(backend) as (_, session):
        for method, path in (
            ("GET", "/api/v1/jobs"),
            ("GET", "/api/v1/executions/x/output"),
            ("GET", "/api/v1/events"),
            ("GET", "/api/v1/system"),
            ("POST", "/api/v1/commands"),
            ("POST", "/api/v1/jobs/start"),
        ):
            response = await session.request(method, path, headers=headers)
            assert response.status == 401, path
            assert response.content_type == PROBLEM
            challenge = response.headers["WWW-Authenticate"]
            assert challenge.startswith('Bearer realm="jobbus"')
            assert (f'error="{error}"' in challenge) == (error is not None)
    assert not backend.published


async def test_a_token_in_the_url_is_refused() -> None:
    async with serving(Backend()) as (_, session):
        response = await session.get(f"/api/v1/jobs?token={ALICE}", headers=bearer(ALICE))
        text = await response.text()
    assert response.status == 400
    assert ALICE not in text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("jobs.example.org", 200),
        ("evil.example.org", 421),
        ("localhost.evil.org", 421),
        ("localhost:80@evil.org", 421),
        ("127.0.0.2", 421),
        ("", 421),
    ],
)
async def test_only_known_hosts_are_served(host: str, status: int) -> None:
    settings = GatewaySettings(hosts=("jobs.example.org",))
    async with serving(Backend(), settings) as (url, _):
        answer = await raw(
            url, f"GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_every_answer_carries_the_security_headers() -> None:
    async with serving(Backend()) as (_, session):
        for path in ("/livez", "/nothing", "/api/v1/jobs", "/version", "/", "/console/app.js"):
            response = await session.get(path)
            assert response.headers["X-Content-Type-Options"] == "nosniff", path
            assert response.headers["Referrer-Policy"] == "no-referrer", path
            assert "default-src 'none'" in response.headers["Content-Security-Policy"], path
            assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"], path
            assert "aiohttp" not in response.headers["Server"], path


async def test_health_version_and_problem_pages_need_no_token() -> None:
    backend = Backend()
    async with serving(backend, GatewaySettings(version="1.2.3")) as (_, session):
        live = await session.get("/livez")
        head = await session.head("/livez")
        ready = await session.get("/readyz")
        version: Any = await (await session.get("/version")).json()
        meaning = await session.get("/problems/unknown-job")
        nonsense = await session.get("/problems/nonsense")
        backend.not_ready = "replaying the journal"
        unready = await session.get("/readyz")
        why = await unready.json(content_type=PROBLEM)
    assert [r.status for r in (live, head, ready, meaning, nonsense, unready)] == [
        200, 200, 200, 200, 404, 503,
    ]  # fmt: skip
    assert version == {"name": "jobbus", "version": "1.2.3", "api": "v1"}
    assert why["detail"] == "replaying the journal"


async def test_the_state_of_the_service_is_for_admins() -> None:
    async with serving(Backend()) as (_, session):
        refused = await session.get("/api/v1/system", headers=bearer(ALICE))
        response = await session.get("/api/v1/system", headers=bearer(ADMIN))
        body = await response.json()
    assert refused.status == 403
    assert body["queue"] == {"waiting": 0}
    assert body["streams"]["open"] == 0


async def test_half_a_request_is_not_held_for_ever() -> None:
    async with serving(Backend(), GatewaySettings(keepalive_s=0.2)) as (url, _):
        answer = await raw(url, b"GET /livez HTTP/1.1\r\nHost: local")
    assert answer == b""


async def test_silent_connections_keep_no_client_out() -> None:
    """More than may be open: the oldest of them go, those of people who are known stay."""
    backend = Backend()
    async with (
        serving(backend, GatewaySettings(connections_max=8)) as (url, session),
        session.get("/api/v1/events", headers=bearer(ALICE)) as stream,
    ):
        await stream.content.readuntil(b"\n\n")
        host, port = url.removeprefix("http://").split(":")
        with ExitStack() as held:
            silent = [held.enter_context(silence(host, int(port))) for _ in range(30)]
            statuses = [
                (await session.get("/api/v1/jobs", headers=bearer(ALICE))).status for _ in range(3)
            ]
            async with asyncio.timeout(10):
                ended = await asyncio.get_running_loop().sock_recv(silent[0], 1)
            backend.define("App/Job")
            sent = await asyncio.wait_for(_until(stream, b"App/Job"), 10)
    assert statuses == [200, 200, 200]
    assert ended == b""
    assert sent


def silence(host: str, port: int) -> socket.socket:
    made = socket.create_connection((host, port), timeout=10)
    made.setblocking(False)
    return made


async def _until(stream: aiohttp.ClientResponse, word: bytes) -> bool:
    async for line in stream.content:
        if word in line:
            return True
    return False


async def test_the_access_log_has_no_query() -> None:
    log = io.StringIO()
    configure_logs("info", log)
    async with serving(Backend()) as (_, session):
        # Refused, for the unknown name: what goes well is logged at level debug only.
        await session.get("/api/v1/executions?hush=hush-hush", headers=bearer(ALICE))
    logged = log.getvalue()
    assert "/api/v1/executions" in logged
    assert "hush-hush" not in logged
    assert ALICE not in logged


async def test_a_taken_port_is_an_error_that_leaves_nothing_running() -> None:
    async with serving(Backend()) as (url, _):
        second = Gateway(Backend().ports())
        with pytest.raises(OSError, match="address already in use"):
            await second.start("127.0.0.1", int(url.rpartition(":")[2]))
        await second.aclose()


async def test_closing_twice_is_harmless() -> None:
    gateway = Gateway(Backend().ports())
    await gateway.start("127.0.0.1", 0)
    await gateway.aclose()
    await gateway.aclose()


@pytest.mark.parametrize("turns", range(5))
async def test_who_comes_at_the_very_end_is_sent_away(turns: int) -> None:
    """Whatever the listener had got to with the connection when it was closed."""
    gateway = Gateway(Backend().ports(), GatewaySettings(version="test"))
    url = await gateway.start("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as late:
        for _ in range(turns):
            await asyncio.sleep(0)
        await gateway.aclose()
        late.settimeout(10)
        with suppress(ConnectionResetError):
            assert late.recv(1) == b""


async def test_nothing_is_accepted_once_closed() -> None:
    gateway = Gateway(Backend().ports())
    url = await gateway.start("127.0.0.1", 0)
    await gateway.aclose()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{url}/livez")


async def test_expectations_are_followed_or_refused_as_a_problem() -> None:
    body = b'{"command":"start","jobId":"App/Job"}'
    head = (
        f"POST /api/v1/commands HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    )
    async with serving(Backend()) as (url, _):
        followed = await raw(url, f"{head}Expect: 100-continue\r\n\r\n".encode() + body)
        refused = await raw(url, f"{head}Expect: tea\r\n\r\n".encode() + body)
    assert followed.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 ")
    assert refused.startswith(b"HTTP/1.1 417 ")
    assert b'"code":"malformed"' in refused


async def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transports.http.web.body.BODY_TIMEOUT_S", 0.2)
    head = (
        f"POST /api/v1/commands HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    backend = Backend()
    async with serving(backend, GatewaySettings(lingering_s=0.1)) as (url, _):
        answer = await raw(url, head.encode())
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert not backend.published
