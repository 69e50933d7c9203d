"""What the pages show is run as it stands there, in order, in a real shell with a real service."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import chromium
from tests.page_shell import PageShell, own_machine
from tests.pages import PAGES, ROOT, Block, blocks_of, prepared_by, printed_as, wants_own_machine
from tests.service import PATIENCE_S, running_service

RUN = [page for page in PAGES if any(block.language == "sh" for block in blocks_of(page))]
ELSEWHERE = ("not run", "tested", "quick-start")

# A page is a dozen calls of the command line, each of which starts an interpreter.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_runs_as_it_stands_there(page: Path, tmp_path: Path) -> None:
    around = own_machine(tmp_path) if wants_own_machine(page) else ()
    shell = PageShell(tmp_path, around)
    try:
        _read(page, shell)
    finally:
        shell.close()


def _read(page: Path, shell: PageShell) -> None:
    before = prepared_by(page)
    if before is not None:
        for block in _up_to_its_service(before):
            _do(block, shell)
    for block in blocks_of(page):
        _do(block, shell)


def _up_to_its_service(page: Path) -> Iterator[Block]:
    for block in blocks_of(page):
        yield block
        if block.mark == "goes on":
            return


def _do(block: Block, shell: PageShell) -> None:
    if block.mark == "file":
        shell.save(block, block.value)
    elif block.mark == "prints":
        shown = f"{block.place} shows what was not printed:\n{block.text}\n{shell.screen}"
        assert printed_as(block.text, shell.screen), shown
    elif block.language == "sh" and block.mark not in ELSEWHERE:
        shell.run(block)


def test_a_page_that_shows_what_is_not_printed_is_found_out() -> None:
    assert printed_as("a … c\nd", "x\na  b c\nd\n")
    assert not printed_as("a … c", "a b\nc")
    assert not printed_as("d\na", "a\nd")


SIGN_IN = """async (token) => (await fetch("/api/v1/session", {
  method: "POST", headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ token }) })).status"""


def _shown_to_browsers() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page) if block.mark == "page"]


@pytest.mark.parametrize("block", _shown_to_browsers(), ids=lambda block: block.place)
async def test_javascript_of_a_page_runs_in_the_page_of_the_service(
    block: Block, tmp_path: Path
) -> None:
    printed: asyncio.Queue[str] = asyncio.Queue()
    with running_service(tmp_path, lambda apps: apps.shell("T/Short", "true")) as service:
        async with chromium() as browser, service.http() as http:
            page = await browser.new_page()
            page.on("console", lambda message: printed.put_nowait(message.text))
            await page.goto(service.url)
            assert await page.evaluate(SIGN_IN, service.token) == 204
            await page.evaluate(f"() => {{ {block.text} }}")
            await http.start("T/Short")
            async with asyncio.timeout(PATIENCE_S):
                wanted = set(block.value.split(", "))
                while wanted:
                    line = await printed.get()
                    wanted -= {words for words in wanted if words in line}
