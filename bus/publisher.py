"""The one way in for publishers inside the process: checked, deduplicated, then made durable."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from bus.commands import AnyCommand, CancelCommand, GetStatus, RestartJob, StopJob, job_of
from bus.envelope import Envelope, Identity, check_same, identity_of
from bus.errors import BusError, ErrorCode, IdInUse, Refused
from bus.ports import Checker, Receipt, TableReader
from bus.transport import Transport

_RECENT_MAX = 20_000
_SLICE = 50
"""Commands of a batch that are checked before others may run."""

_PASSING = frozenset(
    {ErrorCode.ALREADY_RUNNING, ErrorCode.QUEUE_FULL, ErrorCode.EXECUTION_REQUIRED}
)
"""Refusals for what runs or waits at this moment: a stop on its way may end their reason."""

_MAKES_ROOM = (StopJob, RestartJob, CancelCommand)


class Publisher:
    """Implements `bus.ports.CommandPublisher` over a transport; `refused` is called with each
    command that is refused."""

    def __init__(
        self,
        transport: Transport,
        checker: Checker,
        table: TableReader,
        refused: Callable[[Envelope, BusError], None] = lambda envelope, error: None,
    ) -> None:
        self._refused = refused
        self._slice = asyncio.Lock()
        self._transport = transport
        self._checker = checker
        self._table = table
        # Ids on their way from here to the table; what falls out is known there long since.
        self._recent: OrderedDict[str, Identity] = OrderedDict()
        # Of these, those whose first publication has not returned: it may still come to nothing.
        self._publishing: set[str] = set()
        self._waiting: OrderedDict[str, Envelope] = OrderedDict()
        # By job, those of them that make room: what follows is not judged by the time before.
        self._making_room: dict[str, list[str]] = {}

    async def publish(self, envelope: Envelope) -> Receipt:
        try:
            return await self._publish(envelope)
        except (Refused, IdInUse) as error:
            self._refused(envelope, error)
            raise

    async def _publish(self, envelope: Envelope) -> Receipt:
        identity = identity_of(envelope)
        if isinstance(envelope.command, GetStatus):
            self._let_read_again(envelope.id)
        known = self._known(envelope.id)
        if known is None:
            self._check(envelope)
            self._recent[envelope.id] = identity
            self._publishing.add(envelope.id)
            if len(self._recent) > _RECENT_MAX:
                self._recent.popitem(last=False)
            self._note_room(envelope)
            self._note_waiting(envelope)
        else:
            check_same(envelope, known)
            if self._is_handled(envelope.id):
                return Receipt(command_id=envelope.id, replayed=True)
            self._check_held(envelope.id)
        try:
            await self._transport.publish(envelope)
        except BaseException:  # also a cancellation: what became of it is open, a repeat finds out
            if known is None:
                self._recent.pop(envelope.id, None)
                self._forget_room(envelope)
                self._waiting.pop(envelope.id, None)
            raise
        finally:
            if known is None:
                self._publishing.discard(envelope.id)
        return Receipt(command_id=envelope.id, replayed=known is not None)

    async def publish_many(self, envelopes: Sequence[Envelope]) -> list[Receipt | BusError]:
        """See `CommandPublisher`: side by side, so that the transport can commit them together."""
        tasks: list[asyncio.Task[Receipt | BusError]] = []
        async with asyncio.TaskGroup() as group:
            for begin in range(0, len(envelopes), _SLICE):
                # One slice of all batches a turn: a stop that comes meanwhile waits for no more.
                async with self._slice:
                    for envelope in envelopes[begin : begin + _SLICE]:
                        name = f"publish {envelope.id}"
                        publishing = self._receipt_or_error(envelope)
                        tasks.append(group.create_task(publishing, name=name))
                    await asyncio.sleep(0)
        return [task.result() for task in tasks]

    def undecided(self, command_id: str) -> Envelope | None:
        """See `bus.ports.CommandPublisher`."""
        found = self._waiting.get(command_id)
        return None if found is None or self._is_decided(command_id) else found

    async def _receipt_or_error(self, envelope: Envelope) -> Receipt | BusError:
        try:
            return await self.publish(envelope)
        except BusError as error:
            return error

    def _check(self, envelope: Envelope) -> None:
        """Refuses at once what the owner would refuse, unless the owner does not know all yet."""
        try:
            self._checker.check(envelope)
        except Refused as refused:
            job_id = self._job_of(envelope.command)
            if refused.code not in _PASSING or not self._undecided(job_id):
                raise

    def _note_waiting(self, envelope: Envelope) -> None:
        """Those that were decided meanwhile go: mostly they stand at the front."""
        self._waiting[envelope.id] = envelope
        while len(self._waiting) > _RECENT_MAX or self._is_decided(next(iter(self._waiting))):
            self._waiting.popitem(last=False)

    def _note_room(self, envelope: Envelope) -> None:
        """A stop, restart or cancel counts until it is decided."""
        if not isinstance(envelope.command, _MAKES_ROOM):
            return
        job_id = self._job_of(envelope.command)
        if job_id is not None:
            self._making_room[job_id] = [*self._undecided(job_id), envelope.id]

    def _forget_room(self, envelope: Envelope) -> None:
        """It was not accepted after all."""
        waiting = self._making_room.get(self._job_of(envelope.command) or "", [])
        if envelope.id in waiting:
            waiting.remove(envelope.id)

    def _undecided(self, job_id: str | None) -> list[str]:
        waiting = self._making_room.pop(job_id, []) if job_id is not None else []
        left = [command_id for command_id in waiting if not self._is_decided(command_id)]
        if left and job_id is not None:
            self._making_room[job_id] = left
        return left

    def _job_of(self, command: AnyCommand) -> str | None:
        """The job that the command is about, however it names it."""
        execution_id = getattr(command, "execution_id", None)
        if isinstance(command, CancelCommand):
            target = self._table.command(command.target_id)
            return target.job_id if target is not None else None
        if execution_id is not None:
            execution = self._table.execution(execution_id)
            return execution.job_id if execution is not None else None
        return job_of(command)

    def _is_lost(self, command_id: str) -> bool:
        """It was accepted here, and neither the transport nor the table knows it any more."""
        return (
            command_id in self._recent
            and command_id not in self._publishing
            and not self._is_handled(command_id)
            and not self._transport.holds(command_id)
        )

    def _check_held(self, command_id: str) -> None:
        """A repeat finds its first where it should be; it is never published in its place."""
        if self._is_lost(command_id):
            raise Refused(
                ErrorCode.EXPIRED,
                f"the command {command_id} was accepted before and is not known any more, so it is "
                "not run again; to run it, send it under a new id or Idempotency-Key",
            )

    def _let_read_again(self, command_id: str) -> None:
        """A read leaves nothing behind: when its answer is gone, a repeat of it asks again."""
        if self._is_lost(command_id):
            del self._recent[command_id]
            self._waiting.pop(command_id, None)

    def _known(self, command_id: str) -> Identity | None:
        record = self._table.command(command_id) or self._table.forgotten(command_id)
        if record is not None:
            return identity_of(record)
        return self._recent.get(command_id)

    def _is_decided(self, command_id: str) -> bool:
        """Nothing comes of it any more. The table alone does not say so: it forgets what had no
        effect, and what waited behind such a command would be kept for ever."""
        is_on_its_way = command_id in self._publishing or self._transport.holds(command_id)
        return self._is_handled(command_id) or not is_on_its_way

    def _is_handled(self, command_id: str) -> bool:
        table = self._table
        return (table.command(command_id) or table.forgotten(command_id)) is not None
