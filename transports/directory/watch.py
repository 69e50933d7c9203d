"""A doorbell on a directory: it says that something may have happened, never what.

A ring may be missed or be for nothing; whoever listens lists the directory, and looks from time to
time anyway. Any trouble (an overflow, a vanished directory, a broken watch) arms it again.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bus.recurring import Backoff, Recurring
from bus.scarcity import lack_of_watches, reason_of
from transports.directory.folder_changes import NEW, Heard, listen

log = logging.getLogger(__name__)

REARM_S = 0.5
REARM_S_MAX = 30.0


class Doorbell:
    """Calls `ring` when the directory at `path` may have changed, with the names that are news as
    far as they are known, and `heard` with all names that were announced; with none if it may be
    any.

    `is_ours` says of a name that its appearance is no news (our own links); everything else rings.
    """

    def __init__(
        self,
        path: Path,
        ring: Callable[[Sequence[str]], None],
        is_ours: Callable[[str], bool],
        heard: Callable[[Sequence[str]], None] = lambda names: None,
    ) -> None:
        self._path = path
        self._heard = heard
        self._ring = ring
        self._is_ours = is_ours
        self.armed = 0
        self._troubles = Recurring(log)

    async def run(self) -> None:
        """Rings until it is cancelled. What cannot be watched is tried again, rarely: who listens
        looks from time to time anyway."""
        pauses = Backoff(REARM_S, REARM_S_MAX)
        while True:
            armed = self.armed
            try:
                await self._listen()
            except (FileNotFoundError, NotADirectoryError):
                log.debug("%s is not there", self._path.name)
                pauses.reset()  # nothing is lacking: it is listened to as soon as it is back
            except Exception as error:
                reason = lack_of_watches(error) or reason_of(error)
                self._troubles.say(
                    f"what comes into {self._path.name} is noticed late, by slow looks: {reason}"
                )
            if self.armed > armed:
                pauses.reset()
                self._ring_for_all()
            await asyncio.sleep(pauses.next_s())

    async def _listen(self) -> None:
        """Returns when the watch is of no use any more."""
        await listen([self._path], self._hear, self._stands, what=NEW)

    def _stands(self) -> None:
        self.armed += 1
        self._troubles.over(f"what comes into {self._path.name} is noticed at once again")
        self._ring_for_all()  # what came before the watch stood

    def _ring_for_all(self) -> None:
        self._heard(())
        self._ring(())

    def _hear(self, heard: Sequence[Heard]) -> None:
        names = [os.fsdecode(each.name) for each in heard]
        self._heard(names if all(names) else ())
        news = [name for name in names if not name or not self._is_ours(name)]
        if news:
            self._ring([name for name in news if name])
