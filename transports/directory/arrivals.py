"""What becomes of the files that a scan found: pending, known already, or set aside."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from bus.clock import Clock
from bus.envelope import Envelope, Identity, identity_of
from bus.model import CommandRecord
from bus.threads import DISK
from transports.directory.command_files import Sighting
from transports.directory.pending import Entry, Pending, State
from transports.directory.queue_files import QueueFiles
from transports.directory.refusals import RefusalResults, unreadable
from transports.directory.scan import Findings
from transports.directory.scan_plan import GivenUp

log = structlog.get_logger("jobbus.directory")

AHEAD_MAX_NS = 86_400 * 10**9
"""A number further in the future is a broken clock's: it must not drag all later ones along."""
ADDED_MAX = 1000
"""Files that become pending in one turn of the loop."""


class Arrivals:
    """Acts on findings; keeps nothing of its own. Lives in the event loop.

    known: the published record of a command id.
    holds_secret: whether a command holds a secret's value, so that no copy of it may be kept.
    """

    def __init__(
        self,
        clock: Clock,
        known: Callable[[str], CommandRecord | None],
        pending: Pending,
        files: QueueFiles,
        refusals: RefusalResults,
        holds_secret: Callable[[Envelope], bool],
    ) -> None:
        self._clock = clock
        self._known = known
        self._pending = pending
        self._files = files
        self._refusals = refusals
        self._holds_secret = holds_secret

    async def take(self, findings: Findings) -> None:
        """What was found is pending, or is known already; what was given up is in Rejects."""
        doubtful: list[tuple[Sighting, Entry | CommandRecord]] = []
        for count, sighting in enumerate(findings.found, 1):
            if count % ADDED_MAX == 0:
                await asyncio.sleep(0)
            other = self._pending.get(sighting.id) or self._known(sighting.id)
            if other is None:
                self._add(sighting)
            elif not (isinstance(other, Entry) and other.name == sighting.name):
                doubtful.append((sighting, other))
        for sighting, other in doubtful:
            await self._second_of_an_id(sighting, other)
        if findings.given_up:
            await self._give_up(findings.given_up)

    def _add(self, sighting: Sighting) -> None:
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

    async def _second_of_an_id(self, sighting: Sighting, other: Entry | CommandRecord) -> None:
        """A file whose id is known: the same command again, or another that borrowed the id."""
        identity = await self._identity(other)
        [found] = await DISK.run(self._files.envelopes, [sighting.name])
        if found is None or identity is None:
            return
        if isinstance(found, Envelope) and identity_of(found) == identity:
            await self._repeated(sighting)
        elif self._must_not_stay(found, other):
            await DISK.run(self._files.unlink, [sighting.name])
        else:
            reason = "its CommandID stands for another command; take a new one"
            await DISK.run(self._files.reject, sighting.name, reason)

    def _must_not_stay(self, found: Envelope | CommandRecord, other: Entry | CommandRecord) -> bool:
        """A copy in Rejects would keep a secret; a command that was refused for it has no hash."""
        was_refused = isinstance(other, CommandRecord) and not other.body_hash
        return was_refused or (isinstance(found, Envelope) and self._holds_secret(found))

    async def _identity(self, other: Entry | CommandRecord) -> Identity | None:
        if isinstance(other, CommandRecord):
            return identity_of(other)
        envelope = other.envelope
        if envelope is None:
            record = self._known(other.id)
            if record is not None:
                return identity_of(record)
            [read] = await DISK.run(self._files.envelopes, [other.name])
            if not isinstance(read, Envelope):
                return None
            envelope = read
        return identity_of(envelope)

    async def _repeated(self, sighting: Sighting) -> None:
        """The same command: its file goes when the command ends, at once if it has."""
        entry = self._pending.get(sighting.id)
        if entry is not None:
            if sighting.name not in self._pending:
                self._pending.add_name(entry, sighting.name)
            return
        # Asked again: the command may have ended, and been settled, while its file was read.
        record = self._known(sighting.id)
        if record is not None and not record.is_final:
            number = self._pending.last_order_ns
            self._pending.add(Entry(sighting.id, sighting.name, number, State.HANDED))
            return
        await DISK.run(self._files.unlink, [sighting.name])

    async def _give_up(self, files: Sequence[GivenUp]) -> None:
        """They are in Rejects. Before that a request for the id that a file is called after has an
        answer, unless it is the id of a command: a death in between leaves the file to be found."""
        now_ms = self._clock.now_ms()
        records = (unreadable(each.name, each.mark, each.reason, now_ms) for each in files)
        answers = [each for each in records if each is not None and self._is_unused(each.id)]
        if answers:
            try:
                await DISK.run(self._refusals.write_unless_there, answers)
            except OSError as error:
                log.warning("no result written for %d files: %s", len(answers), error.strerror)
        await DISK.run(self._files.set_aside, files)

    def _is_unused(self, command_id: str) -> bool:
        return self._pending.get(command_id) is None and self._known(command_id) is None
