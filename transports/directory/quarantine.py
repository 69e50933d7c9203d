"""Commands and files that starts of the service died of: set aside, and handed out with care."""

import asyncio
import os
from collections.abc import Callable

import msgspec

from bus.clock import Clock
from bus.envelope import Envelope
from bus.layout import DataLayout
from bus.model import CommandRecord
from bus.threads import DISK
from transports.directory import disk
from transports.directory.poison import (
    CAREFUL_COMMANDS,
    DEATHS_MAX,
    DEATHS_RECORDED_MAX,
    Deaths,
    InHandNote,
)
from transports.directory.queue_files import QueueFiles
from transports.directory.refusals import RefusalResults
from transports.directory.rejects import Rejects

CAREFUL_WAIT_S = 5.0
CAREFUL_POLL_S = 0.002


class Quarantine:
    """Acts on what the two notes say of earlier starts. Lives in the event loop.

    `_died_of` and `_died_reading` are what was in hand in starts that died, commands by id and
    files by name; `look_back` writes them, once, and until then `_died_of` is None. After a start
    that died commands are handed out one by one: `_careful` is how many more, `_handed_last` the
    id of the last of them; `look_back`, `limit` and `take_care` write these.

    poisoned: called with commands that starts died of, to put them on record; without it, or if the
    command cannot be read, `refused` is called with the record of its refusal.
    """

    def __init__(
        self,
        layout: DataLayout,
        clock: Clock,
        known: Callable[[str], CommandRecord | None],
        handling: InHandNote,
        reading: InHandNote,
        files: QueueFiles,
        rejects: Rejects,
        refusals: RefusalResults,
        refused: Callable[[CommandRecord], None] | None,
        poisoned: Callable[[Envelope], None] | None,
    ) -> None:
        self._layout = layout
        self._clock = clock
        self._known = known
        self._handling = handling
        self._reading = reading
        self._files = files
        self._rejects = rejects
        self._refusals = refusals
        self._refused = refused
        self._poisoned = poisoned
        self._careful = 0
        self._handed_last = ""
        self._died_of: dict[str, Deaths] | None = None
        self._died_reading: dict[str, Deaths] = {}

    @property
    def is_careful(self) -> bool:
        """Whether commands are handed out one by one."""
        return self._careful > 0

    @property
    def has_looked_back(self) -> bool:
        return self._died_of is not None

    def look_back(self) -> frozenset[str]:
        """What earlier starts died of is known; the ids of commands that are on record and were
        acted upon when three of them died. Blocking."""
        disk.make_directory(self._layout.queue_tmp)
        found = self._handling.begin()
        self._careful = 0 if found is None else CAREFUL_COMMANDS
        self._died_of = found or {}
        self._died_reading = self._reading.begin() or {}
        return frozenset(key for key, n in self._died_of.items() if n.after >= DEATHS_RECORDED_MAX)

    def limit(self, waiting: int) -> None:
        """Only what was there when it died can be to blame; mostly that is nothing."""
        self._careful = min(self._careful, waiting)

    async def take_care(self, command_id: str) -> None:
        """After an unclean stop: the command before is on record, this one is noted."""
        deadline_s = self._clock.monotonic_s() + CAREFUL_WAIT_S
        while self._handed_last and self._known(self._handed_last) is None:
            if self._clock.monotonic_s() > deadline_s:
                self._careful = 1
                break
            await asyncio.sleep(CAREFUL_POLL_S)
        self._handed_last = command_id
        self._careful -= 1
        await DISK.run(self._handling.take, (command_id,))

    async def set_aside(self) -> None:
        """What two starts died of is in Rejects, and its writers have answers."""
        assert self._died_of is not None
        for command_id, deaths in self._died_of.items():
            if self._known(command_id) is None and deaths.before >= DEATHS_MAX:
                why = f"the service died {deaths.before} times while it handled this command"
                found = await DISK.run(self._files.poison, command_id, why)
                if found is not None:
                    await self._answer(*found)
        for name, deaths in self._died_reading.items():
            if deaths.before >= DEATHS_MAX:
                await self._set_file_aside(name, deaths)
        condemned = [key for key, n in self._died_of.items() if n.before >= DEATHS_MAX]
        over = condemned + [key for key in self._died_of if self._known(key) is not None]
        await DISK.run(self._handling.forget, over)
        read = [key for key, n in self._died_reading.items() if n.before >= DEATHS_MAX]
        await DISK.run(self._reading.forget, read)

    def forget_gone(self) -> None:
        """What does not lie in the queue any more is no suspect. Blocking."""
        there = {name.lower() for name in os.listdir(self._layout.queue)}
        self._handling.forget([k for k in self._died_of or () if f"{k}.json" not in there])
        read = [k for k in self._died_reading if self._rejects.name_of_key(k) is None]
        self._reading.forget([k for k in read if k.lower() not in there])

    async def end(self, *, orderly: bool) -> None:
        """The notes are gone after an orderly end; else they stay for the next start."""
        for note in (self._handling, self._reading):
            await DISK.run(note.end if orderly else note.close)

    async def _set_file_aside(self, key: str, deaths: Deaths) -> None:
        if (rejected := self._rejects.name_of_key(key)) is not None:
            await DISK.run(self._rejects.give_up_on, rejected)
            return
        why = f"the service died {deaths.before} times while it read this file"
        record = await DISK.run(self._files.poison_unread, key, why)
        if record is not None and self._known(record.id) is None:
            await self._answer(record, None)

    async def _answer(self, record: CommandRecord, envelope: Envelope | None) -> None:
        await DISK.run(self._refusals.write, [record])
        if envelope is not None and self._poisoned is not None:
            self._poisoned(msgspec.structs.replace(envelope, poison=record.error or ""))
        elif self._refused is not None:
            self._refused(record)
