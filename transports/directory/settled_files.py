"""Queue files of commands that have ended: unlinked behind everything else, many at once."""

import asyncio

import structlog

from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from transports.directory.pending import Entry, Pending, State
from transports.directory.queue_files import QueueFiles

log = structlog.get_logger("jobbus.directory")

UNLINK_MAX = 512
UNLINK_RETRY_S = 5.0


class SettledFiles:
    """Lives in the event loop, unlinks in a thread.

    `_ended` has the entries whose files are still there, in the order in which they were settled:
    `settle` appends, `unlink` takes from the front and puts back what it could not unlink.
    `_some_ended` is set when there are any.
    """

    def __init__(self, pending: Pending, files: QueueFiles) -> None:
        self._pending = pending
        self._files = files
        self._ended: list[Entry] = []
        self._some_ended = asyncio.Event()
        self._troubles = Recurring(log)

    def settle(self, command_id: str) -> None:
        """The file of a command that was received will be unlinked."""
        entry = self._pending.get(command_id)
        if entry is not None and entry.state is State.HANDED:
            entry.state = State.DONE
            self._ended.append(entry)
            self._some_ended.set()

    async def run(self) -> None:
        """Unlinks for ever."""
        while True:
            await self._some_ended.wait()
            self._some_ended.clear()
            if not await self.unlink():
                await asyncio.sleep(UNLINK_RETRY_S)
                self._some_ended.set()

    async def unlink(self) -> bool:
        """The files of ended commands are gone; False if some could not be unlinked."""
        while self._ended:
            batch, self._ended = self._ended[:UNLINK_MAX], self._ended[UNLINK_MAX:]
            names = [name for entry in batch for name in (entry.name, *entry.more_names)]
            try:
                await DISK.run(self._files.unlink, names)
            except OSError as error:
                self._troubles.say(f"files of ended commands stay: {reason_of(error)}", "unlink")
                self._ended.extend(batch)
                return False
            except BaseException:
                self._ended.extend(batch)
                self._some_ended.set()
                raise
            self._troubles.over(subject="unlink")
            for entry in batch:
                self._pending.drop(entry)
        return True
