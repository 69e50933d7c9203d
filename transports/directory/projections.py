"""What people and foreign readers find in files of the job table: status files and result files.

The journal is the truth; these are written behind it, whole (tmp and rename), not synced, and again
after an unclean stop. For one command always in this order: status file, result file, queue file.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import structlog

from bus.clock import Clock
from bus.events import COMMAND_EVENTS, EXECUTION_EVENTS, CommandEnded, Published
from bus.layout import DataLayout
from bus.ports import TableReader
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from transports.directory import disk, results
from transports.directory.changed_records import BATCH_MAX, Batch, ChangedRecords
from transports.directory.orphans import sweep

Record = TypeVar("Record")

log = structlog.get_logger("jobbus.directory")

RETRY_S = 2.0


class Projections:
    """Implements `bus.ports.ChangeListener`; `run` writes. Lives in the event loop.

    Each file has one writer: `rewrite` before `run` runs, and `run` from then on.

    `settle` is called when the files of a command are there, `settle_own` when its result found no
    room: it comes later, and what it holds in the queue may be needed for other stops.

    `_changed` has the ids of what has to be written; the listener, `forget` and `doubt_past` add to
    it, `run` takes from it and gives back what could not be written. `_seen` is the number of the
    last change that was noted; only the listener writes it. `_writing` is the batch that `run` has
    in hand. `_owed` are the ids that a `sync` under way waits for: `sync` fills it, `run` and
    `forget` empty it and set `_paid` then. `_sync_failed` is set, for ever, by a sync that failed.

    `_news` wakes `run`; everything that notes a change sets it. `_idle` is set by `run` while all
    that was noted is written, and cleared by what notes. `_lags` says that some files found no room
    at the last try; `run` writes it, and `drain` clears it to wait for the next try. `run` sets
    `_turned` after each try. `_hurry` is set while `drain` waits: no file waits for its interval.
    """

    def __init__(
        self,
        layout: DataLayout,
        table: TableReader,
        clock: Clock,
        settle: Callable[[str], None],
        settle_own: Callable[[str], None] = lambda command_id: None,
    ) -> None:
        self._settle_own = settle_own
        self._layout = layout
        self._table = table
        self._clock = clock
        self._settle = settle
        self._changed = ChangedRecords(table)
        self._troubles = Recurring(log)
        self._seen = 0
        self._sync_failed = False
        self._writing = Batch()
        self._owed: set[str] = set()
        self._paid = asyncio.Event()
        self._news = asyncio.Event()
        self._lags = False
        self._turned = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = False

    def __call__(self, batch: Sequence[Published]) -> None:
        """Notes what the batch changed."""
        self._seen = batch[-1].seq
        for published in batch:
            event = published.event
            if isinstance(event, EXECUTION_EVENTS):
                self._note_execution(event.execution_id)
            elif isinstance(event, COMMAND_EVENTS) and isinstance(event, CommandEnded):
                self._note_command(event.command_id)

    def forget(
        self, execution_ids: Sequence[str], command_ids: Sequence[str], spellings: Sequence[str]
    ) -> None:
        """The files of these will be removed; `spellings` are what the result files are called."""
        self._idle.clear()
        self._changed.forget(execution_ids, command_ids, spellings)
        for command_id in command_ids:
            self._settle(command_id)
        self._pay((*execution_ids, *command_ids))
        self._news.set()

    async def sweep(self, since_ms: int, keep_s: float) -> int:
        """Files whose records are gone are removed; how many there were.

        Those from before `since_ms` stay: the table may lack their records. So do, for `keep_s`,
        results that the table never had (of refused files), and what is not called like ours.
        """
        until_ms = self._clock.now_ms() - int(keep_s * 1000)
        return await DISK.run(sweep, self._layout, self._table, since_ms, until_ms)

    async def run(self) -> None:
        """Writes what was noted, until it is cancelled."""
        while True:
            batch = self._changed.take(self._clock.monotonic_s(), hurry=self._hurry)
            if batch is None:
                await self._wait()
                continue
            self._writing = batch
            try:
                without = await DISK.run(self._write, batch)
            except OSError as error:
                self._troubles.say(f"status and result files lag behind: {reason_of(error)}")
                self._changed.note_again(batch)
                await asyncio.sleep(RETRY_S)
                continue
            except BaseException:  # also a cancellation: the files would never be written
                self._changed.note_again(batch)
                raise
            self._troubles.over("status and result files are written again")
            self._written(batch.without(without))
            if without:
                self._changed.note_again(batch.only(without))
                for command_id in without:
                    self._settle_own(command_id)
            self._log_lag(lags=bool(without))
            if without:
                await asyncio.sleep(RETRY_S)

    async def rewrite(self, synced: int = -1) -> None:
        """Every record of the table has its file; what ended is settled.

        For the start after an unclean stop: the files were not synced, but for those of what ended
        by the number `synced`. A file that has the right content is left alone. What a death in
        the middle of a file left is gone. What finds no room is left to `run`.
        """
        await DISK.run(self._sweep)
        executions = [e for e in self._table.executions() if e.version > synced or not e.is_final]
        for chunk in _chunks(executions):
            batch = Batch(past_executions=tuple(chunk))
            for execution_id in await DISK.run(self._write, batch):
                self._note_execution(execution_id)
        commands = [c for c in self._table.commands() if c.version > synced and c.is_final]
        for ended in _chunks(commands):
            without = await DISK.run(self._write, Batch(past_commands=tuple(ended)))
            for command in ended:
                if command.id in without:
                    self._note_command(command.id)
                else:
                    self._settle(command.id)

    @property
    def seen(self) -> int:
        """The number of the last change that was noted."""
        return self._seen

    def doubt_past(self) -> None:
        """`run` compares the files of all that has ended, a few beside each batch of changes."""
        self._changed.note_past(e.id for e in self._table.executions() if e.is_final)
        self._changed.note_past(c.id for c in self._table.commands() if c.is_final)
        self._note_news()

    async def sync(self) -> int | None:
        """The files of everything that has ended by now survive a power cut; the number of the last
        such end, to be given to `rewrite` after an unclean stop. None if that cannot be known.

        `run` must run; waits for a disk that refuses.
        """
        if self._sync_failed:
            return None  # a second try would report success for what the first one lost
        seen, writing = self._seen, self._writing
        self._owed = self._changed.to_be_written()
        self._owed.update(writing.ids)
        while self._owed:
            self._paid.clear()
            await self._paid.wait()
        try:
            synced = await DISK.run(results.sync, self._layout.results, self._layout.status)
        except (OSError, disk.SyncFailed) as error:
            log.warning("status and result files could not be synced: %s", error)
            self._sync_failed = True
            return None
        return seen if synced else None

    async def drain(self) -> bool:
        """Everything noted so far is written; False if there is no room for all of it.

        Waits for a disk that refuses otherwise. `run` must run.
        """
        self._hurry = True
        self._lags = False  # the next try decides
        self._news.set()
        try:
            while not (self._idle.is_set() or self._lags):
                self._turned.clear()
                await self._turned.wait()
        finally:
            self._hurry = False
        return self._idle.is_set()

    def _note_execution(self, execution_id: str) -> None:
        self._changed.note_execution(execution_id)
        self._note_news()

    def _note_command(self, command_id: str) -> None:
        self._changed.note_command(command_id)
        self._note_news()

    def _note_news(self) -> None:
        self._idle.clear()
        self._news.set()

    async def _wait(self) -> None:
        """Until there is news or the next status file is due."""
        due_s = self._changed.due_s
        if due_s is None:
            self._idle.set()
            self._turned.set()
        self._news.clear()
        timeout_s = None if due_s is None else max(0.0, due_s - self._clock.monotonic_s())
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return

    def _written(self, batch: Batch) -> None:
        self._writing = Batch()
        self._pay(batch.ids)
        self._changed.written(batch)
        for command in batch.commands:
            self._settle(command.id)

    def _pay(self, ids: Iterable[str]) -> None:
        """Nothing is owed any more for what was written or is gone."""
        if self._owed:
            self._owed.difference_update(ids)
            if not self._owed:
                self._paid.set()

    def _sweep(self) -> None:
        for folder in (self._layout.status, self._layout.results):
            disk.make_directory(folder)
            with disk.open_directory(folder) as here:
                disk.sweep_passing(here)

    def _log_lag(self, *, lags: bool) -> None:
        """Logged when it begins and when it has passed: it is tried again and again."""
        self._turned.set()
        if lags == self._lags:
            return
        self._lags = lags
        if lags:
            log.warning("the disk has no room for some status and result files: they lag behind")
        else:
            log.info("all status and result files find room again")

    def _write(self, batch: Batch) -> set[str]:
        """The ids of records whose files found no room."""
        results.remove(self._layout.status, batch.status_gone)
        results.remove(self._layout.results, batch.results_gone)
        without = results.write(self._layout, batch.executions, batch.commands)
        past = (batch.past_executions, batch.past_commands)
        return without | results.write(self._layout, *past, results.replace_unless_same)


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    iterator = iter(records)
    while chunk := list(islice(iterator, BATCH_MAX)):
        yield chunk
