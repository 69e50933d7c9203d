"""How one execution is ended: from an order to the steps of the ladder to signals. Stdlib only."""

import time

from handlers.shim.assignment import Assignment, StopOrder
from handlers.shim.ladder import GIVE_UP_S, KILL_AGAIN_S, Step, StopLadder
from handlers.shim.pipes import now_ms
from handlers.shim.tree import Tree


class Stopping:
    """`order` is the newest one, `cause` why it ends if not by itself; `gave_up` on survivors."""

    def __init__(self, work: Assignment, tree: Tree) -> None:
        self._work = work
        self._tree = tree
        self._ladder = StopLadder()
        self.order: StopOrder | None = None
        self._ordered_s = 0.0
        self.cause: str | None = None
        self.gave_up = False

    @property
    def deadline_s(self) -> float | None:
        return self._ladder.deadline_s

    @property
    def is_climbing(self) -> bool:
        return self._ladder.is_climbing

    @property
    def is_over(self) -> bool:
        """Nothing of the tree is left, or nothing can be done about it."""
        return self.gave_up or self._tree.is_empty()

    @property
    def has_ended_by_itself(self) -> bool:
        """The program has ended and what it left is to go, too."""
        return self._tree.main_status is not None and self._work.leftover == "stop"

    def obey(self, order: StopOrder) -> None:
        """Begins the ladder, or brings its KILL nearer.

        An order that is received again, from a service that came back, is as old as the time since
        it was received first: the wall clock may have been set meanwhile.
        """
        now_s = time.monotonic()
        if self.order is None or self.order.at_ms != order.at_ms:
            self._ordered_s = now_s - max(0.0, (now_ms() - order.at_ms) / 1000)
        grace_s = max(0.0, order.grace_s - (now_s - self._ordered_s))
        self._ladder.order(now_s, grace_s, kill=order.kill)
        if self.cause is None and not self.has_ended_by_itself:
            self.cause = order.reason
        self.order = order

    def extend(self, now_s: float, more_s: float) -> None:
        """The program asks for more time to stop."""
        self._ladder.extend(now_s, more_s)

    def climb(self, now_s: float) -> None:
        """The step that is due has been taken."""
        if self.is_over:
            self._ladder.deadline_s = None
            return
        if self.has_ended_by_itself and not self._ladder.is_climbing:
            self._ladder.order(now_s, self._work.stop_grace_s)
        main_alive = self._tree.main_status is None
        step = self._ladder.step(now_s, main_alive=main_alive)
        if step is Step.SIGNAL:
            self._tree.signal_main(
                self._work.stop_signal, whole_group=self._work.stop_to == "group"
            )
        elif step is Step.SIGNAL_REST:
            self._tree.signal_all(self._work.stop_signal)
        elif step is Step.KILL:
            self._tree.kill()
        elif step is Step.GIVE_UP:
            self.gave_up = True

    def sweep(self) -> list[int]:
        """Kills what left the tree and still carries the marker; returns what is alive after it."""
        give_up_s = time.monotonic() + GIVE_UP_S
        while True:
            survivors = self._tree.survivors(thorough=self._ladder.is_climbing)
            if not survivors or self.gave_up or time.monotonic() > give_up_s:
                return survivors
            self._tree.kill()
            time.sleep(KILL_AGAIN_S)
