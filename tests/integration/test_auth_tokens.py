"""`/tokens`: made by admins, sent once, refused as soon as they are revoked."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bus.layout import DataLayout
from tests.fakes import ManualClock
from tests.gateway_fixture import ADMIN, ALICE, Backend, bearer, serving
from tests.socket_client import open_socket
from transports.http.access.admin_token import admin_token
from transports.http.access.token_store import TokenStore

TOKENS = "/api/v1/tokens"


async def make(session: aiohttp.ClientSession, **fields: Any) -> dict[str, Any]:
    body = {"userId": "ci", "roles": ["operator"]} | fields
    async with session.post(TOKENS, json=body, headers=bearer(ADMIN)) as response:
        return dict(await response.json()) | {"status": response.status}


async def status_of(session: aiohttp.ClientSession, token: str) -> int:
    async with session.get("/api/v1/jobs", headers=bearer(token)) as response:
        return response.status


async def test_a_token_is_shown_once_works_and_is_refused_at_once_when_revoked() -> None:
    async with serving(Backend()) as (_, session):
        made = await make(session, name="build")
        assert made["status"] == 201
        assert await status_of(session, made["token"]) == 200
        listed = await (await session.get(TOKENS, headers=bearer(ADMIN))).text()
        gone = await session.delete(f"{TOKENS}/{made['id']}", headers=bearer(ADMIN))
        again = await session.delete(f"{TOKENS}/{made['id']}", headers=bearer(ADMIN))
        assert await status_of(session, made["token"]) == 401
    assert '"userId":"ci"' in listed
    assert '"createdBy":"root"' in listed
    assert made["token"].split("_", 2)[2] not in listed
    assert "hash" not in listed
    assert (gone.status, again.status) == (204, 404)


async def test_wrong_tokens_are_limited_for_each_peer_and_good_ones_pass() -> None:
    """As a header, in a sign-in, as a ticket, in the first frame of a socket: one count for all."""
    clock = ManualClock()
    async with serving(Backend(clock=clock)) as (url, session):
        tried = [await status_of(session, f"jb_alice_{n}") for n in range(10)]
        for _ in range(9):
            await session.post("/api/v1/session", json={"token": "wrong"})
        ticket = {"Accept": "text/event-stream"}
        last = await session.get("/api/v1/events?ticket=wrong", headers=ticket)
        headers = {"X-Forwarded-For": "10.0.0.9"} | bearer("jb_alice_x")
        limited = await session.get("/api/v1/jobs", headers=headers)
        async with open_socket(url, None) as socket:
            await socket.say("auth", token="wrong")
            sent, code = await socket.next(), await socket.code()
        good = [await status_of(session, ALICE) for _ in range(3)]
        clock.advance_s(5)
        later = await status_of(session, "jb_alice_x")
    assert tried == [401] * 10
    assert (last.status, limited.status) == (401, 429)
    assert "Retry-After" in limited.headers
    assert (sent.data["status"], code[0]) == (429, 4029)
    assert good == [200] * 3
    assert later == 401


async def test_a_token_has_ninety_days_unless_said_otherwise() -> None:
    backend = Backend(clock=ManualClock(1_769_450_400_000))
    async with serving(backend) as (_, session):
        default = await make(session)
        chosen = await make(session, expiresAt="2026-03-01T00:00:00Z")
        endless = await make(session, expiresAt=None)
    assert default["expiresAt"] == "2026-04-26T18:00:00.000Z"
    assert chosen["expiresAt"] == "2026-03-01T00:00:00.000Z"
    assert endless["expiresAt"] is None


async def test_an_expired_token_opens_nothing() -> None:
    clock = ManualClock(1_769_450_400_000)
    async with serving(Backend(clock=clock)) as (_, session):
        made = await make(session, expiresAt="2026-01-26T18:01:00Z")
        before = await status_of(session, made["token"])
        clock.advance_s(60)
        after = await status_of(session, made["token"])
        listed = await (await session.get(TOKENS, headers=bearer(ADMIN))).json()
    assert (before, after) == (200, 401)
    assert listed["items"][0]["expired"]


@pytest.mark.parametrize("user", ["uid:0", "schedule:A/B", "policy:retry", "system:bus", "Uid:1"])
async def test_no_user_becomes_one_of_jobbus_s_own(user: str) -> None:
    async with serving(Backend()) as (_, session):
        made = await make(session, userId=user)
    assert made["status"] == 422
    assert made["errors"][0]["pointer"] == "/userId"


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"userId": ""}, "/userId"),
        ({"userId": "a\u0000b"}, "/userId"),
        ({"userId": 5}, "/userId"),
        ({"roles": []}, "/roles"),
        ({"roles": "operator"}, "/roles"),
        ({"roles": ["a b"]}, "/roles"),
        ({"roles": [f"r{n}" for n in range(40)]}, "/roles"),
        ({"expiresAt": "tomorrow"}, "/expiresAt"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "/expiresAt"),
        ({"expiresAt": "9999-01-01T00:00:00Z"}, "/expiresAt"),
        ({"name": "x" * 101}, "/name"),
        ({"secret": "mine"}, "/secret"),
    ],
)
async def test_what_is_wrong_is_named(fields: dict[str, Any], pointer: str) -> None:
    async with serving(Backend()) as (_, session):
        made = await make(session, **fields)
    assert made["status"] == 422
    assert made["errors"][0]["pointer"] == pointer


async def test_only_admins_have_to_do_with_tokens() -> None:
    async with serving(Backend()) as (_, session):
        answers = [
            await session.get(TOKENS, headers=bearer(ALICE)),
            await session.post(TOKENS, json={}, headers=bearer(ALICE)),
            await session.delete(f"{TOKENS}/x", headers=bearer(ALICE)),
            await session.post(f"{TOKENS}/admin/rotate", json={}, headers=bearer(ALICE)),
        ]
        anonymous = await session.get(TOKENS)
    assert [answer.status for answer in answers] == [403] * 4
    assert anonymous.status == 401


async def test_the_account_s_token_is_replaced_and_never_shown(tmp_path: Path) -> None:
    backend, layout = Backend(), DataLayout(tmp_path)
    old = admin_token(layout)
    backend.tokens = TokenStore.load(layout, old, backend.clock)
    async with serving(backend) as (_, session):
        refused = await session.delete(f"{TOKENS}/admin", headers=bearer(old))
        rotated = await session.post(f"{TOKENS}/admin/rotate", json={}, headers=bearer(old))
        body = await rotated.text()
        assert await status_of(session, old) == 401
        assert await status_of(session, admin_token(layout)) == 200
    assert refused.status == 409
    assert (rotated.status, body) == (204, "")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer a b",
        "Bearer jb_admin_",
        "Bearer jb__secret",
        "Bearer jb_admin_secre",
        "Bearer jb_admin_secrett",
        "Bearer JB_ADMIN_SECRET",
        "Bearer " + "x" * 600,
        "Bearer \u00e4",
    ],
)
async def test_no_header_but_the_right_one_is_taken(header: str) -> None:
    async with serving(Backend()) as (_, session):
        response = await session.get("/api/v1/jobs", headers={"Authorization": header})
        problem = await response.json()
    assert response.status == 401
    assert response.headers["WWW-Authenticate"].startswith('Bearer realm="jobbus"')
    assert problem["code"] == "unauthenticated"
