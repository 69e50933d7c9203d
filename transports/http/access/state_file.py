"""Small private files that the service keeps and people may edit: written whole, off the loop, and
never over what somebody else has put there."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from bus.errors import DataDirectoryError, NoSpace, StorageFailed
from bus.files import NotRegular, open_regular, replace_file
from bus.recurring import Recurring
from bus.scarcity import NO_ROOM, reason_of
from bus.threads import DISK

SAVE_SOON_S = 60.0
"""How long what is only nice to keep (when something was last used) may wait for the disk."""

LOOK_S = 5.0
"""How soon an edit counts that nothing else has brought to our notice."""

_SETTLED_S = 0.05
_SETTLING_MAX = 20
_FRESH_NS = 2_000_000_000
"""A file that changed so shortly ago may change again without another mark."""

_TRIES = 8
log = structlog.get_logger("jobbus.http")


class _Mark(msgspec.Struct, frozen=True):
    """What changes with a file; nothing of it is set where there is no file."""

    inode: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0


class NotPrivate(DataDirectoryError):
    """Others could have written or read the file, or it is no plain file."""


class _Changed(Exception):
    """The file holds neither what was last written nor what was last read."""

    def __init__(self, content: bytes | None) -> None:
        super().__init__()
        self.content = content


class StateFile:
    """The file at `path`, or nothing at all if that is None.

    `render` gives its content, now. `absorb(before, found)` brings into memory what others have
    made of `before` (None: there is no file); if it raises a DataDirectoryError, nothing is written
    until they have repaired it. `read` raises one, too, where the file must not be believed.

    `_turn` is held by who reads or writes the file, also while a thread does it; only who has it
    changes `_known` and `_mark`; the rest belongs to the loop. `_known` is the content that memory
    follows: as it was last read or written. `_mark` is that of a file that needs no further look.
    `_asked` counts the calls of `save`, `_covered` is how many of them what was last written
    covers. `_stale` is set while something waits for the disk.
    """

    def __init__(
        self,
        path: Path | None,
        known: bytes | None,
        *,
        render: Callable[[], bytes],
        absorb: Callable[[bytes | None, bytes | None], None],
        read: Callable[[Path], bytes | None],
        soon_s: float = SAVE_SOON_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._path = path
        self._known = known
        self._render = render
        self._absorb = absorb
        self._read = read
        self._soon_s = soon_s
        self._look_s = look_s
        self._turn = asyncio.Lock()
        self._mark: _Mark | None = None
        self._asked = 0
        self._covered = 0
        self._stale = False
        self._troubles = Recurring(log)

    async def save(self) -> None:
        """What is true now is durable, what others have written into the file included.

        Raises:
            NoSpace: the disk is full, and the reserve has no spare that is large enough.
            StorageFailed: the disk did not take it, or others have damaged the file.
        """
        if self._path is None:
            return
        self._asked += 1
        asked = self._asked
        async with self._turn:
            if self._covered < asked:
                await self._write(self._path)

    def save_soon(self) -> None:
        """What changed is kept within a while; for what may be lost."""
        self._stale = True

    async def look(self) -> None:
        """What others have written into the file counts, now.

        Raises:
            DataDirectoryError: it is damaged or open to others; memory stays as it was.
        """
        if self._path is None:
            return
        async with self._turn:
            try:
                mark = await DISK.finish(_mark_of, self._path)
                if mark == self._mark:
                    return
                found = await DISK.finish(self._read_settled, self._path)
            except OSError as exc:
                raise DataDirectoryError(f"{self._path} cannot be read: {reason_of(exc)}") from exc
            if found != self._known:
                self._take(found)
            self._mark = mark if time.time_ns() - mark.ctime_ns > _FRESH_NS else None

    async def run(self) -> None:
        """Looks and saves, for ever."""
        due_s: float | None = None
        while self._path is not None:
            await asyncio.sleep(min(self._look_s, self._soon_s))
            await self._look_if_possible()
            now_s = asyncio.get_running_loop().time()
            if not self._stale:
                due_s = None
            elif due_s is None:
                due_s = now_s + self._soon_s
            elif now_s >= due_s:
                await self._save_if_stale()

    async def aclose(self) -> None:
        """Nothing that changed is left unsaved, unless the disk refuses."""
        await self._save_if_stale()

    async def _look_if_possible(self) -> None:
        try:
            await self.look()
        except DataDirectoryError as error:
            self._troubles.say(f"an edit of a file does not count: {error}")
        else:
            self._troubles.over(f"{self._path} can be read again")

    async def _save_if_stale(self) -> None:
        if not self._stale:
            return
        try:
            await self.save()
        except (NoSpace, StorageFailed) as error:
            self._stale = True
            log.warning("not saved", reason=str(error))

    async def _write(self, path: Path) -> None:
        """As `save`; for who has the turn."""
        for _ in range(_TRIES):
            asked, content = self._asked, self._render()
            self._stale = False
            try:
                await DISK.finish(self._replace, path, content)
            except _Changed as change:
                try:
                    self._take(change.content)
                except DataDirectoryError as exc:
                    raise StorageFailed(str(exc)) from exc
                continue
            except DataDirectoryError as exc:
                raise StorageFailed(str(exc)) from exc
            except OSError as exc:
                if exc.errno in NO_ROOM:
                    raise NoSpace(
                        f"there is no room on the disk of the data directory for {path.name}"
                    ) from exc
                raise StorageFailed(f"{path.name} cannot be written: {reason_of(exc)}") from exc
            self._covered = asked
            return
        raise StorageFailed(f"{path.name} is changed by others again and again")

    def _take(self, found: bytes | None) -> None:
        self._absorb(self._known, found)
        self._known = found

    def _replace(self, path: Path, content: bytes) -> None:
        """In a thread. Raises `_Changed` if others have written into the file.

        What was written is known here, since the caller may be cancelled meanwhile: the next one
        would take it for an edit.
        """

        def look() -> None:
            found = self._read(path)
            if found != self._known:
                raise _Changed(self._read_settled(path))

        replace_file(path, content, last_look=look)
        self._known, self._mark = content, None

    def _read_settled(self, path: Path) -> bytes | None:
        """The content, once it stays the same: editors empty a file, or take it away, before they
        write. In a thread."""
        found = self._read(path)
        for _ in range(_SETTLING_MAX if found != self._known else 0):
            time.sleep(_SETTLED_S)
            before, found = found, self._read(path)
            if found == before:
                break
        return found


def _mark_of(path: Path) -> _Mark:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return _Mark()
    return _Mark(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_private(path: Path, size_max: int) -> bytes | None:
    """The content of a file that holds credentials; None if there is none. Blocking.

    Raises:
        NotPrivate: others could have written or read it, or it is no plain file.
        DataDirectoryError: it cannot be read.
    """
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return None
    except NotRegular as exc:
        raise NotPrivate(f"{path} is {exc}; move it away") from exc
    except OSError as exc:
        raise DataDirectoryError(f"{path} cannot be read: {reason_of(exc)}") from exc
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if found.st_mode & 0o077 or found.st_uid != os.geteuid():
            raise NotPrivate(
                f"{path} must belong to this account alone; look who changed it, then run: "
                f"chmod 600 {path}"
            )
        content = file.read(size_max + 1)
    if len(content) > size_max:
        raise NotPrivate(f"{path} is larger than {size_max} bytes; move it away")
    return content
