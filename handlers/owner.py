"""The single writer of the job table: decide, record, publish, act; in that order, batch by batch.

Two tables, one a decision ahead of the other. Everything that is read outside comes from the
published one, which changes only after the records of a batch are synced. The steps that change
state are plain functions; the one wait of a batch is the journal's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from bus.changes import ChangeEncoder
from bus.clock import Clock
from bus.commands import ReportClock, SetMaintenance
from bus.dispatch import AwaitedReport, Inbox
from bus.envelope import Envelope
from bus.errors import ErrorCode, NoSpace, Refused
from bus.events import AnyEvent, ExecutionProgress, Published
from bus.feed import Feed, Frame
from bus.model import CommandRecord
from bus.ports import ChangeListener, Policy, Supervisor
from bus.recurring import Recurring
from bus.scarcity import reason_of
from handlers.checks import Checks
from handlers.command_waiters import CommandWaiters
from handlers.decisions.chains import with_chains
from handlers.decisions.decision import (
    Context,
    Decision,
    DeleteFiles,
    Effect,
    SpawnExecution,
    StopExecution,
)
from handlers.decisions.refusals import refusal
from handlers.decisions.registry import decide
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import parts_of
from handlers.journal.format import Record
from handlers.journal.journal import Journal
from handlers.journal.snapshots import SnapshotHead
from handlers.journal.writer import NO_SPACE_RETRY_S, JournalWriter

RESERVE = 1 << 16
"""Numbers reserved at a time: progress takes numbers without a sync of its own."""

SNAPSHOT_BYTES = 32 * 1024 * 1024
"""So much journal is worth a snapshot: replaying it would take about a second."""

log = structlog.get_logger("jobbus.owner")


class Owner:
    """Owns the job table. Implements the port `CommandWaiter`; `checks` implements `Checker`.

    `_working` is the table one batch ahead, `published` the table that is read outside; `_next_seq`
    the number of the next event, `_reserved` the number below which all may have been given out,
    `_snapshot_at` how much journal makes the next snapshot due. Only `handle` and what it calls
    write these.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        table: JobTable,
        next_seq: int,
        inbox: Inbox,
        feed: Feed,
        encoder: ChangeEncoder,
        supervisor: Supervisor,
        delete_files: Callable[[DeleteFiles], None] = lambda gone: None,
        clock: Clock,
        policy: Policy,
        is_low: Callable[[], bool] = lambda: False,
        undecided: Callable[[str], Envelope | None] = lambda command_id: None,
        before_snapshot: Callable[[], Awaitable[None]] | None = None,
        in_hand: Callable[[Sequence[str]], None] = lambda command_ids: None,
        before_append: Callable[[], None] = lambda: None,
    ) -> None:
        self._before_snapshot = before_snapshot
        self.published = table
        self.checks = Checks(table, clock, policy, is_low, undecided)
        self._working = table.twin()
        self._journal = JournalWriter(journal, before_append, in_hand)
        self._next_seq = next_seq
        self._snapshot_at = SNAPSHOT_BYTES
        self._reserved = next_seq  # nothing reserved yet: the first batch does it
        self._inbox = inbox
        self._feed = feed
        self._encoder = encoder
        self._supervisor = supervisor
        self._delete_files = delete_files
        self._clock = clock
        self._listeners: list[ChangeListener] = []
        self._waiters = CommandWaiters(table)
        self._troubles = Recurring(log)

    @property
    def next_seq(self) -> int:
        """The number the next event will get."""
        return self._next_seq

    def connect(self, delete_files: Callable[[DeleteFiles], None]) -> None:
        """Before the first batch: who deletes files. It is made after the owner."""
        self._delete_files = delete_files

    def listen(self, listener: ChangeListener) -> None:
        """`listener` is called with every batch from now on, right after it was published."""
        self._listeners.append(listener)

    async def order(self, report: SetMaintenance | ReportClock) -> None:
        """The report has been decided and what came of it is published."""
        await self._inbox.ask(report)

    async def note_projected(self, seq: int) -> None:
        """It is on record that the files of all that ended by `seq` are synced."""
        record = Record(seq=self._next_seq, at_ms=self._clock.now_ms(), projected=seq)
        await self._journal.note(record)  # without it a start after a crash writes some files again

    async def hold_ballast(self) -> None:
        """The journal's reserve is held again, if there is room for it."""
        await self._journal.hold_ballast()

    async def command_ended(self, command_id: str) -> CommandRecord:
        """See `bus.ports.CommandWaiter`."""
        return await self._waiters.command_ended(command_id)

    async def run(self) -> None:
        """Handles batches for ever; ends only by cancellation, between two batches.

        Raises:
            StorageFailed: the journal could not be synced; the process must restart from disk.
        """
        while True:
            batch = await self._inbox.take()
            # A batch that was begun is finished: its record may already be on disk.
            work = asyncio.ensure_future(self._handle_and_compact(batch))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                raise

    async def _handle_and_compact(self, batch: Sequence[Envelope]) -> None:
        await self.handle(batch)
        if self._journal.bytes_since_snapshot >= self._snapshot_at:
            try:
                await self.snapshot()
                self._snapshot_at = SNAPSHOT_BYTES
            except NoSpace as error:
                log.warning("no room for a snapshot, the journal grows on", error=str(error))
                self._snapshot_at += SNAPSHOT_BYTES

    async def handle(self, batch: Sequence[Envelope]) -> None:
        """The batch is decided, durable, visible and under way when this returns."""
        ids = [envelope.id for envelope in batch if envelope.id]
        await self._journal.note_in_hand(ids)
        decided = await self._decide_with_patience(batch)
        if decided.published:
            if decided.records:
                await self._journal.record(decided.records)
                self._reserved = decided.reserved or self._reserved
            self._publish(decided.published)
            spawned = self._spawned_for(decided.effects)
            await self._journal.note_in_hand([*ids, *spawned] if set(spawned) - set(ids) else [])
            self._act(decided.effects)
            ids += spawned
        if ids:
            self._journal.end_in_hand()
        _answer_reports(batch)

    async def snapshot(self) -> None:
        """The journal begins with a snapshot of the table as it is now; what that covers is
        dropped.

        The table is frozen between two batches; encoding and writing happen on the journal's
        thread, in parts, while nothing is decided (a batch that comes meanwhile waits).
        """
        if self._before_snapshot is not None:
            await self._before_snapshot()  # what it covers may be dropped
        content = self.published.freeze()
        head = SnapshotHead(seq=self._next_seq, at_ms=self._clock.now_ms(), reserved=self._reserved)
        lines = (_encode_part(part) for part in parts_of(content))
        await self._journal.write_snapshot(head, lines)

    def close(self) -> None:
        """Marks the orderly end in the journal; nothing is handled afterwards."""
        self._journal.close(self._next_seq, self._clock.now_ms())

    # -- one batch -------------------------------------------------------------------------------

    async def _decide_with_patience(self, batch: Sequence[Envelope]) -> "_Decided":
        """As `_decide`; without memory it tries again, from the published table: nothing of the
        batch was recorded."""
        first_seq, is_clean = self._next_seq, True
        while True:
            try:
                if not is_clean:
                    self._take_back(first_seq)
                    is_clean = True
                decided = self._decide(batch)
            except MemoryError as error:
                is_clean = False
                self._troubles.say(f"deciding waits: {reason_of(error)}")
                await asyncio.sleep(NO_SPACE_RETRY_S)
            else:
                self._troubles.over("deciding goes on")
                return decided

    def _take_back(self, first_seq: int) -> None:
        """The working table is the published one again."""
        self._working = self.published.twin()
        self._next_seq = first_seq

    def _decide(self, batch: Sequence[Envelope]) -> "_Decided":
        decided = _Decided()
        context = self.checks.context()
        for envelope in batch:
            self._take(envelope, context, decided)
        if decided.published and self._next_seq > self._reserved - RESERVE // 2:
            decided.reserved = self._next_seq + RESERVE
            decided.records.append(
                Record(seq=self._next_seq, at_ms=context.now_ms, reserved=decided.reserved)
            )
        return decided

    def _decision(self, envelope: Envelope, context: Context) -> Decision:
        if envelope.poison:
            why = Refused(ErrorCode.POISON, envelope.poison)
            return refusal(self._working, envelope, why, context)
        try:
            return decide(self._working, envelope, context)
        except Refused as refused:
            return refusal(self._working, envelope, refused, context)

    def _take(self, envelope: Envelope, context: Context, decided: "_Decided") -> None:
        """What is decided of the command, and what the ends in it set going, is one record."""
        first, events = self._next_seq, list[AnyEvent]()
        decision = self._decision(envelope, context)
        for part in with_chains(self._working, envelope.command, decision, context):
            self._number(part, context.now_ms, decided)
            events.extend(part.events)
            decided.effects.extend(part.effects)
        if events and not isinstance(events[0], ExecutionProgress):
            decided.records.append(Record(seq=first, at_ms=context.now_ms, events=tuple(events)))

    def _number(self, decision: Decision, now_ms: int, decided: "_Decided") -> None:
        for event in decision.events:
            published = Published(self._next_seq, now_ms, event)
            self._working.apply(published)
            decided.published.append(published)
            self._next_seq += 1

    def _publish(self, batch: Sequence[Published]) -> None:
        """One synchronous step: the table, the feed, and everybody who waits."""
        frames: list[Frame] = []
        for published in batch:
            self.published.apply(published)
            frame = self._encoder.frame(published, self.published)
            if frame is not None:
                frames.append(frame)
        self._feed.publish(frames, batch[-1].seq)
        for listener in self._listeners:
            listener(batch)
        self._waiters(batch)

    def _spawned_for(self, effects: Sequence[Effect]) -> list[str]:
        """The commands for which something is about to be started."""
        ids = [effect.execution_id for effect in effects if isinstance(effect, SpawnExecution)]
        return [e.command_id for e in map(self.published.execution, ids) if e is not None]

    def _act(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, DeleteFiles):
                self._delete_files(effect)
                continue
            execution = self.published.execution(effect.execution_id)
            if execution is None or execution.is_final:
                continue  # later in the same batch it ended, or was deleted, too
            match effect:
                case SpawnExecution():
                    spec = self.published.spec(execution.job_id, execution.revision)
                    self._supervisor.spawn(execution, spec)
                case StopExecution():
                    self._supervisor.stop(execution)


def _answer_reports(batch: Sequence[Envelope]) -> None:
    """Those who wait for a report of the batch are answered."""
    for envelope in batch:
        if isinstance(envelope, AwaitedReport) and not envelope.done.done():
            envelope.done.set_result(None)


_encode_part = msgspec.json.Encoder().encode


class _Decided:
    """What a batch came to before it is recorded."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.published: list[Published] = []
        self.effects: list[Effect] = []
        self.reserved: int | None = None
