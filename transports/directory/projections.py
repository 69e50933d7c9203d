"""What people and foreign readers find in files of the job table: status files and result files.

The journal is the truth; these are written behind it, whole (tmp and rename), not synced, and again
after an unclean stop. For one command always in this order: status file, result file, queue file.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import msgspec

from bus.clock import Clock
from bus.events import COMMAND_EVENTS, EXECUTION_EVENTS, CommandEnded, Published
from bus.layout import DataLayout
from bus.model import CommandRecord, Execution
from bus.ports import TableReader
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from transports.directory import disk, results
from transports.directory.orphans import sweep

Record = TypeVar("Record")

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""The status file of a live execution is written at most so often."""
BATCH_MAX = 256
PAST_MAX = 64
"""Records of the past that are looked at beside each batch of news."""
RETRY_S = 2.0


class _Batch(msgspec.Struct, frozen=True):
    """What is written in one go, and the commands that are settled then.

    `past_…` are written only if their files differ, and settle nothing.
    """

    executions: tuple[Execution, ...] = ()
    commands: tuple[CommandRecord, ...] = ()
    past_executions: tuple[Execution, ...] = ()
    past_commands: tuple[CommandRecord, ...] = ()
    status_gone: tuple[str, ...] = ()
    results_gone: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Of the records that are written."""
        return [one.id for one in self.executions] + [one.id for one in self.commands] + self.past

    @property
    def past(self) -> list[str]:
        """Of those that are only looked at."""
        return [one.id for one in self.past_executions] + [one.id for one in self.past_commands]

    def only(self, ids: Container[str]) -> "_Batch":
        """The records with these ids, and nothing else."""
        return self._selected(lambda one: one.id in ids)

    def without(self, ids: Container[str]) -> "_Batch":
        """All but the records with these ids."""
        return self._selected(lambda one: one.id not in ids)

    def _selected(self, is_wanted: Callable[[Execution | CommandRecord], bool]) -> "_Batch":
        return _Batch(
            tuple(one for one in self.executions if is_wanted(one)),
            tuple(one for one in self.commands if is_wanted(one)),
            tuple(one for one in self.past_executions if is_wanted(one)),
            tuple(one for one in self.past_commands if is_wanted(one)),
        )


class Projections:
    """Implements `bus.ports.ChangeListener`; `run` writes. Lives in the event loop.

    Each file has one writer: `rewrite` before `run` runs, and `run` from then on.

    `settle` is called when the files of a command are there, `settle_own` when its result found no
    room: it comes later, and what it holds in the queue may be needed for other stops.

    In memory are ids of records that changed since they were written, never the records: however
    far the disk lags behind, it is at most one id for each record of the table.
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
        self._at_once: dict[str, None] = {}
        self._later: dict[str, float] = {}
        self._commands: dict[str, None] = {}
        self._past: dict[str, None] = {}
        self._written_s: dict[str, float] = {}
        self._status_gone: dict[str, None] = {}
        self._results_gone: dict[str, None] = {}
        self._troubles = Recurring(log)
        self._seen = 0
        self._sync_failed = False
        self._writing = _Batch()
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
        self._busy()
        for execution_id in execution_ids:
            self._at_once.pop(execution_id, None)
            self._later.pop(execution_id, None)
            self._written_s.pop(execution_id, None)
            self._past.pop(execution_id, None)
            self._status_gone[f"{execution_id}.json"] = None
        for command_id in command_ids:
            self._commands.pop(command_id, None)
            self._past.pop(command_id, None)
            self._settle(command_id)
        self._pay((*execution_ids, *command_ids))
        self._results_gone.update((f"{spelling}.json", None) for spelling in spellings)
        self._news.set()

    async def sweep(self, since_ms: int, keep_s: float) -> int:
        """Files of records that nobody knows any more are removed; how many there were.

        Those from before `since_ms` stay: the table may lack their records. So do, for `keep_s`,
        results that the table never had (of refused files), and what does not look like ours.
        """
        until_ms = self._clock.now_ms() - int(keep_s * 1000)
        return await DISK.run(sweep, self._layout, self._table, since_ms, until_ms)

    async def run(self) -> None:
        """Writes what was noted, until it is cancelled."""
        while True:
            batch = self._next_batch()
            if batch is None:
                await self._wait()
                continue
            self._writing = batch
            try:
                without = await DISK.run(self._write, batch)
            except OSError as error:
                self._troubles.say(f"status and result files lag behind: {reason_of(error)}")
                self._note_again(batch)
                await asyncio.sleep(RETRY_S)
                continue
            except BaseException:  # also a cancellation: the files would never be written
                self._note_again(batch)
                raise
            self._troubles.over("status and result files are written again")
            self._written(batch.without(without))
            if without:
                self._note_again(batch.only(without))
                for command_id in without:
                    self._settle_own(command_id)
            self._tell_lag(lags=bool(without))
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
            batch = _Batch(past_executions=tuple(chunk))
            for execution_id in await DISK.run(self._write, batch):
                self._note_execution(execution_id)
        commands = [c for c in self._table.commands() if c.version > synced and c.is_final]
        for ended in _chunks(commands):
            without = await DISK.run(self._write, _Batch(past_commands=tuple(ended)))
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
        """`run` looks at the files of all that has ended, a few beside each batch of news."""
        self._past.update((e.id, None) for e in self._table.executions() if e.is_final)
        self._past.update((c.id, None) for c in self._table.commands() if c.is_final)
        self._busy()
        self._news.set()

    async def sync(self) -> int | None:
        """The files of everything that has ended by now survive a power cut; the number of the last
        such end, to be given to `rewrite` after an unclean stop. None if that cannot be known.

        `run` must run; waits for a disk that refuses.
        """
        if self._sync_failed:
            return None  # a second try would report success for what the first one lost
        seen, writing = self._seen, self._writing
        self._owed = {*self._at_once, *self._commands, *self._past}
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
        self._busy()
        execution = self._table.execution(execution_id)
        written_s = self._written_s.get(execution_id)
        if execution is None or execution.is_final or written_s is None:
            self._later.pop(execution_id, None)
            self._at_once[execution_id] = None
        elif execution_id not in self._at_once:
            self._later.setdefault(execution_id, written_s + INTERVAL_S)
        self._news.set()

    def _note_command(self, command_id: str) -> None:
        self._busy()
        self._commands[command_id] = None
        command = self._table.command(command_id)
        execution_id = command.execution_id if command is not None else None
        if execution_id is not None and self._later.pop(execution_id, None) is not None:
            # Who reads the result looks at the status next: it must not tell an older story.
            self._at_once[execution_id] = None
        self._news.set()

    def _busy(self) -> None:
        self._idle.clear()

    def _next_batch(self) -> _Batch | None:
        """What is due now: status files first, results when no status file is."""
        now_s = self._clock.monotonic_s()
        if self._later:
            # Every interval is the same, so the first noted is the first due.
            for execution_id, due_s in list(islice(self._later.items(), BATCH_MAX)):
                if due_s > now_s and not self._hurry:
                    break
                del self._later[execution_id]
                self._at_once[execution_id] = None
        ids = _take(self._at_once, BATCH_MAX)
        executions = [one for one in map(self._table.execution, ids) if one is not None]
        self._written_s.update((one.id, now_s) for one in executions)
        commands: list[CommandRecord | None] = []
        if len(ids) < BATCH_MAX:
            commands = [self._table.command(one) for one in _take(self._commands, BATCH_MAX)]
        status_gone = tuple(_take(self._status_gone, BATCH_MAX))
        results_gone = tuple(_take(self._results_gone, BATCH_MAX))
        past = _take(self._past, PAST_MAX)
        if not (ids or commands or status_gone or results_gone or past):
            return None
        return _Batch(
            tuple(executions),
            tuple(one for one in commands if one is not None and one.is_final),
            tuple(one for one in map(self._table.execution, past) if one is not None),
            tuple(one for one in map(self._table.command, past) if one is not None),
            status_gone,
            results_gone,
        )

    async def _wait(self) -> None:
        """Until there is news or the next status file is due."""
        if not self._later:
            self._idle.set()
            self._turned.set()
        self._news.clear()
        timeout_s = None
        if self._later:
            timeout_s = max(0.0, next(iter(self._later.values())) - self._clock.monotonic_s())
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return

    def _written(self, batch: _Batch) -> None:
        self._writing = _Batch()
        self._pay(batch.ids)
        for execution in batch.executions:
            if execution.is_final:
                self._written_s.pop(execution.id, None)
        for command in batch.commands:
            self._settle(command.id)

    def _pay(self, ids: Iterable[str]) -> None:
        """Nothing is owed any more for what was written or is gone."""
        if self._owed:
            self._owed.difference_update(ids)
            if not self._owed:
                self._paid.set()

    def _note_again(self, batch: _Batch) -> None:
        self._at_once.update(dict.fromkeys(one.id for one in batch.executions))
        self._commands.update(dict.fromkeys(one.id for one in batch.commands))
        self._past.update(dict.fromkeys(batch.past))
        self._status_gone.update(dict.fromkeys(batch.status_gone))
        self._results_gone.update(dict.fromkeys(batch.results_gone))

    def _sweep(self) -> None:
        for folder in (self._layout.status, self._layout.results):
            disk.make_directory(folder)
            with disk.open_directory(folder) as here:
                disk.sweep_passing(here)

    def _tell_lag(self, *, lags: bool) -> None:
        """Logged when it begins and when it has passed: it is tried again and again."""
        self._turned.set()
        if lags == self._lags:
            return
        self._lags = lags
        if lags:
            log.warning("the disk has no room for some status and result files: they lag behind")
        else:
            log.info("all status and result files find room again")

    def _write(self, batch: _Batch) -> set[str]:
        """The ids of records whose files found no room."""
        results.remove(self._layout.status, batch.status_gone)
        results.remove(self._layout.results, batch.results_gone)
        without = results.write(self._layout, batch.executions, batch.commands)
        past = (batch.past_executions, batch.past_commands)
        return without | results.write(self._layout, *past, results.replace_unless_same)


def _take(ids: dict[str, None], limit: int) -> list[str]:
    taken = list(islice(ids, limit))
    for one in taken:
        del ids[one]
    return taken


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    iterator = iter(records)
    while chunk := list(islice(iterator, BATCH_MAX)):
        yield chunk
