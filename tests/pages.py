"""The pages for people, read as their readers do: fenced blocks in order, and what to do with each.

`<!-- after: PAGE -->` at the top: the reader has done that page up to its service.
`<!-- on: a machine of its own -->`: the page changes the system itself.
A comment right above a fence says more than its language does:

- `<!-- not run: REASON -->`: a command that no test can run.
- `<!-- file: PATH -->`: the reader saves the block under that name.
- `<!-- part of: job.toml -->`, `jobbus.toml` or `calendars.toml`: some lines of such a file.
- `<!-- goes on: WORDS -->`: runs in a terminal of its own, and is up once it has printed WORDS.
- `<!-- until: WORDS -->`: never ends by itself; the reader stops it after it has printed WORDS.
- `<!-- after ctrl-c -->`: what goes on elsewhere is interrupted before.
- `<!-- fails: CODE -->`: ends with that exit code.
- `<!-- prints -->`: a text block with what the commands before it print; `…` stands for anything.
- `<!-- page: WORDS, WORDS -->`: JavaScript for the service's own page, which prints all of these.
- `<!-- tested: NAME -->`, `<!-- quick-start: NAME -->`: run elsewhere, word for word.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "THREAT_MODEL.md")
PAGES = [
    *(ROOT / name for name in ROOTS),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_OWN_MACHINE = "<!-- on: a machine of its own -->"
_AFTER = re.compile(r"^<!-- after: ([\w/.-]+\.md) -->$", re.M)
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[a-z -]+?)(?:: (?P<value>[^\n]+?))? -->\n)?"
    r"^(?P<fence>```+)(?P<language>[\w-]*)\n(?P<text>.*?)^(?P=fence)$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is that of its fence, counted from 1."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""
    value: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of the page, in order."""
    content = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=content.count("\n", 0, found.start("fence")) + 1,
            language=found["language"],
            text=found["text"],
            mark=found["mark"] or "",
            value=found["value"] or "",
        )
        for found in _BLOCK.finditer(content)
    ]


def prepared_by(page: Path) -> Path | None:
    """The page whose files and service the reader of this one has already, if it says so."""
    found = _AFTER.search(page.read_text(encoding="utf-8"))
    return None if found is None else page.parent / found[1]


def wants_own_machine(page: Path) -> bool:
    """Whether the page changes the machine itself: accounts, units, folders of the system."""
    return _OWN_MACHINE in page.read_text(encoding="utf-8")


def printed_as(shown: str, printed: str) -> bool:
    """Whether each line of `shown` was printed, in that order; `…` stands for anything."""
    position = 0
    for line in filter(None, (line.strip() for line in shown.splitlines())):
        pieces = (r"\s+".join(map(re.escape, piece.split())) for piece in line.split("…"))
        found = re.compile(r"[^\n]*?".join(pieces)).search(printed, position)
        if found is None:
            return False
        position = found.end()
    return True
