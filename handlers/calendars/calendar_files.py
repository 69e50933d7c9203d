"""Reads `calendars.toml` and the `.ics` files that it names, again and again. Blocking; no asyncio.

What is faulty changes nothing: the last good set stays in force, and the mistakes say why.
"""

import os
from collections.abc import Callable
from pathlib import Path

from bus.job_definition import Mistake
from handlers.calendars.calendar_set import (
    NO_CALENDARS,
    CalendarSet,
    Faulty,
    compiled,
    decode,
)
from handlers.calendars.days import Source
from handlers.calendars.ics import IcsError, read_ics

NAME = "calendars.toml"
ICS_SIZE_MAX = 4 * 1024 * 1024

Mark = tuple[int, int, int, int]
"""By what a file on disk differs from what was there before."""


class CalendarFiles:
    """One `calendars.toml`. `calendars` is the set in force, `mistakes` what is wrong with what
    stands there now; only `read` writes them."""

    def __init__(self, zone: str) -> None:
        self.calendars: CalendarSet = NO_CALENDARS
        self.mistakes: tuple[Mistake, ...] = ()
        self.folders: frozenset[str] = frozenset()
        """The folders in which the `.ics` files lie."""
        self._zone = zone
        self._marks: tuple[object, ...] | None = None
        self._ics: dict[str, tuple[Mark, Source]] = {}

    def read(self, folder: str, shown: Callable[[str], str]) -> None:
        """What stands there now is in force, if nothing is wrong with it; `shown` says how people
        call a file of the folder."""
        path = f"{folder}/{NAME}"
        marks = (_mark(path), *(_mark(each) for each in self._ics))
        if marks == self._marks:
            return
        try:
            self.calendars = self._read(path, folder, shown)
            self.mistakes = ()
        except FileNotFoundError:
            self.calendars, self.mistakes, self._ics = NO_CALENDARS, (), {}
        except Faulty as faulty:
            self.mistakes = faulty.mistakes
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            self.mistakes = (Mistake(file=shown(NAME), line=0, reason=reason),)
        self.folders = frozenset(os.path.dirname(each) for each in self._ics)  # noqa: PTH120
        self._marks = (_mark(path), *(_mark(each) for each in self._ics))

    def _read(self, path: str, folder: str, shown: Callable[[str], str]) -> CalendarSet:
        spec, layer = decode(Path(path).read_bytes(), shown(NAME))
        mistakes: list[Mistake] = []
        sources: dict[str, Source] = {}
        kept: dict[str, tuple[Mark, Source]] = {}
        for name, calendar in spec.calendar.items():
            if calendar.ics is None:
                continue
            file = os.path.join(folder, calendar.ics)  # noqa: PTH118 - paths stay text here
            try:
                sources[calendar.ics] = self._ics_source(file, kept)
            except IcsError as error:
                kept.setdefault(file, (_mark(file), _nothing))
                reason = f"{error}; it is the file of [calendar.{name}]"
                mistakes.append(Mistake(file=shown(calendar.ics), line=0, reason=reason))
        self._ics = kept
        if mistakes:
            raise Faulty(mistakes)
        return compiled(spec, layer, sources, self._zone)

    def _ics_source(self, file: str, kept: dict[str, tuple[Mark, Source]]) -> Source:
        mark = _mark(file)
        known = self._ics.get(file)
        if known is None or known[0] != mark or known[1] is _nothing:
            known = (mark, read_ics(_content(file)))
        kept[file] = known
        return known[1]


def _nothing(local: object) -> None:
    """The source of a file that is faulty."""


def _content(file: str) -> bytes:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(ICS_SIZE_MAX + 1)
    except FileNotFoundError:
        raise IcsError("there is no such file") from None
    except OSError as error:
        raise IcsError(f"it cannot be read: {error.strerror or error}") from error
    if len(content) > ICS_SIZE_MAX:
        raise IcsError(f"it is larger than {ICS_SIZE_MAX // 1024 // 1024} MiB")
    return content


def _mark(path: str) -> Mark:
    try:
        status = os.stat(path)  # noqa: PTH116 - paths stay text here
    except OSError:
        return (0, 0, 0, 0)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
