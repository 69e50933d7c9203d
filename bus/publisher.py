"""The one way in for publishers inside the process: checked, deduplicated, then made durable."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

from bus.commands import AnyCommand, CancelCommand, GetStatus, RestartJob, StopJob, job_of
from bus.envelope import Envelope, Identity, check_same, identity_of
from bus.errors import BusError, ErrorCode, IdInUse, Refused
from bus.ports import Checker, Receipt, TableReader
from bus.transport import Transport

_REMEMBERED_MAX = 20_000
"""Ids of commands that were accepted here, those on their way and those decided together."""
_SLICE = 50
"""Commands of a batch that are checked before others may run."""

_PASSING = frozenset(
    {ErrorCode.ALREADY_RUNNING, ErrorCode.QUEUE_FULL, ErrorCode.EXECUTION_REQUIRED}
)
"""Refusals for what runs or waits at this moment: a stop on its way may end their reason."""

_MAKES_ROOM = (StopJob, RestartJob, CancelCommand)


class _InFlight(msgspec.Struct, eq=False):
    """A command on its way to the table. `is_publishing`: its first publication has not returned,
    so it may still come to nothing."""

    envelope: Envelope
    is_publishing: bool = True


class Publisher:
    """Implements `bus.ports.CommandPublisher` over a transport; `refused` is called with each
    command that is refused. Lives in the event loop, and only its own methods write what it holds:

    `_in_flight` has each command that was published here and, as far as is known, not decided, by
    id and in order of publication. Of these, `_making_room` has by job the ids of those that may
    end the reason of a refusal. `_decided` has what came before them: ids whose commands were
    decided and dropped from `_in_flight`, with their identities. An id is in one of the two maps.
    """

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
        self._in_flight: OrderedDict[str, _InFlight] = OrderedDict()
        self._decided: OrderedDict[str, Identity] = OrderedDict()
        self._making_room: dict[str, list[str]] = {}

    async def publish(self, envelope: Envelope) -> Receipt:
        try:
            return await self._publish(envelope)
        except (Refused, IdInUse) as error:
            self._refused(envelope, error)
            raise

    async def _publish(self, envelope: Envelope) -> Receipt:
        if isinstance(envelope.command, GetStatus):
            self._let_read_again(envelope.id)
        known = self._known(envelope.id)
        if known is None:
            return await self._publish_first(envelope)
        check_same(envelope, known)
        if not self._is_handled(envelope.id):
            self._check_held(envelope.id)
            await self._transport.publish(envelope)
        return Receipt(command_id=envelope.id, replayed=True)

    async def _publish_first(self, envelope: Envelope) -> Receipt:
        self._check(envelope)
        in_flight = self._note(envelope)
        try:
            await self._transport.publish(envelope)
        except BaseException:  # also a cancellation: what became of it is open, a repeat finds out
            self._forget(envelope)
            raise
        finally:
            in_flight.is_publishing = False
        return Receipt(command_id=envelope.id)

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
        found = self._in_flight.get(command_id)
        return None if found is None or self._is_decided(command_id) else found.envelope

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

    def _note(self, envelope: Envelope) -> _InFlight:
        """The command is in flight. Those at the front that were decided meanwhile are not any
        more; behind an undecided command there are few of them."""
        in_flight = self._in_flight[envelope.id] = _InFlight(envelope)
        while self._is_decided(first := next(iter(self._in_flight))):
            self._decided[first] = identity_of(self._in_flight.pop(first).envelope)
        if len(self._in_flight) + len(self._decided) > _REMEMBERED_MAX:
            # What falls out is known to the table long since.
            (self._decided or self._in_flight).popitem(last=False)
        job_id = self._job_of(envelope.command)
        if isinstance(envelope.command, _MAKES_ROOM) and job_id is not None:
            self._making_room[job_id] = [*self._undecided(job_id), envelope.id]
        return in_flight

    def _forget(self, envelope: Envelope) -> None:
        """The command was not accepted after all."""
        self._in_flight.pop(envelope.id, None)
        self._decided.pop(envelope.id, None)
        making_room = self._making_room.get(self._job_of(envelope.command) or "", [])
        if envelope.id in making_room:
            making_room.remove(envelope.id)

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
        was_here = command_id in self._in_flight or command_id in self._decided
        return was_here and not self._is_handled(command_id) and not self._is_held(command_id)

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
            self._in_flight.pop(command_id, None)
            self._decided.pop(command_id, None)

    def _known(self, command_id: str) -> Identity | None:
        record = self._table.command(command_id) or self._table.forgotten(command_id)
        if record is not None:
            return identity_of(record)
        found = self._in_flight.get(command_id)
        return identity_of(found.envelope) if found is not None else self._decided.get(command_id)

    def _is_decided(self, command_id: str) -> bool:
        """Nothing comes of it any more. The table alone does not say so: it forgets what had no
        effect, and what waited behind such a command would be kept for ever."""
        return self._is_handled(command_id) or not self._is_held(command_id)

    def _is_held(self, command_id: str) -> bool:
        """Whether the command is being published, or the transport has it."""
        found = self._in_flight.get(command_id)
        is_publishing = found is not None and found.is_publishing
        return is_publishing or self._transport.holds(command_id)

    def _is_handled(self, command_id: str) -> bool:
        table = self._table
        return (table.command(command_id) or table.forgotten(command_id)) is not None
