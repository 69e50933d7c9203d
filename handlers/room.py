"""Looks from time to time whether there is room left on the disks of a data directory."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from handlers.journal.ballast import Space, space_of

LOOK_S = 5.0

log = structlog.get_logger("jobbus.room")


def scarcest(places: Sequence[Path]) -> Space:
    """The least that is left on any of the file systems. Blocking, but only system calls."""
    spaces = [space_of(place) for place in places]
    return Space(min(s.bytes_free for s in spaces), min(s.inodes_free for s in spaces))


class RoomWatch:
    """Knows how much room there was at the last look.

    `changed` is told when room gets scarce (True) and when it has come back (False);
    `hold_ballast` takes back the room that is held in reserve.
    """

    def __init__(
        self,
        look: Callable[[], Space],
        changed: Callable[[bool], None],
        hold_ballast: Callable[[], Awaitable[None]],
    ) -> None:
        self._look = look
        self._changed = changed
        self._hold_ballast = hold_ballast
        self.is_low = False
        self.space: Space | None = None

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """What is known is from now."""
        try:
            self.space = await asyncio.to_thread(self._look)
        except OSError as error:
            log.warning("cannot tell how much room is left", error=str(error))
            return
        was_low, self.is_low = self.is_low, self.space.is_low
        if self.is_low != was_low:
            log.warning(
                "little room is left: nothing is started until there is more"
                if self.is_low
                else "there is room again",
                bytes_free=self.space.bytes_free,
                inodes_free=self.space.inodes_free,
            )
            self._changed(self.is_low)
        if not self.is_low:
            await self._hold_ballast()
