"""A doorbell on a directory: it says that something may have happened, never what.

A ring may be missed or be for nothing; whoever listens lists the directory, and looks from time to
time anyway. Any trouble (an overflow, a vanished directory, a broken watch) arms it again.
"""

import asyncio
import logging
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

if sys.platform == "linux":
    from asyncinotify import Inotify, Mask
else:
    from watchfiles import awatch

log = logging.getLogger(__name__)

REARM_S = 0.5
_EVENT = struct.Struct("iIII")  # inotify(7): watch, mask, cookie, length of the padded name
_BUFFER = 65_536


class Doorbell:
    """Calls `ring` when the directory at `path` may have changed, and `heard` with the names that
    were announced, ours too; with none if it may be any.

    `is_ours` says of a name that its appearance is no news (our own links); everything else rings.
    """

    def __init__(
        self,
        path: Path,
        ring: Callable[[], None],
        is_ours: Callable[[str], bool],
        heard: Callable[[Sequence[str]], None] = lambda names: None,
    ) -> None:
        self._path = path
        self._heard = heard
        self._ring = ring
        self._is_ours = is_ours
        self.armed = 0

    async def run(self) -> None:
        """Rings until it is cancelled."""
        while True:
            try:
                await self._listen()
            except Exception as error:
                log.debug("the watch of %s ended: %s", self._path.name, error)
            self._ring_for_all()
            await asyncio.sleep(REARM_S)

    def _ring_for_all(self) -> None:
        self._heard(())
        self._ring()

    if sys.platform == "linux":

        async def _listen(self) -> None:
            """Returns when the watch is of no use any more."""
            loop = asyncio.get_running_loop()
            ended: asyncio.Future[None] = loop.create_future()
            with Inotify() as inotify:
                mask = Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_TO
                gone = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED
                inotify.add_watch(self._path, mask | gone | Mask.ONLYDIR)
                handle = inotify.fd
                os.set_blocking(handle, False)
                loop.add_reader(handle, self._read, handle, int(gone), ended)
                try:
                    self.armed += 1
                    self._ring_for_all()  # what came before the watch stood
                    await ended
                finally:
                    loop.remove_reader(handle)

        def _read(self, handle: int, gone: int, ended: "asyncio.Future[None]") -> None:
            try:
                data = os.read(handle, _BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                if not ended.done():
                    ended.set_exception(error)
                return
            news = False
            for mask, name in _events(data):
                if mask & gone and not ended.done():
                    ended.set_result(None)
                news = news or not name or not self._is_ours(os.fsdecode(name))
            if news:
                self._ring_for_all()

    else:

        async def _listen(self) -> None:
            self.armed += 1
            self._ring_for_all()
            async for _ in awatch(
                self._path, watch_filter=None, recursive=False, step=10, debounce=50
            ):
                self._ring_for_all()


def _events(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Mask and name of each event; an overflow has no name."""
    at = 0
    while at < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield mask, data[at : at + length].rstrip(b"\0")
        at += length
