"""A real browser for tests, or a visible skip where there is none."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser

CHROMIUM = Path("/usr/bin/chromium")
EVIL = "evil.example"
"""A name that leads this browser to this machine, as a rebound one does."""

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    f"--host-resolver-rules=MAP {EVIL} 127.0.0.1",
)


@asynccontextmanager
async def chromium() -> AsyncIterator["Browser"]:
    """A browser that is gone after the block; each of its contexts is an empty profile."""
    required = os.environ.get("JOBBUS_REQUIRE_ALL") == "1"
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        assert not required, "playwright is not installed"
        pytest.skip("playwright is not installed")
    if not CHROMIUM.exists():
        assert not required, f"there is no {CHROMIUM}"
        pytest.skip("no chromium on this machine")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=str(CHROMIUM), args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()
