"""What README and docs name exists: tests, commands, files. Docs that lie are defects."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "THREAT_MODEL.md")
PAGES = [*(ROOT / name for name in ROOTS), *sorted((ROOT / "docs").rglob("*.md"))]


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
    paths = re.findall(r"`((?:bus|handlers|transports|tests)/[\w/]+(?:\.py|/))`", text)
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
    assert "jobbus demo --once" in blocks[0]
    assert "pytest" in blocks[1]
