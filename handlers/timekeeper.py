"""Reports to the owner when a deadline in the table has come. Asleep while there is none."""

import asyncio
import math
from collections.abc import Callable, Sequence

from bus.clock import Clock
from bus.commands import PassTime
from bus.events import (
    ExecutionEnded,
    ExecutionQueued,
    ExecutionStarted,
    GroupPaused,
    JobChanged,
    JobPaused,
    JobRemoved,
    Published,
    SystemClock,
    SystemMaintenance,
)
from bus.model import ExecutionStatus
from bus.ports import ReportSink
from handlers.decisions.delays import is_due
from handlers.decisions.table import JobTable
from handlers.decisions.timing import next_deadline_ms

LOOK_S_MAX = 60.0
"""The wall clock may jump: no sleep is longer than this."""

DECIDED_S = 0.1
"""So long a report is on its way through the owner."""


class Timekeeper:
    """A `ChangeListener` that turns the deadlines of queued executions and pauses into reports.

    `_next_ms` is the deadline that `run` sleeps for; `_changed` wakes it for a nearer one.
    """

    def __init__(
        self,
        table: JobTable,
        clock: Clock,
        report: ReportSink,
        is_low: Callable[[], bool] = lambda: False,
    ) -> None:
        self._table = table
        self._is_low = is_low
        self._clock = clock
        self._report = report
        self._changed = asyncio.Event()
        self._next_ms = math.inf

    def __call__(self, batch: Sequence[Published]) -> None:
        for published in batch:
            match published.event:
                case (
                    SystemMaintenance()
                    | SystemClock()
                    | JobPaused()
                    | GroupPaused()
                    | JobChanged()
                    | JobRemoved()
                ):
                    self._changed.set()
                case ExecutionEnded(status=ExecutionStatus.CANCELLED | ExecutionStatus.SKIPPED):
                    self._changed.set()  # slots may have been kept for it
                case ExecutionStarted(execution_id=execution_id):
                    self._look_at_limit(execution_id)
                case ExecutionQueued(expires_ms=expires_ms, not_before_ms=not_before_ms) as queued:
                    self._look_at_limit(queued.execution_id)
                    for due_ms in (expires_ms, not_before_ms):
                        if due_ms is not None and due_ms < self._next_ms:
                            self._changed.set()
                case ExecutionEnded(execution_id=execution_id):
                    ended = self._table.execution(execution_id)
                    self._look_at(ended.job_id if ended is not None else "")
                case JobChanged(job_id=job_id) | JobRemoved(job_id=job_id):
                    self._look_at(job_id)
                case _:
                    continue

    def _look_at(self, job_id: str) -> None:
        """What is due there and waits for its turn may have to be decided about."""
        now_ms, name = self._clock.now_ms(), self._table.name_now(job_id)
        if any(e.not_before_ms and is_due(e, now_ms) for e in self._table.queued(name)):
            self._changed.set()

    def _look_at_limit(self, execution_id: str) -> None:
        """What is over a start limit has a time at which it may go on."""
        execution = self._table.execution(execution_id)
        spec = self._table.spec_of(execution) if execution is not None else None
        if spec is not None and spec.start_limit is not None:
            self._changed.set()

    async def run(self) -> None:
        """Keeps time for ever."""
        while True:
            self._changed.clear()
            wait_s = self._wait_s()
            if wait_s is not None and wait_s <= 0:
                self._report(PassTime())
                await asyncio.sleep(DECIDED_S)
                continue
            try:
                async with asyncio.timeout(None if wait_s is None else min(wait_s, LOOK_S_MAX)):
                    await self._changed.wait()  # a nearer deadline may come meanwhile
            except TimeoutError:
                continue

    def _wait_s(self) -> float | None:
        now_ms = self._clock.now_ms()
        due_ms = next_deadline_ms(self._table, now_ms, is_low=self._is_low())
        self._next_ms = math.inf if due_ms is None else due_ms
        return None if due_ms is None else (due_ms - now_ms) / 1000
