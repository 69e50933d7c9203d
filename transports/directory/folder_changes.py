"""Hears that something changed in folders: by inotify(7) on Linux, by `watchfiles` elsewhere.

Whatever is heard is a hint: who listens looks itself. On Linux no thread is needed (the library of
`watchfiles` ends the whole process when the system gives it none), and nothing wakes while nothing
happens.
"""

import asyncio
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

if sys.platform == "linux":
    from asyncinotify import Inotify, Mask
else:
    from watchfiles import Change, awatch

_EVENT = struct.Struct("iIII")  # inotify(7): watch, mask, cookie, length of the padded name
_BUFFER = 65_536


class Heard(msgspec.Struct, frozen=True):
    """One change. `name` is empty where it is not known (an overflow). `is_gone`: a folder itself
    was removed or moved, and is not listened to any more."""

    name: bytes
    is_gone: bool = False


Hear = Callable[[Sequence[Heard]], None]

if sys.platform == "linux":
    NEW = Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_TO
    """Something came, or is whole now."""
    _GONE = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED

    async def listen(
        folders: Sequence[Path], hear: Hear, stands: Callable[[], None], *, what: Mask
    ) -> None:
        """Calls `stands` once, when nothing that comes from now on is missed, then `hear` with each
        batch. Returns when the first folder is gone.

        Raises:
            OSError: a folder is not there, or the system lacks what it takes.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        with Inotify() as inotify:
            for folder in folders:
                inotify.add_watch(folder, what | _GONE | Mask.ONLYDIR)
            handle = inotify.fd
            os.set_blocking(handle, False)
            loop.add_reader(handle, _read, handle, hear, ended)
            try:
                stands()
                await ended
            finally:
                loop.remove_reader(handle)

    def _read(handle: int, hear: Hear, ended: "asyncio.Future[None]") -> None:
        try:
            data = os.read(handle, _BUFFER)
        except BlockingIOError:
            return
        except OSError as error:
            if not ended.done():
                ended.set_exception(error)
            return
        heard = [Heard(name, bool(mask & _GONE)) for mask, name in _events(data)]
        if any(each.is_gone for each in heard) and not ended.done():
            ended.set_result(None)
        hear(heard)

else:
    NEW = None
    STEP_MS = 400
    DEBOUNCE_MS = 800

    async def listen(
        folders: Sequence[Path], hear: Hear, stands: Callable[[], None], *, what: None
    ) -> None:
        """The same, by a thread that looks for news every 400 ms."""
        # Runs when `awatch` first waits, thus when the watches stand.
        asyncio.get_running_loop().call_soon(stands)
        places = {str(folder) for folder in folders}
        async for changes in awatch(
            *folders, watch_filter=None, recursive=False, step=STEP_MS, debounce=DEBOUNCE_MS
        ):
            gone = any(kind is Change.deleted and path in places for kind, path in changes)
            hear([Heard(b"", gone)])
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
