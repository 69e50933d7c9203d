"""How the owner's stop order gets to a shim: written durably, then the shim is woken. Pure, no IO.

The order goes with the wake-up, too: a program that has removed its folder, or a disk without any
room, must not keep a stop from its shim.
"""

from collections.abc import Iterator

from bus.model import StopRequest
from bus.recurring import Backoff
from handlers.supervision import execution_actions as actions
from handlers.supervision.execution_actions import Timer

WRITE_AGAIN_S = 0.2
WRITE_AGAIN_S_MAX = 5.0
WAKE_AGAIN_S = 0.05
WAKES_MAX = 200
"""A program can fill its shim's socket again and again; after 10 s the shim's own look must do."""


class StopDelivery:
    """The stop of one execution; its machine alone calls this.

    `order` is the one in force, of the owner or of a limit of the shim. `is_passed_on` says whether
    the owner's is in `control`, `_writing` which is being written, `_wakes_left` how often a shim
    whose socket is full is woken again.
    """

    def __init__(self, order: StopRequest | None) -> None:
        self.order = order
        self.is_passed_on = True
        self._writing: StopRequest | None = None
        self._pauses = Backoff(WRITE_AGAIN_S, WRITE_AGAIN_S_MAX)
        self._wakes_left = 0

    def deliver(self, order: StopRequest) -> Iterator[actions.Action]:
        """The owner's newest order is written as soon as an older one has been."""
        self.order, self.is_passed_on = order, False
        yield from self._write()

    def tried(
        self, order: StopRequest, address: str, *, is_written: bool
    ) -> Iterator[actions.Action]:
        """The shim is woken, also if the order could not be written; that is tried again."""
        self._writing = None
        if order != self.order:
            yield from self._write()
            return
        self.is_passed_on = is_written
        if is_written:
            self._pauses.reset()
        else:
            yield actions.Wait(Timer.WRITE, self._pauses.next_s())
        self._wakes_left = WAKES_MAX
        yield actions.WakeShim(address, order)

    def refused(self, order: StopRequest | None) -> Iterator[actions.Action]:
        """The shim's socket is full: it is woken again, unless that was a hint without an order."""
        if order is not None and order == self.order:
            self._wakes_left -= 1
            if self._wakes_left > 0:
                yield actions.Wait(Timer.WAKE, WAKE_AGAIN_S)

    def write_again(self) -> Iterator[actions.Action]:
        """The pause after a failed write is over."""
        if not self.is_passed_on:
            yield from self._write()

    def wake_again(self, address: str) -> Iterator[actions.Action]:
        """The pause after a full socket is over; after a write the shim is woken anyway."""
        if self.order is not None and self._writing is None:
            yield actions.WakeShim(address, self.order)

    def _write(self) -> Iterator[actions.Action]:
        if self._writing is None and self.order is not None:
            self._writing = self.order
            yield actions.WriteControl(self.order)
