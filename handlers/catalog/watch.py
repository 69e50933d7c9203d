"""Compares the job definitions on disk with those last reported, and reports what changed."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import structlog

from bus.apps import App
from bus.commands import ApplyCatalog, Definition
from bus.files import file_system_of
from bus.polling import FULL_LOOK_S, FolderPolling
from bus.ports import ReportSink
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.schedules import Bar, ScheduleSpec
from bus.threads import READS
from handlers.calendars.calendar_set import NOTHING_WRITTEN, CalendarSet, Written
from handlers.catalog.definition_files import DefinitionFiles, Folders
from handlers.catalog.folder_watch import SLOW_LOOK_S, FolderWatch
from handlers.catalog.near_jobs import FILE_NAME

log = structlog.get_logger("jobbus.catalog")

ANNOUNCED_LATE_S = 3.0
"""A change may be announced that late: the watcher gathers changes first."""

WATCHED_MAX = 50_000
"""Of more folders than that the slow look alone finds what changed in the others."""

FULL_LOOKS = 1000.0
"""All files are read again, whatever their marks say, after so many times as long as that takes."""

FRESH_S = 0.25
"""What was written so lately may be a part of something that is being written."""

SETTLE_S = 0.25
SETTLE_LOOKS_MAX = 12
"""An editor may save a file in pieces, or remove it and write another, and a checkout writes many
files: what looks wrong, and what is another than before while something is still being written, is
looked at again until two looks agree, and at most so often."""


class CatalogWatch:
    """Keeps the owner's catalog equal to the disk.

    Each announced change causes a scan of all definitions, and so does a slow look: often, where
    changes are not announced. `_last` are the definitions last reported, `_took_s` how long the
    last scan took (without the pauses of a look that waits for two to agree), `_full_took_s` the
    last that read all files, at `_full_s`; only `first` and `run` write them.
    `_asked`: a look is due for `go_by`.
    """

    def __init__(
        self, apps: Path, report: ReportSink, look_s: float = 0.25, zone: str = "UTC"
    ) -> None:
        self._apps = apps
        self.polling = FolderPolling(
            str(apps), rare_s=SLOW_LOOK_S, often_s=look_s, grace_s=ANNOUNCED_LATE_S
        )
        self._files = DefinitionFiles(apps, zone=zone)
        self._watch = FolderWatch()
        self._asked = False
        self._report = report
        self._last: tuple[Definition, ...] | None = None
        self._took_s = 0.0
        self._full_s = -math.inf
        self._full_took_s = 0.0
        self._troubles = Recurring(log)

    def go_by(self, groups: Iterable[str], calendars: Written = NOTHING_WRITTEN) -> None:
        """From now on these are the groups that definitions may name, and the calendars and
        blackouts beside `calendars.toml`; what that changes is reported at once."""
        self._files.groups = frozenset(groups)
        self._files.go_by_calendars(calendars)
        self._asked = True
        self._watch.look_now()

    def apps(self) -> tuple[App, ...]:
        """What the apps of the last look say of themselves."""
        return self._files.apps

    def calendars(self) -> CalendarSet:
        """The calendars and blackouts in force as of the last look."""
        return self._files.calendars

    def bar(self, job_id: str, schedule: ScheduleSpec, at_ms: int) -> Bar | None:
        """What of them keeps an instant of a schedule from starting its job; None if nothing."""
        return self._files.calendars.bar(job_id, schedule, at_ms)

    def first(self) -> tuple[Definition, ...]:
        """What is defined now; blocking. `run` then reports only what is another."""
        began_s = time.monotonic()
        self._asked = False
        self._last = self._files.scan()
        self._full_s, self._full_took_s = began_s, time.monotonic() - began_s
        return self._last

    async def run(self) -> None:
        """Reports the catalog, then again whenever it is another; until cancelled."""
        watch = self._watch
        async with asyncio.TaskGroup() as group:
            self.polling.expect(await READS.run(self._kind))
            watched: Folders | None = None
            watching: asyncio.Task[None] | None = None
            if self._last is None:
                await self._look()
            while True:
                if watched != self._files.folders or watch.lost_a_folder:
                    if watching is not None:
                        watching.cancel()
                        await asyncio.wait([watching])
                    watched = self._files.folders
                    listening = watch.watch_folders(self._places(watched))
                    watching = group.create_task(listening, name="catalog folders")
                announced = await watch.wait(self.polling.interval_s, self._took_s)
                asked, self._asked = self._asked, False
                if asked:  # that says nothing about whether changes are announced
                    await self._look()
                    continue
                began_s = time.monotonic()
                changed = await self._look()
                if announced:
                    self.polling.announce()
                    self.polling.looks()
                else:
                    self.polling.found((FILE_NAME,) if changed else (), began_s)

    def _kind(self) -> str:
        """The type of the file system that the definitions are on, or would be."""
        there = next(path for path in (self._apps, *self._apps.parents) if path.exists())
        return file_system_of(there)

    async def _look(self) -> bool:
        """Whether the definitions are others than before."""
        began_s = time.monotonic()
        thorough = self._is_full_look_due(began_s)
        try:
            definitions = await self._settled(thorough=thorough)
        except OSError as exc:
            self._troubles.say(f"definitions stay as they are: {reason_of(exc)}: {self._apps}")
            return False
        finally:
            if thorough:
                self._full_s, self._full_took_s = began_s, self._took_s
        self._troubles.over(f"{self._apps} can be read again")
        if definitions == self._last:
            return False
        self._last = definitions
        self._report(ApplyCatalog(definitions=definitions))
        return True

    def _is_full_look_due(self, now_s: float) -> bool:
        """Whether all files are to be read: now and then, and always where nothing is announced,
        since what other machines change may not show in a file's marks at once."""
        rest_s = max(FULL_LOOK_S, FULL_LOOKS * self._full_took_s)
        return self.polling.why is not None or now_s - self._full_s >= rest_s

    async def _settled(self, *, thorough: bool) -> tuple[Definition, ...]:
        """What is defined now, as one set. While something of it was written a moment ago, or there
        is a fault, or the absence of a job or of a `defaults.toml`, that is new, it is looked at
        again until two looks agree."""
        defaults, last = self._files.defaults.keys(), self._last or ()
        found = await self._scanned(thorough=thorough)
        gone = not defaults <= self._files.defaults.keys()
        is_fresh = found != last and self._is_being_written()
        if not (gone or is_fresh or _may_be_half_saved(found, last)):
            return found
        for _ in range(SETTLE_LOOKS_MAX):
            await asyncio.sleep(SETTLE_S)
            before, found = found, await self._scanned(thorough=thorough)
            if found == before and not self._is_being_written():
                break
        return found

    async def _scanned(self, *, thorough: bool) -> tuple[Definition, ...]:
        began_s = time.monotonic()
        try:
            return await READS.run(partial(self._files.scan, thorough=thorough))
        finally:
            self._took_s = time.monotonic() - began_s

    def _is_being_written(self) -> bool:
        """Whether something was written so lately that more may follow. A time that lies ahead is
        of another clock, and says nothing."""
        return 0 <= time.time_ns() - self._files.written_ns < FRESH_S * 1e9

    def _places(self, folders: Folders) -> Callable[[], tuple[str, ...]]:
        """What to watch; where the apps folder itself is missing, the place where it would be."""
        paths = tuple(sorted(path for path, _, _ in folders)[:WATCHED_MAX])
        above = Path(self._apps).absolute().parent

        def places() -> tuple[str, ...]:
            return paths or ((str(above),) if above.is_dir() else ())

        return places


def _may_be_half_saved(found: tuple[Definition, ...], last: tuple[Definition, ...]) -> bool:
    """Whether something has become faulty or is missing that was not before."""
    before = {each.job_id: each for each in last}
    if any(each.fault is not None and each != before.get(each.job_id) for each in found):
        return True
    return not before.keys() <= {each.job_id for each in found}
