"""Pages of others in a real browser that is signed in: they start, stop, read and end nothing."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser

from tests.browser import EVIL, chromium
from tests.gateway_fixture import ALICE, Backend, serving
from tests.service import ROOT, Service
from tests.sign_in import COOKIE
from transports.http.settings import GatewaySettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAIRS = (
    ("127.0.0.1", "127.0.0.1"),
    ("localhost", "localhost"),
    ("127.0.0.1", "localhost"),
    ("127.0.0.1", EVIL),
)
"""Names under which the service and the other page are asked for: the port differs always."""

ATTACK = """
async (target) => {
  const outcomes = {};
  const body = JSON.stringify({ command: "start", jobId: "App/Job" });
  const ask = async (name, path, init = {}) => {
    try {
      const response = await fetch(target + path, { credentials: "include", ...init });
      outcomes[name] = response.type === "opaque" ? "unreadable" : response.status;
    } catch { outcomes[name] = "blocked"; }
  };
  const json = { "Content-Type": "application/json" };
  await ask("read", "/api/v1/jobs");
  await ask("start", "/api/v1/commands", { method: "POST", headers: json, body });
  await ask("start unasked", "/api/v1/commands", { method: "POST", mode: "no-cors", body });
  await ask("start as beacon", "/api/v1/jobs/start",
    { method: "POST", mode: "no-cors", keepalive: true, body: '{"jobId":"App/Job"}' });
  await ask("cancel unasked", "/api/v1/tokens/admin/rotate", { method: "POST", mode: "no-cors" });
  await ask("ticket", "/api/v1/tickets",
    { method: "POST", headers: json, body: '{"path":"/api/v1/events"}' });
  const first = (source) => new Promise((done) => {
    source.onopen = () => { source.close(); done("open"); };
    source.onerror = () => { source.close(); done("refused"); };
  });
  outcomes.events = await first(
    new EventSource(target + "/api/v1/events", { withCredentials: true }));
  outcomes.socket = await first(
    new WebSocket(target.replace("http", "ws") + "/api/v1/ws", "jobbus.v1"));
  await ask("sign out", "/api/v1/session", { method: "DELETE" });
  return outcomes;
}
"""

FORM = """
(target) => {
  const form = document.createElement("form");
  form.method = "POST";
  form.action = target + "/api/v1/commands";
  form.enctype = "text/plain";
  const field = document.createElement("input");
  field.name = '{"command":"start","jobId":"App/Job","x":"';
  field.value = '"}';
  form.append(field);
  document.body.append(form);
  form.submit();
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests: each works in profiles of its own."""
    async with chromium() as made:
        yield made


@asynccontextmanager
async def other_page() -> AsyncIterator[tuple[int, list[str]]]:
    """Somebody else's server: its port, and the Cookie headers it was sent."""
    cookies: list[str] = []

    async def show(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie", ""))
        return web.Response(
            text="<!doctype html><title>free games</title>", content_type="text/html"
        )

    app = web.Application()
    app.router.add_get("/", show)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield int(runner.addresses[0][1]), cookies
    finally:
        await runner.cleanup()


def backend() -> Backend:
    made = Backend()
    made.define("App/Job")
    return made


async def sign_in(page: Any, url: str) -> None:
    await page.goto(url)
    await page.fill("#token", ALICE)
    await page.click("#sign-in button")
    await page.wait_for_selector("#work:not([hidden])")


async def test_the_own_page_may_all_that_the_others_try(browser: Browser) -> None:
    own = backend()
    async with serving(own) as (url, _):
        page = await (await browser.new_context()).new_page()
        await sign_in(page, url)
        outcomes = await page.evaluate(ATTACK, url)
    assert outcomes == {
        "read": 200,
        "start": 202,
        "start unasked": 415,
        "start as beacon": 415,
        "cancel unasked": 403,
        "ticket": 201,
        "events": "open",
        "socket": "open",
        "sign out": 204,
    }
    assert len(own.published) == 1


async def test_a_page_of_another_port_or_name_may_nothing(browser: Browser) -> None:
    own = backend()
    async with serving(own) as (url, _), other_page() as (port, cookies):
        for named, host in PAIRS:
            cookies.clear()
            context = await browser.new_context()
            target = url.replace("127.0.0.1", named)
            mine, page = await context.new_page(), await context.new_page()
            await sign_in(mine, target)
            await page.goto(f"http://{host}:{port}/")
            outcomes = await page.evaluate(ATTACK, target)
            await page.evaluate(FORM, target)
            await page.wait_for_url(f"{target}/**")
            still = await mine.evaluate("fetch('/api/v1/session').then((r) => r.status)")
            await context.close()
            # The browser does send it to another port of the same name: cookies know no ports.
            assert (COOKIE in cookies[0]) == (host == named)
            assert {outcomes.pop("events"), outcomes.pop("socket")} == {"refused"}
            assert set(outcomes.values()) == {"blocked"}
            assert still == 200
    assert not own.published


async def test_a_name_that_was_rebound_to_this_machine_is_not_served(browser: Browser) -> None:
    own = backend()
    async with serving(own) as (url, _):
        page = await (await browser.new_context()).new_page()
        rebound = url.replace("127.0.0.1", EVIL)
        response = await page.goto(rebound)
        assert response is not None
        outcomes = await page.evaluate(ATTACK, rebound)
    assert response.status == 421
    assert {outcomes.pop("events"), outcomes.pop("socket")} == {"refused"}
    assert set(outcomes.values()) <= {421, "blocked"}
    assert not own.published


async def test_a_named_page_reads_with_a_token_and_a_ticket_but_not_by_the_cookie(
    browser: Browser,
) -> None:
    own = backend()
    async with other_page() as (port, _):
        # Of the same site: the browser adds the cookie.
        origin = f"http://127.0.0.1:{port}"
        async with serving(own, GatewaySettings(origins=(origin,))) as (url, _):
            mine = await (await browser.new_context()).new_page()
            await sign_in(mine, url)
            page = await mine.context.new_page()
            await page.goto(origin)
            by_cookie = await page.evaluate(ATTACK, url)
            by_token = await page.evaluate(
                """async ([target, token]) => {
                  const headers = { Authorization: `Bearer ${token}` };
                  const read = await fetch(`${target}/api/v1/jobs`, { headers });
                  const made = await fetch(`${target}/api/v1/tickets`, {
                    method: "POST", headers: { ...headers, "Content-Type": "application/json" },
                    body: '{"path":"/api/v1/events"}',
                  });
                  const { ticket } = await made.json();
                  const source = new EventSource(`${target}/api/v1/events?ticket=${ticket}`);
                  const events = await new Promise((done) => {
                    source.addEventListener("hello", (e) => done(JSON.parse(e.data).user));
                    source.onerror = () => done("refused");
                  });
                  source.close();
                  return [read.status, made.status, events];
                }""",
                [url, ALICE],
            )
    assert by_token == [200, 201, "alice"]
    assert by_cookie["events"] == by_cookie["socket"] == "refused"
    assert {by_cookie[name] for name in ("read", "start", "ticket", "sign out")} == {"blocked"}
    assert not own.published


def _link(service: Service) -> str:
    """What `jobbus token link` prints."""
    done = subprocess.run(
        (sys.executable, "-m", "jobbus", "token", "link", "--data", str(service.data)),
        cwd=ROOT,
        env=service.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


async def test_the_link_of_serve_signs_in_once_and_stays_signed_in_over_a_restart(
    browser: Browser, tmp_path: Path
) -> None:
    service = Service(tmp_path)
    service.start()
    try:
        link = await asyncio.to_thread(_link, service)
        page = await (await browser.new_context()).new_page()
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        await page.goto(link)
        await page.wait_for_selector("#work:not([hidden])")
        assert page.url == f"{service.url}/"
        service.restart()
        await page.reload()
        await page.wait_for_selector("#work:not([hidden])")
        stored = await page.evaluate("JSON.stringify([localStorage, sessionStorage])")
        seen = await page.evaluate("document.cookie")
        await page.click("#leave")
        await page.wait_for_selector("#entry:not([hidden])")
        await page.goto(link)
        await page.wait_for_selector("#refusal:not(:empty)")
        words = await page.inner_text("#refusal")
        complaints = service.complaints()
    finally:
        service.clear_away()
    assert (stored, seen) == ("[{},{}]", "")
    assert "used or is too old" in words
    code = link.partition("code=")[2]
    # Chromium reports the fragment of what was navigated to; it is on no other request.
    assert not [url for url in requested if code in url and url != link]
    assert code not in service.log.read_text().replace(link, "")
    assert not complaints
