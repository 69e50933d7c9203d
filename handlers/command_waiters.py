"""Those who wait for the end of a command."""

import asyncio
from collections.abc import Sequence

from bus.events import Published
from bus.model import CommandRecord
from bus.ports import TableReader


class CommandWaiters:
    """Implements `bus.ports.CommandWaiter`, and `bus.ports.ChangeListener` for the owner.

    `_waiting` holds the futures of those who wait for a command, by its id; `command_ended` puts
    them in and takes them out.
    """

    def __init__(self, table: TableReader) -> None:
        self._table = table
        self._waiting: dict[str, list[asyncio.Future[CommandRecord]]] = {}

    async def command_ended(self, command_id: str) -> CommandRecord:
        """See `bus.ports.CommandWaiter`."""
        record = self._table.command(command_id)
        if record is not None and record.is_final:
            return record
        future: asyncio.Future[CommandRecord] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(command_id, [])
        waiting.append(future)
        try:
            return await future
        finally:
            waiting.remove(future)
            if not waiting:
                self._waiting.pop(command_id, None)

    def __call__(self, batch: Sequence[Published]) -> None:
        if not self._waiting:
            return
        for published in batch:
            command_id = getattr(published.event, "command_id", None)
            record = self._table.command(command_id) if command_id is not None else None
            if record is None or not record.is_final:
                continue
            for future in self._waiting.get(record.id, ()):
                if not future.done():
                    future.set_result(record)
