"""A real browser's WebSocket: by a page of this service, and by one of another origin."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser

from tests.browser import chromium
from tests.gateway_fixture import ALICE, Backend, serving
from transports.http.settings import GatewaySettings

OPEN = """
async ([url, first, then]) => {
  const received = []
  const socket = new WebSocket(url, "jobbus.v1")
  const over = new Promise((resolve) => {
    socket.onclose = (event) => resolve({ received, code: event.code, reason: event.reason })
  })
  socket.onopen = () => { for (const frame of first) socket.send(JSON.stringify(frame)) }
  socket.onmessage = (event) => {
    const frame = JSON.parse(event.data)
    received.push(frame)
    if (frame.op === "snapshot_end") socket.send(JSON.stringify(then))
    if (frame.op === "change") socket.send(JSON.stringify({ op: "unsubscribe", sub: "a" }))
    if (frame.op === "end") socket.close(1000, "done")
  }
  return await over
}
"""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chrome() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def browser(chrome: Browser) -> AsyncIterator[Browser]:
    """Each test begins with an empty profile."""
    yield chrome
    for context in chrome.contexts:
        await context.close()


@asynccontextmanager
async def other_site() -> AsyncIterator[str]:
    """A page on another port of the same host: the browser sends our cookie along with it."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>elsewhere</title>", content_type="text/html"
        )

    app = web.Application()
    app.router.add_get("/", show)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_a_page_of_the_service_subscribes_with_its_cookie_and_publishes(
    browser: Browser,
) -> None:
    backend = Backend()
    async with serving(backend) as (url, _):
        page = await browser.new_page()
        await page.goto(url)
        signed_in = await page.evaluate(
            """async (token) => (await fetch("/api/v1/session", {
              method: "POST", headers: { "Content-Type": "application/json" },
              body: JSON.stringify({ token }) })).status""",
            ALICE,
        )
        sent = await page.evaluate(
            OPEN,
            [
                url.replace("http", "ws", 1) + "/api/v1/ws",
                [{"op": "subscribe", "sub": "a", "topic": "events"}],
                {
                    "op": "publish",
                    "ref": "r",
                    "command": {"command": "start", "jobId": "App/Job"},
                },
            ],
        )
    assert signed_in == 204
    kinds = [frame["op"] for frame in sent["received"]]
    assert kinds[0] == "hello"
    assert "result" in kinds
    assert kinds.count("snapshot_end") == 1
    assert sent["received"][-1]["data"]["reason"] == "unsubscribed"
    assert [each.principal.user_id for each in backend.published] == ["alice"]


async def test_a_page_without_a_sign_in_gets_a_code_that_it_can_read(browser: Browser) -> None:
    settings = GatewaySettings(socket_auth_s=0.3)
    async with serving(Backend(), settings) as (url, _):
        page = await browser.new_page()
        await page.goto(url)
        sent = await page.evaluate(OPEN, [url.replace("http", "ws", 1) + "/api/v1/ws", []])
    assert (sent["code"], sent["reason"]) == (4501, "unauthenticated")


async def test_a_page_of_another_origin_gets_nothing_by_the_cookie(browser: Browser) -> None:
    backend = Backend()
    async with serving(backend) as (url, _), other_site() as elsewhere:
        page = await browser.new_page()
        await page.goto(url)
        await page.evaluate(
            """async (token) => await fetch("/api/v1/session", {
              method: "POST", headers: { "Content-Type": "application/json" },
              body: JSON.stringify({ token }) })""",
            ALICE,
        )
        await page.goto(elsewhere)
        sent = await page.evaluate(
            OPEN,
            [
                url.replace("http", "ws", 1) + "/api/v1/ws",
                [{"op": "subscribe", "sub": "a", "topic": "events"}],
            ],
        )
    assert sent["received"] == []
    assert sent["code"] == 1006


async def test_a_browser_sees_the_service_leave(browser: Browser) -> None:
    backend = Backend()
    async with serving(backend) as (url, _):
        page = await browser.new_page()
        await page.goto(url)
        await page.evaluate(
            """(url) => new Promise((resolve) => {
              const socket = new WebSocket(url, "jobbus.v1")
              window.over = new Promise((done) => {
                socket.onclose = (event) => done(event.code)
              })
              socket.onopen = () => resolve()
            })""",
            url.replace("http", "ws", 1) + "/api/v1/ws",
        )
        await page.evaluate(
            "() => { window.code = null; window.over.then((c) => { window.code = c }) }"
        )
    await page.wait_for_function("window.code !== null")
    code = await page.evaluate("window.code")
    assert code in (1001, 1006)
