"""A real browser for tests: Debian's Chromium, or a visible skip where there is none."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

from tests.counterparts import needs

EVIL = "evil.example"
"""A name that leads this browser to this machine, as a rebound one does."""
SITE = "jobs.example.org"
"""The name under which the documented proxies serve; it leads here, too."""

LIGHT = "chromium-headless-shell"
"""The same browser without the windows of one, from the same source package: a third of the CPU."""

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    f"--host-resolver-rules=MAP {EVIL} 127.0.0.1, MAP {SITE} 127.0.0.1",
)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser that is gone after the block; each of its contexts is an empty profile."""
    program = shutil.which(LIGHT) or needs("chromium")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()
