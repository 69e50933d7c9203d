"""From raw output to lines for people: split, shortened, redraws folded. Pure, no IO.

Only LF ends a line. A CR begins it again, as on a terminal: of all redraws the last one that shows
anything counts. A line over `LINE_MAX` comes in pieces.
"""

import codecs
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

LINE_MAX = 16 * 1024
"""Bytes of one piece of a line."""


class Rest(Enum):
    """What is known of bytes at the end of a window that no LF follows."""

    FINAL = "nothing will ever follow"
    OPEN = "more may follow"
    CUT = "more follows, beyond the window"


class Piece(NamedTuple):
    """A line, or a part of one. `at` to `end` are its bytes; `text` stands at `shown`.

    A piece that is not `continued` replaces all that was shown of a line of that number; one that
    is follows what was shown. After an `is_open` one it is read again from its `at` on. With
    `more` the line goes on in a further piece.
    """

    number: int
    at: int
    end: int
    shown: int
    text: bytes
    continued: bool
    is_open: bool
    more: bool = False


def split(window: bytes, base: int, number: int, *, continued: bool, rest: Rest) -> Iterator[Piece]:
    """The pieces of `window`, whose first byte has the offset `base` and lies in line `number`.

    `continued` says that the window begins within a line. With `Rest.CUT` the last line is left
    out as far as it fits into a later window; if that is all of it, nothing is yielded.
    """
    at = 0
    while (newline := window.find(b"\n", at)) >= 0:
        yield from _line(window[at:newline], base + at, newline + 1 - at, number, continued)
        at, number, continued = newline + 1, number + 1, False
    if at == len(window):
        return
    content, start = window[at:], base + at
    if rest is Rest.FINAL:
        yield from _line(content, start, len(content), number, continued)
    else:
        yield from _open_line(content, start, number, continued, rest)


def decode(text: bytes, *, is_open: bool) -> str:
    """`text` as UTF-8, U+FFFD for what is none; a character that is not whole yet waits."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(text, final=not is_open)


def _line(content: bytes, start: int, length: int, number: int, continued: bool) -> Iterator[Piece]:
    """A whole line of `length` bytes, its end included."""
    visible_at, visible = _redrawn(content)
    continued = continued and not visible_at
    at = start
    for cut, text in _cuts(visible):
        shown = start + visible_at + cut
        more = cut + len(text) < len(visible)
        end = shown + len(text) if more else start + length
        yield Piece(number, at, end, shown, text, continued, False, more)
        at, continued = end, True


def _open_line(
    content: bytes, start: int, number: int, continued: bool, rest: Rest
) -> Iterator[Piece]:
    """A line whose end is not in the window: what is long enough for a piece is final."""
    visible_at, visible = _redrawn(content)
    continued = continued and not visible_at
    for cut, text in _cuts(visible):
        shown = start + visible_at + cut
        is_last = cut + len(text) == len(visible)
        if not is_last:
            yield Piece(number, shown, shown + len(text), shown, text, continued, False, True)
        elif rest is Rest.OPEN or (visible_at and not cut):
            # Also of a progress bar longer than the window: it is read on from its last redraw.
            end = start + len(content)
            yield Piece(number, shown, end, shown, text, continued, True)
        continued = True


def _redrawn(content: bytes) -> tuple[int, bytes]:
    """The last redraw of a line that shows anything, and where in the line it begins."""
    shown = content.rstrip(b"\r")
    begin = shown.rfind(b"\r") + 1
    return begin, shown[begin:]


def _cuts(visible: bytes) -> Iterator[tuple[int, bytes]]:
    """`visible` in pieces of at most `LINE_MAX`, no character of UTF-8 cut in two; at least one."""
    at = 0
    while len(visible) - at > LINE_MAX:
        end = at + LINE_MAX
        while end > at + LINE_MAX - 3 and visible[end] & 0xC0 == 0x80:
            end -= 1
        yield at, visible[at:end]
        at = end
    yield at, visible[at:]
