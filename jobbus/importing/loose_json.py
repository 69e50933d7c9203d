"""JSON, and the object literals of JavaScript that are as plain, read with the line of each key.

Only values: names in or without quotes, texts in any quotes, comments, commas at the end. What
would have to be run to be known is refused with its line. Pure.
"""

import json
import re
from typing import Any, NamedTuple

DEPTH_MAX = 40

DIGITS_MAX = 1000
"""Longer whole numbers are read as others are; none of them means anything here."""

_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/|\ufeff)*", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_$][\w$]*")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")
_TEXT = re.compile(
    r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\$]|\\.|\$(?!\{))*`", re.DOTALL
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|\r?\n|.)", re.DOTALL)
_EXPORT = re.compile(r"(?:module\s*\.\s*exports\s*=|export\s+default\b)")
_STRICT = re.compile(r"(['\"])use strict\1\s*;?")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_WORDS = {"true": True, "false": False, "null": None, "undefined": None}


class Unreadable(ValueError):
    """Why and where the text is more, or less, than plain values."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class Entry(NamedTuple):
    """A value and the first and last line that it stands on, counted from 1."""

    value: "Scalar | Object | Array"
    first: int
    last: int


Scalar = str | int | float | bool | None
Object = dict[str, Entry]
Array = list[Entry]


def read_json(text: str) -> Entry:
    """The one value of a file; of JavaScript, the one that is exported.

    Raises:
        Unreadable: it is something else, and where.
    """
    return _Reader(text).document()


def plain(entry: Entry) -> Any:
    """The value without the places."""
    match entry.value:
        case dict():
            return {name: plain(each) for name, each in entry.value.items()}
        case list():
            return [plain(each) for each in entry.value]
        case _:
            return entry.value


class _Reader:
    """A position in the text that only moves forward."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = 0
        self._line = 1

    def document(self) -> Entry:
        self._skip()
        if strict := _STRICT.match(self._text, self._at):
            self._at = strict.end()
            self._skip()
        if export := _EXPORT.match(self._text, self._at):
            self._at = export.end()
        entry = self._entry(0)
        self._skip()
        self._take(";")
        self._skip()
        if self._at < len(self._text):
            raise self._fault("more than one value stands in the file; only plain values are read")
        return entry

    def _entry(self, depth: int) -> Entry:
        self._skip()
        if depth > DEPTH_MAX:
            raise self._fault("values are nested too deeply")
        first = self._line_here()
        value = self._value(depth)
        return Entry(value, first, self._line_here())

    def _value(self, depth: int) -> "Scalar | Object | Array":
        if self._take("{"):
            return self._object(depth)
        if self._take("["):
            return self._array(depth)
        if text := _TEXT.match(self._text, self._at):
            self._at = text.end()
            return _unescaped(text[0])
        if number := _NUMBER.match(self._text, self._at):
            self._at = number.end()
            return _number(number[0])
        if name := _NAME.match(self._text, self._at):
            if name[0] in _WORDS:
                self._at = name.end()
                return _WORDS[name[0]]
            raise self._fault(f"{name[0][:40]} would have to be run to be known")
        if self._at >= len(self._text):
            raise self._fault("the file ends where a value belongs")
        raise self._fault("no plain value stands here")

    def _object(self, depth: int) -> Object:
        found: Object = {}
        while True:
            self._skip()
            if self._take("}"):
                return found
            name = self._key()
            if name in found:
                raise self._fault(f"{name[:40]} stands twice in one object")
            self._skip()
            if not self._take(":"):
                raise self._fault(f"a colon belongs behind {name[:40]}")
            found[name] = self._entry(depth + 1)
            self._skip()
            if not self._take(",") and self._text[self._at : self._at + 1] != "}":
                raise self._fault("a comma or } is missing, or something here would have to be run")

    def _array(self, depth: int) -> Array:
        found: Array = []
        while True:
            self._skip()
            if self._take("]"):
                return found
            found.append(self._entry(depth + 1))
            self._skip()
            if not self._take(",") and self._text[self._at : self._at + 1] != "]":
                raise self._fault("a comma or ] is missing, or something here would have to be run")

    def _key(self) -> str:
        for form in (_TEXT, _NAME, _NUMBER):
            if key := form.match(self._text, self._at):
                self._at = key.end()
                return _unescaped(key[0]) if form is _TEXT else key[0]
        raise self._fault("a key belongs here")

    def _take(self, sign: str) -> bool:
        if self._text.startswith(sign, self._at):
            self._at += len(sign)
            return True
        return False

    def _skip(self) -> None:
        space = _SPACE.match(self._text, self._at)
        assert space is not None, "it matches the empty text, too"
        self._at = space.end()

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _fault(self, reason: str) -> Unreadable:
        return Unreadable(self._line_here(), reason)


def _number(text: str) -> int | float:
    if text.lstrip("+-").isdigit() and len(text) < DIGITS_MAX:
        return int(text)
    return float(text)


def _unescaped(quoted: str) -> str:
    if quoted[0] == '"':
        try:
            text = json.loads(quoted, strict=False)
        except ValueError:
            pass
        else:
            assert isinstance(text, str)
            return text
    return _ESCAPE.sub(lambda match: _escaped(match[1]), quoted[1:-1])


def _escaped(code: str) -> str:
    if len(code) > 1 and code[0] in "ux":
        return chr(int(code[1:], 16))
    return "" if code.endswith("\n") else _LETTERS.get(code, code)
