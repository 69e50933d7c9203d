"""The one way in for publishers inside the process: checked, deduplicated, then made durable."""

from collections import OrderedDict

from bus.envelope import Envelope
from bus.errors import IdInUse
from bus.ports import Checker, Receipt, TableReader
from bus.transport import Transport

_RECENT_MAX = 20_000


class Publisher:
    """Implements `bus.ports.Door` over a transport."""

    def __init__(self, transport: Transport, checker: Checker, table: TableReader) -> None:
        self._transport = transport
        self._checker = checker
        self._table = table
        # Ids on their way from here to the table; whoever falls out is known there long since.
        self._recent: OrderedDict[str, tuple[str, str]] = OrderedDict()

    async def publish(self, envelope: Envelope) -> Receipt:
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
        elif self._table.command(envelope.id) is not None:
            return Receipt(command_id=envelope.id, replayed=True)
        try:
            await self._transport.publish(envelope)
        except BaseException:
            if known is None:
                self._recent.pop(envelope.id, None)
            raise
        return Receipt(command_id=envelope.id, replayed=known is not None)

    def _known(self, command_id: str) -> tuple[str, str] | None:
        record = self._table.command(command_id)
        if record is not None:
            return record.body_hash, record.user_id
        return self._recent.get(command_id)
