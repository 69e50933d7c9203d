"""The small interface that every transport offers. No implementation lives here."""

from collections.abc import Sequence
from typing import Protocol

from bus.envelope import Envelope


class Transport(Protocol):
    """Where commands come in durably.

    A received command stays with the transport until `settle`; unsettled ones are received again
    after a restart, so the receiver must know what it has already handled (by command id).
    """

    async def publish(self, envelope: Envelope) -> None:
        """The command is durable (as durable as this transport promises) and will be received.

        A repeat of an id whose first publication is still being committed waits for that one.

        Raises:
            IdInUse: another command under this id waits here.
            TransportBusy: nothing was accepted; try again later.
            StorageFailed: the write failed in a way that leaves the outcome open.
        """
        ...

    def holds(self, command_id: str) -> bool:
        """Whether the command is here: being committed, waiting, or received and not settled."""
        ...

    async def receive(self, limit: int) -> Sequence[Envelope]:
        """The next commands in order, at least one and at most `limit`; waits for the first.

        Urgent ones (`bus.commands.is_urgent`) come first. Each is received once per run.
        """
        ...

    def settle(self, command_id: str) -> None:
        """The command has ended and its result is on record: it is never received again."""
        ...

    async def aclose(self) -> None:
        """Accepts nothing more; what was accepted is durable."""
        ...
