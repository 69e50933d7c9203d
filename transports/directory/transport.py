"""The durable transport: commands come in through a directory, whoever puts them there.

Publishers of this process are committed in groups and handed over in memory; files of others are
found by looking. What a command means is decided behind `receive`; its file stays until `settle`.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from bus.clock import Clock
from bus.descriptors import DESCRIPTORS
from bus.envelope import Envelope
from bus.errors import TransportBusy
from bus.files import file_system_of
from bus.layout import DataLayout
from bus.model import CommandRecord
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.tasks import kept_up
from bus.threads import DISK
from transports.directory import disk
from transports.directory.command_files import Reader
from transports.directory.local_publisher import LocalPublisher
from transports.directory.pending import Entry, Pending, State
from transports.directory.poison import (
    CAREFUL_COMMANDS,
    DEATHS_MAX,
    HANDLING,
    READING,
    Deaths,
    InHandNote,
)
from transports.directory.refusals import RefusalResults
from transports.directory.rejects import Rejects
from transports.directory.scan import Scan
from transports.directory.scanner import Scanner
from transports.directory.settings import DirectorySettings
from transports.directory.watch import Doorbell

log = logging.getLogger(__name__)

UNLINK_MAX = 512
UNLINK_RETRY_S = 5.0
CAREFUL_WAIT_S = 5.0
CAREFUL_POLL_S = 0.002
READ_RETRY_S = 0.5


class DirectoryTransport:
    """Implements `bus.transport.Transport`. Lives in the event loop, while `run` runs.

    known: the published record of a command id, if it was handled before.
    refused: told of commands that were answered here with a Rejected result, for the audit.
    poisoned: told of commands that starts died of, to put them on record; without it, `refused` is.
    tells_secret: whether a command holds a secret's value, so that no copy of it may be kept.
    before_answer: called, in a thread, before a command is acknowledged; it may end the process.
    order_floor_ns: the largest acceptance number that the table remembers.
    changes_others: whether a stop, cancel or delete leads to anything; see `LocalPublisher`.
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
        tells_secret: Callable[[Envelope], bool] = lambda envelope: False,
        before_answer: Callable[[], None] = lambda: None,
        poisoned: Callable[[Envelope], None] | None = None,
        changes_others: Callable[[Envelope], bool] = lambda envelope: True,
    ) -> None:
        self._poisoned = poisoned
        self._changes_others = changes_others
        self._before_answer = before_answer
        self._layout = layout
        self._clock = clock
        self._known = known
        self._secret = secret
        self._settings = settings
        self._refused = refused
        self._pending = Pending()
        # Numbers grow over restarts too, even if somebody set the clock back meanwhile.
        self._pending.last_order_ns = order_floor_ns
        reader = self._reader = Reader(secret, settings)
        rejects = self._rejects = Rejects(layout, settings, clock, self._mended_name)
        self._handling = InHandNote(layout, HANDLING, lambda key: known(key) is not None)
        self._reading = InHandNote(layout, READING)
        self._scan = Scan(layout, settings, clock, reader, rejects, self._reading)
        self._refusals = RefusalResults(
            layout, settings.refusals_max, lambda command_id: known(command_id) is not None
        )
        self._scanner = Scanner(
            layout,
            settings,
            clock,
            known,
            self._pending,
            self._scan,
            rejects,
            self._refusals,
            tells_secret,
        )
        self._local: LocalPublisher | None = None
        # After a start that died commands are handed out one by one: so many more.
        self._careful = 0
        self._handed_last = ""
        self._died_of: dict[str, Deaths] | None = None
        self._died_reading: dict[str, Deaths] = {}
        self._ended: list[Entry] = []
        self._some_ended = asyncio.Event()
        self._closing = asyncio.Event()
        self._closed = asyncio.Event()
        self._troubles = Recurring(log)

    @property
    def waiting(self) -> int:
        """Commands that nobody has received yet."""
        return self._pending.waiting

    @property
    def looks_often_because(self) -> str | None:
        """Why the queue is looked at all the time; None while changes are announced."""
        return self._scanner.attention.why

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
        self._scanner.attention.often_s = settings.look_ms / 1000

    def forget_rejects(self, before_ms: int) -> None:
        """Files that were rejected before this time will be removed."""
        self._rejects.forget_before_ms = before_ms

    def hold_strangers(self, held: bool) -> None:
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
        while True:
            entries = self._pending.take(1 if self._careful else limit)
            if not entries:
                self._pending.arrived.clear()
                await self._pending.arrived.wait()
                continue
            entries = [entry for entry in entries if not self._was_cancelled(entry)]
            if not entries:
                continue
            try:
                await self._fill(entries)
                if self._careful:
                    await self._take_care(entries)
            except OSError as error:
                if DESCRIPTORS.release_for(error):
                    self._pending.put_back(entries)
                    continue
                self._troubles.say(f"waiting commands cannot be read: {reason_of(error)}", "read")
                entries = self._readable_without_file(entries)
                if not entries:
                    await asyncio.sleep(READ_RETRY_S)
                    continue
            except BaseException:  # also a cancellation: they were taken and would be lost
                self._pending.put_back(entries)
                raise
            else:
                self._troubles.over("waiting commands can be read again", "read")
            envelopes = [taken for entry in entries if (taken := _taken_from(entry)) is not None]
            if envelopes:
                return envelopes

    def _readable_without_file(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those with their command in memory; the others wait on, for the system to read files."""
        self._pending.put_back(entry for entry in entries if entry.envelope is None)
        self._scanner.ring()  # it mends what can be mended
        return [entry for entry in entries if entry.envelope is not None]

    def _was_cancelled(self, entry: Entry) -> bool:
        """Whether the command ended while it waited; then its file goes."""
        record = self._known(entry.id)
        if record is None or not record.is_final:
            return False
        self.settle(entry.id)
        return True

    async def _take_care(self, entries: Sequence[Entry]) -> None:
        """After an unclean stop: the command before is on record, this one is noted."""
        [entry] = entries
        deadline_s = self._clock.monotonic_s() + CAREFUL_WAIT_S
        while self._handed_last and self._known(self._handed_last) is None:
            if self._clock.monotonic_s() > deadline_s:
                self._careful = 1
                break
            await asyncio.sleep(CAREFUL_POLL_S)
        self._handed_last = entry.id
        self._careful -= 1
        await DISK.run(self._handling.take, (entry.id,))

    def settle(self, command_id: str) -> None:
        """See `bus.transport.Transport.settle`: the command's file will be unlinked."""
        entry = self._pending.get(command_id)
        if entry is not None and entry.state is State.HANDED:
            entry.state = State.DONE
            self._ended.append(entry)
            self._some_ended.set()

    def settle_own(self, command_id: str) -> None:
        """The same for a command that was published in this process, where nobody waits for files;
        one that another program wrote stays until its result is there."""
        entry = self._pending.get(command_id)
        if entry is not None and entry.local:
            self.settle(command_id)

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Serves until `aclose`; `ready` is set after the first look.

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
            self._scan,
            self._scanner.ring,
            self._before_answer,
            self._changes_others,
        )
        if self._died_of is None:
            await DISK.run(self.look_back)
        await DISK.run(self._prepare)
        self._scanner.attention.expect(await DISK.run(file_system_of, self._layout.queue))
        await self._set_poison_aside()
        await self._scanner.look(local, None, rung=True)
        # Only what was there when it died can be to blame; mostly that is nothing.
        self._careful = min(self._careful, self._pending.waiting)
        await DISK.run(self._forget_gone)
        local.start()
        self._local = local
        if ready is not None:
            ready.set()
        try:
            await self._serve(local)
        finally:
            await local.stop()
            await self._unlink_ended()
            for note in (self._handling, self._reading):
                await DISK.run(note.end if self._ends_orderly(local) else note.close)
            self._closed.set()
        if local.failure is not None:
            raise local.failure

    async def aclose(self) -> None:
        """See `bus.transport.Transport.aclose`."""
        self._closing.set()
        if self._local is not None:
            await self._closed.wait()

    def _prepare(self) -> None:
        disk.make_directory(self._layout.queue_tmp)
        disk.make_directory(self._layout.results)
        disk.make_directory(self._layout.rejects)
        self._scan.sweep()

    def _ends_orderly(self, local: LocalPublisher) -> bool:
        """Closed on purpose, and whoever got the commands has put all of them on record."""
        closed = self._closing.is_set() and local.failure is None
        return closed and all(self._known(one) is not None for one in self._pending.handed())

    def look_back(self) -> frozenset[str]:
        """What earlier starts died of is known; the ids of commands that are on record and were
        acted upon when two of them died. Blocking; before `run`, if somebody else wants to know."""
        disk.make_directory(self._layout.queue_tmp)
        found = self._handling.begin()
        self._careful = 0 if found is None else CAREFUL_COMMANDS
        self._died_of = found or {}
        self._died_reading = self._reading.begin() or {}
        return frozenset(key for key, n in self._died_of.items() if n.after >= DEATHS_MAX)

    def in_hand(self, command_ids: Sequence[str]) -> None:
        """These commands are decided and acted upon now, and no others: the next start looks at
        them if this one dies. Blocking, if only for a write to memory; from any thread."""
        self._handling.take(command_ids)

    async def _set_poison_aside(self) -> None:
        """What two starts died of is in Rejects, and its writers have answers."""
        assert self._died_of is not None
        for command_id, deaths in self._died_of.items():
            if self._known(command_id) is None and deaths.before >= DEATHS_MAX:
                why = f"the service died {deaths.before} times while it handled this command"
                found = await DISK.run(self._scan.poison, command_id, why)
                if found is not None:
                    await self._answer_poison(*found)
        for name, deaths in self._died_reading.items():
            if deaths.before < DEATHS_MAX:
                continue
            if (rejected := self._rejected_name(name)) is not None:
                await DISK.run(self._rejects.give_up_on, rejected)
            else:
                why = f"the service died {deaths.before} times while it read this file"
                record = await DISK.run(self._scan.poison_unread, name, why)
                if record is not None and self._known(record.id) is None:
                    await self._answer_poison(record, None)
        condemned = [key for key, n in self._died_of.items() if n.before >= DEATHS_MAX]
        over = condemned + [key for key in self._died_of if self._known(key) is not None]
        await DISK.run(self._handling.forget, over)
        read = [key for key, n in self._died_reading.items() if n.before >= DEATHS_MAX]
        await DISK.run(self._reading.forget, read)

    def _forget_gone(self) -> None:
        """What does not lie in the queue any more is no suspect."""
        there = {name.lower() for name in os.listdir(self._layout.queue)}
        self._handling.forget([k for k in self._died_of or () if f"{k}.json" not in there])
        read = [k for k in self._died_reading if self._rejected_name(k) is None]
        self._reading.forget([k for k in read if k.lower() not in there])

    def _mended_name(self, name: str, inside: int) -> str | None:
        """See `Reader.mended_name`; a death of it is put down to the file."""
        self._reading.take((f"{self._layout.rejects.name}/{name}",), "rejects")
        try:
            return self._reader.mended_name(name, inside)
        finally:
            self._reading.take((), "rejects")

    def _rejected_name(self, key: str) -> str | None:
        """The name of a file in Rejects, if that is what the key stands for."""
        prefix = f"{self._layout.rejects.name}/"
        return key.removeprefix(prefix) if key.startswith(prefix) else None

    async def _answer_poison(self, record: CommandRecord, envelope: Envelope | None) -> None:
        await DISK.run(self._refusals.write, [record])
        if envelope is not None and self._poisoned is not None:
            self._poisoned(msgspec.structs.replace(envelope, poison=record.error or ""))
        elif self._refused is not None:
            self._refused(record)

    async def _serve(self, local: LocalPublisher) -> None:
        bell = Doorbell(
            self._layout.queue,
            self._scanner.ring,
            self._pending.__contains__,
            self._scanner.attention.announce,
        )
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(kept_up(run, name), name=name)
                for run, name in (
                    (bell.run, "directory doorbell"),
                    (partial(self._scanner.run, local), "directory scanner"),
                    (self._unlink_for_ever, "directory unlinks"),
                )
            ]
            ends = [
                group.create_task(self._closing.wait(), name="directory close"),
                group.create_task(local.failed.wait(), name="directory failure"),
            ]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for part in (*parts, *ends):
                part.cancel()

    async def _fill(self, entries: Sequence[Entry]) -> None:
        """Each entry that still has a command behind it has its envelope."""
        bare = [entry for entry in entries if entry.envelope is None]
        if not bare:
            return
        read = await DISK.run(self._scan.envelopes, [entry.name for entry in bare])
        refusals: list[tuple[Entry, CommandRecord]] = []
        for entry, found in zip(bare, read, strict=True):
            match found:
                case Envelope():
                    entry.envelope = msgspec.structs.replace(found, accepted_ns=entry.order_ns)
                case CommandRecord():
                    refusals.append((entry, found))
                case None:
                    self._pending.drop(entry)
                    self._scanner.ring()
        if refusals:
            await self._answer(refusals)

    async def _answer(self, refusals: Sequence[tuple[Entry, CommandRecord]]) -> None:
        """The writers find Rejected results; then their files go."""
        try:
            await DISK.run(self._refusals.write, [record for _, record in refusals])
        except OSError as error:
            # The files stay and are answered after the next start.
            self._troubles.say(f"refused commands have no result: {reason_of(error)}", "answer")
            return
        for entry, record in refusals:
            if self._refused is not None:
                self._refused(record)
            self.settle(entry.id)

    async def _unlink_for_ever(self) -> None:
        while True:
            await self._some_ended.wait()
            self._some_ended.clear()
            if not await self._unlink_ended():
                await asyncio.sleep(UNLINK_RETRY_S)
                self._some_ended.set()

    async def _unlink_ended(self) -> bool:
        """The files of ended commands are gone; False if some could not be unlinked."""
        while self._ended:
            batch, self._ended = self._ended[:UNLINK_MAX], self._ended[UNLINK_MAX:]
            names = [name for entry in batch for name in (entry.name, *entry.more_names)]
            try:
                await DISK.run(self._scan.unlink, names)
            except OSError as error:
                self._troubles.say(f"files of ended commands stay: {reason_of(error)}", "unlink")
                self._ended.extend(batch)
                return False
            except BaseException:
                self._ended.extend(batch)
                self._some_ended.set()
                raise
            self._troubles.over(subject="unlink")
            for entry in batch:
                self._pending.drop(entry)
        return True


def _taken_from(entry: Entry) -> Envelope | None:
    """The entry's command, which the entry then does not hold any longer."""
    envelope, entry.envelope = entry.envelope, None
    return envelope
