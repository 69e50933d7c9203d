"""Tables as plain text that is Markdown too: medians with their spread, and what the goals say."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.contenders import Results


@dataclass(frozen=True)
class Column:
    """`figure` of each row, times `scale`, as median (min-max)."""

    title: str
    figure: str
    scale: float = 1.0
    digits: int = 0
    spread: bool = False


FAILED = Column("failed", "failed")
"""Beside each rate: how many calls, starts or readers failed meanwhile; they are in no rate."""


@dataclass(frozen=True)
class Ratio:
    """`figure` divided by the best of the rows `of`, round by round."""

    title: str
    of: tuple[str, ...]
    figure: str = "rate"


@dataclass(frozen=True)
class Goal:
    """A number of DESIGN §11. `of`: rows by whose best the figure is divided; () for itself."""

    row: str
    figure: str = "rate"
    at_least: float | None = None
    at_most: float | None = None
    of: tuple[str, ...] = ()
    words: str = ""
    unit: str = ""

    def verdict(self, results: Results) -> str:
        value = self._value(results)
        limit = self.at_least if self.at_least is not None else self.at_most
        assert limit is not None
        asked = f"{'≥' if self.at_least is not None else '≤'} {limit:g}{self._unit()}"
        if value is None:
            return f"{asked}: not measured"
        good = value >= limit if self.at_least is not None else value <= limit
        if good:
            return f"{asked}: {_short(value)}, reached"
        short = (1 - value / limit) if self.at_least is not None else (value / limit - 1)
        return f"{asked}: {_short(value)}, missed by {short:.0%}"

    def _value(self, results: Results) -> float | None:
        if self.of:
            return results.ratio(self.row, self.figure, self.of)
        return results.median(self.row, self.figure)

    def _unit(self) -> str:
        unit = self.unit or ("x" if self.of else "")
        return f" {unit} {self.words}".rstrip()


def render(
    title: str,
    rows: Sequence[str],
    columns: Sequence[Column | Ratio],
    goals: Sequence[Goal],
    results: Results,
) -> str:
    """The table, one line a row; rows that have no figures say why."""
    head = ["", *(column.title for column in columns), "target"]
    body = []
    for row in rows:
        if not results.rounds.get(row):
            note = results.notes.get(row, "no figures")
            body.append([row, *["-"] * len(columns), note])
            continue
        remarks = [goal.verdict(results) for goal in goals if goal.row == row]
        if row in results.notes:
            remarks.append(results.notes[row])
        body.append([row, *(_cell(column, row, results) for column in columns), "; ".join(remarks)])
    return f"### {title}\n\n{_aligned([head, *body])}\n"


def _cell(column: Column | Ratio, row: str, results: Results) -> str:
    if isinstance(column, Ratio):
        ratio = results.ratio(row, column.figure, column.of)
        return "-" if ratio is None else _short(ratio)
    values = [value * column.scale for value in results.values(row, column.figure)]
    if not values:
        return "-"
    middle = results.median(row, column.figure)
    assert middle is not None
    text = f"{middle * column.scale:,.{column.digits}f}"
    if column.spread and len(values) > 1:
        text += f" ({min(values):,.{column.digits}f}-{max(values):,.{column.digits}f})"
    return text


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    text = []
    for number, line in enumerate(lines):
        cells = [
            cell.ljust(width) if index in (0, len(widths) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append(f"| {' | '.join(cells)} |")
        if number == 0:
            dashes = [
                "-" * width if index in (0, len(widths) - 1) else "-" * (width - 1) + ":"
                for index, width in enumerate(widths)
            ]
            text.append(f"| {' | '.join(dashes)} |")
    return "\n".join(text)


def _short(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
