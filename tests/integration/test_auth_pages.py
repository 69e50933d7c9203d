"""What every answer says to browsers, and which pages may use the API."""

import asyncio
import uuid
from collections.abc import Iterator

import aiohttp
import pytest

from tests.gateway_fixture import ADMIN, ALICE, Backend, bearer, serving
from tests.sign_in import SESSION, Browser
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

DASHBOARD = "https://dash.example.org"
NAMED = GatewaySettings(origins=(DASHBOARD,))
FOREIGN = ("http://127.0.0.1:1", "https://evil.example", "null", "http://localhost")
WHO: tuple[dict[str, str], ...] = ({}, bearer(ADMIN), bearer(ALICE), bearer("wrong"))
START = {"command": "start", "jobId": "App/Job"}


def targets_of(gateway: Gateway) -> Iterator[tuple[str, str]]:
    """Method and path of every route there is, ids and names filled in."""
    assert gateway._runner is not None
    app = gateway._runner.app
    assert app is not None
    for route in app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        for name in ("app", "job", "file", "slug"):
            path = path.replace(f"{{{name}}}", "app.js" if name == "file" else "forbidden")
        yield route.method, path.replace("{id}", str(uuid.uuid4()))


def wrong_headers(response: aiohttp.ClientResponse) -> list[str]:
    """What the answer lacks of what all must carry."""
    headers = response.headers
    policy = headers.get("Content-Security-Policy", "")
    wanted = {
        "nosniff": headers.get("X-Content-Type-Options") == "nosniff",
        "referrer": headers.get("Referrer-Policy") == "no-referrer",
        "resource policy": headers.get("Cross-Origin-Resource-Policy") == "same-origin",
        "opener policy": headers.get("Cross-Origin-Opener-Policy") == "same-origin",
        "request id": len(headers.get("X-Request-Id", "")) == 32,
        "server": headers.get("Server") == "jobbus",
        "cache": headers.get("Cache-Control", "").startswith("no-"),
        "default-src": policy.startswith("default-src 'none'"),
        "frame-ancestors": "frame-ancestors 'none'" in policy,
        "no unsafe": "unsafe" not in policy,
        "no cors": "Access-Control-Allow-Origin" not in headers,
        "no cookie": "Set-Cookie" not in headers,
    }
    if response.content_type in ("text/html", "text/javascript"):
        wanted["trusted types"] = "require-trusted-types-for 'script'" in policy
        wanted["base-uri"] = "base-uri 'none'" in policy
    return [name for name, fine in wanted.items() if not fine]


async def test_every_answer_of_every_route_carries_the_headers() -> None:
    gateway = Gateway(Backend().ports(), GatewaySettings(version="test"))
    url = await gateway.start("127.0.0.1", 0)
    wrong: dict[str, list[str]] = {}
    statuses: set[int] = set()
    try:
        async with aiohttp.ClientSession(base_url=url) as session:
            targets = [*targets_of(gateway), ("GET", "/nowhere"), ("PUT", "/api/v1/jobs")]
            for method, path in targets:
                for who in (*WHO, {"Host": "evil.example"}):
                    async with session.request(method, path, headers=who) as response:
                        statuses.add(response.status)
                        if found := wrong_headers(response):
                            wrong[f"{method} {path} {response.status}"] = found
    finally:
        await gateway.aclose()
    assert not wrong
    assert len(targets) >= 40
    assert {200, 401, 403, 404, 405, 415, 421} <= statuses


async def test_what_is_no_request_at_all_is_answered_with_the_headers_too() -> None:
    async with serving(Backend()) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/9.9\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        writer.close()
        await writer.wait_closed()
    assert head.split()[1] == "400"
    assert "x-content-type-options: nosniff" in head
    assert "content-security-policy: default-src 'none'" in head


