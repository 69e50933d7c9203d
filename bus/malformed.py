"""What is wrong with bytes that should be JSON, or with a value that should fit a record: sentences
for who wrote them. No IO.

Every way in asks here, so none of them repeats how a library puts it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from bus.model import Value
from bus.wording import quoted

NO_SUCH_WORD = "is none of the words that may stand here"
SEND_UTF8 = "send it as UTF-8"

_AT_BYTE = re.compile(r"\(byte (\d+)\)")
_PLACE = re.compile(r" - at `(?:key in )?\$(.*)`\Z")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_FIELD = re.compile(r"(missing required|unknown) field `([^`]+)`")
_KINDS = re.compile(r"Expected `([^`]+)`(?:, got `([^`]+)`)?\Z")
_BOUND = re.compile(r"Expected `\w+`(?: of length)? (>=|<=|>|<) (-?\d+)\Z")
_LENGTH = re.compile(r"Expected `(\w+)` of length (>=|<=) (\d+)")
_PATTERN = re.compile(r"Expected `str` matching regex '(.*)'\Z")
_WRONG_WORD = re.compile(r"Invalid (?:enum )?value '(.*)'", re.DOTALL)
_LONE_HALF = re.compile(
    rb"(?<!\\)(?:\\\\)*\\u(?:[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|[dD][c-fC-F][0-9a-fA-F]{2})"
)
_WORD = re.compile(rb"[A-Za-z]+")
_NAME_END = re.compile(rb'"[ \t\r\n]*:')
_NAME = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"([ \t\r\n]*:)?', re.DOTALL)

NAMES_MAX = 5_000
"""More than any command has; to compare more of them would take too long."""

_REASONS = {
    "trailing comma": "a comma before a closing brace or bracket is one too many",
    "object keys must be strings": "a name in double quotes belongs here",
    "invalid escape character": "a backslash in a text is written twice",
    "in unicode escape": "after \\u four digits 0-9 or letters A-F belong here",
    "trailing characters": "something follows the end; send one object and nothing after it",
    "expected ':'": "a colon belongs between a name and its value",
    "expected ','": "a comma is missing here, or the closing brace or bracket",
    "invalid number": "this is no number as JSON writes it, such as 30 or -2.5",
}
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null", "nul": "null"}
_NO_NUMBERS = ("nan", "infinity")

_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object in braces",
    "array": "a list in brackets",
    "null": "null",
}
_GOT = _NAMES | {"int": "a number", "object": "an object", "array": "a list"}
VALUES = 'text, a number, true, false or {"secret": "NAME"}'


def why_no_json(raw: bytes, in_utf8: str = SEND_UTF8) -> str:
    """Where the bytes stop to be JSON, and what would belong there.

    `in_utf8` is how their writer gets them into the right encoding.
    """
    if not raw.strip(b" \t\r\n\0"):
        return "it is empty; one JSON object belongs there"
    try:
        raw.decode()
    except UnicodeDecodeError as exc:
        return f"{_at(raw, exc.start)}: the byte 0x{raw[exc.start]:02X} is not UTF-8; {in_utf8}"
    if b"\0" in raw:
        return f"{_at(raw, raw.index(0))}: a NUL, as in UTF-16 without its mark; {in_utf8}"
    if raw.lstrip()[:1] == b"<":
        return "it is XML or HTML, not JSON"
    half = _LONE_HALF.search(raw)
    try:
        msgspec.json.decode(raw)
    except RecursionError:
        return "it is nested too deeply"
    except msgspec.ValidationError:
        return "it holds a number that is too large"
    except msgspec.DecodeError as exc:
        if half is not None:
            return f"{_at(raw, half.start())}: half of a surrogate pair, which is no character"
        return _syntax(raw, str(exc))
    return "it does not say what it must"


def why_no_object(raw: bytes) -> str:
    """What JSON bytes are, where they are not the object in braces that they should be."""
    match raw.lstrip()[:1]:
        case b"[":
            return "it is a list; one object in braces belongs there"
        case b'"':
            return "it is a text; one object in braces belongs there"
        case _:
            return "it is a bare value; one object in braces belongs there"


def why_ambiguous(raw: bytes) -> str | None:
    """What is wrong with JSON in which a name stands twice in one object, at any depth; None if
    none does. Readers differ in what they make of it (RFC 8259 §4): what one has checked may not
    be what the next one does.

    Raises:
        RecursionError: it is nested too deeply to say.
    """
    ends = [match.start() for match in _NAME_END.finditer(raw)]
    # A text that begins with a colon makes a name of what is before it: one too many, never one
    # too few.
    names = {raw[raw.rfind(b'"', 0, end) : end] for end in ends}
    if len(names) == len(ends) and b"\\" not in raw:
        return None  # mostly; else a name may stand in two objects, or be spelled in two ways
    if len(ends) > NAMES_MAX:  # or a text holds JSON of its own
        count = sum(map(bool, _NAME.findall(raw)))
        if count > NAMES_MAX:
            return f"it holds {count} names; at most {NAMES_MAX} may stand in one message"
    try:
        json.loads(raw.decode(), object_pairs_hook=_without_twice, parse_int=len, parse_float=len)
    except _NamedTwice as found:
        return f"{quoted(found.name)} stands twice in one object; write it once"
    return None


class _NamedTwice(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _without_twice(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) != len(pairs):
        names = [name for name, _ in pairs]
        raise _NamedTwice(next(name for name in names if names.count(name) > 1))


def why_unfit(error: msgspec.ValidationError) -> tuple[tuple[str, ...], str]:
    """The steps to the value that does not fit its record, and what would; the steps end early
    where a name is the writer's own."""
    words = str(error)
    place = _PLACE.search(words)
    steps = tuple(a or b for a, b in _STEP.findall(place[1])) if place else ()
    words = _PLACE.sub("", words)
    field = _FIELD.search(words)
    if field is not None:
        return (*steps, field[2]), "missing" if field[1] == "missing required" else "unknown field"
    return steps, _expectation(words)


