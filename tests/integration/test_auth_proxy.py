"""A proxy in front: its headers count, and those of no other peer."""

import io
import ipaddress
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bus.audit import AuditQuery
from handlers.audit.entries.fold import AuditFold
from handlers.audit.segments import AuditSegments
from handlers.audit.trail import Audit
from jobbus.service.logs import configure_logs
from tests.gateway_fixture import ALICE, Backend, bearer, serving
from tests.sign_in import SESSION, Browser
from tests.stream_reader import StreamReader
from transports.http.access.proxy import LOOPBACK, networks
from transports.http.settings import GatewaySettings, ProxySettings

USER, ROLES = "X-Remote-User", "X-Remote-Roles"
HOST = "jobs.example.org"
PUBLIC = {
    "Host": HOST,
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": HOST,
}
PAGE = {"Origin": f"https://{HOST}", "Sec-Fetch-Site": "same-origin"}
START = {"command": "start", "jobId": "App/Job"}


def settings(**proxy: Any) -> GatewaySettings:
    """A proxy on this machine that vouches for users, unless said otherwise."""
    fields: dict[str, Any] = {
        "trusted": networks(LOOPBACK),
        "user_header": USER,
        "roles_header": ROLES,
    }
    return GatewaySettings(hosts=(HOST,), proxy=ProxySettings(**(fields | proxy)))


@asynccontextmanager
async def behind(
    backend: Backend | None = None, **proxy: Any
) -> AsyncIterator[tuple[Backend, aiohttp.ClientSession]]:
    backend = backend or Backend()
    backend.define("App/Job")
    async with serving(backend, settings(**proxy)) as (_, session):
        yield backend, session


async def who(session: aiohttp.ClientSession, **headers: str) -> tuple[int, Any]:
    spelled = PUBLIC | {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.get(SESSION, headers=spelled) as response:
        return response.status, await response.json()


async def test_the_proxy_says_who_asks() -> None:
    async with behind() as (backend, session):
        status, sent = await who(session, X_Remote_User="alice", X_Remote_Roles="viewer, operator")
        start = await session.post(
            "/api/v1/commands",
            json=START,
            headers=PUBLIC | PAGE | {USER: "alice", ROLES: "operator"},
        )
    assert status == 200
    assert (sent["user"], sent["roles"], sent["by"]) == ("alice", ["viewer", "operator"], "proxy")
    assert start.status == 202
    assert backend.published[0].principal.user_id == "alice"


async def test_a_user_without_roles_has_the_configured_ones() -> None:
    async with behind(default_roles=("viewer",)) as (_, session):
        _, sent = await who(session, X_Remote_User="alice")
    assert sent["roles"] == ["viewer"]


async def test_streams_and_sockets_pass_through_the_proxy() -> None:
    vouched = PUBLIC | PAGE | {USER: "alice", ROLES: "operator"}
    async with behind() as (_, session):
        accept = {"Accept": "text/event-stream"}
        stream = StreamReader(await session.get("/api/v1/events", headers=vouched | accept))
        hello = await stream.next()
        stream.close()
        async with session.ws_connect(
            "/api/v1/ws", protocols=("jobbus.v1",), headers=vouched
        ) as socket:
            await socket.send_json({"op": "ping", "n": 1})
            pong = await socket.receive_json(timeout=20)
            while pong["op"] != "pong":
                pong = await socket.receive_json(timeout=20)
    assert hello.data["user"] == "alice"
    assert pong["n"] == 1


async def test_without_a_user_no_identity_is_vouched_for() -> None:
    async with behind() as (_, session):
        assert (await who(session))[0] == 401
        assert (await who(session, X_Remote_User=""))[0] == 401
        assert (await who(session, X_Remote_Roles="admin"))[0] == 401


@pytest.mark.parametrize("user", ["system:bus", "uid:0", "schedule:x", "x" * 200])
async def test_the_proxy_cannot_make_users_that_are_jobbus_s_own(user: str) -> None:
    async with behind() as (_, session):
        status, problem = await who(session, X_Remote_User=user)
    assert (status, problem["code"]) == (403, "proxy_refused")


async def test_a_header_that_comes_twice_is_refused() -> None:
    async with behind() as (_, session):
        twice = [*PUBLIC.items(), (USER, "alice"), (USER, "root")]
        response = await session.get(SESSION, headers=twice)
    assert response.status == 400


@pytest.mark.parametrize(
    "forged",
    [
        {USER: "root", ROLES: "admin"},
        {ROLES: "admin"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": HOST},
        {"Forwarded": "for=127.0.0.1"},
    ],
)
async def test_others_may_not_pretend_to_be_the_proxy(forged: dict[str, str]) -> None:
    elsewhere = (ipaddress.ip_network("10.9.8.7"),)
    async with behind(trusted=elsewhere) as (_, session):
        with_token = await session.get("/api/v1/jobs", headers=forged | bearer(ALICE))
        without = await session.get("/api/v1/jobs", headers=bearer(ALICE))
    assert with_token.status == 403
    assert (await with_token.json())["code"] == "proxy_refused"
    assert without.status == 200


async def test_without_a_proxy_its_headers_mean_nothing() -> None:
    async with serving(Backend()) as (_, session):
        forged = {USER: "root", ROLES: "admin", "X-Forwarded-Proto": "https"}
        anonymous = await session.get(SESSION, headers=forged)
        signed = await session.post(SESSION, json={"token": ALICE}, headers=forged)
        host = await session.get("/livez", headers={"X-Forwarded-Host": "evil.example"})
    assert anonymous.status == 401
    assert "secure" not in signed.headers["Set-Cookie"].lower()
    assert host.status == 200


@pytest.mark.parametrize("host", ["evil.example", "jobs.example.org.evil.example", "a b", ""])
async def test_the_host_that_the_proxy_names_must_be_served_here(host: str) -> None:
    async with behind() as (_, session):
        response = await session.get("/livez", headers=PUBLIC | {"X-Forwarded-Host": host})
    assert response.status == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Forwarded-For": "not an address"}, 400),
        ({"X-Forwarded-Proto": "https"}, 400),
        ({"X-Forwarded-Host": HOST}, 400),
    ],
)
async def test_what_a_proxy_cannot_mean_is_refused(headers: dict[str, str], status: int) -> None:
    async with behind() as (_, session):
        response = await session.get("/livez", headers=headers)
        problem = await response.json()
    assert response.status == status
    assert problem["code"] == "malformed"


