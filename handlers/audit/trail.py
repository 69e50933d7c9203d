"""Keeps the audit: takes every event, refusal and note, and writes their entries after the journal.

Events are in the journal first; after an unclean stop the entries that had not reached the audit
are made again from there. Refusals and notes are written within a moment and synced lazily.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
import structlog

from bus.audit import NOTE, REFUSED, AuditEntry, AuditPage, AuditQuery, cut
from bus.clock import Clock, rfc3339
from bus.envelope import Envelope
from bus.errors import BusError, NoSpace, StorageFailed
from bus.events import Published
from bus.model import CommandRecord, Principal
from bus.recurring import Recurring
from bus.retention_settings import DAY_MS
from bus.scarcity import reason_of
from bus.threads import READS, Pool
from handlers.audit.coalescer import Coalescer
from handlers.audit.entries.fold import AuditFold
from handlers.audit.entries.refusals import entry_of_file, entry_of_refusal
from handlers.audit.reading import page, pieces
from handlers.audit.segments import AuditSegments

WRITE_S = 0.2
"""Entries are collected so long: many are one write."""

SYNC_S = 5.0
RETRY_S = 1.0
TIDY_S = 3600.0
BATCH_MAX = 2000
WAITING_MAX = 200_000
"""Entries in memory while the disk takes none. With more the service ends: its journal knows."""

LOOSE_MAX = 10_000
"""Refusals and notes among them, which have no journal behind them; more are only counted."""

PIECE_BYTES = 65_536

log = structlog.get_logger("jobbus.audit")


class Audit:
    """Implements `bus.audit.AuditTrail` and `bus.ports.ChangeListener`. Lives in the event loop.

    `_waiting` are the entries that are not written yet, `_loose` how many of them have no event,
    and `_dropped` how many found no place: calls add to them, `_write` takes them out under
    `_turn`. The segments are written in `_thread` alone. `is_trusted` says whether the clock may be
    believed about what is too old.
    """

    def __init__(
        self,
        directory: Path,
        segments: AuditSegments,
        fold: AuditFold,
        missing: Sequence[AuditEntry],
        clock: Clock,
        *,
        days: float = 90.0,
        is_trusted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._directory = directory
        self._segments = segments
        self._fold = fold
        fold.begin_writing()
        self._clock = clock
        self._keep_ms = int(days * DAY_MS)
        self._is_trusted = is_trusted
        self._is_tidy = True
        self._waiting: list[AuditEntry] = list(missing)
        self._loose = 0
        self._dropped = 0
        self._coalescer = Coalescer()
        self._filled = asyncio.Event()
        self._thread = Pool("audit")
        self._turn = asyncio.Lock()
        self._troubles = Recurring(log)
        if missing:
            self._filled.set()

    def keep_days(self, days: float) -> None:
        """From now on entries are kept so long; older ones go at once."""
        self._keep_ms = int(days * DAY_MS)
        self._is_tidy = False
        self._filled.set()

    def __call__(self, batch: Sequence[Published]) -> None:
        """See `bus.ports.ChangeListener`."""
        for published in batch:
            entry = self._fold.take(published)
            if entry is not None:
                self._waiting.append(entry)
                self._filled.set()

    def refused(self, envelope: Envelope, error: BusError) -> None:
        """A command was refused before it was written; no other record of it exists."""
        self._take_loose(entry_of_refusal(envelope, error, self._clock.now_ms()))

    def refused_file(self, record: CommandRecord) -> None:
        """A queue file was answered with Rejected by the transport."""
        self._take_loose(entry_of_file(record, self._clock.now_ms()))

    def note(
        self, principal: Principal, action: str, *, error_code: str = "", **detail: str
    ) -> None:
        """See `bus.audit.AuditTrail`."""
        self._take_loose(
            AuditEntry(
                at=rfc3339(self._clock.now_ms()),
                kind=REFUSED if error_code else NOTE,
                actor=cut(principal.user_id),
                roles=principal.roles,
                via=principal.via,
                action=cut(action),
                status="Rejected" if error_code else "Completed",
                error_code=error_code or None,
                detail={name: cut(text) for name, text in detail.items() if text},
            )
        )

    async def page(self, query: AuditQuery, limit: int) -> AuditPage:
        """See `bus.audit.AuditTrail`."""
        await self.flush()
        return await READS.run(page, self._directory, query, limit)

    async def export(self, query: AuditQuery) -> AsyncGenerator[bytes, None]:
        """See `bus.audit.AuditTrail`."""
        await self.flush()
        async with aclosing(pieces(self._directory, query, PIECE_BYTES)) as found:
            async for piece in found:
                yield piece

    async def run(self) -> None:
        """Writes for ever.

        Raises:
            StorageFailed: a sync failed, or too much waits for a disk that takes nothing; restart
                from the journal.
        """
        synced_s = tidied_s = self._clock.monotonic_s()
        await self._tidy()
        while True:
            await self._wait_for_entries()
            now_s = self._clock.monotonic_s()
            self._collect(now_s)
            try:
                await self._write()
                if now_s - synced_s >= SYNC_S:
                    await self._in_thread(self._segments.sync)
                    synced_s = now_s
            except OSError as error:
                self._complain(error)
                if len(self._waiting) > WAITING_MAX:
                    raise StorageFailed(f"the audit cannot be written: {error}") from error
                await asyncio.sleep(RETRY_S)
                continue
            if not self._is_tidy or now_s - tidied_s >= TIDY_S:
                self._is_tidy, tidied_s = True, now_s
                await self._tidy()
            await asyncio.sleep(WRITE_S)

    async def flush(self) -> None:
        """All that was noted before this call can be read; if the disk takes it."""
        self._collect(None)
        try:
            await self._write()
        except OSError as error:
            self._complain(error)

    async def settle(self) -> None:
        """All that was noted before this call survives a power cut: the journal may drop it.

        Raises:
            NoSpace: the disk does not take it now.
        """
        try:
            await self._sync()
        except OSError as error:
            raise NoSpace(f"the audit cannot be written: {error}") from error

    async def aclose(self) -> None:
        """Nothing is noted after this; what was is durable, or made again at the next start."""
        try:
            await self._sync()
            await self._in_thread(self._segments.close)
        except OSError as error:
            self._complain(error)
        finally:
            self._thread.shutdown(wait=True)

    # -- collecting

    def _take_loose(self, entry: AuditEntry) -> None:
        now_s = self._clock.monotonic_s()
        if entry.kind == REFUSED and not self._coalescer.is_first(entry, now_s):
            return
        self._add_loose(entry)

    def _add_loose(self, entry: AuditEntry) -> None:
        if self._loose >= LOOSE_MAX:
            self._dropped += entry.count
            return
        self._loose += 1
        self._waiting.append(entry)
        self._filled.set()

    def _collect(self, now_s: float | None) -> None:
        """What was coalesced for a minute, or all of it, gets its entry."""
        for entry in self._coalescer.due(now_s):
            self._add_loose(entry)

    async def _wait_for_entries(self) -> None:
        try:
            async with asyncio.timeout(SYNC_S):
                await self._filled.wait()
        except TimeoutError:
            return

    # -- writing

    async def _sync(self) -> None:
        self._collect(None)
        await self._write()
        await self._in_thread(self._segments.sync)

    async def _write(self) -> None:
        async with self._turn:
            while self._waiting:
                # Taken out first: if this wait is given up, the thread goes on and writes them.
                batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                try:
                    numbered = self._numbered(batch)
                    await self._in_thread(self._segments.append, numbered, self._clock.now_ms())
                except (OSError, MemoryError):
                    self._waiting[:0] = batch
                    raise
                self._troubles.over("the audit is written again")
                self._loose -= sum(1 for entry in batch if not entry.seq)
            self._filled.clear()
            if self._dropped:
                log.warning("refusals came faster than the audit takes them", lost=self._dropped)
                self._dropped = 0

    def _numbered(self, batch: list[AuditEntry]) -> list[AuditEntry]:
        """Those without an event of their own carry the number of the last before them."""
        seq = self._segments.last_seq
        numbered = []
        for entry in batch:
            seq = entry.seq or seq
            numbered.append(entry if entry.seq else msgspec.structs.replace(entry, seq=seq))
        return numbered

    async def _in_thread(self, call: Callable[..., None], *arguments: object) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(self._thread, call, *arguments))

    async def _tidy(self) -> None:
        if not self._is_trusted():
            return  # by a wrong clock all of it could be too old
        now_ms = self._clock.now_ms()
        try:
            gone = await READS.run(self._segments.drop_before, now_ms - self._keep_ms, now_ms)
        except OSError as error:
            self._complain(error)
            return
        if gone:
            log.info("old segments of the audit are gone", segments=gone)

    def _complain(self, error: OSError) -> None:
        self._troubles.say(f"the audit cannot be written: {reason_of(error)}")
