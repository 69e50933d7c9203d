"""`/session`: a token or a code becomes a cookie, and for how long."""

from pathlib import Path

import aiohttp
import pytest

from tests.fakes import ManualClock
from tests.gateway_fixture import ADMIN, ALICE, Backend, bearer, serving
from tests.sign_in import COOKIE, SESSION, Browser
from transports.http.settings import GatewaySettings, SessionLimits

SHORT = SessionLimits(idle_ms=60_000, age_ms=300_000, most=5)


async def test_a_token_becomes_a_cookie_that_no_script_can_read() -> None:
    async with serving(Backend()) as (url, session):
        browser = Browser(session, url)
        assert await browser.who() is None
        assert await browser.sign_in(token=ALICE) == 204
        who = await browser.who()
    assert who is not None
    assert (who["user"], who["roles"], who["by"]) == ("alice", ["operator"], "cookie")
    assert str(who["expiresAt"]).endswith("Z")
    parts = [part.strip().lower() for part in browser.set_cookie.split(";")]
    assert parts[0].startswith(f"{COOKIE}=")
    assert {"httponly", "samesite=strict", "path=/"} <= set(parts)
    assert not [part for part in parts if part.startswith(("secure", "domain", "max-age"))]
    assert ALICE not in browser.set_cookie


async def test_a_session_may_what_its_user_may_and_no_more() -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (url, session):
        browser = Browser(session, url)
        await browser.sign_in(token=ALICE)
        body = {"command": "start", "jobId": "App/Job"}
        start = await session.post("/api/v1/commands", json=body, headers=browser.headers)
        admin = await session.get("/api/v1/system", headers=browser.headers)
    assert start.status == 202
    assert backend.published[0].principal.user_id == "alice"
    assert admin.status == 403


async def test_signing_out_revokes_the_cookie_and_removes_it() -> None:
    async with serving(Backend()) as (url, session):
        browser = Browser(session, url)
        await browser.sign_in(token=ALICE)
        response = await session.delete(SESSION, headers=browser.headers)
        who = await browser.who()
        again = await browser.sign_out()
    assert response.status == 204
    assert "max-age=0" in response.headers["Set-Cookie"].lower()
    assert who is None
    assert again == 401


async def test_a_session_ends_unused_or_at_its_greatest_age() -> None:
    clock = ManualClock()
    async with serving(Backend(clock=clock), GatewaySettings(sessions=SHORT)) as (url, session):
        idle, busy = Browser(session, url), Browser(session, url)
        await idle.sign_in(token=ALICE)
        await busy.sign_in(token=ALICE)
        for _ in range(9):
            clock.advance_s(30)
            assert await busy.who() is not None
        assert await idle.who() is None
        clock.advance_s(30)
        assert await busy.who() is None


async def test_a_session_ends_with_its_token() -> None:
    backend = Backend()
    async with serving(backend) as (url, session):
        record, token = await backend.tokens.create(
            "carol", ("viewer",), expires_ms=None, created_by="root"
        )
        browser = Browser(session, url)
        await browser.sign_in(token=token)
        assert await browser.who() is not None
        await session.delete(f"/api/v1/tokens/{record.id}", headers=bearer(ADMIN))
        assert await browser.who() is None


async def test_a_new_sign_in_ends_the_one_before() -> None:
    async with serving(Backend()) as (url, session):
        browser = Browser(session, url)
        await browser.sign_in(token=ALICE)
        before = Browser(session, url, cookie=browser.cookie)
        await browser.sign_in(token=ALICE)
        assert before.cookie != browser.cookie
        assert await before.who() is None
        assert await browser.who() is not None


async def test_a_code_signs_in_once_as_who_asked_for_it() -> None:
    async with serving(Backend()) as (url, session):
        answer = await session.post(f"{SESSION}/code", json={}, headers=bearer(ALICE))
        made = await answer.json()
        browser, second = Browser(session, url), Browser(session, url)
        assert await browser.sign_in(code=made["code"]) == 204
        assert await second.sign_in(code=made["code"]) == 401
        who = await browser.who()
    assert answer.status == 201
    assert made["path"] == f"/#code={made['code']}"
    assert who is not None
    assert who["user"] == "alice"


async def test_a_code_is_worth_nothing_when_its_token_was_revoked_or_time_is_over() -> None:
    clock = ManualClock()
    backend = Backend(clock=clock)
    async with serving(backend) as (url, session):
        codes = [
            (await (await session.post(f"{SESSION}/code", headers=bearer(ALICE))).json())["code"]
            for _ in range(2)
        ]
        clock.advance_s(601)
        assert await Browser(session, url).sign_in(code=codes[0]) == 401
        fresh = await (await session.post(f"{SESSION}/code", headers=bearer(ALICE))).json()
        del backend.principals[ALICE]
        assert await Browser(session, url).sign_in(code=fresh["code"]) == 401


