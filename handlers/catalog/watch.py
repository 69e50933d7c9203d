"""The job definitions on disk and the owner's idea of them: looks, and reports what changed."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from bus.commands import ApplyCatalog, Definition
from bus.ports import ReportSink
from handlers.catalog.doorbell import Doorbell
from handlers.catalog.files import DefinitionFiles, Folders

log = logging.getLogger(__name__)


class CatalogWatch:
    """Keeps the owner's catalog equal to the disk.

    Each ring of the doorbell reads all definitions, and a slow look does so anyway.
    """

    def __init__(self, apps: Path, report: ReportSink) -> None:
        self._apps = apps
        self._files = DefinitionFiles(apps)
        self._report = report
        self._last: tuple[Definition, ...] | None = None
        self._complaint = ""

    def first(self) -> tuple[Definition, ...]:
        """What is defined now; blocking. `run` then reports only what is another."""
        self._last = self._files.scan()
        return self._last

    async def run(self) -> None:
        """Reports the catalog, then again whenever it is another; until cancelled."""
        bell = Doorbell()
        async with asyncio.TaskGroup() as group:
            watched: Folders | None = None
            listener: asyncio.Task[None] | None = None
            if self._last is None:
                await self._look()
            while True:
                if watched != self._files.folders or bell.lost_a_folder:
                    if listener is not None:
                        listener.cancel()
                        await asyncio.wait([listener])
                    watched = self._files.folders
                    listening = bell.listen(self._places(watched))
                    listener = group.create_task(listening, name="catalog doorbell")
                await bell.wait()
                await self._look()

    async def _look(self) -> None:
        try:
            definitions = await asyncio.to_thread(self._files.scan)
        except OSError as exc:
            self._complain(f"the catalog stays as it is: {self._apps} cannot be read: {exc}")
            return
        self._complaint = ""
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
