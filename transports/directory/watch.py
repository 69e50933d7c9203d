"""A watch on a directory: it says that something may have changed, by inotify(7) on Linux and by
`watchfiles` elsewhere.

A notification may be missing or be for nothing; its receiver lists the directory, and scans from
time to time anyway. On Linux no thread is needed (the library of `watchfiles` ends the whole
process when the system gives it none), and nothing wakes while nothing happens.
"""

import asyncio
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from bus.recurring import Backoff, Recurring
from bus.scarcity import lack_of_watches, reason_of

if sys.platform == "linux":
    from asyncinotify import Inotify, Mask
else:
    from watchfiles import Change, awatch

log = structlog.get_logger("jobbus.directory")

REARM_S = 0.5
REARM_S_MAX = 30.0

# `asyncinotify` makes the watch, but its events are not used: each command that we link comes back
# as one, and decoding it takes the library 9.4 us, this 3.2 us (8000 links, six rounds, Python
# 3.11). Publishing takes 74 us of the loop's thread a command with this, 97 us with the library.
_EVENT = struct.Struct("iIII")  # inotify(7): watch, mask, cookie, length of the padded name
_BUFFER = 65_536


class DirectoryWatch:
    """Calls `notify` when the directory at `path` may have changed, with the names that are news as
    far as they are known, and `announced` with all names of which something was reported; with none
    if it may be any.

    `is_ours` says of a name that its appearance is no news (our own links). `armed` counts how
    often the watch was made; only `run` writes it.
    """

    def __init__(
        self,
        path: Path,
        notify: Callable[[Sequence[str]], None],
        is_ours: Callable[[str], bool],
        announced: Callable[[Sequence[str]], None] = lambda names: None,
    ) -> None:
        self._path = path
        self._announced = announced
        self._notify = notify
        self._is_ours = is_ours
        self.armed = 0
        self._troubles = Recurring(log)

    async def run(self) -> None:
        """Watches until it is cancelled. Any trouble (a vanished directory, a broken watch) makes
        the watch again; what cannot be watched is tried again, rarely."""
        pauses = Backoff(REARM_S, REARM_S_MAX)
        while True:
            armed = self.armed
            try:
                await watch(self._path, self._changed, self._begun)
            except (FileNotFoundError, NotADirectoryError):
                log.debug("%s is not there", self._path.name)
                pauses.reset()  # nothing is lacking: it is watched as soon as it is back
            except Exception as error:
                reason = lack_of_watches(error) or reason_of(error)
                self._troubles.say(
                    f"what comes into {self._path.name} is noticed late, by slow scans: {reason}"
                )
            if self.armed > armed:
                pauses.reset()
                self._notify_of_all()
            await asyncio.sleep(pauses.next_s())

    def _begun(self) -> None:
        self.armed += 1
        self._troubles.over(f"what comes into {self._path.name} is noticed at once again")
        self._notify_of_all()  # what came before the watch was made

    def _notify_of_all(self) -> None:
        self._announced(())
        self._notify(())

    def _changed(self, changes: Sequence["FolderChange"]) -> None:
        names = [os.fsdecode(each.name) for each in changes]
        self._announced(names if all(names) else ())
        news = [name for name in names if not name or not self._is_ours(name)]
        if news:
            self._notify([name for name in news if name])


class FolderChange(msgspec.Struct, frozen=True):
    """One change. `name` is empty where it is not known (an overflow). `is_gone`: the folder itself
    was removed or moved, and is not watched any more."""

    name: bytes
    is_gone: bool = False


Receive = Callable[[Sequence[FolderChange]], None]

if sys.platform == "linux":
    _NEW = Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_TO
    _GONE = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED

    async def watch(folder: Path, receive: Receive, begun: Callable[[], None]) -> None:
        """Calls `begun` once, when nothing that comes from now on is missed, then `receive` with
        each batch of changes. Returns when the folder is gone.

        Raises:
            OSError: the folder is not there, or the system lacks what it takes.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        with Inotify() as inotify:
            inotify.add_watch(folder, _NEW | _GONE | Mask.ONLYDIR)
            handle = inotify.fd
            os.set_blocking(handle, False)
            loop.add_reader(handle, _read, handle, receive, ended)
            try:
                begun()
                await ended
            finally:
                loop.remove_reader(handle)

    def _read(handle: int, receive: Receive, ended: "asyncio.Future[None]") -> None:
        try:
            data = os.read(handle, _BUFFER)
        except BlockingIOError:
            return
        except OSError as error:
            if not ended.done():
                ended.set_exception(error)
            return
        changes = [FolderChange(name, bool(mask & _GONE)) for mask, name in _events(data)]
        if any(each.is_gone for each in changes) and not ended.done():
            ended.set_result(None)
        receive(changes)

else:
    STEP_MS = 400
    DEBOUNCE_MS = 800

    async def watch(folder: Path, receive: Receive, begun: Callable[[], None]) -> None:
        """The same, by a thread that asks for changes every 400 ms."""
        # Runs when `awatch` first waits, thus when the watches are made.
        asyncio.get_running_loop().call_soon(begun)
        async for changes in awatch(
            folder, watch_filter=None, recursive=False, step=STEP_MS, debounce=DEBOUNCE_MS
        ):
            gone = any(kind is Change.deleted and path == str(folder) for kind, path in changes)
            receive([FolderChange(b"", gone)])
            if gone:
                return


def _events(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Mask and name of each event; an overflow has no name."""
    at = 0
    while at < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield mask, data[at : at + length].rstrip(b"\0")
        at += length