async def test_sessions_outlive_a_restart_and_ended_ones_do_not(tmp_path: Path) -> None:
    backend = Backend()
    backend.sessions_file = tmp_path / "sessions.json"
    async with serving(backend) as (url, session):
        stays, leaves = Browser(session, url), Browser(session, url)
        await stays.sign_in(token=ALICE)
        await leaves.sign_in(token=ALICE)
        await leaves.sign_out()
        kept = backend.sessions_file.read_text()
    async with serving(backend) as (url, session):
        assert await Browser(session, url, cookie=stays.cookie).who() is not None
        assert await Browser(session, url, cookie=leaves.cookie).who() is None
    assert stays.cookie not in kept
    assert backend.sessions_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b'{"version":9}', b"\xff", b"[]"])
async def test_a_damaged_file_of_sessions_stops_no_start(tmp_path: Path, content: bytes) -> None:
    backend = Backend()
    backend.sessions_file = tmp_path / "sessions.json"
    backend.sessions_file.write_bytes(content)
    backend.sessions_file.chmod(0o600)
    async with serving(backend) as (url, session):
        assert await Browser(session, url).sign_in(token=ALICE) == 204


async def test_there_are_never_more_sessions_than_allowed() -> None:
    async with serving(Backend(), GatewaySettings(sessions=SHORT)) as (url, session):
        browsers = [Browser(session, url) for _ in range(7)]
        for browser in browsers:
            await browser.sign_in(token=ALICE)
        live = [await browser.who() is not None for browser in browsers]
    assert sum(live) == 5
    assert live[-1]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{}", 422),
        ('{"token":""}', 422),
        ('{"token":5}', 422),
        ('{"token":"a","code":"b"}', 422),
        ('{"user":"root"}', 422),
        ('{"token":"%s"}' % ("x" * 600), 422),
        ('{"token":"wrong"}', 401),
        ('{"code":"wrong"}', 401),
        ("[]", 422),
        ("{", 400),
    ],
)
async def test_nothing_else_signs_in(body: str, status: int) -> None:
    async with serving(Backend()) as (_, session):
        response = await session.post(
            SESSION, data=body, headers={"Content-Type": "application/json"}
        )
        forms = await session.post(SESSION, data={"token": ALICE})
    assert response.status == status
    assert "Set-Cookie" not in response.headers
    assert forms.status == 415


async def test_two_valid_cookies_sign_in_no_user_and_a_planted_wrong_cookie_does_no_harm() -> None:
    async with serving(Backend()) as (url, session):
        mine, planted = Browser(session, url), Browser(session, url)
        await mine.sign_in(token=ALICE)
        await planted.sign_in(token=ADMIN)
        both = f"{COOKIE}={planted.cookie}; {COOKIE}={mine.cookie}"
        wrong = f"{COOKIE}=junk; other=1; {COOKIE}={mine.cookie}"
        ambiguous = await session.get(SESSION, headers={"Cookie": both})
        clear = await session.get(SESSION, headers={"Cookie": wrong})
        renamed = await session.get(SESSION, headers={"Cookie": f"jobbus_other={mine.cookie}"})
    assert (ambiguous.status, clear.status, renamed.status) == (401, 200, 401)


async def test_a_token_is_no_session_and_cannot_be_signed_out() -> None:
    async with serving(Backend()) as (_, session):
        who = await (await session.get(SESSION, headers=bearer(ALICE))).json()
        out = await session.delete(SESSION, headers=bearer(ALICE))
        works = await session.get("/api/v1/jobs", headers=bearer(ALICE))
    assert who["by"] == "bearer"
    assert (out.status, works.status) == (409, 200)


async def test_failed_attempts_are_answered_by_429_and_then_forgotten() -> None:
    clock = ManualClock()
    async with serving(Backend(clock=clock)) as (url, session):
        statuses = [await Browser(session, url).sign_in(token="wrong") for _ in range(22)]
        limited = await _attempt(session, "wrong")
        wait_s = int(limited.headers["Retry-After"])
        clock.advance_s(wait_s)
        assert await Browser(session, url).sign_in(token="wrong") == 401
    assert statuses == [401] * 20 + [429] * 2
    assert limited.status == 429
    assert 1 <= wait_s <= 5


async def test_wrong_attempts_of_a_neighbour_lock_no_user_out() -> None:
    """Behind one address there may be a whole company, and somebody among them who guesses."""
    async with serving(Backend()) as (url, session):
        for _ in range(30):
            await _attempt(session, "wrong")
        code = await (await session.post(f"{SESSION}/code", headers=bearer(ALICE))).json()
        assert await Browser(session, url).sign_in(token=ALICE) == 204
        assert await Browser(session, url).sign_in(code=code["code"]) == 204


async def test_successes_are_not_counted_as_attempts() -> None:
    async with serving(Backend()) as (url, session):
        statuses = {await Browser(session, url).sign_in(token=ALICE) for _ in range(30)}
    assert statuses == {204}


async def _attempt(session: aiohttp.ClientSession, token: str) -> aiohttp.ClientResponse:
    return await session.post(SESSION, json={"token": token})
