"""Small private files that follow something in memory: written whole, in order, off the loop."""

import asyncio
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from bus.errors import DataDirectoryError, NoSpace, StorageFailed
from bus.files import write_private
from bus.scarcity import NO_ROOM
from bus.threads import DISK

SAVE_SOON_S = 60.0
"""How long what is only nice to keep (when something was last used) may wait for the disk."""

_log = structlog.get_logger("jobbus.http")


class StateFile:
    """The file at `path`, or nothing at all if that is None; `render` gives its content, now."""

    def __init__(
        self, path: Path | None, render: Callable[[], bytes], *, soon_s: float = SAVE_SOON_S
    ) -> None:
        self._path = path
        self._render = render
        self._soon_s = soon_s
        self._stale = asyncio.Event()
        self._asked = 0
        self._written = 0
        self._writing = threading.Lock()

    async def save(self) -> None:
        """What is true now is durable.

        Raises:
            NoSpace: the disk is full, and the reserve has no spare that is large enough.
            StorageFailed: the disk did not take it.
        """
        if self._path is None:
            return
        self._stale.clear()
        self._asked += 1
        try:
            await DISK.run(self._write, self._path, self._render(), self._asked)
        except OSError as exc:
            if exc.errno in NO_ROOM:
                raise NoSpace(
                    f"there is no room on the disk of the data directory for {self._path.name}"
                ) from exc
            raise StorageFailed(f"{self._path.name} cannot be written: {exc.strerror}") from exc

    def save_soon(self) -> None:
        """What changed is kept within a while; for what may be lost."""
        self._stale.set()

    async def run(self) -> None:
        """Saves for ever, at most once in `soon_s`; asleep while nothing changes."""
        while True:
            await self._stale.wait()
            await asyncio.sleep(self._soon_s)
            await self._save_if_stale()

    async def aclose(self) -> None:
        """Nothing that changed is left unsaved, unless the disk refuses."""
        await self._save_if_stale()

    async def _save_if_stale(self) -> None:
        if not self._stale.is_set():
            return
        try:
            await self.save()
        except (NoSpace, StorageFailed) as error:
            self._stale.set()
            _log.warning("not saved", reason=str(error))

    def _write(self, path: Path, content: bytes, number: int) -> None:
        """In a thread. An older content that comes late does not replace a newer one."""
        with self._writing:
            if number > self._written:
                write_private(path, content)
                self._written = number


def read_private(path: Path, size_max: int) -> bytes | None:
    """The content of a file that holds credentials; None if there is none. Blocking.

    Raises:
        DataDirectoryError: others could have written or read it, or it is no plain file.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise DataDirectoryError(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise DataDirectoryError(f"{path} is no plain file; move it away")
        if found.st_mode & 0o077 or found.st_uid != os.geteuid():
            raise DataDirectoryError(
                f"{path} must belong to this account alone; look who changed it, then run: "
                f"chmod 600 {path}"
            )
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(size_max + 1)
    finally:
        os.close(descriptor)
    if len(content) > size_max:
        raise DataDirectoryError(f"{path} is larger than {size_max} bytes; move it away")
    return content
