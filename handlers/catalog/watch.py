"""The job definitions on disk and the owner's idea of them: looks, and reports what changed."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from watchfiles import Change, awatch

from bus.clock import Clock
from bus.commands import ApplyCatalog, Definition
from bus.ports import ReportSink
from handlers.catalog.files import DefinitionFiles, Folders

log = logging.getLogger(__name__)

STEP_MS = 400
"""How often the doorbell's thread wakes. A change is told after one to two steps, so this keeps
"within a second of a save" at two and a half wake-ups a second."""

DEBOUNCE_MS = 800
"""A folder in which something changes all the time still rings this often."""

SLOW_LOOK_S = 5.0
"""A look that needs no ring: hints get lost (overflows, network mounts, folders made anew)."""

DEAF_LOOK_S = 1.0
"""The same while nothing can be watched, and the pause before watching is tried again."""


def scan(apps: Path) -> tuple[Definition, ...]:
    """What is defined below `apps` now, by id; blocking. See `DefinitionFiles.scan`."""
    return DefinitionFiles(apps).scan()


class CatalogWatch:
    """Keeps the owner's catalog equal to the disk.

    The watcher is a doorbell and nothing else. What it says about definitions is ignored, since it
    drops overflows, forgets what is pending at its time-outs and dies of a name that is not UTF-8;
    each ring reads all definitions, and a slow look does so anyway.
    """

    def __init__(self, apps: Path, report: ReportSink, clock: Clock) -> None:
        self._apps = apps
        self._files = DefinitionFiles(apps)
        self._report = report
        self._clock = clock
        self._last: tuple[Definition, ...] | None = None
        self._complaint = ""
        self.looked_ms: int | None = None
        """When the disk was last read as a whole."""

    async def run(self) -> None:
        """Reports the catalog once, then again whenever it is another; until cancelled."""
        bell = _Doorbell()
        async with asyncio.TaskGroup() as group:
            watched: Folders | None = None
            listener: asyncio.Task[None] | None = None
            while True:
                await self._look()
                if watched != self._files.folders or bell.lost_a_folder:
                    if listener is not None:
                        listener.cancel()
                        await asyncio.wait([listener])
                    watched = self._files.folders
                    listening = bell.listen(self._places(watched))
                    listener = group.create_task(listening, name="catalog doorbell")
                await bell.wait()

    async def _look(self) -> None:
        try:
            definitions = await asyncio.to_thread(self._files.scan)
        except OSError as exc:
            self._complain(f"the catalog stays as it is: {self._apps} cannot be read: {exc}")
            return
        self._complaint = ""
        self.looked_ms = self._clock.now_ms()
        if definitions != self._last:
            self._last = definitions
            self._report(ApplyCatalog(definitions=definitions))

    def _complain(self, complaint: str) -> None:
        """Logs once what may come back at every look."""
        if complaint != self._complaint:
            log.warning("%s", complaint)
        self._complaint = complaint

    def _places(self, folders: Folders) -> Callable[[], tuple[str, ...]]:
        """What to watch; where the apps folder itself is missing, the place where it would be."""
        paths = tuple(sorted(path for path, _, _ in folders))
        above = Path(self._apps).absolute().parent

        def places() -> tuple[str, ...]:
            return paths or ((str(above),) if above.is_dir() else ())

        return places


class _Doorbell:
    """Rings when something changed in a set of folders, and now and then."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._deaf = False
        self.lost_a_folder = False
        """A watched folder was removed. One made anew in its place is not watched any more, and
        may be equal to the old one down to its inode."""

    async def wait(self) -> None:
        """Returns at the next ring since the last call, or when it is time for a slow look."""
        try:
            async with asyncio.timeout(DEAF_LOOK_S if self._deaf else SLOW_LOOK_S):
                await self._rung.wait()
        except TimeoutError:
            return
        finally:
            self._rung.clear()

    async def listen(self, places: Callable[[], tuple[str, ...]]) -> None:
        """Rings at every change directly in these folders, for ever; failures begin it anew."""
        loop = asyncio.get_running_loop()
        while True:
            paths = await asyncio.to_thread(places)
            self._deaf, self.lost_a_folder = not paths, False
            try:
                if paths:
                    # Runs when `awatch` first waits, thus when the watches stand: whatever came
                    # between the last look and them is seen by the look that this causes.
                    loop.call_soon(self._rung.set)
                    async for changes in awatch(
                        *paths,
                        watch_filter=None,
                        step=STEP_MS,
                        debounce=DEBOUNCE_MS,
                        recursive=False,
                    ):
                        removed = {path for kind, path in changes if kind is Change.deleted}
                        self.lost_a_folder |= not removed.isdisjoint(paths)
                        self._rung.set()
            except Exception as exc:  # noqa: BLE001, RUF100 - it fails in many ways, none of them ours
                log.warning("watching the definitions failed, looking every second: %r", exc)
            self._deaf = True
            self._rung.set()
            await asyncio.sleep(DEAF_LOOK_S)
