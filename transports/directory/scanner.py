"""Finding the commands of others: when to look into the directory and what becomes of a find."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from bus.attention import Attention
from bus.clock import Clock
from bus.descriptors import DESCRIPTORS
from bus.envelope import Envelope
from bus.layout import DataLayout
from bus.model import CommandRecord
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from transports.directory import disk
from transports.directory.command_files import Sighting
from transports.directory.local_publisher import LocalPublisher, is_same
from transports.directory.pending import Entry, Pending, State
from transports.directory.refusals import RefusalResults, unreadable
from transports.directory.rejects import Rejects
from transports.directory.scan import GivenUp, Look, Scan
from transports.directory.settings import DirectorySettings

log = logging.getLogger(__name__)

LOOK_MAX = 20_000
"""Files examined in one look, so that what comes meanwhile is not found too late."""
DUTY = 4.0
"""A look that took a second, since there is so much that is no command, is followed by so many
seconds without one."""
SOONEST_S = 0.05
HEARD_MAX = 256
"""Names kept until they are looked at; the listing finds those beyond."""
SWEEP_S = 3600.0
AHEAD_MAX_NS = 86_400 * 10**9
"""A number further in the future is a broken clock's: it must not drag all later ones along."""
TAKEN_UP_MAX = 1000
"""Finds added to the pending commands in one turn of the loop."""


