"""Looks from time to time how much room is left on the disks of a data directory."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from bus.free_space import Space, space_of
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import READS

LOOK_S = 5.0
LOOK_EASY_S = 15.0
"""Where so much is left that a disk takes its time to fill up."""
MUCH_BYTES = 4 * 1024**3

log = structlog.get_logger("jobbus.room")


def scarcest(places: Sequence[Path]) -> Space:
    """The least that is left on any of the file systems. Blocking, but only system calls."""
    spaces = [space_of(place) for place in places]
    return Space(min(s.bytes_free for s in spaces), min(s.inodes_free for s in spaces))


class SpaceWatch:
    """Knows how much room there was at the last look.

    `look` blocks; it gives what is left, and whether the reserve is held back. `changed` is called
    with True when room gets scarce and with False when it has come back; `hold_ballast` takes back
    the reserve; `connect` may give both later. `is_low` and `space` are of the last look; only
    `look` writes them.
    """

    def __init__(
        self,
        look: Callable[[], tuple[Space, bool]],
        changed: Callable[[bool], None] | None = None,
        hold_ballast: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._look = look
        self._changed = changed
        self._hold_ballast = hold_ballast
        self.is_low = False
        self.space: Space | None = None
        self._troubles = Recurring(log)

    def connect(
        self, *, changed: Callable[[bool], None], hold_ballast: Callable[[], Awaitable[None]]
    ) -> None:
        """Before the first look: who is called by it."""
        self._changed = changed
        self._hold_ballast = hold_ballast

    def is_scarce(self) -> bool:
        """Whether room was low at the last look."""
        return self.is_low

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            await self.look()
            space = self.space
            easy = space is not None and not space.is_low and space.bytes_free > MUCH_BYTES
            await asyncio.sleep(LOOK_EASY_S if easy else LOOK_S)

    async def look(self) -> None:
        """What is known is from now."""
        try:
            space, is_held = await READS.run(self._look)
        except OSError as error:
            self._troubles.say(f"how much room is left cannot be read: {reason_of(error)}")
            return
        self._troubles.over()
        self.space = space
        was_low, self.is_low = self.is_low, space.is_low
        if self.is_low != was_low:
            log.warning(
                "little room is left: nothing is started until there is more"
                if self.is_low
                else "there is room again",
                bytes_free=space.bytes_free,
                inodes_free=space.inodes_free,
            )
            if self._changed is not None:
                self._changed(self.is_low)
        if self._hold_ballast is not None and not self.is_low and not is_held:
            await self._hold_ballast()