async def test_nothing_is_open_but_the_page_and_the_state_of_health() -> None:
    gateway = Gateway(Backend().ports(), GatewaySettings(version="test"))
    url = await gateway.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(base_url=url) as session:
            opened = set()
            for method, path in targets_of(gateway):
                async with session.request(method, path) as response:
                    if response.status != 401:
                        opened.add((method, path.partition("{")[0], response.status))
    finally:
        await gateway.aclose()
    assert {(method, path) for method, path, _ in opened if method != "HEAD"} == {
        ("GET", "/"),
        ("GET", "/console/app.js"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/version"),
        ("GET", "/problems/forbidden"),
        ("GET", "/schemas/app.js"),
        ("POST", SESSION),
        ("GET", "/api/v1/ws"),
    }


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_page_does_nothing_by_the_cookie(origin: str) -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (url, session):
        browser = Browser(session, url)
        await browser.sign_in(token=ALICE)
        cookie = {"Cookie": browser.headers["Cookie"]}
        foreign = cookie | {"Origin": origin}
        answers = [
            await session.post("/api/v1/commands", json=START, headers=foreign),
            await session.post("/api/v1/jobs/start", json={"jobId": "App/Job"}, headers=foreign),
            await session.post("/api/v1/tickets", json={"path": "/api/v1/ws"}, headers=foreign),
            await session.delete(SESSION, headers=foreign),
            await session.get("/api/v1/events", headers=foreign),
            await session.get("/api/v1/ws", headers=foreign | _upgrade()),
            await session.get("/api/v1/ws", headers=cookie | _upgrade()),
            await session.post(SESSION, json={"token": ALICE}, headers={"Origin": origin}),
        ]
        codes = [(await answer.json())["code"] for answer in answers]
        assert await browser.who() is not None
    assert [answer.status for answer in answers] == [403] * len(answers)
    assert set(codes) == {"origin_refused"}
    assert not backend.published


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
async def test_what_the_browser_says_of_the_page_counts_without_an_origin_too(site: str) -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (url, session):
        browser = Browser(session, url)
        await browser.sign_in(token=ALICE)
        sent = {"Cookie": browser.headers["Cookie"], "Sec-Fetch-Site": site}
        write = await session.post("/api/v1/commands", json=START, headers=sent)
        stream = await session.get("/api/v1/events", headers=sent)
        read = await session.get("/api/v1/jobs", headers=sent)
    assert (write.status, stream.status, read.status) == (403, 403, 200)
    assert "Access-Control-Allow-Origin" not in read.headers


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""],
)
async def test_bodies_that_a_page_may_send_unasked_are_no_commands(content_type: str) -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (url, session):
        browser = Browser(session, url)
        await browser.sign_in(token=ALICE)
        response = await session.post(
            "/api/v1/commands",
            data=b'{"command":"start","jobId":"App/Job"}',
            headers=browser.headers | {"Content-Type": content_type},
        )
    assert response.status == 415
    assert not backend.published


async def test_named_pages_may_use_the_api_with_a_token_of_their_own() -> None:
    async with serving(Backend(), NAMED) as (_, session):
        ask = {
            "Origin": DASHBOARD,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        }
        preflight = await session.options("/api/v1/commands", headers=ask)
        read = await session.get("/api/v1/jobs", headers=bearer(ALICE) | {"Origin": DASHBOARD})
        wrong = await session.get("/api/v1/jobs", headers=bearer("x") | {"Origin": DASHBOARD})
        page = await session.get("/", headers={"Origin": DASHBOARD})
    assert preflight.status == 204
    for response in (preflight, read, wrong):
        assert response.headers["Access-Control-Allow-Origin"] == DASHBOARD
        assert response.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in response.headers
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in page.headers
    assert (read.status, wrong.status) == (200, 401)


@pytest.mark.parametrize(
    "origin", ["https://dash.example.org.evil.example", "http://dash.example.org", "*", "null"]
)
async def test_other_pages_get_nothing(origin: str) -> None:
    async with serving(Backend(), NAMED) as (_, session):
        ask = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = await session.options("/api/v1/commands", headers=ask)
        read = await session.get("/api/v1/jobs", headers=bearer(ALICE) | {"Origin": origin})
    assert preflight.status == 405
    for response in (preflight, read):
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["Vary"] == "Origin"


async def test_a_named_page_does_not_ride_on_the_cookie_of_a_browser() -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend, NAMED) as (url, session):
        browser = Browser(session, url)
        await browser.sign_in(token=ALICE)
        sent = {
            "Cookie": browser.headers["Cookie"],
            "Origin": DASHBOARD,
            "Sec-Fetch-Site": "cross-site",
        }
        response = await session.post("/api/v1/commands", json=START, headers=sent)
        del sent["Sec-Fetch-Site"]  # no browser sends it with the handshake of a WebSocket
        socket = await session.get("/api/v1/ws", headers=sent | _upgrade())
    assert (response.status, socket.status) == (403, 403)
    assert not backend.published


def _upgrade() -> dict[str, str]:
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "jobbus.v1",
    }
