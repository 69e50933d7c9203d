"""Rings when something may have changed below the apps folder.

Nothing else that a watcher says is believed: it drops overflows, forgets what is pending at its
time-outs, and dies of a name that is not UTF-8.
"""

import asyncio
import logging
from collections.abc import Callable

from watchfiles import Change, awatch

log = logging.getLogger(__name__)

STEP_MS = 400
"""How often the thread of watchfiles wakes. A change is told after one to two steps, so this keeps
"within a second of a save" at two and a half wake-ups a second."""

DEBOUNCE_MS = 800
"""A folder in which something changes all the time still rings this often."""

SLOW_LOOK_S = 5.0
"""A look that needs no ring: hints get lost (overflows, network mounts, folders made anew)."""

DEAF_LOOK_S = 1.0
"""The same while nothing can be watched, and the pause before watching is tried again."""


class Doorbell:
    """Rings when something changed in a set of folders, and now and then."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._deaf = False
        self.lost_a_folder = False
        """A watched folder was removed. One made anew in its place is not watched any more, and
        may be equal to the old one down to its inode."""

    async def wait(self, look_s: float = SLOW_LOOK_S) -> bool:
        """Returns at the next ring since the last call, or False when it is time for a look."""
        try:
            async with asyncio.timeout(min(DEAF_LOOK_S, look_s) if self._deaf else look_s):
                await self._rung.wait()
        except TimeoutError:
            return False
        finally:
            self._rung.clear()
        return True

    async def listen(self, places: Callable[[], tuple[str, ...]]) -> None:
        """Rings at every change directly in these folders, for ever; failures begin it anew."""
        while True:
            paths = await asyncio.to_thread(places)
            self._deaf, self.lost_a_folder = not paths, False
            try:
                if paths:
                    await self._ring_at_changes(paths)
            except Exception as exc:  # noqa: BLE001, RUF100 - it fails in many ways, none of them ours
                log.warning("watching the definitions failed, looking every second: %r", exc)
            self._deaf = True
            self._rung.set()
            await asyncio.sleep(DEAF_LOOK_S)

    async def _ring_at_changes(self, paths: tuple[str, ...]) -> None:
        # Runs when `awatch` first waits, thus when the watches stand: whatever came between the
        # last look and them is seen by the look that this causes.
        asyncio.get_running_loop().call_soon(self._rung.set)
        async for changes in awatch(
            *paths, watch_filter=None, step=STEP_MS, debounce=DEBOUNCE_MS, recursive=False
        ):
            removed = {path for kind, path in changes if kind is Change.deleted}
            self.lost_a_folder |= not removed.isdisjoint(paths)
            self._rung.set()
