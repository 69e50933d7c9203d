"""Pending commands on their way to the owner: read if need be, and handed over in order."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from bus.descriptors import DESCRIPTORS
from bus.envelope import Envelope
from bus.model import CommandRecord
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from transports.directory.pending import Entry, Pending
from transports.directory.quarantine import Quarantine
from transports.directory.queue_files import QueueFiles
from transports.directory.refusals import RefusalResults
from transports.directory.settled_files import SettledFiles

log = structlog.get_logger("jobbus.directory")

READ_RETRY_S = 0.5


class Receiver:
    """Takes pending commands; keeps nothing of its own. Lives in the event loop.

    refused: called with the record of each command that is answered here with a Rejected result.
    wake: makes the transport scan the directory.
    """

    def __init__(
        self,
        known: Callable[[str], CommandRecord | None],
        pending: Pending,
        files: QueueFiles,
        settled: SettledFiles,
        quarantine: Quarantine,
        refusals: RefusalResults,
        refused: Callable[[CommandRecord], None] | None,
        wake: Callable[[], None],
    ) -> None:
        self._known = known
        self._pending = pending
        self._files = files
        self._settled = settled
        self._quarantine = quarantine
        self._refusals = refusals
        self._refused = refused
        self._wake = wake
        self._troubles = Recurring(log)

    async def receive(self, limit: int) -> Sequence[Envelope]:
        """The next commands in order, at least one and at most `limit`; waits for the first."""
        while True:
            entries = self._pending.take(1 if self._quarantine.is_careful else limit)
            if not entries:
                self._pending.arrived.clear()
                await self._pending.arrived.wait()
                continue
            entries = [entry for entry in entries if not self._was_cancelled(entry)]
            if not entries:
                continue
            try:
                await self._fill(entries)
                if self._quarantine.is_careful:
                    await self._quarantine.take_care(entries[0].id)
            except OSError as error:
                if DESCRIPTORS.release_for(error):
                    self._pending.put_back(entries)
                    continue
                self._troubles.say(f"waiting commands cannot be read: {reason_of(error)}", "read")
                entries = self._readable_without_file(entries)
                if not entries:
                    await asyncio.sleep(READ_RETRY_S)
                    continue
            except BaseException:  # also a cancellation: they were taken and would be lost
                self._pending.put_back(entries)
                raise
            else:
                self._troubles.over("waiting commands can be read again", "read")
            envelopes = [taken for entry in entries if (taken := _taken_from(entry)) is not None]
            if envelopes:
                return envelopes

    def _readable_without_file(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those with their command in memory; the others wait on, for the system to read files."""
        self._pending.put_back(entry for entry in entries if entry.envelope is None)
        self._wake()  # it makes the directories again
        return [entry for entry in entries if entry.envelope is not None]

    def _was_cancelled(self, entry: Entry) -> bool:
        """Whether the command ended while it waited; then its file goes."""
        record = self._known(entry.id)
        if record is None or not record.is_final:
            return False
        self._settled.settle(entry.id)
        return True

    async def _fill(self, entries: Sequence[Entry]) -> None:
        """Each entry that still has a command behind it has its envelope."""
        bare = [entry for entry in entries if entry.envelope is None]
        if not bare:
            return
        read = await DISK.run(self._files.envelopes, [entry.name for entry in bare])
        refusals: list[tuple[Entry, CommandRecord]] = []
        for entry, found in zip(bare, read, strict=True):
            match found:
                case Envelope():
                    entry.envelope = msgspec.structs.replace(found, accepted_ns=entry.order_ns)
                case CommandRecord():
                    refusals.append((entry, found))
                case None:
                    self._pending.drop(entry)
                    self._wake()
        if refusals:
            await self._answer(refusals)

    async def _answer(self, refusals: Sequence[tuple[Entry, CommandRecord]]) -> None:
        """The writers find Rejected results; then their files go."""
        try:
            await DISK.run(self._refusals.write, [record for _, record in refusals])
        except OSError as error:
            # The files stay and are answered after the next start.
            self._troubles.say(f"refused commands have no result: {reason_of(error)}", "answer")
            return
        for entry, record in refusals:
            if self._refused is not None:
                self._refused(record)
            self._settled.settle(entry.id)


def _taken_from(entry: Entry) -> Envelope | None:
    """The entry's command, which the entry then does not hold any longer."""
    envelope, entry.envelope = entry.envelope, None
    return envelope
