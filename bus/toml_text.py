"""TOML that people write, read with the place of a fault and what would be right there. Pure.

`tomllib` says where a text stops to be TOML; why is found here, by what stands there.
"""

import re
import tomllib
from typing import Any, NamedTuple

from bus.visible_text import HIDDEN, visible
from bus.wording import quoted

DOTS_A_LINE_MAX = 256
"""`tomllib` takes quadratic time and memory for `a.a.a…`; no honest line has that many dots."""

SHOWN_MAX = 80
"""Characters of a faulty line that are shown."""

_PLACE = re.compile(r"\A(.*) \(at (?:line (\d+), column (\d+)|end of document)\)\Z", re.DOTALL)
_PIECE = re.compile(
    r"""
      (?P<long>\"{3}(?:[^\\]|\\.)*?(?:\"{3}|\Z)|'{3}.*?(?:'{3}|\Z))
    | (?P<text>"(?:[^"\\\n]|\\.)*"|'[^'\n]*')
    | (?P<broken>["'])
    | (?P<comment>\#[^\n]*)
    | (?P<header>^[ \t]*\[[^\n]*)
    | (?P<bracket>[\[\]{}])
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_HIDDEN = re.compile(rf"{HIDDEN}|[\u00a0\u2007\u202f]")
_ODD_QUOTES = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb\u00b4`"
_BARE = re.compile(r"[^\s,\]}#][^,\]}#\n]*")
_PAIR = re.compile(r"[ \t]*[\w.\"'-]+[ \t]*=")
_ZEROS = re.compile(r"[+-]?0[0-9_]+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}")
_DIGITS = re.compile(r"\d{4000,}")
_WORDS = {
    **dict.fromkeys(("true", "yes", "on"), "write true, in small letters"),
    **dict.fromkeys(("false", "no", "off"), "write false, in small letters"),
    **dict.fromkeys(("none", "null", "nil"), "there is no null in TOML; leave the key out"),
}
_ESCAPES = ("Unescaped", "Invalid hex value", "Escaped character")
_REPEATS = ("Cannot overwrite", "Cannot declare", "Cannot mutate", "Cannot redefine", "Duplicate")
_NO_VALUE = "this is no value: text in quotes, a number, true, false, a [list] or a {table}"


class TomlFault(ValueError):
    """What is wrong; `line` and `column` count from 1 and are 0 where there is none to name."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.column = column
        self.reason = reason


class _Why(NamedTuple):
    """The place of a fault, as an offset, and what is wrong there."""

    at: int
    reason: str


def toml_text(content: bytes) -> str:
    """The text of a file.

    Raises:
        TomlFault: it is in another encoding, or not worth parsing.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TomlFault(1, 0, "is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise TomlFault(line, 0, "is not UTF-8 here; save it as UTF-8") from exc
    for number, line_text in enumerate(text.split("\n"), 1):
        if line_text.count(".") > DOTS_A_LINE_MAX:
            raise TomlFault(number, 0, f"has more than {DOTS_A_LINE_MAX} dots on one line")
    return text


def parse_toml(text: str) -> dict[str, Any]:
    """The document.

    Raises:
        TomlFault: the text is no TOML; the reason names the column, shows the line, and says what
            would be right.
        RecursionError: lists or tables are nested too deeply.
    """
    try:
        return tomllib.loads(text)
    except ValueError as exc:  # also plain ones, of absurdly long integers
        source = text.replace("\r\n", "\n")
        why = _why(source, str(exc))
        start = source.rfind("\n", 0, why.at) + 1
        line, column = source.count("\n", 0, why.at) + 1, why.at - start + 1
        shown = source[start:].partition("\n")[0]
        cut = visible(shown.expandtabs(1).strip())[:SHOWN_MAX]
        place = f" (line {line} is: {cut})" if cut else ""
        reason = f"no valid TOML, column {column}: {why.reason}{place}"
        raise TomlFault(line, column, reason) from exc


def _why(source: str, words: str) -> _Why:
    """The place and our sentence, for what `tomllib` said in its words."""
    place = _PLACE.match(words)
    if place is None:
        number = _DIGITS.search(source)
        return _Why(number.start() if number else 0, "a number has too many digits")
    words = place[1]
    at = len(source) if place[2] is None else _offset(source, int(place[2]), int(place[3]))
    if words.startswith(_ESCAPES):
        return _Why(max(source.rfind("\\", 0, at), 0), _escape(words))
    if words.startswith(_REPEATS):
        return _repeat(source, at)
    sign = source[at : at + 1]
    hidden = _hidden(source, at)
    if hidden is not None:
        return _Why(at, hidden)
    opened = _opened(source[:at])
    if opened is not None and opened.sign[0] in "\"'":
        return _unclosed_text(opened)
    if sign and sign in _ODD_QUOTES:
        return _Why(at, "texts stand in plain quotes: \" or '")
    if opened is not None:
        return _unclosed(source, at, opened)
    for begin, reason in _BY_WORDS:
        if words.startswith(begin):
            return _Why(at, reason(source, at))
    return _Why(at, "a line holds key = value, or a [table]")


class _Opened(NamedTuple):
    """Where a text, a list or a table in braces began that is not closed; `sign` opens it."""

    at: int
    sign: str


def _opened(source: str) -> _Opened | None:
    """The innermost that is open at the end of `source`; a text goes before all else."""
    open_: list[_Opened] = []
    for piece in _PIECE.finditer(source):
        found = piece[0]
        match piece.lastgroup:
            case "long" if len(found) < 6 or found[-3:] != found[:3]:
                return _Opened(piece.start(), found[:3])
            case "broken":
                return _Opened(piece.start(), found)
            case "header" if open_:
                open_ += [_Opened(piece.start() + n, s) for n, s in enumerate(found) if s == "["]
                for _ in range(min(found.count("]"), len(open_))):
                    open_.pop()
            case "bracket" if found in "[{":
                open_.append(_Opened(piece.start(), found))
            case "bracket" if open_:
                open_.pop()
    return open_[-1] if open_ else None


def _unclosed_text(opened: _Opened) -> _Why:
    end = "" if len(opened.sign) == 3 else " on its line"
    reason = f"the text that begins here is not closed{end}: {opened.sign} is missing"
    return _Why(opened.at, reason)


def _unclosed(source: str, at: int, opened: _Opened) -> _Why:
    """Within brackets or braces something stands that does not belong there."""
    line = source.count("\n", 0, opened.at) + 1
    at = opened.at if at >= len(source) else at
    rest = source[at:].partition("\n")[0]
    if opened.sign == "{":
        return _Why(
            at,
            f"the braces that begin in line {line} are not closed: they stand on one line, with "
            "commas between and none at the end",
        )
    if not rest or _PAIR.match(rest) or rest[0] in "[\"'0123456789{":
        return _Why(
            at, f"the list that begins in line {line} is not closed: a comma or ] is missing"
        )
    return _Why(at, _value(source, at))


def _escape(words: str) -> str:
    if words.startswith("Escaped"):
        return "this number stands for no character"
    return (
        r"a backslash in double quotes is written twice, as in "
        r""""C:\\Temp"; or put the text in single quotes: 'C:\Temp'"""
    )


def _repeat(source: str, at: int) -> _Why:
    """A key or table that is there already."""
    start = source.rfind("\n", 0, at) + 1
    line = source[start:].partition("\n")[0]
    start += len(line) - len(line.lstrip())
    is_table = line.lstrip().startswith("[")
    name = line.strip().partition("#")[0].strip() if is_table else line.partition("=")[0].strip()
    before = source[:start].split("\n")
    for number in range(len(before) - 1, 0, -1):
        other = before[number - 1].strip()
        if not is_table and other.startswith("["):
            break
        found = other.partition("#")[0].strip() if is_table else other.partition("=")[0].strip()
        if found == name:
            return _Why(start, f"{quoted(name)} is there already, in line {number}; write it once")
    return _Why(start, f"{quoted(name)} is there already, or was given a value; write it once")


def _hidden(source: str, at: int) -> str | None:
    sign = source[at : at + 1]
    if sign == "\r":
        return "a line ends with a line feed, not with a carriage return alone"
    if sign and sign not in "\n\t" and _HIDDEN.match(sign):
        return f"an invisible character (U+{ord(sign):04X}) stands here; take it out"
    return None


def _equals(source: str, at: int) -> str:
    rest = source[at:].partition("\n")[0]
    if rest.startswith(":"):
        return "write = in the place of the colon"
    if re.match(r"[\w-]+[^=\"']*=", rest):
        return "a key has no blanks; write _ or put the key in quotes"
    if not rest.strip():
        return "a key stands alone; = and a value belong behind it"
    return "= belongs between a key and its value"


def _statement(source: str, at: int) -> str:
    rest = source[at:].partition("\n")[0]
    if rest.startswith(("//", ";", "/*", "--")):
        return "a comment begins with #"
    if rest.startswith("{"):
        return "braces belong to JSON; here each line is key = value, or a [table]"
    if rest.startswith("="):
        return "a key belongs before ="
    return "a key, or a table in brackets, belongs here"


def _key(source: str, at: int) -> str:
    if source[at : at + 1] == "]":
        return "a table has a name: [name]"
    return "a key belongs here: letters, digits, _ and -, or text in quotes"


def _header(source: str, at: int) -> str:
    rest = source[at:].partition("\n")[0].strip()
    if source[:at].rpartition("\n")[2].lstrip().startswith("[["):
        return "what begins with two brackets ends with two: ]]"
    if not rest:
        return "the bracket of the table is not closed: ] is missing"
    return "the name of a table is one key, or keys with dots, and ] closes it"


def _value(source: str, at: int) -> str:
    rest = source[at:].partition("\n")[0]
    if not rest.strip() or rest.lstrip().startswith("#"):
        return "a value belongs behind ="
    if rest.startswith(","):
        return "a value is missing before the comma"
    if re.match(r"[+-]?\.[0-9]", rest):
        return "a number begins with a digit: 0.5"
    bare = _BARE.match(rest)
    word = bare[0].strip() if bare else ""
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if not word or word[0] in "=[](){}+-":
        return _NO_VALUE
    return f"text stands in quotes: {quoted(word)}"


def _end(source: str, at: int) -> str:
    """Something follows a value."""
    start = source.rfind("=", 0, at) + 1
    value, sign = source[start:at].strip(), source[at : at + 1]
    whole = (value + source[at:].partition("\n")[0]).partition("#")[0].strip()
    if sign == ",":
        is_number = re.fullmatch(r"[+-]?\d+,\d+", whole)
        return "a number has a point: 1.5" if is_number else 'values stand in a list: ["a", "b"]'
    if value[:1] in ("'", '"'):
        return (
            'something follows the text; a quote within it is written \\", or it stands in single '
            "quotes"
        )
    if value.isascii() and _ZEROS.fullmatch(whole):
        return f"a number does not begin with 0; if text is meant, quote it: {quoted(whole)}"
    if _DATE.match(whole):
        return _date(source, at)
    if value[:1].isdigit() and sign not in (" ", "\t") and not source[at - 1].isspace():
        return f"this is no number; if text is meant, quote it: {quoted(whole)}"
    return "one line holds one key and its value; this follows it"


def _date(source: str, at: int) -> str:
    return "this is no date, such as 2026-01-31 or 2026-01-31T18:00:00Z"


_BY_WORDS = (
    ("Expected '='", _equals),
    ("Expected newline", _end),
    ("Expected ']", _header),
    ("Invalid statement", _statement),
    ("Invalid initial character", _key),
    ("Invalid date", _date),
    ("Invalid value", _value),
)


def _offset(source: str, line: int, column: int) -> int:
    start = 0
    for _ in range(line - 1):
        start = source.index("\n", start) + 1
    return min(start + column - 1, len(source))
