"""Tells the owner when a deadline in the table has come. One task, asleep while there is none."""

import asyncio
from collections.abc import Sequence

from bus.clock import Clock
from bus.commands import PassTime
from bus.events import ExecutionQueued, Published, SystemMaintenance
from bus.ports import ReportSink
from handlers.decisions.table import JobTable
from handlers.decisions.timing import next_deadline_ms

LOOK_S_MAX = 60.0
"""The wall clock may jump: no sleep is longer than this."""


class Timekeeper:
    """A `ChangeListener` that turns the deadlines of queued executions into reports."""

    def __init__(self, table: JobTable, clock: Clock, report: ReportSink) -> None:
        self._table = table
        self._clock = clock
        self._report = report
        self._changed = asyncio.Event()

    def __call__(self, batch: Sequence[Published]) -> None:
        if any(
            isinstance(p.event, SystemMaintenance)
            or (
                isinstance(p.event, ExecutionQueued)
                and (p.event.expires_ms is not None or p.event.not_before_ms is not None)
            )
            for p in batch
        ):
            self._changed.set()

    async def run(self) -> None:
        """Keeps time for ever."""
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            while (wait_s := self._wait_s()) is not None:
                if wait_s <= 0:
                    self._report(PassTime())
                    wait_s = 0.1  # the decision is on its way through the owner
                await asyncio.sleep(min(wait_s, LOOK_S_MAX))

    def _wait_s(self) -> float | None:
        now_ms = self._clock.now_ms()
        due_ms = next_deadline_ms(self._table, now_ms)
        return None if due_ms is None else (due_ms - now_ms) / 1000
