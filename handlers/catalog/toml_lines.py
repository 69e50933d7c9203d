"""On which line of a TOML text each key stands; `tomllib` does not say. Pure.

Only for texts that `tomllib` has accepted: so this needs to know where things begin and end, and
not what is allowed.
"""

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]
"""Keys from the top, an index where a list is entered: `("schedule", 0, "cron")`."""

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_SCALAR = re.compile(
    r"""
      \"{3}(?:[^"\\]|\\.|"(?!""))*\"{3,5}   # several lines, escapes
    | '{3}(?:[^']|'(?!''))*'{3,5}           # several lines, literal
    | "(?:[^"\\]|\\.)*"
    | '[^']*'
    | [^,\]}\#\n]+                          # numbers, booleans, dates (one blank may be inside)
    """,
    re.VERBOSE | re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """The 1-based line where each key, table and list element of a valid document first appears."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


def line_of(path: Path, lines: dict[Path, int]) -> int:
    """The line of `path`, or of the nearest thing around it that has one; else 1."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Scanner:
    """One pass over a text; `_at` is the position, `_lines` the answer so far."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}  # of the arrays of tables

    def scan(self) -> dict[Path, int]:
        prefix: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                prefix = self._header()
            else:
                self._pair(prefix)
            self._skip(_BLANK)
        return self._lines

    def _header(self) -> Path:
        """Reads `[a.b]` or `[[a.b]]`; the path of the table that begins here."""
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        start = self._at
        self._at += brackets
        *above, last = self._key()
        self._at += brackets
        path: Path = ()
        for part in above:
            path = self._note((*path, part), start)
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        path = self._note((*path, last), start)
        if brackets == 2:
            index = self._lengths.get(path, 0)
            self._lengths[path] = index + 1
            path = self._note((*path, index), start)
        return path

    def _pair(self, prefix: Path) -> None:
        """Reads `key = value`."""
        start, path = self._at, prefix
        for part in self._key():
            path = self._note((*path, part), start)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        opening = self._text[self._at]
        if opening not in "[{":
            self._skip(_SCALAR)
            return
        self._at += 1
        self._skip(_BLANK)
        index = 0
        while self._text[self._at] not in "]}":
            if opening == "{":
                self._pair(path)
            else:
                self._value(self._note((*path, index), self._at))
            index += 1
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
                self._skip(_BLANK)
        self._at += 1

    def _key(self) -> list[str]:
        """Reads a key, dotted or not, and the blanks around it."""
        parts = []
        while True:
            self._skip(_SPACE)
            part = self._skip(_KEY_PART)
            quoted = part[0] in "\"'"
            parts.append(tomllib.loads(f"key = {part}")["key"] if quoted else part)
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, "the text is no valid TOML"
        self._at = match.end()
        return match.group()

    def _note(self, path: Path, position: int) -> Path:
        self._lines.setdefault(path, bisect_right(self._line_ends, position - 1) + 1)
        return path