class Scanner:
    """Looks when the bell rings and from time to time anyway; adds finds to what is pending."""

    def __init__(
        self,
        layout: DataLayout,
        settings: DirectorySettings,
        clock: Clock,
        known: Callable[[str], CommandRecord | None],
        pending: Pending,
        scan: Scan,
        rejects: Rejects,
        refusals: RefusalResults,
        tells_secret: Callable[[Envelope], bool],
    ) -> None:
        self._tells_secret = tells_secret
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._known = known
        self._pending = pending
        self._scan = scan
        self._rejects = rejects
        self._refusals = refusals
        self._rung = asyncio.Event()
        self._heard: dict[str, None] = {}
        self._troubles = Recurring(log)
        self._swept_s = self._rejects_s = clock.monotonic_s()
        self.attention = Attention(
            str(layout.queue), rare_s=settings.scan_interval_s, often_s=settings.look_ms / 1000
        )

    def ring(self, names: Sequence[str] = ()) -> None:
        """There may be something new; something under these names if any are known."""
        self._heard.update(dict.fromkeys(names[: HEARD_MAX - len(self._heard)]))
        self._rung.set()

    async def run(self, local: LocalPublisher) -> None:
        """Looks for ever."""
        while True:
            rung = await self._wait_for_ring()
            pause_s = 0.0
            try:
                pause_s = await self._look_once(local, rung)
            except OSError as error:
                if DESCRIPTORS.release_for(error):
                    self.ring()
                    continue
                self._troubles.say(f"the queue directory cannot be read: {reason_of(error)}")
                await self._mend()
            else:
                self._troubles.over("the queue directory can be read again")
            if pause_s:
                await self._pause(local, pause_s)

    async def _pause(self, local: LocalPublisher, pause_s: float) -> None:
        """The directory is not listed meanwhile. What is heard of by its name is looked at all the
        same: no command waits for what others have piled up."""
        until_s = self._clock.monotonic_s() + pause_s
        is_owed = False
        while (left_s := until_s - self._clock.monotonic_s()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._rung.wait()
            except TimeoutError:
                break
            self._rung.clear()
            is_owed = True
            if self._heard:
                await self._look_at_heard(local)
        if is_owed:
            self.ring()

    async def _look_at_heard(self, local: LocalPublisher) -> None:
        names, self._heard = list(self._heard), {}
        look = await DISK.run(self._scan.look_at, names, self._pending)
        await self._take(local, look)

    async def look(self, local: LocalPublisher, limit: int | None, *, rung: bool) -> float:
        """Everything found is pending; the seconds to leave the directory alone."""
        now_s = self._clock.monotonic_s()
        if rung:
            self.attention.looks()
        look = await DISK.run(self._look_with_rejects, limit, rung, now_s)
        if not rung:
            self.attention.found(look.fresh, now_s)
        await self._take(local, look)
        if look.more:
            self.ring()
            return 0.0
        return min(DUTY * look.busy_s, self._settings.scan_interval_s)

    async def _take(self, local: LocalPublisher, look: Look) -> None:
        """What was found is pending, or is known already."""
        doubtful: list[tuple[Sighting, Entry | CommandRecord]] = []
        for count, sighting in enumerate(look.found, 1):
            if count % TAKEN_UP_MAX == 0:
                await asyncio.sleep(0)
            other = self._pending.get(sighting.id) or self._known(sighting.id)
            if other is None:
                self._take_up(sighting)
            elif not (isinstance(other, Entry) and other.name == sighting.name):
                doubtful.append((sighting, other))
        for sighting, other in doubtful:
            await self._second_of_an_id(local, sighting, other)
        if look.given_up:
            await self._give_up(look.given_up)

    async def _give_up(self, files: Sequence[GivenUp]) -> None:
        """They are in Rejects. Before that who asks by the id that one is called after has an
        answer, unless it is the id of a command: a death in between leaves the file to be found."""
        now_ms = self._clock.now_ms()
        records = (unreadable(one.name, one.mark, one.reason, now_ms) for one in files)
        answers = [one for one in records if one is not None and self._is_nobodys(one.id)]
        if answers:
            try:
                await DISK.run(self._refusals.write_unless_there, answers)
            except OSError as error:
                log.warning("no result written for %d files: %s", len(answers), error.strerror)
        await DISK.run(self._scan.set_aside, files)

    def _is_nobodys(self, command_id: str) -> bool:
        return self._pending.get(command_id) is None and self._known(command_id) is None

    def _look_with_rejects(self, limit: int | None, rung: bool, now_s: float) -> Look:
        """Blocking. Without a ring what was rejected is looked at first: it may have come back."""
        came_back = False
        if not rung and now_s - self._rejects_s >= self._settings.scan_interval_s / 2:
            self._rejects_s = now_s
            came_back = self._rejects.come_back() > 0
        is_full = rung or came_back or self.attention.is_full_look_due(now_s)
        look = self._scan.look(self._pending, limit, rung=is_full)
        if came_back:
            look.fresh.clear()
        return look

    async def _wait_for_ring(self) -> bool:
        interval_s = self.attention.interval_s
        due_in_s = self._scan.due_in_s
        if due_in_s is not None:
            interval_s = min(interval_s, max(due_in_s, SOONEST_S))
        try:
            async with asyncio.timeout(interval_s):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True

    async def _look_once(self, local: LocalPublisher, rung: bool) -> float:
        if self._clock.monotonic_s() - self._swept_s > SWEEP_S:
            self._swept_s = self._clock.monotonic_s()
            await DISK.run(self._scan.sweep)
        if self._heard:
            await self._look_at_heard(local)
        return await self.look(local, LOOK_MAX, rung=rung)

    async def _mend(self) -> None:
        """The directory is there again if somebody took it away; else the next look tells."""
        try:
            await DISK.run(disk.make_directory, self._layout.queue_tmp)
        except OSError as error:
            self._troubles.say(f"the queue directory cannot be made: {reason_of(error)}", "made")
        await asyncio.sleep(self._settings.scan_interval_s)
        self.ring()

    def _take_up(self, sighting: Sighting) -> None:
        """Ours keep the number they were accepted with, if it still is the largest; others get one
        on arrival, so they come after everything of ours that was accepted before."""
        number = sighting.accepted_ns
        now_ns = self._clock.now_ms() * 1_000_000
        if not self._pending.last_order_ns < number < now_ns + AHEAD_MAX_NS:
            number = self._pending.next_order_ns(now_ns)
        entry = Entry(
            sighting.id,
            sighting.name,
            number,
            urgent=sighting.urgent,
            ours=sighting.accepted_ns > 0,
            owner=sighting.owner,
            size=sighting.size,
        )
        if sighting.submitted_ms:
            self._pending.note_submitted(sighting.submitted_ms)
        self._pending.add(entry)
        self._pending.enqueue(entry)

    async def _second_of_an_id(
        self, local: LocalPublisher, sighting: Sighting, other: Entry | CommandRecord
    ) -> None:
        """A file whose id is known: the same command again, or another one that borrowed the id."""
        identity = await self._identity(local, other)
        [found] = await DISK.run(self._scan.envelopes, [sighting.name])
        if found is None or identity is None:
            return
        if isinstance(found, Envelope) and is_same(found, *identity):
            await self._again(sighting)
        elif self._must_not_stay(found, other):
            await DISK.run(self._scan.unlink, [sighting.name])
        else:
            reason = "its CommandID stands for another command; take a new one"
            await DISK.run(self._scan.reject, sighting.name, reason)

    def _must_not_stay(self, found: Envelope | CommandRecord, other: Entry | CommandRecord) -> bool:
        """A copy in Rejects would keep a secret; one that was refused for it has no hash."""
        was_refused = isinstance(other, CommandRecord) and not other.body_hash
        return was_refused or (isinstance(found, Envelope) and self._tells_secret(found))

    async def _identity(
        self, local: LocalPublisher, other: Entry | CommandRecord
    ) -> tuple[str, str] | None:
        if isinstance(other, CommandRecord):
            return other.body_hash, other.user_id
        envelope = local.envelope_of(other)
        if envelope is None:
            record = self._known(other.id)
            if record is not None:
                return record.body_hash, record.user_id
            [read] = await DISK.run(self._scan.envelopes, [other.name])
            if not isinstance(read, Envelope):
                return None
            envelope = read
        return envelope.body_hash, envelope.principal.user_id

    async def _again(self, sighting: Sighting) -> None:
        """The same command: its file goes when the command ends, at once if it has."""
        entry = self._pending.get(sighting.id)
        if entry is not None:
            if sighting.name not in self._pending:
                self._pending.add_name(entry, sighting.name)
            return
        # Asked again: the command may have ended, and been settled, while its file was read.
        record = self._known(sighting.id)
        if record is not None and not record.is_final:
            self._pending.add(
                Entry(sighting.id, sighting.name, self._pending.last_order_ns, State.HANDED)
            )
            return
        await DISK.run(self._scan.unlink, [sighting.name])