async def test_a_page_behind_the_proxy_signs_in_with_a_secure_cookie() -> None:
    async with behind() as (_, session):
        browser = Browser(session, f"https://{HOST}")
        signed = await session.post(SESSION, json={"token": ALICE}, headers=PUBLIC | PAGE)
        plain = await session.post(
            SESSION,
            json={"token": ALICE},
            headers=PUBLIC | PAGE | {"X-Forwarded-Proto": "http", "Origin": f"http://{HOST}"},
        )
        assert await browser.who() is None
    assert signed.status == plain.status == 204
    assert "secure" in signed.headers["Set-Cookie"].lower()
    assert "secure" not in plain.headers["Set-Cookie"].lower()


async def test_whom_the_proxy_vouches_for_is_held_to_the_page_like_a_cookie() -> None:
    async with behind() as (backend, session):
        vouched = PUBLIC | {USER: "alice", ROLES: "operator"}
        pages = [
            {"Origin": "https://evil.example"},
            {"Origin": f"http://{HOST}"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
        ]
        answers = [
            (await session.post("/api/v1/commands", json=START, headers=vouched | page)).status
            for page in pages
        ]
    assert answers == [403] * 4
    assert not backend.published


async def test_attempts_to_sign_in_count_for_the_peer_behind_the_proxy() -> None:
    async with behind() as (_, session):
        one = [await _attempt(session, "203.0.113.7") for _ in range(22)]
        other = await _attempt(session, "203.0.113.8")
        forged = await _attempt(session, "203.0.113.9, 203.0.113.7")
    assert one[-1] == 429
    assert other == 401
    assert forged == 429


async def test_wrong_tokens_of_one_customer_are_one_entry_whatever_address_they_come_from(
    tmp_path: Path,
) -> None:
    """Of IPv6 they have 2^64: each of them as an entry would fill the disk."""
    backend = Backend()
    segments = AuditSegments.open(tmp_path)
    backend.audit = Audit(tmp_path, segments, AuditFold(), (), backend.clock)
    async with behind(backend) as (_, session):
        for number in range(12):
            forwarded = PUBLIC | {"X-Forwarded-For": f"2001:db8:1:2::{number:x}"}
            wrong = {"Authorization": "Bearer jb_x_wrong"}
            assert (await session.get(SESSION, headers=forwarded | wrong)).status == 401
        page = await backend.audit.page(AuditQuery(), 50)
        await backend.audit.aclose()
    entries = [json.loads(bytes(item)) for item in page.items]
    assert {entry["detail"]["peer"] for entry in entries} == {"2001:db8:1:2::/64"}
    assert sorted(entry.get("count", 1) for entry in entries) == [1, 11]


async def test_the_log_names_whom_the_proxy_vouched_for() -> None:
    log = io.StringIO()
    configure_logs("info", log)
    async with behind() as (_, session):
        await session.get("/api/v1/system", headers=PUBLIC | {USER: "alice"})  # 403: worth a line
    assert '"user": "alice"' in log.getvalue()


async def _attempt(session: aiohttp.ClientSession, peer: str) -> int:
    headers = PUBLIC | PAGE | {"X-Forwarded-For": peer}
    async with session.post(SESSION, json={"token": "wrong"}, headers=headers) as response:
        return response.status
