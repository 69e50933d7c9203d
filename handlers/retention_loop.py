"""Looks from time to time for records that are more than is kept, and reports them. No table is
changed here; the looking happens in a thread, in slices, on a frozen table."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from bus.clock import Clock
from bus.commands import Forget
from bus.events import CommandEnded, ExecutionEnded, JobChanged, Published, SystemForgotten
from bus.ports import ReportSink
from bus.retention_settings import DAY_MS, RetentionSettings
from bus.threads import READS
from handlers.decisions.retention import Past, to_forget
from handlers.decisions.table import JobTable

LOOK_S = 600.0
"""So often the past is looked at when little happens."""
LOOK_AFTER_ENDS = 1000
"""So many executions and commands may end before the next look."""
PAUSE_S = 1.0
"""Looks are at least so far apart, however much happens."""
TAKEN_S = 30.0
"""So long a batch may take through the owner; then the next look finds it again."""

log = structlog.get_logger("jobbus.retention")


class TrustedClock:
    """Says whether ages can be trusted: the wall clock agrees with the journal and with itself.

    A service that comes back after days sees the same as one whose clock was set wrong by days:
    both wait a day of running, or until the clock has gone back, before anything is too old.
    """

    def __init__(self, clock: Clock, last_ms: int | None) -> None:
        self._clock = clock
        now_ms, now_s = clock.now_ms(), clock.monotonic_s()
        self._wall_ms = now_ms if last_ms is None else last_ms
        self._at_s = now_s
        self._jumped_s: float | None = None

    def believe(self) -> None:
        """The clock is right, says a person."""
        self._wall_ms, self._at_s = self._clock.now_ms(), self._clock.monotonic_s()
        self._jumped_s = None

    def is_trusted(self) -> bool:
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic_s()
        expected_ms = self._wall_ms + (now_s - self._at_s) * 1000
        if abs(now_ms - expected_ms) <= DAY_MS:
            self._jumped_s = None
            return True
        if self._jumped_s is None:
            self._jumped_s = now_s
            log.warning(
                "the clock and the journal differ by more than a day: nothing is too old until they"
                " agree or a day has passed",
                hours=round((now_ms - expected_ms) / 3_600_000),
            )
        if now_s - self._jumped_s < DAY_MS / 1000:
            return False
        self._wall_ms, self._at_s, self._jumped_s = now_ms, now_s, None
        return True


class Retention:
    """Implements `bus.ports.ChangeListener`; `run` looks and reports.

    `waiting_since_ms` says when the oldest command that waits for its turn was submitted;
    `forget_rejects` is called with the time from which on rejected files are kept. `_ended` counts
    ends since the last look; `_turned_s` is when ids were last aged. The listener and `_look` write
    them.
    """

    def __init__(
        self,
        table: JobTable,
        keeping: RetentionSettings,
        clock: Clock,
        trusted: TrustedClock,
        report: ReportSink,
        waiting_since_ms: Callable[[], int | None],
        forget_rejects: Callable[[int], None],
    ) -> None:
        self._table = table
        self._keeping = keeping
        self._clock = clock
        self._trusted = trusted
        self._report = report
        self._waiting_since_ms = waiting_since_ms
        self._forget_rejects = forget_rejects
        self._turned_s = clock.monotonic_s()
        self._ended = 0
        self._looking = asyncio.Lock()
        self._due = asyncio.Event()
        self._taken = asyncio.Event()

    def go_by(self, keeping: RetentionSettings) -> None:
        """The next look keeps so much; it is soon."""
        self._keeping = keeping
        self._due.set()

    def __call__(self, batch: Sequence[Published]) -> None:
        for published in batch:
            if isinstance(published.event, ExecutionEnded | CommandEnded):
                self._ended += 1
            elif isinstance(published.event, JobChanged):
                self._due.set()  # it may keep less by its own definition
            elif isinstance(published.event, SystemForgotten):
                self._taken.set()
                if published.event.turned:
                    self._turned_s = self._clock.monotonic_s()
        if self._ended >= LOOK_AFTER_ENDS:
            self._due.set()

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            await self.look()
            await asyncio.sleep(PAUSE_S)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def look(self) -> int:
        """What is more than kept at this moment is forgotten; how many batches it took."""
        async with self._looking:
            return await self._look()

    async def _look(self) -> int:
        self._ended = 0
        self._due.clear()
        past = Past(
            content=self._table.freeze(),
            id_times_ms=self._table.remembered.times_ms(),
            now_ms=self._clock.now_ms(),
            by_age=self._trusted.is_trusted(),
            waiting_since_ms=self._waiting_since_ms(),
            running_ms=int((self._clock.monotonic_s() - self._turned_s) * 1000),
        )
        if past.by_age:
            self._forget_rejects(past.now_ms - int(self._keeping.reject_days * DAY_MS))
        found = to_forget(past, self._keeping)
        batches = 0
        while (step := await READS.run(next, found, _END)) is not _END:
            if isinstance(step, Forget):
                batches += await self._hand_over(step)
        return batches

    async def _hand_over(self, batch: Forget) -> bool:
        """One batch at a time: other decisions go between two."""
        self._taken.clear()
        self._report(batch)
        try:
            async with asyncio.timeout(TAKEN_S):
                await self._taken.wait()
        except TimeoutError:
            return False  # all of it was gone already, or the owner waits for the disk
        return True


def last_ms(table: JobTable) -> int | None:
    """The time of the last end the table knows of; None if it knows of none.

    Not the latest time: one that a wrong clock gave would be that for years.
    """
    for command in table.commands():
        if command.processed_ms is not None:
            return command.processed_ms
    return None


class _End:
    """What an exhausted plan gives."""


_END = _End()
