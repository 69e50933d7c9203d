"""The text of an `env_file`: `NAME=VALUE` lines, as systemd and readers of `.env` agree on them.

Pure. Where they differ (a comment behind a value, a backslash, a variable to be put in) the line is
refused with what would be right: a value that means one thing here and another there is a trap.
The file may hold secrets: a fault names its line and no text of it, but for names of variables.
"""

import re

from handlers.catalog.program_call import is_reserved

SIZE_MAX = 128 * 1024
"""Less than an environment may hold (execve(2))."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEAD = re.compile(r"[ \t]*(?:export[ \t]+)?([^\s=]+)[ \t]*=[ \t]*")
_ESCAPED = '"\\$`'


class LineFault(Exception):
    """What is wrong with one line; `line` is 1-based."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


def parse_env(text: str) -> dict[str, str]:
    """The variables that the text sets; of two with one name the later counts.

    Raises:
        LineFault: a line that is none, or that other readers understand in another way.
    """
    found: dict[str, str] = {}
    lines = text.replace("\r\n", "\n").split("\n")
    number = 0
    for at, line in enumerate(lines, 1):
        if "\0" in line:
            raise LineFault(at, "holds a NUL character, which no variable can")
    while number < len(lines):
        first = number
        line = lines[number]
        number += 1
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        name, value = _head(line, first + 1)
        if value[:1] in ("'", '"'):
            quote, pieces, start = value[0], [value], 1
            while (end := _end_of_quotes(pieces[-1], quote, start)) is None:
                if number == len(lines):
                    raise LineFault(first + 1, f"the quote that begins there is not closed: {name}")
                pieces.append(lines[number])
                number, start = number + 1, 0
            before = sum(len(piece) + 1 for piece in pieces[:-1])
            found[name] = _unquoted("\n".join(pieces), before + end, first + 1)
        else:
            found[name] = _plain(value, first + 1)
    return found


def _head(line: str, number: int) -> tuple[str, str]:
    match = _HEAD.match(line)
    if match is None:
        raise LineFault(number, "is no NAME=VALUE")
    name = match[1]
    if not _NAME.fullmatch(name):
        raise LineFault(
            number,
            "what stands before the = cannot be the name of a variable: letters, digits and "
            "underscores, beginning with no digit",
        )
    if is_reserved(name):
        raise LineFault(number, f"{name} is set by jobbus itself; choose another name")
    return name, line[match.end() :]


def _end_of_quotes(line: str, quote: str, start: int) -> int | None:
    """Where the closing quote stands in the line; None if the value goes on in the next."""
    at = start
    while at < len(line):
        if line[at] == quote:
            return at
        at += 2 if line[at] == "\\" and quote == '"' else 1
    return None


def _unquoted(value: str, end: int, number: int) -> str:
    rest = value[end + 1 :].strip()
    if rest and rest[0] != "#":
        raise LineFault(number, "something stands behind the closing quote")
    inner = value[1:end]
    if value[0] == "'":
        return inner
    parts, at = [], 0
    while at < len(inner):
        if inner[at] == "\\":
            at += 1
            if inner[at : at + 1] not in (*_ESCAPED,):
                raise LineFault(
                    number,
                    'within double quotes a backslash goes before \\, ", $ or ` only; put the '
                    "value in single quotes, where it stands for itself",
                )
        elif inner[at] == "$":
            raise LineFault(number, _dollar("write \\$, or put the value in single quotes"))
        parts.append(inner[at])
        at += 1
    return "".join(parts)


def _plain(value: str, number: int) -> str:
    value = value.rstrip()
    if re.search(r"\s#", value) or value.startswith("#"):
        raise LineFault(
            number,
            "a # behind a value is a comment to some readers and not to others: put the value in "
            "quotes if it belongs to it, else the comment on a line of its own",
        )
    if "\\" in value:
        raise LineFault(number, "a backslash outside of quotes; put the value in single quotes")
    if "$" in value:
        raise LineFault(number, _dollar("put the value in single quotes"))
    return value


def _dollar(instead: str) -> str:
    return f"no variable is put in for a $; if it belongs to the value, {instead}"
