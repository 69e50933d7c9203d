"""Reads `calendars.toml` and all `.ics` files that are named, again and again. Blocking, without
asyncio.

What is faulty changes nothing: the last good set stays in force, and the mistakes say why.
"""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bus.job_definition import Mistake
from handlers.calendars.calendar_set import (
    NO_CALENDARS,
    NOTHING_WRITTEN,
    CalendarSet,
    Faulty,
    Written,
    compiled,
    decode,
    together,
)
from handlers.calendars.days import Source, is_file_name
from handlers.calendars.ics import IcsError, read_ics
from handlers.catalog.layers import SIZE_MAX
from handlers.catalog.regular_files import ABSENT, SETTLED_NS, UNREADABLE, content_of

NAME = "calendars.toml"
ICS_SIZE_MAX = 4 * 1024 * 1024


class _Ics(NamedTuple):
    """An `.ics` file as it was read: by what it differs from others on disk (None: it was changed
    so lately that nothing does), by what its content does, and the source, or why it is none."""

    mark: tuple[int, int, int, int] | None
    digest: bytes
    source: Source | IcsError


class CalendarFiles:
    """One `calendars.toml`, and what the settings say beside it. `calendars` is the set in force,
    `mistakes` what is wrong with what stands there now. `_content`, `_ics` and `_beside` are what
    the last look went by; only `read` writes these."""

    def __init__(self, zone: str) -> None:
        self.calendars: CalendarSet = NO_CALENDARS
        self.mistakes: tuple[Mistake, ...] = ()
        self.folders: frozenset[str] = frozenset()
        """The folders in which the `.ics` files lie."""
        self.names: frozenset[str] | None = frozenset()
        """The calendars in force, and those that stand there now, faulty ones too; None if it
        cannot be seen what stands there."""
        self.of_settings: Written = NOTHING_WRITTEN
        """Calendars and blackouts of `jobbus.toml`; the files that they name have whole paths."""
        self._zone = zone
        self._beside: Written = NOTHING_WRITTEN
        self._content: bytes | None = None
        self._ics: dict[str, _Ics] = {}

    def read(self, folder: str, shown: Callable[[str], str]) -> None:
        """What stands there now is in force, if nothing is wrong with it; `shown` says how people
        call a file of the folder.

        Raises:
            OSError: a file could not be read for a reason that is not its own.
        """
        try:
            content = content_of(f"{folder}/{NAME}", SIZE_MAX)
        except OSError as error:
            if error.errno not in (*ABSENT, *UNREADABLE):
                raise
            content = b""
            if error.errno in UNREADABLE:
                reason = f"cannot be read: {error.strerror or error}"
                self.mistakes = (Mistake(file=shown(NAME), line=0, reason=reason),)
                self._content, self._ics, self.folders = None, {}, frozenset()
                self.names = None
                return
        before = self._ics
        self._ics = {file: _looked_at(file, ics) for file, ics in before.items()}
        now = (content, self.of_settings, self._ics)
        if now == (self._content, self._beside, before):
            return
        self._content, self._beside = content, self.of_settings
        try:
            self.calendars = self._decoded(content, folder, shown)
            self.mistakes = ()
        except Faulty as faulty:
            self.mistakes = faulty.mistakes
        if self.names is not None:
            self.names |= self.calendars.calendars.keys()

    def _decoded(self, content: bytes, folder: str, shown: Callable[[str], str]) -> CalendarSet:
        try:
            others = self.of_settings.spec.calendar.keys()
            files = (self.of_settings, decode(content, shown(NAME), others))
        except Faulty as faulty:
            own = faulty.written
            self.names = None if own is None else _names((self.of_settings, own))
            raise
        self.names = _names(files)
        sources, mistakes = self._sources(files, folder, shown)
        try:
            found = compiled(files, sources, self._zone)
        except Faulty as faulty:
            raise Faulty([*mistakes, *faulty.mistakes]) from None
        if mistakes:
            raise Faulty(mistakes)
        return found

    def _sources(
        self, files: Sequence[Written], folder: str, shown: Callable[[str], str]
    ) -> tuple[dict[str, Source], list[Mistake]]:
        """The files that the calendars name, read, and what is wrong with them."""
        sources: dict[str, Source] = {}
        mistakes: list[Mistake] = []
        kept: dict[str, _Ics] = {}
        spec, _ = together(files)
        for name, calendar in spec.calendar.items():
            if calendar.ics is None or not is_file_name(calendar.ics):
                continue
            file = os.path.join(folder, calendar.ics)  # noqa: PTH118 - paths stay text here
            ics = kept[file] = self._ics.get(file) or _looked_at(file, None)
            if isinstance(ics.source, IcsError):
                reason = f"{ics.source}; it is the file of [calendar.{name}]"
                mistakes.append(Mistake(file=shown(calendar.ics), line=0, reason=reason))
            else:
                sources[calendar.ics] = ics.source
        self._ics = kept
        self.folders = frozenset(os.path.dirname(each) for each in kept)  # noqa: PTH120
        return sources, mistakes


def _names(files: Sequence[Written]) -> frozenset[str]:
    return frozenset(name for written in files for name in written.spec.calendar)


def _looked_at(file: str, before: _Ics | None) -> _Ics:
    """The file as it is now; what it was `before` if nothing of it is another."""
    mark = _mark(file)
    if before is not None and mark is not None and mark == before.mark:
        return before
    try:
        content = content_of(file, ICS_SIZE_MAX)
    except OSError as error:
        if error.errno not in (*ABSENT, *UNREADABLE):
            raise
        why = "there is no such file"
        if error.errno not in ABSENT:
            why = f"it cannot be read: {error.strerror or error}"
        return _of(before, mark, why.encode(), IcsError(why))
    if len(content) > ICS_SIZE_MAX:
        why = f"it is larger than {ICS_SIZE_MAX // 1024 // 1024} MiB"
        return _of(before, mark, why.encode(), IcsError(why))
    digest = hashlib.blake2b(content, digest_size=16).digest()
    if before is not None and digest == before.digest:
        return before if mark == before.mark else before._replace(mark=mark)
    try:
        return _Ics(mark, digest, read_ics(content))
    except IcsError as error:
        return _Ics(mark, digest, error)


def _of(
    before: _Ics | None, mark: tuple[int, int, int, int] | None, digest: bytes, error: IcsError
) -> _Ics:
    same = before is not None and digest == before.digest
    return before._replace(mark=mark) if same and before else _Ics(mark, digest, error)


def _mark(path: str) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - paths stay text here
    except OSError:
        return None
    if time.time_ns() - status.st_mtime_ns < SETTLED_NS:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
