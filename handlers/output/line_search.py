"""Whether a line of an output that grows holds what an expression describes. Pure."""

from handlers.catalog.expressions import is_in

LINE_MAX = 16_384
"""Characters of a line that are looked at."""

_LINE_BYTES_MAX = 4 * LINE_MAX


class LineSearch:
    """Fed with the output piece by piece, in order. `position` is where the next piece begins;
    `_line` are the bytes since the last line end, as far as a line is looked at."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._line = b""
        self.position = 0

    def finds(self, start: int, piece: bytes) -> bool:
        """Whether a line that ends in this piece holds it. `start` may be behind `position`: then
        what is between was dropped, and the line that it cuts is not looked at as a whole."""
        if start != self.position:
            self._line = b""
        self.position = start + len(piece)
        *lines, rest = (self._line + piece).split(b"\n")
        self._line = rest[:_LINE_BYTES_MAX]
        return any(is_in(self._expression, _text(line)) for line in lines)


def _text(line: bytes) -> str:
    return line[:_LINE_BYTES_MAX].decode("utf-8", "replace")[:LINE_MAX].removesuffix("\r")
