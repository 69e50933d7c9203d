"""`/tickets`: what stands in a URL opens one stream, for half a minute, and nothing else."""

import io
from typing import Any

import aiohttp
import pytest

from tests.fakes import ManualClock
from tests.gateway_fixture import ADMIN, ALICE, ROLELESS, Backend, bearer, serving
from tests.sign_in import Browser
from tests.stream_reader import StreamReader
from transports.http.settings import GatewaySettings

EVENTS = "/api/v1/events?job=App/Job&start=now"
SSE = {"Accept": "text/event-stream"}
DASHBOARD = "https://dash.example.org"


async def ticket_for(
    session: aiohttp.ClientSession, path: str, headers: dict[str, str] | None = None
) -> str:
    headers = headers or bearer(ALICE)
    async with session.post("/api/v1/tickets", json={"path": path}, headers=headers) as response:
        assert response.status == 201, await response.text()
        body = await response.json()
        assert body["expiresInS"] == 30
        return str(body["ticket"])


async def test_a_ticket_opens_its_stream_as_often_as_wanted_as_who_got_it() -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (_, session):
        ticket = await ticket_for(session, EVENTS)
        for _ in range(3):
            response = await session.get(f"{EVENTS}&ticket={ticket}", headers=SSE)
            hello = await StreamReader(response).next()
            response.close()
            assert (hello.kind, hello.data["user"]) == ("hello", "alice")


async def test_a_ticket_of_a_signed_in_page_works_too() -> None:
    async with serving(Backend()) as (url, session):
        browser = Browser(session, url)
        await browser.sign_in(token=ALICE)
        ticket = await ticket_for(session, EVENTS, browser.headers)
        opened = await session.get(f"{EVENTS}&ticket={ticket}", headers=SSE)
        opened.close()
        await browser.sign_out()
        refused = await session.get(f"{EVENTS}&ticket={ticket}", headers=SSE)
    assert (opened.status, refused.status) == (200, 401)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/v1/events?job=App/Other&start=now&ticket={}", SSE),
        ("/api/v1/events?ticket={}", SSE),
        (EVENTS + "&ticket={}&ticket={}", SSE),
        (EVENTS + "&ticket={}", {"Accept": "application/json"}),
        (EVENTS + "&ticket={}", {"Accept": "application/x-ndjson"}),
        (EVENTS + "&ticket={}x", SSE),
        ("/api/v1/jobs?ticket={}", {}),
        ("/api/v1/session?ticket={}", {}),
        ("/api/v1/tokens?ticket={}", {}),
    ],
)
async def test_a_ticket_opens_nothing_else(path: str, headers: dict[str, str]) -> None:
    async with serving(Backend()) as (_, session):
        ticket = await ticket_for(session, EVENTS, bearer(ADMIN))
        response = await session.get(path.replace("{}", ticket), headers=headers)
        response.close()
    assert response.status == 401


async def test_a_ticket_is_over_after_half_a_minute() -> None:
    clock = ManualClock()
    async with serving(Backend(clock=clock)) as (_, session):
        ticket = await ticket_for(session, EVENTS)
        clock.advance_s(29.9)
        in_time = await session.get(f"{EVENTS}&ticket={ticket}", headers=SSE)
        in_time.close()
        clock.advance_s(0.2)
        late = await session.get(f"{EVENTS}&ticket={ticket}", headers=SSE)
    assert (in_time.status, late.status) == (200, 401)


async def test_a_ticket_is_worth_what_its_token_is_now() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        ticket = await ticket_for(session, EVENTS)
        del backend.principals[ALICE]
        response = await session.get(f"{EVENTS}&ticket={ticket}", headers=SSE)
    assert response.status == 401


async def test_a_ticket_makes_no_tickets_and_is_no_sign_in() -> None:
    async with serving(Backend()) as (_, session):
        ticket = await ticket_for(session, EVENTS)
        body = {"path": EVENTS}
        more = await session.post(f"/api/v1/tickets?ticket={ticket}", json=body)
        signed = await session.post("/api/v1/session", json={"token": ticket})
        header = await session.get("/api/v1/jobs", headers=bearer(ticket))
    assert [more.status, signed.status, header.status] == [401, 401, 401]


async def test_a_ticket_in_the_url_does_not_hide_a_wrong_header() -> None:
    async with serving(Backend()) as (_, session):
        ticket = await ticket_for(session, EVENTS)
        response = await session.get(
            f"{EVENTS}&ticket={ticket}", headers=SSE | bearer("jb_wrong_token")
        )
    assert response.status == 401


@pytest.mark.parametrize("body", [{}, {"path": "/api/v1/tokens"}, {"path": 5}, {"url": EVENTS}])
async def test_tickets_are_for_streams(body: dict[str, Any]) -> None:
    async with serving(Backend()) as (_, session):
        response = await session.post("/api/v1/tickets", json=body, headers=bearer(ALICE))
    assert response.status == 422


async def test_tickets_have_an_end_for_each_user_alone() -> None:
    async with serving(Backend()) as (_, session):
        for _ in range(200):
            await ticket_for(session, EVENTS)
        full = await session.post("/api/v1/tickets", json={"path": EVENTS}, headers=bearer(ALICE))
        await ticket_for(session, EVENTS, bearer(ROLELESS))
    assert full.status == 429
    assert int(full.headers["Retry-After"]) >= 1


async def test_only_named_pages_may_use_a_ticket() -> None:
    async with serving(Backend(), GatewaySettings(origins=(DASHBOARD,))) as (url, session):
        ticket = await ticket_for(session, EVENTS)
        answers = {}
        for origin in (DASHBOARD, url, "https://evil.example", "null"):
            response = await session.get(
                f"{EVENTS}&ticket={ticket}", headers=SSE | {"Origin": origin}
            )
            response.close()
            allowed = response.headers.get("Access-Control-Allow-Origin")
            answers[origin] = (response.status, allowed)
    assert answers == {
        DASHBOARD: (200, DASHBOARD),
        url: (200, None),
        "https://evil.example": (403, None),
        "null": (403, None),
    }


async def test_no_log_line_holds_a_ticket_a_token_or_a_code() -> None:
    from jobbus.service.logs import configure_logs

    log = io.StringIO()
    configure_logs("debug", log)
    async with serving(Backend()) as (url, session):
        ticket = await ticket_for(session, EVENTS)
        (await session.get(f"{EVENTS}&ticket={ticket}", headers=SSE)).close()
        await session.get(f"/api/v1/jobs?ticket={ticket}")
        await session.get(f"/nowhere?ticket={ticket}", headers=bearer(ALICE))
        code = await (await session.post("/api/v1/session/code", headers=bearer(ALICE))).json()
        browser = Browser(session, url)
        await browser.sign_in(code=code["code"])
        await browser.sign_in(code=code["code"])
        await browser.sign_in(token=ALICE)
    text = log.getvalue()
    assert '"route": "/api/v1/events"' in text
    for secret in (ticket, ALICE, code["code"], browser.cookie):
        assert secret not in text
