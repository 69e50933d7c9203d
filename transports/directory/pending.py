"""What waits in the queue directory, as small entries in memory. No IO; lives in the event loop.

The directory is listed when it may have changed, never for a message: everything here costs the
same with ten files waiting and with a hundred thousand.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum, auto

import msgspec

from bus.envelope import Envelope
from bus.fair_queue import FairQueue

CACHED_MAX = 2048
"""Commands kept whole in memory; the others are read again when their turn comes."""
CACHED_BYTES_MAX = 32 * 1024 * 1024
"""The same in bytes."""
TAKEN_BYTES_MAX = 8 * 1024 * 1024
"""So much is read for one batch that is received, and one command more."""
SEALED_AGO_MS = 60_000
"""Our own commands are accepted within that time after they were submitted."""
FOREIGN_SHARE = 32
"""After so many of ours in a row a foreign file goes first: neither waits for all of the other."""


class State(Enum):
    """Where a command stands between the disk and the owner."""

    COMMITTING = auto()
    WAITING = auto()
    HANDED = auto()
    DONE = auto()


class Entry(msgspec.Struct, eq=False):
    """One command id in the queue. `order_ns` is when it was accepted or, if foreign, arrived.

    `ours`: sealed by this instance; `local`: published by this process, for `owner`. `size` is
    about what its command takes in memory. `envelope` is the command, while it is being committed
    and as long as there is room for it in memory. `publishers` wait for the end of the commit, each
    by a future of its own: when one of them gives up, the commit and its repeats go on.
    """

    id: str
    name: str
    order_ns: int
    state: State = State.WAITING
    urgent: bool = False
    ours: bool = True
    local: bool = False
    owner: str = ""
    size: int = 0
    envelope: Envelope | None = None
    publishers: list["asyncio.Future[None]"] = []
    more_names: tuple[str, ...] = ()


class Pending:
    """What lies in the queue, by id, and what waits, in three lanes: urgent, ours, foreign. Within
    a lane each owner has a turn after the other, as far as they are known.

    `_entries` has every entry, `_odd_names` the names that are not spelled as their id, `_urgent`,
    `_ours` and `_foreign` the entries that wait; `_cached` and `_cached_bytes` count the commands
    that these keep in memory. `local`, `local_bytes` and `local_of` (by owner) count the entries
    published by this process that are committed or wait. All of it is written here alone: `add`
    makes an entry known, `enqueue`, `take` and `put_back` move it, `drop` forgets it. The transport
    raises `last_order_ns` at the start, and sets `held` while foreign files have to wait.

    `_in_a_row`: how many of ours were taken since the last foreign one. `_submitted_ms`: the
    earliest submission among foreign commands received before and since the last question for it.
    `arrived` is set by what adds to a lane and cleared by the receiver when all are empty.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._odd_names: dict[str, str] = {}
        self._urgent: FairQueue[Entry] = FairQueue()
        self._ours: FairQueue[Entry] = FairQueue()
        self._foreign: FairQueue[Entry] = FairQueue()
        self._cached = 0
        self._cached_bytes = 0
        self._in_a_row = 0
        self.last_order_ns = 0
        self.local = 0
        self.local_bytes = 0
        self.local_of: Counter[str] = Counter()
        self.held = False
        self._submitted_ms: list[int | None] = [None, None]
        self.arrived = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._urgent) + len(self._ours) + len(self._foreign)

    @property
    def oldest_ns(self) -> int | None:
        """When the first of those that wait was accepted."""
        lanes = (self._urgent, self._ours, self._foreign)
        return min((head.order_ns for lane in lanes for head in lane.heads()), default=None)

    def note_submitted(self, submitted_ms: int) -> None:
        """A foreign command that was submitted then begins to wait."""
        known_ms = self._submitted_ms[-1]
        self._submitted_ms[-1] = submitted_ms if known_ms is None else min(known_ms, submitted_ms)

    def waiting_since_ms(self) -> int | None:
        """No command that waits, or was received since the last question, was submitted before.

        None if there is none. Rather too early than too late: other writers say what they like, so
        their time moves on only when none of their commands waits.
        """
        known = [ms for ms in self._submitted_ms if ms is not None]
        known += [
            head.order_ns // 1_000_000 - SEALED_AGO_MS
            for lane in (self._urgent, self._ours)
            for head in lane.heads()
        ]
        if not self._foreign:
            self._submitted_ms = [self._submitted_ms[-1], None]
        return min(known, default=None)

    def __contains__(self, name: object) -> bool:
        """Whether this file name is accounted for."""
        if not isinstance(name, str):
            return False
        entry = self._entries.get(name[:-5])
        return (entry is not None and entry.name == name) or name in self._odd_names

    def get(self, command_id: str) -> Entry | None:
        return self._entries.get(command_id)

    def is_committing(self) -> bool:
        """Whether there are commands of which it is open whether they are accepted."""
        return any(entry.state is State.COMMITTING for entry in self._entries.values())

    def handed(self) -> Iterator[str]:
        """The ids that were received and not settled."""
        return (entry.id for entry in self._entries.values() if entry.state is State.HANDED)

    def next_order_ns(self, now_ns: int) -> int:
        """A number larger than all given before, near the wall clock where that allows it."""
        self.last_order_ns = max(self.last_order_ns + 1, now_ns)
        return self.last_order_ns

    def add(self, entry: Entry) -> None:
        """The id is accounted for; it is received only after `enqueue`."""
        assert entry.id not in self._entries
        self._entries[entry.id] = entry
        if entry.state is State.COMMITTING:
            self._count(entry, 1)
        self._note_name(entry.name, entry.id)
        self.last_order_ns = max(self.last_order_ns, entry.order_ns)

    def add_name(self, entry: Entry, name: str) -> None:
        """The same command lies here under a second spelling of its name."""
        entry.more_names = (*entry.more_names, name)
        self._note_name(name, entry.id)

    def drop(self, entry: Entry) -> None:
        """The id is forgotten, as if its file had never been seen."""
        if entry.state is State.COMMITTING:
            self._count(entry, -1)
        entry.state = State.DONE
        del self._entries[entry.id]
        for name in (entry.name, *entry.more_names):
            self._odd_names.pop(name, None)

    def enqueue(self, entry: Entry) -> None:
        """The entry waits, behind all others of its lane."""
        if entry.state is not State.COMMITTING:
            self._count(entry, 1)
        entry.state = State.WAITING
        if entry.envelope is not None:
            if self._cached < CACHED_MAX and self._cached_bytes < CACHED_BYTES_MAX:
                self._count_cached(entry, 1)
            else:
                entry.envelope = None
        self._lane(entry).append(entry.owner, entry)
        self.arrived.set()

    def take(self, limit: int) -> list[Entry]:
        """The next entries in order, at most `limit`; they are `HANDED`."""
        taken: list[Entry] = []
        size = 0
        while len(taken) < limit and size < TAKEN_BYTES_MAX:
            lane = self._next_lane()
            if not lane:
                break
            entry = lane.take()
            entry.state = State.HANDED
            self._count(entry, -1)
            if entry.envelope is not None:
                self._count_cached(entry, -1)
            size += entry.size
            taken.append(entry)
        return taken

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Entries that were taken but not passed on wait again, before all others."""
        for entry in reversed(list(entries)):
            if entry.state is State.HANDED:
                entry.state = State.WAITING
                self._count(entry, 1)
                if entry.envelope is not None:
                    self._count_cached(entry, 1)
                self._lane(entry).put_back(entry.owner, entry)
                self.arrived.set()

    def _count(self, entry: Entry, by: int) -> None:
        if entry.local:
            self.local += by
            self.local_bytes += by * entry.size
            self.local_of[entry.owner] += by
            if not self.local_of[entry.owner]:
                del self.local_of[entry.owner]

    def _count_cached(self, entry: Entry, by: int) -> None:
        self._cached += by
        self._cached_bytes += by * entry.size

    def _next_lane(self) -> FairQueue[Entry]:
        if self._urgent:
            return self._urgent
        if self._foreign and not self.held and (not self._ours or self._in_a_row >= FOREIGN_SHARE):
            self._in_a_row = 0
            return self._foreign
        self._in_a_row += 1
        return self._ours

    def _lane(self, entry: Entry) -> FairQueue[Entry]:
        if entry.urgent:
            return self._urgent
        return self._ours if entry.ours else self._foreign

    def _note_name(self, name: str, command_id: str) -> None:
        if name[:-5] != command_id:
            self._odd_names[name] = command_id
