"""Announces that something may have changed below the apps folder, by `watchfiles`.

Nothing else that the watcher reports is trusted: it drops overflows, forgets what is pending at its
time-outs, and fails at a name that is not UTF-8.
"""

import asyncio
from collections.abc import Callable

import structlog
from watchfiles import Change, awatch

from bus.recurring import Backoff, Recurring
from bus.scarcity import NO_WATCH, lack_of_watches, reason_of
from bus.threads import READS, check_threads

log = structlog.get_logger("jobbus.catalog")

STEP_MS = 400
"""How often the thread of watchfiles wakes. A change is announced after one to two steps, so this
keeps "within a second of a save" at two and a half wake-ups a second."""

DEBOUNCE_MS = 800
"""Changes in a folder that changes all the time are announced this often."""

FEW_FOLDERS = 100
"""Where not even so many can be watched, none are."""

THREADS = 2
"""What `awatch` begins: one in Rust that watches, one that waits for it."""

THREADS_SPARE = 4
"""Beside these, so that what others take meanwhile leaves them. Without its own the Rust half does
not raise, it ends the process."""

REST_S = 0.8
"""The pause after each announcement, since a job may change a folder all the time."""

REST_LOOKS = 4.0
"""After a look that took a second there are so many seconds without one: very many entries cost a
fifth of a processor at the most."""

SLOW_LOOK_S = 5.0
"""A look without an announcement: those get lost (overflows, network mounts, new folders)."""

SLOW_LOOKS = 50.0
"""The same in looks: where nothing is announced, looking costs a fiftieth at the most …"""

SPARE_LOOKS = 500.0
"""… and where it is, a five-hundredth."""

UNWATCHED_LOOK_S = 1.0
"""The slow look while nothing can be watched, and the first pause before watching is tried again …
"""

AGAIN_S_MAX = 60.0
"""… which grows up to this."""


class FolderWatch:
    """Announces changes in a set of folders.

    `_changed` is set by a change and cleared by `wait`; `_unwatched` is true while no watch stands.
    `_most` is how many of the folders the system lets us watch, once it has refused more.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._unwatched = False
        self._most: int | None = None
        self._pauses = Backoff(UNWATCHED_LOOK_S, AGAIN_S_MAX)
        self._troubles = Recurring(log)
        self.lost_a_folder = False
        """A watched folder was removed. A new folder in its place is not watched, and may equal the
        old folder down to its inode."""

    async def wait(self, look_s: float = SLOW_LOOK_S, took_s: float = 0.0) -> bool:
        """Returns True at the next announcement since the last call, or False when a look is due;
        after the pause that a look needs which took `took_s`."""
        await asyncio.sleep(max(min(REST_S, look_s), REST_LOOKS * took_s))
        patience_s = min(UNWATCHED_LOOK_S, look_s) if self._unwatched else look_s
        is_trusted = not self._unwatched and self._most is None and look_s >= SLOW_LOOK_S
        looks = SPARE_LOOKS if is_trusted else SLOW_LOOKS
        try:
            async with asyncio.timeout(max(patience_s, looks * took_s)):
                await self._changed.wait()
        except TimeoutError:
            return False
        finally:
            self._changed.clear()
        return True

    def look_now(self) -> None:
        """A look is due for another reason than a change in the folders."""
        self._changed.set()

    async def watch_folders(self, places: Callable[[], tuple[str, ...]]) -> None:
        """Announces each change directly in these folders, for ever; begins again if it fails."""
        self._most = None
        while True:
            paths = (await READS.run(places))[: self._most]
            self._unwatched, self.lost_a_folder = not paths, False
            try:
                if paths:
                    await self._announce_changes(paths)
            except FileNotFoundError:
                self._pauses.reset()  # it went between the look and this: the next look sees that
            except Exception as error:
                lack = lack_of_watches(error)
                if lack == NO_WATCH and len(paths) > FEW_FOLDERS:
                    self._most = len(paths) // 2
                    continue
                reason = lack or reason_of(error)
                self._troubles.say(f"definitions cannot be watched, but are looked at: {reason}")
            self._unwatched = True
            self._changed.set()
            await asyncio.sleep(self._pauses.next_s())

    async def _announce_changes(self, paths: tuple[str, ...]) -> None:
        await READS.run(check_threads, THREADS + THREADS_SPARE)
        # Runs when `awatch` first waits, thus when the watches stand: whatever came between the
        # last look and them is seen by the look that this causes.
        stands = asyncio.get_running_loop().call_soon(self._stands)
        try:
            async for changes in awatch(
                *paths, watch_filter=None, step=STEP_MS, debounce=DEBOUNCE_MS, recursive=False
            ):
                removed = {path for kind, path in changes if kind is Change.deleted}
                self.lost_a_folder |= not removed.isdisjoint(paths)
                self._changed.set()
        finally:
            stands.cancel()  # no watch was to be had

    def _stands(self) -> None:
        self._pauses.reset()
        self._troubles.over("changes of definitions are noticed at once again")
        self._changed.set()
