"""What people and programs get to see: data on stdout, talk on stderr, nothing that commands a
terminal. A terminal gets colour and 80 columns or what it has; a pipe gets everything, plain."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
from cyclopts import Parameter

from bus.visible_text import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON")]

_GAP = 2
_CELL_MIN = 8
"""To so few columns a long cell may shrink so that a line fits."""

_INDENT = 2


class Cell(NamedTuple):
    """A text with a style of rich, e.g. `bold red`, for terminals."""

    text: str
    style: str = ""


Cells = Sequence[Cell | str]

STYLES = {
    "Running": "green",
    "Starting": "green",
    "Stopping": "yellow",
    "Queued": "cyan",
    "Unknown": "yellow",
    "Succeeded": "green",
    "Failed": "red",
    "TimedOut": "red",
    "Lost": "red",
    "Stopped": "yellow",
    "Cancelled": "dim",
    "Skipped": "dim",
}
"""The colour of each state of an execution."""


def say(text: str) -> None:
    """A word to the person, on stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def clean(text: str) -> str:
    """`text` as it can be seen: names and messages of others must not steer a terminal."""
    return visible(text)


def on_terminal() -> bool:
    """Whether a person reads stdout directly."""
    return sys.stdout.isatty()


def draws_blocks() -> bool:
    """Whether stdout can show the signs of bars."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def show_json(record: object) -> None:
    """One JSON document: on one line, on a terminal indented."""
    if not on_terminal():
        show_json_line(record)
        return
    raw = msgspec.json.format(msgspec.json.encode(record), indent=_INDENT)
    print(visible_json(raw.decode()), flush=True)


def show_json_line(record: object) -> None:
    """One JSON document on one line."""
    raw = msgspec.json.encode(record)
    sys.stdout.write(visible_json(raw.decode()) + "\n")
    sys.stdout.flush()


def show_line(*cells: Cell | str) -> None:
    """One line on stdout, with its colours on a terminal."""
    if not on_terminal():
        print("  ".join(clean(_cell(cell).text) for cell in cells), flush=True)
        return
    console = terminal_console()
    console.print(joined(cells), soft_wrap=True)
    sys.stdout.flush()


def show_table(titles: Sequence[str], rows: Iterable[Cells], *, wide: bool = False) -> None:
    """Aligned columns, for eyes; programs take --json. With `wide` nothing is cut.

    A row with fewer cells than there are titles gives the rest of the line to its last cell.
    """
    for line in table_lines(titles, rows, wide=wide):
        print(line) if isinstance(line, str) else terminal_console().print(line, soft_wrap=True)
    sys.stdout.flush()


def table_lines(
    titles: Sequence[str], rows: Iterable[Cells], *, wide: bool = False
) -> "list[Text] | list[str]":
    """The lines of a table, on a terminal with colours and cut to its width."""
    cells = [[Cell(title, "bold") for title in titles]]
    cells += [[Cell(clean(_cell(cell).text), _cell(cell).style) for cell in row] for row in rows]
    return _terminal_lines(cells) if on_terminal() and not wide else _plain_lines(cells)


def show_pairs(pairs: Iterable[tuple[str, str]], *, indent: int = 0) -> None:
    """One `name  value` a line, the empty ones left out."""
    given = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in given), default=0)
    for name, value in given:
        print(f"{' ' * indent}{name.ljust(width)}  {clean(value)}")


def terminal_console() -> "Console":
    """The terminal of stdout, as wide as it is."""
    from rich.console import Console  # here: 100 ms that only a terminal has to pay

    return Console(highlight=False, markup=False, emoji=False)


def joined(cells: Iterable[Cell | str]) -> "Text":
    """The cells beside each other, with their styles; only for a terminal."""
    from rich.text import Text  # loaded with the console

    texts = [Text(clean(_cell(cell).text), _cell(cell).style) for cell in cells]
    return Text(" " * _GAP).join(texts)


def _cell(cell: Cell | str) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _plain_lines(rows: Sequence[Sequence[Cell]]) -> list[str]:
    widths = _widths(rows, len)
    return [
        "  ".join(cell.text.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]


def _terminal_lines(rows: Sequence[Sequence[Cell]]) -> "list[Text]":
    from rich.cells import cell_len
    from rich.text import Text

    widths = _widths(rows, cell_len)
    room = terminal_console().width
    _shrink(widths, room)
    lines = []
    for row in rows:
        texts = [Text(cell.text, cell.style) for cell in row]
        for text, width in zip(texts[:-1], widths, strict=False):
            text.truncate(width, overflow="ellipsis", pad=True)
        line = Text(" " * _GAP).join(texts)
        line.truncate(room, overflow="ellipsis")
        line.rstrip()
        lines.append(line)
    return lines


def _widths(rows: Sequence[Sequence[Cell]], length: Callable[[str], int]) -> list[int]:
    count = len(rows[0])
    whole = [row for row in rows if len(row) == count]
    others = [row[:-1] for row in rows if len(row) < count]
    widths = [0] * count
    for row in (*whole, *others):
        for column, cell in enumerate(row):
            widths[column] = max(widths[column], length(cell.text))
    return widths


def _shrink(widths: list[int], room: int) -> None:
    """The widest columns before the last give way until the last has some room, too."""
    last = min(widths[-1], max(_CELL_MIN, room // 4))
    while sum(widths[:-1]) + _GAP * (len(widths) - 1) + last > room:
        widest = max(range(len(widths) - 1), key=widths.__getitem__, default=0)
        if len(widths) < 2 or widths[widest] <= _CELL_MIN:
            return
        widths[widest] -= 1
