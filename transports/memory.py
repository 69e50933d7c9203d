"""A transport without a disk, for tests and for embedding: what it holds dies with the process."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from bus.clock import Clock
from bus.commands import is_urgent
from bus.envelope import Envelope, Identity, check_same, identity_of
from bus.errors import TransportBusy
from bus.fair_queue import FairQueue
from bus.model import CommandRecord

INBOX_MAX = 10_000


class MemoryTransport:
    """Implements `bus.transport.Transport`. Lives in one event loop; there is one receiver.

    `_urgent` and `_normal` have what waits, `_unsettled` the identities of all that was accepted
    and not settled: `publish` adds to both, `receive` takes from the lanes, `settle` from the rest.
    `_last_ns` is the number of the last acceptance.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        known: Callable[[str], CommandRecord | None],
        inbox_max: int = INBOX_MAX,
    ) -> None:
        self._clock = clock
        self._known = known
        self._inbox_max = inbox_max
        self._urgent: FairQueue[Envelope] = FairQueue()
        self._normal: FairQueue[Envelope] = FairQueue()
        self._unsettled: dict[str, Identity] = {}
        self._arrived = asyncio.Event()
        self._closed = asyncio.Event()
        self._last_ns = 0

    @property
    def waiting(self) -> int:
        """Commands that were not received yet."""
        return len(self._urgent) + len(self._normal)

    @property
    def oldest_age_s(self) -> float:
        """How long the first of them has waited; 0 if none waits."""
        heads = (each.accepted_ns for lane in (self._urgent, self._normal) for each in lane.heads())
        oldest_ns = min(heads, default=None)
        return max(0.0, self._clock.now_ms() / 1000 - oldest_ns / 1e9) if oldest_ns else 0.0

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Nothing to do but to end with `aclose`, as other transports do."""
        if ready is not None:
            ready.set()
        await self._closed.wait()

    async def publish(self, envelope: Envelope) -> None:
        """See `bus.transport.Transport.publish`."""
        if self._closed.is_set():
            raise TransportBusy("shutting down; nothing is accepted")
        if self._is_repeat(envelope):
            return
        urgent = is_urgent(envelope.command)
        if self.waiting >= self._inbox_max * (2 if urgent else 1):
            raise TransportBusy(f"{self.waiting} commands wait already; try again later")
        self._last_ns = max(self._last_ns + 1, self._clock.now_ms() * 1_000_000)
        numbered = msgspec.structs.replace(envelope, accepted_ns=self._last_ns)
        self._unsettled[envelope.id] = identity_of(envelope)
        lane = self._urgent if urgent else self._normal
        lane.append(envelope.principal.user_id, numbered)
        self._arrived.set()

    def holds(self, command_id: str) -> bool:
        """See `bus.transport.Transport.holds`."""
        return command_id in self._unsettled

    async def receive(self, limit: int) -> Sequence[Envelope]:
        """See `bus.transport.Transport.receive`."""
        while not self.waiting:
            self._arrived.clear()
            await self._arrived.wait()
        batch: list[Envelope] = []
        for lane in (self._urgent, self._normal):
            while lane and len(batch) < limit:
                batch.append(lane.take())
        return batch

    def settle(self, command_id: str) -> None:
        """See `bus.transport.Transport.settle`."""
        self._unsettled.pop(command_id, None)

    async def aclose(self) -> None:
        """See `bus.transport.Transport.aclose`."""
        self._closed.set()

    def _is_repeat(self, envelope: Envelope) -> bool:
        known = self._unsettled.get(envelope.id)
        if known is None:
            record = self._known(envelope.id)
            if record is None:
                return False
            known = identity_of(record)
        check_same(envelope, known)
        return True
