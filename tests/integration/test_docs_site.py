"""The pages as a site: it builds without a warning and loads nothing from another origin."""

import functools
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser import chromium
from tests.counterparts import missing
from tests.pages import ROOT

_LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("material") is None:
        missing("mkdocs-material is not installed (the extra `docs`)")
    made = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(made)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return made


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if (place := given.get(_LOADED.get(tag, ""))) and given.get("rel") != "canonical":
            self.loaded.append(place)
        if tag == "a" and (place := given.get("href")):
            self.linked.append(place)


def test_site_has_every_page_and_all_links_in_it_lead_somewhere(site: Path) -> None:
    names = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in _sources()}
    assert [name for name in sorted(names) if not (site / name).is_file()] == []
    broken = []
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for place in _links(page).linked:
            target = place.partition("#")[0]
            if target and "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(site)}: {place}")
    assert broken == []


def test_pages_of_the_site_name_nothing_of_another_origin_to_load(site: Path) -> None:
    foreign = [
        place
        for page in site.rglob("*.html")
        for place in _links(page).loaded
        if "//" in place.partition("?")[0]
    ]
    assert foreign == []


async def test_a_browser_that_reads_and_searches_asks_no_other_origin(site: Path) -> None:
    asked: list[str] = []
    with _served(site) as url:
        async with chromium() as browser:
            page = await browser.new_page()
            page.on("request", lambda request: asked.append(request.url))
            await page.goto(f"{url}/index.html")
            await page.get_by_role("link", name="Tutorial").first.click()
            await page.wait_for_url("**/tutorial.html")
            await page.keyboard.press("f")
            await page.keyboard.type("idempotency")
            await page.locator(".md-search-result__item").first.wait_for()
    assert any(place.endswith("/tutorial.html") for place in asked)
    assert [place for place in asked if not place.startswith((f"{url}/", "blob:", "data:"))] == []


def _sources() -> Iterator[Path]:
    return (ROOT / "docs").rglob("*.md")


def _links(page: Path) -> _Links:
    found = _Links()
    found.feed(page.read_text(encoding="utf-8"))
    return found


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test says what went wrong."""
