"""The page at `/`: fixed files under a strict policy, and in a real browser live and harmless."""

import re

from playwright.async_api import Route, expect

from tests.browser import chromium
from tests.gateway_fixture import ALICE, Backend, serving
from transports.http.settings import GatewaySettings

HOSTILE = "<img src=x onerror=document.title='owned'>\x1b[31mred\x1b[0m\n"


async def test_the_page_needs_no_token_and_no_other_origin() -> None:
    async with serving(Backend()) as (_, session):
        index = await session.get("/")
        html = await index.text()
        linked = re.findall(r'(?:href|src)="(/[^"]*)"', html)
        script = await (await session.get("/console/app.js")).text()
        linked += [f"/console/{name}" for name in re.findall(r'from "\./([^"]+)"', script)]
        for path in linked:
            response = await session.get(path)
            assert response.status == 200, path
            assert response.content_type in ("text/javascript", "text/css"), path
        unknown = await session.get("/console/..%2fapp.py")
    assert index.content_type == "text/html"
    assert len(linked) >= 3
    assert unknown.status == 404
    policy = index.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "style=" not in html
    assert not re.search(r"<script(?![^>]*src=)", html)
    assert "innerHTML" not in script
    assert not re.search(r"(local|session)Storage|document\.cookie", script)


async def test_a_browser_shows_progress_and_output_live_and_runs_nothing_of_it() -> None:
    backend = Backend()
    execution = backend.queue("Demo/Checksum")
    backend.run(execution)
    await backend.output.append(execution, HOSTILE.encode())
    quick = GatewaySettings(version="test", partial_s=0.01)
    async with serving(backend, quick) as (url, _), chromium() as browser:
        page = await browser.new_page()
        await page.route("**/console/app.js", _with_little_room)
        requested: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(url)
        await page.fill("#token", "wrong")
        await page.click("#sign-in button")
        await expect(page.locator("#refusal")).to_have_text("This token is not valid.")
        await page.fill("#token", ALICE)
        await page.click("#sign-in button")
        await page.click("tbody button")
        output, row = page.locator("#output"), page.locator("tbody tr")
        await expect(output).to_have_text(
            HOSTILE.replace("\x1b[31m", "").replace("\x1b[0m", "").rstrip(), use_inner_text=True
        )
        backend.progress(execution, 42, "copying")
        await expect(row).to_contain_text("42 % copying")
        for step in range(1, 10):
            # In all more than the page has room for: only what stands there may count.
            sent = f"half {step}0 %"
            await backend.output.append(execution, b"\r" + sent.encode())
            await expect(output).to_contain_text(sent)
        await expect(output).to_contain_text("<img")
        await backend.output.append(execution, b"\rdone\nlast words\n")
        await expect(output).to_contain_text("done last words")
        await expect(output).not_to_contain_text("half")
        backend.end(execution)
        await expect(row).to_contain_text("Succeeded")
        await expect(page.locator("#output-state")).to_have_text("succeeded")
        backend.delete(execution)
        await expect(row).to_have_count(0)
        backend.queue("Demo/Another")
        await expect(row).to_contain_text("Demo/Another")
        backend.delete(
            backend.queue("Demo/Unseen")
        )  # as a page is sent the end of what it let go of
        backend.queue("Demo/Last")
        await expect(row).to_have_count(2)
        title = await page.title()
    assert title == "(2) jobbus"
    assert not errors
    assert all(address.startswith((url, "data:")) for address in requested)
    assert not [address for address in requested if ALICE in address]


async def test_words_of_others_are_seen_as_they_are_and_leave_each_row_its_room() -> None:
    """A name that is turned around, signs that are invisible, and words that nothing breaks."""
    backend = Backend()
    backend.queue("Demo/Calm")
    loud = backend.queue("Demo/Loud", "w" * 128)
    backend.run(loud)
    await backend.output.append(
        loud, "a\u202etxt.exe\u2069 \u200b\u3164 \u26a0\ufe0f\x9b\n".encode()
    )
    quick = GatewaySettings(version="test", partial_s=0.01)
    async with serving(backend, quick) as (url, _), chromium() as browser:
        page = await browser.new_page(viewport={"width": 1200, "height": 800})
        await page.goto(url)
        await page.fill("#token", ALICE)
        await page.click("#sign-in button")
        await page.click("tbody tr:has-text('Loud') button")
        await expect(page.locator("#output")).to_have_text(
            "a\ufffdtxt.exe\ufffd \ufffd\ufffd \u26a0\ufe0f\ufffd", use_inner_text=True
        )
        row = page.locator("tbody tr:has-text('Loud')")
        backend.progress(loud, 0.5, "\u202egnipoc")
        await expect(row).to_contain_text("0.5 % \ufffdgnipoc")
        before = await page.locator(".list table").bounding_box()
        backend.fail(loud, "/".join(["x" * 300] * 5) + "\u202e")
        await expect(row).to_contain_text("failed: could not start: xxx")
        await expect(row).to_contain_text("xxx\ufffd")
        for width in (1200, 900, 400):
            await page.set_viewport_size({"width": width, "height": 800})
            room = await page.evaluate(
                "[...document.querySelectorAll('.list, .list table')]"
                ".map((part) => [part.scrollWidth, part.clientWidth])"
            )
            assert all(needed <= given for needed, given in room), (width, room)
        await page.set_viewport_size({"width": 1200, "height": 800})
        table = await page.locator(".list table").bounding_box()
        assert table is not None
        assert before is not None
        assert table["width"] == before["width"]
        await expect(page.locator("tbody tr:has-text('Calm') .status")).to_be_in_viewport()


async def _with_little_room(route: Route) -> None:
    response = await route.fetch()
    script = await response.text()
    assert "OUTPUT_MAX = 1_000_000;" in script
    await route.fulfill(response=response, body=script.replace("1_000_000", "120"))
