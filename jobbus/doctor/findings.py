"""What a look at a data directory finds, in sentences. No IO."""

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec


class Level(StrEnum):
    """`note`: good to know. `warning`: will hurt some day. `error`: something is wrong now."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact, in one sentence that says what it means and what to do.

    `check` is a stable word for programs. `repair` says what `--repair` would do, if it can do
    something; `repaired` that it has.
    """

    check: str
    level: Level
    text: str
    repair: str = ""
    repaired: bool = False


class Fix(msgspec.Struct, frozen=True):
    """A finding with what would end it; to be called only while no service runs."""

    finding: Finding
    repair: Callable[[], object]


Look = Iterator[Finding | Fix]


def note(check: str, text: str) -> Finding:
    return Finding(check=check, level=Level.NOTE, text=text)


def warning(check: str, text: str, repair: str = "") -> Finding:
    return Finding(check=check, level=Level.WARNING, text=text, repair=repair)


def error(check: str, text: str, repair: str = "") -> Finding:
    return Finding(check=check, level=Level.ERROR, text=text, repair=repair)
