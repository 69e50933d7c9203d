"""The durable transport: commands come in through a directory, from this process and from others.

Publishers of this process are committed in groups and handed over in memory; files of others are
found by scans. What a command means is decided behind `receive`; its file stays until `settle`.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from bus.clock import Clock
from bus.envelope import Envelope
from bus.errors import TransportBusy
from bus.files import file_system_of
from bus.layout import DataLayout
from bus.model import CommandRecord
from bus.polling import FolderPolling
from bus.tasks import kept_up
from bus.threads import DISK
from transports.directory import disk
from transports.directory.arrivals import Arrivals
from transports.directory.command_files import FileReader
from transports.directory.local_publisher import LocalPublisher
from transports.directory.pending import Pending
from transports.directory.poison import HANDLING, READING, InHandNote
from transports.directory.quarantine import Quarantine
from transports.directory.queue_files import QueueFiles
from transports.directory.receiver import Receiver
from transports.directory.refusals import RefusalResults
from transports.directory.rejects import Rejects
from transports.directory.scan import DirectoryScan
from transports.directory.scan_plan import ScanPlan
from transports.directory.scanner import Scanner
from transports.directory.settings import DirectorySettings
from transports.directory.settled_files import SettledFiles
from transports.directory.watch import DirectoryWatch

log = structlog.get_logger("jobbus.directory")


def queue_polling(layout: DataLayout, settings: DirectorySettings) -> FolderPolling:
    """How often the queue is looked at."""
    often_s = settings.look_ms / 1000
    return FolderPolling(str(layout.queue), rare_s=settings.scan_interval_s, often_s=often_s)


class DirectoryTransport:
    """Implements `bus.transport.Transport`. Lives in the event loop, while `run` runs.

    known: the published record of a command id, if it was handled before.
    refused: called with commands that were answered here with a Rejected result, for the audit.
    poisoned: called with commands that starts died of, to put them on record, else `refused` is.
    holds_secret: whether a command holds a secret's value, so that no copy of it may be kept.
    before_answer: called, in a thread, before a command is acknowledged; it may end the process.
    order_floor_ns: the largest acceptance number that the table remembers.
    changes_others: whether a stop, cancel or delete leads to anything; see `LocalPublisher`.
    handling: where the commands in hand are noted, by the owner and the supervisor, too.
    polling: how often the queue is looked at, for those whom that concerns, too.

    The parts hold the state; here are `_local`, which `run` sets when commands may be published,
    and `_closing` and `_closed`, which `aclose` and the end of `run` set.
    """

    def __init__(
        self,
        layout: DataLayout,
        *,
        clock: Clock,
        known: Callable[[str], CommandRecord | None],
        secret: bytes,
        settings: DirectorySettings = DirectorySettings(),  # noqa: B008 - frozen
        refused: Callable[[CommandRecord], None] | None = None,
        order_floor_ns: int = 0,
        holds_secret: Callable[[Envelope], bool] = lambda envelope: False,
        before_answer: Callable[[], None] = lambda: None,
        poisoned: Callable[[Envelope], None] | None = None,
        changes_others: Callable[[Envelope], bool] = lambda envelope: True,
        handling: InHandNote | None = None,
        polling: FolderPolling | None = None,
    ) -> None:
        self._changes_others = changes_others
        self._before_answer = before_answer
        self._layout = layout
        self._clock = clock
        self._known = known
        self._secret = secret
        self._settings = settings
        self._pending = Pending()
        # Numbers grow over restarts too, even if the clock was set back meanwhile.
        self._pending.last_order_ns = order_floor_ns
        reader = self._reader = FileReader(secret, settings)
        handling = handling or InHandNote(layout, HANDLING, lambda key: known(key) is not None)
        reading = InHandNote(layout, READING)
        rejects = self._rejects = Rejects(layout, settings, clock, reader.repaired_name, reading)
        plan = ScanPlan(settings)
        files = self._files = QueueFiles(layout, settings, clock, reader, plan, rejects, reading)
        self._settled = SettledFiles(self._pending, files)
        refusals = RefusalResults(
            layout, settings.refusals_max, lambda command_id: known(command_id) is not None
        )
        self._quarantine = Quarantine(
            layout, clock, known, handling, reading, files, rejects, refusals, refused, poisoned
        )
        self._scanner = Scanner(
            layout,
            settings,
            clock,
            self._pending,
            DirectoryScan(layout, clock, reader, files, plan, rejects, reading),
            files,
            rejects,
            polling or queue_polling(layout, settings),
            Arrivals(clock, known, self._pending, files, refusals, holds_secret),
        )
        self._receiver = Receiver(
            known,
            self._pending,
            files,
            self._settled,
            self._quarantine,
            refusals,
            refused,
            self._scanner.wake,
        )
        self._local: LocalPublisher | None = None
        self._closing = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Commands that were not received yet."""
        return self._pending.waiting

    @property
    def looks_often_because(self) -> str | None:
        """Why the queue is scanned all the time; None while changes are announced."""
        return self._scanner.polling.why

    @property
    def oldest_age_s(self) -> float:
        """How long the first of them has waited; 0 if none waits."""
        oldest_ns = self._pending.oldest_ns
        if oldest_ns is None:
            return 0.0
        return max(0.0, self._clock.now_ms() / 1000 - oldest_ns / 1e9)

    def waiting_since_ms(self) -> int | None:
        """When the oldest command that waits was submitted, or earlier; None if none waits."""
        return self._pending.waiting_since_ms()

    def go_by(self, settings: DirectorySettings) -> None:
        """Files that are read from now on are believed, and rejects kept, by these settings."""
        self._reader.go_by(settings)
        self._rejects.go_by(settings)
        self._scanner.polling.often_s = settings.look_ms / 1000

    def forget_rejects(self, before_ms: int) -> None:
        """Files that were rejected before this time will be removed."""
        self._rejects.forget_before_ms = before_ms

    def hold_foreign(self, held: bool) -> None:
        """Files that this service did not write wait (but for stops), or come in again."""
        self._pending.held = held
        if not held:
            self._pending.arrived.set()

    async def publish(self, envelope: Envelope) -> None:
        """See `bus.transport.Transport.publish`."""
        if self._local is None or self._closing.is_set():
            raise TransportBusy("the directory transport is not running; nothing is accepted")
        await self._local.publish(envelope)

    def holds(self, command_id: str) -> bool:
        """See `bus.transport.Transport.holds`."""
        return self._pending.get(command_id) is not None

    async def receive(self, limit: int) -> Sequence[Envelope]:
        """See `bus.transport.Transport.receive`. There is one receiver."""
        return await self._receiver.receive(limit)

    def settle(self, command_id: str) -> None:
        """See `bus.transport.Transport.settle`: the command's file will be unlinked."""
        self._settled.settle(command_id)

    def settle_own(self, command_id: str) -> None:
        """The same for a command that was published in this process, where no publisher waits for
        files; that of another program stays until its result is there."""
        entry = self._pending.get(command_id)
        if entry is not None and entry.local:
            self.settle(command_id)

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Serves until `aclose`; `ready` is set after the first scan.

        Raises:
            StorageFailed: a sync failed; restart from disk.
        """
        local = LocalPublisher(
            self._layout,
            self._settings,
            self._clock,
            self._secret,
            self._known,
            self._pending,
            self._files,
            self._scanner.wake,
            self._before_answer,
            self._changes_others,
        )
        await self._begin()
        local.start()
        self._local = local
        if ready is not None:
            ready.set()
        try:
            await self._serve(local)
        finally:
            await local.stop()
            await self._settled.unlink()
            await self._quarantine.end(orderly=self._ends_orderly(local))
            self._closed.set()
        if local.failure is not None:
            raise local.failure

    async def aclose(self) -> None:
        """See `bus.transport.Transport.aclose`."""
        self._closing.set()
        if self._local is not None:
            await self._closed.wait()

    async def _begin(self) -> None:
        """What lies in the queue is pending, but for what starts died of."""
        if not self._quarantine.has_looked_back:
            await DISK.run(self.look_back)
        await DISK.run(self._prepare)
        self._scanner.polling.expect(await DISK.run(file_system_of, self._layout.queue))
        await self._quarantine.set_aside()
        await self._scanner.scan(None, woken=True)
        self._quarantine.limit(self._pending.waiting)
        await DISK.run(self._quarantine.forget_gone)

    def _prepare(self) -> None:
        disk.make_directory(self._layout.queue_tmp)
        disk.make_directory(self._layout.results)
        disk.make_directory(self._layout.rejects)
        self._files.sweep()

    def _ends_orderly(self, local: LocalPublisher) -> bool:
        """Closed on purpose, and all commands that were received are on record."""
        closed = self._closing.is_set() and local.failure is None
        return closed and all(self._known(each) is not None for each in self._pending.handed())

    def look_back(self) -> frozenset[str]:
        """What earlier starts died of is known; the ids of commands that are on record and were
        acted upon when three of them died. Blocking; before `run`, if another part asks."""
        return self._quarantine.look_back()

    async def _serve(self, local: LocalPublisher) -> None:
        watch = DirectoryWatch(
            self._layout.queue,
            self._scanner.wake,
            self._pending.__contains__,
            self._scanner.polling.announce,
        )
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(kept_up(run, name), name=name)
                for run, name in (
                    (watch.run, "directory watch"),
                    (self._scanner.run, "directory scanner"),
                    (self._settled.run, "directory unlinks"),
                )
            ]
            ends = [
                group.create_task(self._closing.wait(), name="directory close"),
                group.create_task(local.failed.wait(), name="directory failure"),
            ]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for part in (*parts, *ends):
                part.cancel()
