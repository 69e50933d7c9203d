"""From the journal on disk to a table and a feed, at start. Blocking; no effects on the outside."""

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from bus.changes import ChangeEncoder
from bus.clock import Clock
from bus.events import GROUP_EVENTS, Published
from bus.feed import AGE_MAX_S, BYTES_MAX, FRAMES_MAX, Feed, Frame
from bus.job_definition import Job
from bus.model import CommandRecord, Execution
from bus.views import GroupView
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import TableContent
from handlers.journal.format import Record
from handlers.journal.journal import Journal
from handlers.journal.replay_salvage import NoTraces, Traces, replay_salvage

HELD_MAX = 100_000
"""Events whose frames may still be wanted; more than these would not fit into the feed anyway."""

_content_decoder = msgspec.json.Decoder(TableContent)


class RecoveredTable(msgspec.Struct, frozen=True):
    """What was read from the journal. `clean` says that the last service ended in order; `last_ms`
    is the time of the last record behind the snapshot, if there is one."""

    journal: Journal
    table: JobTable
    feed: Feed
    encoder: ChangeEncoder
    epoch: str
    next_seq: int
    clean: bool
    continuous: bool
    projected: int
    notes: tuple[str, ...]
    last_ms: int | None = None


class RecoveryListener(Protocol):
    """A part that takes the events of a recovery, too."""

    def begin(self, table: JobTable) -> None:
        """This is the table before the first of them."""
        ...

    def see(self, published: Published) -> None:
        """The event has been applied."""
        ...


def recover(
    directory: Path,
    instance: str,
    clock: Clock,
    witness: RecoveryListener | None = None,
    traces: Traces | None = None,
    *,
    is_copy: bool = False,
) -> RecoveredTable:
    """Replays the journal into a table and refills the feed with the newest changes.

    What can be read behind damage, and what `traces` show of the rest, is replayed and recorded.

    Of a copy of another journal a new epoch begins, even if its files do not show it.

    Raises:
        NoSpace, StorageFailed: what was replayed could not be recorded.
    """
    found = Journal.open(directory, now_ms=clock.now_ms(), is_copy=is_copy)
    table = JobTable()
    if found.snapshot is not None:
        table = JobTable.thaw([_content_decoder.decode(line) for line in found.snapshot])
    encoder = ChangeEncoder(instance, found.epoch)
    tail = _Tail(table, clock.now_ms() - int(AGE_MAX_S * 1000), found.snapshot_seq)
    if witness is not None:
        witness.begin(table)

    def take(published: Published, was_seq: int) -> None:
        tail.take(published)
        if witness is not None:
            was = published.seq == was_seq
            witness.see(published if was else Published(was_seq, published.at_ms, published.event))

    last_ms: int | None = None
    for record in found.records:
        last_ms = record.at_ms
        for published in _events_of(record):
            take(published, published.seq)
    next_seq, notes = found.next_seq, found.notes
    if not found.continuous or found.salvaged.salvage or next_seq == 1:
        next_seq, count = replay_salvage(found, table, take, clock.now_ms(), traces or NoTraces())
        if count:
            source = "of a lost journal, in files," if found.next_seq == 1 else "behind the damage"
            notes = (*notes, f"{count} decisions {source} were replayed")
    feed = Feed(found.epoch, next_seq - 1, clock)
    feed.refill(*tail.frames(encoder))
    return RecoveredTable(
        journal=found.journal,
        table=table,
        feed=feed,
        encoder=encoder,
        epoch=found.epoch,
        next_seq=next_seq,
        clean=found.clean,
        continuous=found.continuous,
        projected=found.projected,
        notes=notes,
        last_ms=last_ms,
    )


class _Then(msgspec.Struct, frozen=True):
    """An event and the record it changed, as that was then: enough to make its frame later."""

    published: Published
    of_execution: Execution | None
    of_command: CommandRecord | None
    of_job: Job | None
    waiting: str
    of_group: GroupView | None

    def execution(self, execution_id: str) -> Execution | None:
        return self.of_execution

    def command(self, command_id: str) -> CommandRecord | None:
        return self.of_command

    def job(self, job_id: str) -> Job | None:
        return self.of_job

    def waiting_for(self, execution: Execution, now_ms: int) -> str:
        return self.waiting

    def group_view(self, name: str) -> GroupView | None:
        return self.of_group


class _Tail:
    """Folds events into the table and remembers the newest, for the feed.

    Frames are made at the end and only of those: encoding all would be most of a start.
    """

    def __init__(self, table: JobTable, since_ms: int, snapshot_seq: int) -> None:
        self._table = table
        self._since_ms = since_ms
        self._floor = max(0, snapshot_seq - 1)
        self._held: deque[_Then] = deque()

    def take(self, published: Published) -> None:
        table, held, event = self._table, self._held, published.event
        table.apply(published)
        execution = table.execution(getattr(event, "execution_id", None) or "")
        held.append(
            _Then(
                published,
                execution,
                table.command(getattr(event, "command_id", None) or ""),
                table.job(getattr(event, "job_id", None) or ""),
                table.waiting_for(execution, published.at_ms) if execution is not None else "",
                table.group_view(event.name) if isinstance(event, GROUP_EVENTS) else None,
            )
        )
        while len(held) > FRAMES_MAX and (
            held[0].published.at_ms < self._since_ms or len(held) > HELD_MAX
        ):
            self._floor = held.popleft().published.seq

    def frames(self, encoder: ChangeEncoder) -> tuple[list[Frame], int]:
        """The newest frames that the feed can hold, and the number up to which they are missing."""
        frames: list[Frame] = []
        size, floor = 0, self._floor
        for then in reversed(self._held):
            frame = encoder.frame(then.published, then)
            if frame is None:
                continue
            size += frame.size_bytes
            if size > BYTES_MAX:
                floor = frame.seq
                break
            frames.append(frame)
        frames.reverse()
        return frames, floor


def _events_of(record: Record) -> Iterable[Published]:
    for offset, event in enumerate(record.events):
        yield Published(record.seq + offset, record.at_ms, event)
