"""What README and docs name exists: tests, commands, files. Docs that lie are defects."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bus.apps import AppSpec
from bus.job_definition import JobSpec
from handlers.calendars.calendar_set import compiled
from handlers.calendars.calendar_set import decode as decode_calendars
from handlers.catalog.definition_decoding import decode_app, decode_definition
from jobbus.service.settings_reading import load_settings
from tests.pages import PAGES, ROOT, Block, blocks_of

BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def all_tests() -> str:
    return "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("*.py"))


def test_tests_named_as_guards_of_invariants_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Invariants")[2]
    named = re.findall(r"`((?:test_|replayed_|every_)\w+)`", table)
    assert len(named) > 30
    sources = all_tests()
    missing = [name for name in named if f"def {name}(" not in sources]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_paths_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    broken = [link for link in links if not (page.parent / link).exists()]
    assert broken == []
    paths = re.findall(
        r"`((?:bus|handlers|transports|jobbus|tests|examples)/[\w/]+(?:\.py|/))`", text
    )
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_commands_of_the_readme_exist() -> None:
    shown = set(re.findall(r"^jobbus (\w+)", (ROOT / "README.md").read_text("utf-8"), re.M))
    assert shown
    listed = subprocess.run(
        [sys.executable, "-m", "jobbus", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert [name for name in shown if not re.search(rf"\b{name}\b", listed)] == []


def test_quick_start_has_exactly_its_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Quick start")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.S)
    assert [len(block.strip().splitlines()) for block in blocks] == [1, 1]
    marks = [block.value for block in BLOCKS if block.mark == "quick-start"]
    assert marks == ["run", "test"]
    assert "for name in run test; do" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "jobbus demo --once" in blocks[0]
    assert "pytest" in blocks[1]


def test_every_fenced_block_is_run_or_read_or_says_why_not() -> None:
    """`tests/e2e/test_pages.py` runs what is marked so, in the order of the page."""
    marks = {
        "sh": ("", "goes on", "until", "after ctrl-c", "fails", "not run", "quick-start"),
        "python": ("file",),
        "toml": ("file", "part of", "tested"),
        "json": ("", "file"),
        "js": ("page",),
        "nginx": ("tested", "part of"),
        "haproxy": ("tested",),
        "caddyfile": ("tested",),
        "text": ("", "prints"),
        "": ("",),
    }
    assert [b.place for b in BLOCKS if b.mark not in marks.get(b.language, ())] == []
    assert [b.place for b in BLOCKS if b.mark == "not run" and len(b.value.split()) < 3] == []


def test_nearly_all_commands_of_the_pages_are_run() -> None:
    commands = [block for block in BLOCKS if block.language == "sh"]
    left_out = [block.place for block in commands if block.mark == "not run"]
    assert len(left_out) <= 12, left_out
    assert len(commands) - len(left_out) >= 10


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "toml"], ids=lambda block: block.place
)
def test_settings_and_definitions_of_a_page_are_taken(block: Block, tmp_path: Path) -> None:
    name = block.value.rpartition("/")[2]
    text = block.text.encode()
    if block.mark != "tested" and name == "job.toml":
        whole = text if b"command =" in text else b'command = ["true"]\n' + text
        read = decode_definition(whole, file=block.place, directory=str(tmp_path))
        assert isinstance(read, JobSpec), read
    elif name == "app.toml":
        assert isinstance(decode_app(text, block.place), AppSpec)
    elif name == "calendars.toml":
        written = decode_calendars(text, block.place)
        named = written.spec.calendar
        nothing = {each.ics: lambda local: None for each in named.values() if each.ics}
        assert compiled([written], nothing, "UTC").calendars.keys() == named.keys()
    else:
        file = tmp_path / "jobbus.toml"
        file.write_bytes(text)
        load_settings(file, {}, {})


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "json"], ids=lambda block: block.place
)
def test_json_of_a_page_is_json(block: Block) -> None:
    try:
        json.loads(block.text)
    except ValueError:
        for line in block.text.splitlines():
            json.loads(line)


def test_contributing_answers_fifteen_questions_on_where_things_are() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("### In which file would you change")[2].partition("###")[0]
    answers = re.findall(r"^\| \d+ \| .+ \| `([\w/]+\.py)` \|$", section, re.M)
    assert len(answers) == len(set(answers)) == 15
    assert [path for path in answers if not (ROOT / path).is_file()] == []
