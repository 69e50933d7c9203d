"""How commands reach the owner: one bounded inbox with two lanes, filled by pumps.

Stops, cancels and reports of the service's own parts go ahead of everything else, so that no stop
waits behind starts. Within a lane the principals take turns.
"""

import asyncio
from collections.abc import Iterable

from bus.clock import Clock
from bus.commands import Report, is_urgent
from bus.envelope import SYSTEM, Envelope, weight_of
from bus.fair_queue import FairQueue
from bus.transport import Transport

INBOX_MAX = 1024
"""Commands that wait in memory; the rest waits in the transport, where it is durable."""

INBOX_BYTES_MAX = 32 * 1024 * 1024
"""The same in bytes: a thousand of the largest commands would be a gigabyte."""

BATCH_MAX = 256


class AwaitedReport(Envelope, frozen=True, kw_only=True):
    """A report whose sender waits; the owner sets `done` once what came of it is published."""

    done: asyncio.Future[None]


class Inbox:
    """What waits for the owner. One consumer; lives in the event loop.

    `_urgent` and `_normal` are the lanes: `put`, `report` and `ask` fill them, `take` empties them.
    `_bytes` is the weight of the commands in both. `_filled` wakes the owner, `_drained` the pumps.

    Reports are not counted against the bound: there are at most a few per live execution, and
    refusing one would lose a fact.
    """

    def __init__(self, clock: Clock, size_max: int = INBOX_MAX) -> None:
        self._clock = clock
        self._size_max = size_max
        self._bytes = 0
        self._urgent: FairQueue[Envelope] = FairQueue()
        self._normal: FairQueue[Envelope] = FairQueue()
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._normal)

    def report(self, report: Report) -> None:
        """Takes what a part of the service saw; implements `bus.ports.ReportSink`."""
        self._take_report(
            Envelope(id="", command=report, principal=SYSTEM, submitted_ms=self._clock.now_ms())
        )

    def ask(self, report: Report) -> asyncio.Future[None]:
        """Takes a report; the future is done once it was decided and what came of it is
        published."""
        envelope = AwaitedReport(
            id="",
            command=report,
            principal=SYSTEM,
            submitted_ms=self._clock.now_ms(),
            done=asyncio.get_running_loop().create_future(),
        )
        self._take_report(envelope)
        return envelope.done

    def add(self, envelope: Envelope) -> None:
        """The same as `put` for one."""
        self.put([envelope])

    def put(self, envelopes: Iterable[Envelope]) -> None:
        """Takes commands; the caller has waited for `room`."""
        for envelope in envelopes:
            lane = self._urgent if is_urgent(envelope.command) else self._normal
            lane.append(envelope.principal.user_id, envelope)
            self._bytes += weight_of(envelope)
        if not self._has_room:
            self._drained.clear()
        self._filled.set()

    async def room(self) -> int:
        """How many commands may be put now; waits until there is room for one."""
        await self._drained.wait()
        return max(1, self._size_max - len(self._normal))

    async def take(self, limit: int = BATCH_MAX) -> list[Envelope]:
        """The next batch in order, urgent ones first; waits for the first."""
        while not (self._urgent or self._normal):
            self._filled.clear()
            await self._filled.wait()
        batch: list[Envelope] = []
        for lane in (self._urgent, self._normal):
            while lane and len(batch) < limit:
                batch.append(lane.take())
        self._bytes -= sum(weight_of(each) for each in batch if each.id)  # reports have no id
        if self._has_room:
            self._drained.set()
        return batch

    def _take_report(self, envelope: Envelope) -> None:
        self._urgent.append(SYSTEM.user_id, envelope)
        self._filled.set()

    @property
    def _has_room(self) -> bool:
        return len(self._normal) < self._size_max and self._bytes < INBOX_BYTES_MAX


async def pump(transport: Transport, inbox: Inbox) -> None:
    """Moves commands from a transport into the inbox for ever."""
    while True:
        room = await inbox.room()
        inbox.put(await transport.receive(min(room, BATCH_MAX)))