def why_no_value(name: str, value: object) -> str | None:
    """What is wrong with the value of a variable, whatever the job makes of it; None if nothing."""
    try:
        msgspec.convert(value, Value)
    except (ValueError, RecursionError):
        return f"variable {quoted(name)} must be {VALUES}, not {described(value)}"
    return None


def first_unfit(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Name and sentence of the first variable with a value that none may have."""
    for name, value in values.items():
        sentence = why_no_value(name, value)
        if sentence is not None:
            return name, sentence
    return None


def escaped(name: str) -> str:
    """`name` as one step of a JSON pointer (RFC 6901 §3)."""
    return name.replace("~", "~0").replace("/", "~1")


def described(value: object) -> str:
    """What kind of value it is; the value itself may be a secret and is never repeated."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case _:
            return "an object"


def _syntax(raw: bytes, words: str) -> str:
    at_byte = _AT_BYTE.search(words)
    if at_byte is None:
        return (
            f"it ends at {_at(raw, len(raw))} before it is whole: a quote, brace or bracket is "
            "not closed"
        )
    offset = min(int(at_byte[1]), len(raw))
    return f"{_at(raw, offset)}: {_reason(raw, offset, words)}"


def _reason(raw: bytes, offset: int, words: str) -> str:
    for part, sentence in _REASONS.items():
        if part in words:
            return sentence
    sign = raw[offset : offset + 1]
    if sign in (b"/", b"#"):
        return "JSON has no comments"
    if sign == b"'":
        return "texts stand in double quotes"
    if b"" < sign < b" ":
        return "a line end or tab in a text is written \\n or \\t"
    word = _WORD.search(raw, max(0, _word_start(raw, offset)))
    if word is not None and word.start() <= offset <= word.end():
        if word[0].decode().lower() in _NO_NUMBERS:
            return "JSON has only finite numbers"
        meant = _WORDS.get(word[0].decode().lower())
        return f"write {meant}, in small letters" if meant else "texts stand in double quotes"
    return "a value belongs here: text in double quotes, a number, true, false or null"


def _word_start(raw: bytes, offset: int) -> int:
    while offset > 0 and raw[offset - 1 : offset].isalpha():
        offset -= 1
    return offset


def _at(raw: bytes, offset: int) -> str:
    before = raw[:offset]
    line_start = before.rfind(b"\n") + 1
    column = len(before[line_start:].decode("utf-8", "replace")) + 1
    return f"line {before.count(10) + 1}, column {column}"


def _expectation(words: str) -> str:
    if "out of range" in words:
        return "is a number that is too large"
    length = _LENGTH.match(words)
    if length is not None:
        most = "at least" if length[2] == ">=" else "at most"
        return f"must have {most} {length[3]} {'characters' if length[1] == 'str' else 'entries'}"
    bound = _BOUND.match(words)
    if bound is not None:
        most = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}[bound[1]]
        return f"must be {most} {bound[2]}"
    pattern = _PATTERN.match(words)
    if pattern is not None:
        return f"must match {pattern[1]}"
    kinds = _KINDS.match(words)
    if kinds is None:
        word = _WRONG_WORD.match(words)
        return f"{quoted(word[1])} {NO_SUCH_WORD}" if word else "is not what belongs here"
    wanted = [_NAMES.get(kind, kind) for kind in kinds[1].split(" | ") if kind != "null"]
    got = f", not {_GOT.get(kinds[2], 'that')}" if kinds[2] else ""
    return f"must be {' or '.join(dict.fromkeys(wanted))}{got}"
