"""Publishing from inside the process: each command becomes one durable file, many in one commit."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from bus.clock import Clock
from bus.commands import NEEDED_WHEN_FULL, is_urgent
from bus.envelope import Envelope, canonical_uuid, check_same, identity_of, weight_of
from bus.errors import StorageFailed, TransportBusy
from bus.layout import DataLayout
from bus.model import CommandRecord
from bus.reserve_spares import Need
from bus.threads import DISK
from transports.directory import command_format, disk
from transports.directory.commit import Piece, storage_failed
from transports.directory.committer import Committer
from transports.directory.pending import Entry, Pending, State
from transports.directory.queue_files import QueueFiles
from transports.directory.settings import DirectorySettings

SMALL_PART = 20
"""A principal with a smaller part than one in so many is let in while others fill the rest."""


class LocalPublisher:
    """The publishers' side of the transport. Lives in the event loop, commits in a thread.

    What is being committed are the `COMMITTING` entries of `_pending`. `_next` are the pieces that
    go to the committer with the next turn of the loop; `publish` appends, `_flush` empties it.
    `failure` is the first sync that failed, if any, and `failed` is set then: the transport ends.

    `wake` makes the transport scan the directory. `changes_others` says whether more comes of
    a command than its own record: the last spares of a full disk are for those.
    """

    def __init__(
        self,
        layout: DataLayout,
        settings: DirectorySettings,
        clock: Clock,
        secret: bytes,
        known: Callable[[str], CommandRecord | None],
        pending: Pending,
        files: QueueFiles,
        wake: Callable[[], None],
        before_answer: Callable[[], None] = lambda: None,
        changes_others: Callable[[Envelope], bool] = lambda envelope: True,
    ) -> None:
        self._changes_others = changes_others
        self._settings = settings
        self._clock = clock
        self._secret = secret
        self._known = known
        self._pending = pending
        self._files = files
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._committer = Committer(layout, settings, self._committed_in_thread, before_answer)
        self._next: list[Piece] = []
        self._open = True
        self.failure: StorageFailed | None = None
        self.failed = asyncio.Event()

    def start(self) -> None:
        self._committer.start()

    async def stop(self) -> None:
        """Takes nothing more; what is under way is committed, its publishers are answered."""
        self._open = False
        if self._next:
            self._flush()
        await DISK.run(self._committer.stop)
        # Each batch was reported to the loop before the end of the thread was.
        assert not self._pending.is_committing(), "the committer ended before its work"

    async def publish(self, envelope: Envelope) -> None:
        """See `bus.transport.Transport.publish`."""
        assert canonical_uuid(envelope.id) == envelope.id
        self._check_open()
        entry = self._pending.get(envelope.id)
        record = self._known(envelope.id)
        if entry is not None and entry.state is State.COMMITTING:
            assert entry.envelope is not None
            check_same(envelope, identity_of(entry.envelope))
        elif record is not None:
            check_same(envelope, identity_of(record))
            return
        elif entry is not None:
            await self._repeat_of_file(entry, envelope)
            return
        else:
            self._check_room(envelope)
            entry = self._begin(envelope)
        committed: asyncio.Future[None] = self._loop.create_future()
        entry.publishers.append(committed)
        try:
            await committed
        except FileExistsError as error:
            await self._compare_with_file(str(error), envelope)

    def _begin(self, envelope: Envelope) -> Entry:
        """From the number to the hand-over there is no await: both grow in the same order, for each
        principal."""
        order_ns = self._pending.next_order_ns(self._clock.now_ms() * 1_000_000)
        need = self._need_of(envelope)
        urgent, owner = is_urgent(envelope.command), envelope.principal.user_id
        data = command_format.encode(envelope, order_ns, self._secret)
        piece = Piece(envelope.id, data, need, urgent=urgent, owner=owner)
        entry = Entry(
            envelope.id,
            piece.name,
            order_ns,
            State.COMMITTING,
            urgent=urgent,
            local=True,
            owner=owner,
            size=weight_of(envelope),
            envelope=msgspec.structs.replace(envelope, accepted_ns=order_ns),
        )
        self._pending.add(entry)
        if not self._next:
            # One turn of the loop later: publishers that woke together are committed together.
            self._loop.call_soon(self._flush)
        self._next.append(piece)
        return entry

    def _need_of(self, envelope: Envelope) -> Need | None:
        if not isinstance(envelope.command, NEEDED_WHEN_FULL):
            return None
        return Need.STOP if self._changes_others(envelope) else Need.PROJECTION

    def _flush(self) -> None:
        pieces, self._next = self._next, []
        if pieces:
            self._committer.put(pieces)

    def _committed_in_thread(self, pieces: Sequence[Piece], failure: StorageFailed | None) -> None:
        self._loop.call_soon_threadsafe(self._committed, pieces, failure)

    def _committed(self, pieces: Sequence[Piece], failure: StorageFailed | None) -> None:
        for piece in pieces:
            entry = self._pending.get(piece.id)
            assert entry is not None, piece.id
            error: Exception | None = failure or piece.error
            if piece.taken:
                error = FileExistsError(piece.name)
            if error is None:
                self._pending.enqueue(entry)
            else:
                self._pending.drop(entry)
            _answer(entry, error)
        if failure is not None:
            self.fail(failure)

    def fail(self, failure: StorageFailed) -> None:
        """Nothing is taken any more; the transport ends with this error."""
        self.failure = self.failure or failure
        self.failed.set()

    async def _repeat_of_file(self, entry: Entry, envelope: Envelope) -> None:
        there = entry.envelope
        if there is not None:
            check_same(envelope, identity_of(there))
            if entry.local:
                return
        await self._compare_with_file(entry.name, envelope)

    async def _compare_with_file(self, name: str, envelope: Envelope) -> None:
        """A command of this id lies there already; if it is the same, it is made durable."""
        self._wake()
        try:
            there = await DISK.run(self._files.durable_envelope, name)
        except disk.SyncFailed as error:
            failure = storage_failed(error)
            self.fail(failure)
            raise failure from error
        except OSError as error:
            raise TransportBusy(f"{name} cannot be read: {error.strerror}") from error
        if there is None:
            raise TransportBusy("a file with this command id is being written or removed")
        check_same(envelope, identity_of(there))

    def _check_open(self) -> None:
        if self.failure is not None:
            raise self.failure
        if not self._open:
            raise TransportBusy("shutting down; nothing is accepted")

    def _check_room(self, envelope: Envelope) -> None:
        """Stops are admitted when everything else is not any more, and so are principals with few
        commands there: what one of them fills, others need."""
        under_way, under_way_bytes = self._pending.local, self._pending.local_bytes
        owner, most = envelope.principal.user_id, self._settings.inbox_max
        most_bytes = self._settings.inbox_bytes_max
        is_small = self._pending.local_of[owner] < most // SMALL_PART
        if is_urgent(envelope.command) or is_small:
            most, most_bytes = most * 2, most_bytes * 2
        if under_way >= most:
            raise TransportBusy(f"{under_way} commands wait already; try again later")
        if under_way_bytes + weight_of(envelope) > most_bytes:
            mib = under_way_bytes / 1024**2
            raise TransportBusy(f"commands of {mib:.0f} MiB wait already; try again later")


def _answer(entry: Entry, error: Exception | None) -> None:
    """All publishers that wait for the commit have its outcome."""
    publishers, entry.publishers = entry.publishers, []
    for publisher in publishers:
        if publisher.done():
            continue
        if error is None:
            publisher.set_result(None)
        else:
            publisher.set_exception(error)
