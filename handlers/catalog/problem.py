"""A fault of a definition before its line is known, and the checks that all topics share. Pure."""

from collections.abc import Iterator
from math import isfinite
from typing import NamedTuple

from handlers.catalog.expressions import NotUsable, check_expression
from handlers.catalog.toml_lines import Path

SECONDS_MAX = 10 * 365 * 86_400.0
"""Ten years; beyond it a time is a typing error and breaks timers."""


class Problem(NamedTuple):
    """A fault of a definition before its line is known.

    `rests_on` are other keys that the verdict was made by: if one of them is faulty, or stands in
    another file than the one that is looked at, the verdict may be wrong and is left out.
    """

    path: Path
    reason: str
    rests_on: tuple[Path, ...] = ()


def shown(path: Path) -> str:
    """A path as people write it: `schedule[0].cron`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def within(path: Path, value: float | None, low: float, high: float) -> Iterator[Problem]:
    """A problem unless `value` is absent or between the limits."""
    if value is None:
        return
    if not isfinite(value) or not low <= value <= high:
        limits = f"from {_written(low)} to {_written(high)}"
        yield Problem(path, f"{shown(path)} must be {limits}, not {value}")


def _written(limit: float) -> str:
    """The number with all its digits: one that is rounded would not be the limit."""
    return str(int(limit)) if limit == int(limit) else f"{limit:.15g}"


def expression(path: Path, text: str, length_max: int | None = None) -> Iterator[Problem]:
    """A problem unless `text` is a regular expression that says something.

    `length_max`: of the texts that it is tried on.
    """
    try:
        check_expression(text, length_max)
    except NotUsable as exc:
        yield Problem(path, f"{shown(path)} {exc}")
