"""The one way in for publishers inside the process: checked, deduplicated, then made durable."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from bus.envelope import Envelope
from bus.errors import BusError, IdInUse, Refused
from bus.ports import Checker, Receipt, TableReader
from bus.transport import Transport

_RECENT_MAX = 20_000
_SLICE = 50
"""Commands of a batch that are checked before others may run."""


class Publisher:
    """Implements `bus.ports.Door` over a transport. `refused` hears of what came to nothing."""

    def __init__(
        self,
        transport: Transport,
        checker: Checker,
        table: TableReader,
        refused: Callable[[Envelope, BusError], None] = lambda envelope, error: None,
    ) -> None:
        self._refused = refused
        self._transport = transport
        self._checker = checker
        self._table = table
        # Ids on their way from here to the table; whoever falls out is known there long since.
        self._recent: OrderedDict[str, tuple[str, str]] = OrderedDict()

    async def publish(self, envelope: Envelope) -> Receipt:
        try:
            return await self._publish(envelope)
        except (Refused, IdInUse) as error:
            self._refused(envelope, error)
            raise

    async def _publish(self, envelope: Envelope) -> Receipt:
        identity = (envelope.body_hash, envelope.principal.user_id)
        known = self._known(envelope.id)
        if known is None:
            self._checker.check(envelope)
            self._recent[envelope.id] = identity
            if len(self._recent) > _RECENT_MAX:
                self._recent.popitem(last=False)
        elif known != identity:
            raise IdInUse(
                f"the command id {envelope.id} stands for another command",
                same_principal=known[1] == identity[1],
            )
        elif self._is_handled(envelope.id):
            return Receipt(command_id=envelope.id, replayed=True)
        try:
            await self._transport.publish(envelope)
        except BaseException:
            if known is None:
                self._recent.pop(envelope.id, None)
            raise
        return Receipt(command_id=envelope.id, replayed=known is not None)

    async def publish_many(self, envelopes: Sequence[Envelope]) -> list[Receipt | BusError]:
        """See `bus.ports.Door`: side by side, so that the transport can commit them together."""
        tasks: list[asyncio.Task[Receipt | BusError]] = []
        async with asyncio.TaskGroup() as group:
            for envelope in envelopes:
                name = f"publish {envelope.id}"
                tasks.append(group.create_task(self._receipt_or_error(envelope), name=name))
                if len(tasks) % _SLICE == 0:
                    await asyncio.sleep(0)
        return [task.result() for task in tasks]

    async def _receipt_or_error(self, envelope: Envelope) -> Receipt | BusError:
        try:
            return await self.publish(envelope)
        except BusError as error:
            return error

    def _known(self, command_id: str) -> tuple[str, str] | None:
        record = self._table.command(command_id) or self._table.forgotten(command_id)
        if record is not None:
            return record.body_hash, record.user_id
        return self._recent.get(command_id)

    def _is_handled(self, command_id: str) -> bool:
        table = self._table
        return (table.command(command_id) or table.forgotten(command_id)) is not None
