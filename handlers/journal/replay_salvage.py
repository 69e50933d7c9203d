"""Puts on record again what can be read behind damage in the journal. Blocking, at start.

The numbers are new: what stood between is not known. After a death in here the next start does the
same, since the salvage stays until all of it is synced; what the table has by then is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from bus.events import AnyEvent, Published
from bus.model import CommandRecord, Execution
from bus.ports import TableReader
from handlers.decisions.table import JobTable
from handlers.journal.format import Record
from handlers.journal.journal import Journal, Recovered
from handlers.journal.repair.facts import facts_of
from handlers.journal.repair.fitting import fitting, stranded, without_trace

WRITE_MAX = 500
"""Decisions that are synced with one write."""

Take = Callable[[Published, int], None]
"""Takes an event under its new number in; with the number that it had before."""


class Traces(Protocol):
    """What is left on disk beside the journal."""

    def of(self, execution: Execution, command: CommandRecord | None) -> bool:
        """Whether there is anything of this execution, which `command` asked for."""
        ...

    def records(self, table: TableReader) -> Iterable[CommandRecord | Execution]:
        """Commands and executions that files hold and the table lacks."""
        ...


class NoTraces:
    """No files were looked at: what the journal takes for live may be so."""

    def of(self, execution: Execution, command: CommandRecord | None) -> bool:
        return True

    def records(self, table: TableReader) -> Iterable[CommandRecord | Execution]:
        return ()


def replay_salvage(
    found: Recovered, table: JobTable, take: Take, now_ms: int, traces: Traces
) -> tuple[int, int]:
    """The table has all that can be known, and so has the journal.

    Gives the next number, and how many decisions were replayed.

    Raises:
        NoSpace, StorageFailed: not all of it could be recorded; the next start tries again.
    """
    salvage = _Salvage(found.journal, found.next_seq, take)
    for record in found.salvaged:
        salvage.record(record.at_ms, _fitting(table, record))
    for lacking in traces.records(table):
        salvage.record(_when(lacking), _fitting_facts(table, lacking))
    replayed = salvage.count
    salvage.record(now_ms, ((None, e) for e in without_trace(table, traces.of, now_ms)))
    salvage.record(now_ms, ((None, e) for e in stranded(table)))
    salvage.sync()
    found.journal.close_salvage()
    return salvage.next_seq, replayed


def _fitting(table: JobTable, record: Record) -> Iterator[tuple[int | None, AnyEvent]]:
    for offset, event in enumerate(record.events):
        for fits in fitting(table, event, record.at_ms):
            yield record.seq + offset, fits


def _fitting_facts(
    table: JobTable, record: CommandRecord | Execution
) -> Iterator[tuple[int | None, AnyEvent]]:
    """As above. Their numbers are lost; 0 makes them the oldest, so that the audit writes none
    twice."""
    for fact in facts_of(record):
        for fits in fitting(table, fact, _when(record)):
            yield 0, fits


def _when(record: CommandRecord | Execution) -> int:
    if isinstance(record, Execution):
        return record.queued_ms
    return record.processed_ms or record.submitted_ms


class _Salvage:
    """Numbers, applies and writes; each event is applied before the next is asked for."""

    def __init__(self, journal: Journal, next_seq: int, take: Take) -> None:
        self.next_seq = next_seq
        self.count = 0
        self._journal = journal
        self._take = take
        self._waiting: list[Record] = []

    def record(self, at_ms: int, events: Iterable[tuple[int | None, AnyEvent]]) -> None:
        taken: list[AnyEvent] = []
        for before, event in events:
            seq = self.next_seq + len(taken)
            self._take(Published(seq, at_ms, event), seq if before is None else before)
            taken.append(event)
        if not taken:
            return
        self._waiting.append(Record(seq=self.next_seq, at_ms=at_ms, events=tuple(taken)))
        self.next_seq += len(taken)
        self.count += 1
        if len(self._waiting) >= WRITE_MAX:
            self.sync()

    def sync(self) -> None:
        self._journal.append(self._waiting)
        self._waiting = []
