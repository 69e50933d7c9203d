"""What programs printed, made fit for a terminal: it may look like something, and do nothing.

A job's output is foreign: sent to a terminal as it is, it could set the clipboard, rename windows,
answer for the person, or hide lines (CWE-150). Where no terminal reads, bytes pass as they are.
"""

import codecs
import re

from bus.visible_text import HIDDEN, REPLACEMENT, belongs

_SGR = r"\x1b\[[0-9;:]{0,64}m"
"""Colours and their end: all that is let through of what begins with ESC, as `_Style` says."""

_COMMANDS = re.compile(rf"{_SGR}|{HIDDEN}")
_BEGUN = re.compile(r"\x1b(?:\[[0-9;:]{0,64})?\Z")
_RESET = "\x1b[0m"
_ORDINARY_COLOURS = "\x1b[39;49m"
_PICTURES = 0x2400

_MARKS = frozenset({1, 2, 3, 4, 7, 9, 21, 22, 23, 24, 27, 29, 53, 55, 59})
"""Bold, dim, italic, underlined, inverse, struck, overlined, and the end of each. Not: blinking
(5, 6), which distracts from everything else, and concealed (8)."""

_DISTANCE_MIN = 48
"""Colours that differ by less in red, green and blue together look alike."""

_BASIC = (
    (0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205),
    (0, 205, 205), (229, 229, 229), (127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0),
    (92, 92, 255), (255, 0, 255), (0, 255, 255), (255, 255, 255),
)  # fmt: skip
_CUBE = (0, 95, 135, 175, 215, 255)

Colour = tuple[int, int, int]


class Harmless:
    """One stream of output, in pieces of any size. Line ends, tabs, CR and colours stay; any other
    control character, and what would be invisible, is shown as a sign."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self._last = ""
        self._style = _Style()

    def of_bytes(self, data: bytes) -> str:
        return self.of(self._decode(data))

    def of(self, text: str) -> str:
        text = self._held + text
        begun = _BEGUN.search(text)
        self._held = begun[0] if begun is not None else ""
        return self._all(text[: begun.start()] if begun is not None else text)

    def end(self) -> str:
        """What was held, and the end of all colours."""
        rest, self._held = self._held + self._decode(b"", final=True), ""
        return self._all(rest) + (_RESET if self._style.was_used else "")

    def _all(self, text: str) -> str:
        shown = _COMMANDS.sub(lambda match: self._shown(match, text), text)
        self._last = text[-1:] or self._last
        return shown

    def _shown(self, match: re.Match[str], text: str) -> str:
        found = match[0]
        if len(found) > 1:
            return self._style.taken(found[2:-1])
        if ord(found) < 0x20:
            return chr(_PICTURES + ord(found))
        if found == "\x7f":
            return "\N{SYMBOL FOR DELETE}"
        before = text[match.start() - 1] if match.start() else self._last
        return found if belongs(found, before) else REPLACEMENT


class _Style:
    """What of a colour sequence may pass, so that the text in it can be seen (ECMA-48 SGR).

    `_ink` and `_paper` are the colours in force; None is the terminal's own.
    """

    def __init__(self) -> None:
        self.was_used = False
        self._ink: Colour | None = None
        self._paper: Colour | None = None

    def taken(self, parameters: str) -> str:
        """The sequence with what is permitted of it; nothing if that is nothing."""
        kept: list[str] = []
        groups = [group.split(":") for group in parameters.split(";")]
        while groups:
            kept += self._next(groups)
        if not kept:
            return ""
        self.was_used = True
        sequence = f"\x1b[{';'.join(kept)}m"
        if self._ink is None or self._paper is None:
            return sequence
        if sum(abs(a - b) for a, b in zip(self._ink, self._paper, strict=True)) >= _DISTANCE_MIN:
            return sequence
        self._ink = self._paper = None
        return sequence + _ORDINARY_COLOURS

    def _next(self, groups: list[list[str]]) -> list[str]:
        """The parameters of one instruction, taken off, if it may pass."""
        group = groups.pop(0)
        code = _number(group[0])
        if code in (38, 48, 58):
            return self._colour(code, group, groups)
        if len(group) > 1:
            return [":".join(group)] if code == 4 and group[1] in "012345" else []
        if code == 0:
            self._ink = self._paper = None
        elif code in (39, 49):
            self._set(code, None)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            self._set(38, _BASIC[code - 30 if code < 40 else code - 82])
        elif 40 <= code <= 47 or 100 <= code <= 107:
            self._set(48, _BASIC[code - 40 if code < 50 else code - 92])
        elif code not in _MARKS:
            return []
        return [str(code)]

    def _colour(self, code: int, group: list[str], groups: list[list[str]]) -> list[str]:
        """`38;5;N`, `38;2;R;G;B`, and with colons, where a colour space may have its place."""
        if len(group) > 1:
            numbers = [_number(each) for each in group[1:]]
            if numbers[:1] == [2] and len(numbers) > 4:
                del numbers[1]
        else:
            count = {"5": 2, "2": 4}.get(groups[0][0] if groups else "", 0)
            numbers = [_number(each[0]) for each in groups[:count]]
            del groups[:count]
        match numbers:
            case [5, index, *_] if index <= 255:
                self._set(code, _indexed(index))
                return [f"{code};5;{index}"]
            case [2, red, green, blue, *_] if max(red, green, blue) <= 255:
                self._set(code, (red, green, blue))
                return [f"{code};2;{red};{green};{blue}"]
            case _:
                return []

    def _set(self, code: int, colour: Colour | None) -> None:
        if code in (38, 39):
            self._ink = colour
        elif code in (48, 49):
            self._paper = colour


def _number(text: str) -> int:
    return int(text) if text else 0


def _indexed(index: int) -> Colour:
    """As xterm's palette of 256 has it."""
    if index < 16:
        return _BASIC[index]
    if index < 232:
        index -= 16
        return _CUBE[index // 36], _CUBE[index // 6 % 6], _CUBE[index % 6]
    grey = 8 + 10 * (index - 232)
    return grey, grey, grey
