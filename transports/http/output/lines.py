"""Lines of output as every answer and frame has them: one shape, encoded once. No IO.

`number` (from 1), `at` and `end` (byte offsets), `time`, `stream` (`out` or `err`), `text`. An open
line has `partial`: it comes again under its number and then replaces what was shown. `continued`
pieces follow the piece before them; with `more` a further piece follows.
"""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from bus.clock import rfc3339
from bus.ports import OutputLine, OutputPage


class LineView(msgspec.Struct, frozen=True, omit_defaults=True):
    number: int
    at: int
    end: int
    text: str
    stream: str | None = None
    time: str | None = None
    partial: bool = False
    continued: bool = False
    more: bool = False


_encode = msgspec.json.Encoder().encode
_time = lru_cache(maxsize=64)(rfc3339)


def line_view(line: OutputLine) -> LineView:
    return LineView(
        line.number,
        line.at,
        line.end,
        line.text,
        line.stream,
        _time(line.time_ms) if line.time_ms is not None else None,
        line.partial,
        line.continued,
        line.more,
    )


def lines_json(lines: Iterable[OutputLine]) -> bytes:
    """A JSON array of the lines."""
    return _encode([line_view(line) for line in lines])


def output_data(start: int, end: int, text: bytes, lines: bytes) -> bytes:
    """The data of an `output` frame: the reader goes on at `end`.

    `text` is JSON: the whole lines as text, for readers that only append.
    """
    return b'{"from":%d,"to":%d,"text":%s,"lines":%s}' % (start, end, text, lines)


def gap_data(gap: tuple[int, int], first_line: int | None) -> bytes:
    """The data of a `gap` frame; `firstLine` is the number of the line behind it, if there is."""
    data: dict[str, int] = {"from": gap[0], "to": gap[1]}
    if first_line is not None:
        data["firstLine"] = first_line
    return _encode(data)


def text_of(page: OutputPage, *, partial: bool = True) -> str:
    """The page's lines as plain text; without `partial`, the open ones are left out."""
    return "".join(
        line.text + _line_end(line, page) for line in page.lines if partial or not line.partial
    )


def text_json(page: OutputPage) -> bytes:
    """The whole lines of the page as one JSON text."""
    return _encode(text_of(page, partial=False))


def _line_end(line: OutputLine, page: OutputPage) -> str:
    if line.more or line.partial:
        return ""
    # Only the last line of an ended output can lack its LF.
    is_cut = line.end == page.end and line.end - line.at == len(line.text.encode())
    return "" if is_cut else "\n"
