"""The one thread in which the journal is written: one call after another, none on the loop."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import structlog

from bus.errors import NoSpace
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import Pool
from handlers.journal.format import Record
from handlers.journal.journal import Journal
from handlers.journal.snapshots import SnapshotHead

NO_SPACE_RETRY_S = 1.0

log = structlog.get_logger("jobbus.journal")


class JournalWriter:
    """Waits for the journal on behalf of the owner.

    `before_append` runs in the thread before each write, `in_hand` with the ids of the commands
    that are being handled.
    """

    def __init__(
        self,
        journal: Journal,
        before_append: Callable[[], None],
        in_hand: Callable[[Sequence[str]], None],
    ) -> None:
        self._journal = journal
        self._before_append = before_append
        self._in_hand = in_hand
        self._thread = Pool("journal")
        self._troubles = Recurring(log)

    @property
    def bytes_since_snapshot(self) -> int:
        """See `Journal.bytes_since_snapshot`."""
        return self._journal.bytes_since_snapshot

    async def record(self, records: Sequence[Record]) -> None:
        """The records are synced; while the disk is full this waits for room."""
        while True:
            try:
                await self._run(self._append, records)
            except (NoSpace, MemoryError) as error:
                self._troubles.say(f"deciding waits: {reason_of(error)}")
                await asyncio.sleep(NO_SPACE_RETRY_S)
            else:
                self._troubles.over("deciding goes on")
                return

    async def note(self, record: Record) -> None:
        """The record is synced, if there is room for it; for one that may be missing."""
        with suppress(NoSpace):
            await self._run(self._append, [record])

    async def write_snapshot(self, head: SnapshotHead, lines: Iterable[bytes]) -> None:
        """See `Journal.write_snapshot`."""
        await self._run(self._journal.write_snapshot, head, lines)

    async def hold_ballast(self) -> None:
        """The journal's reserve is held again, if there is room for it."""
        await self._run(self._journal.ballast.hold)

    async def note_in_hand(self, command_ids: Sequence[str]) -> None:
        """It is on record which commands are being handled."""
        if command_ids:
            await self._run(self._in_hand, command_ids)

    def end_in_hand(self) -> None:
        """The commands are handled; on record before anything else that the thread does."""
        self._thread.submit(self._in_hand, ())

    def close(self, next_seq: int, now_ms: int) -> None:
        """Marks the orderly end in the journal; nothing is written afterwards."""
        self._thread.shutdown(wait=True)
        self._journal.close(next_seq, now_ms)

    def _append(self, records: Sequence[Record]) -> None:
        """They are durable, in a directory that is still ours."""
        self._before_append()
        self._journal.append(records)

    async def _run(self, call: Callable[..., object], *arguments: object) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, call, *arguments)
