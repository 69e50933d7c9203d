"""The steps of a stop: signal, grace, KILL, truth. Pure: no IO, the time is handed in. Stdlib only.

Grace waits for the whole tree, not for the main process.
"""

from enum import Enum

GIVE_UP_S = 5.0
KILL_AGAIN_S = 0.05
EXTENSION_FACTOR = 10.0
"""A job may ask for more time to stop, up to this many times its grace."""


class Step(Enum):
    """What is to be done now."""

    SIGNAL = "signal"
    """The stop signal, then CONT, to the main process or the group."""
    SIGNAL_REST = "signal_rest"
    """The main process is gone: the stop signal to all that is left."""
    KILL = "kill"
    GIVE_UP = "give_up"


class StopLadder:
    """Where one stop stands. `deadline_s` says when `step` must be asked again at the latest."""

    def __init__(self) -> None:
        self.deadline_s: float | None = None
        self._began_s = 0.0
        self._grace_s = 0.0
        self._signalled = False
        self._rest_signalled = False
        self._kill_from_s: float | None = None
        self._kill_again_s = 0.0
        self._kill_until_s: float | None = None

    @property
    def is_climbing(self) -> bool:
        return self._kill_from_s is not None

    @property
    def is_killing(self) -> bool:
        return self._kill_until_s is not None

    def order(self, now_s: float, grace_s: float, *, kill: bool = False) -> None:
        """The tree is to be gone; a later order can only bring the KILL nearer."""
        wanted = now_s if kill else now_s + max(0.0, grace_s)
        if self._kill_from_s is None:
            self._began_s, self._grace_s = now_s, max(0.0, grace_s)
            self._kill_from_s = wanted
        else:
            self._kill_from_s = min(self._kill_from_s, wanted)
        self.deadline_s = now_s

    def extend(self, now_s: float, more_s: float) -> None:
        """The job asks for time until `more_s` from now."""
        if self._kill_from_s is None or self.is_killing:
            return
        ceiling_s = self._began_s + self._grace_s * EXTENSION_FACTOR
        self._kill_from_s = max(self._kill_from_s, min(now_s + more_s, ceiling_s))
        self.deadline_s = self._kill_from_s

    def step(self, now_s: float, *, main_alive: bool) -> Step | None:
        """The next thing to do while the tree lives; None: wait until `deadline_s`."""
        if self._kill_from_s is None:
            return None
        if self._kill_until_s is not None:
            return self._keep_killing(now_s, self._kill_until_s)
        if now_s >= self._kill_from_s:
            self._kill_until_s = now_s + GIVE_UP_S
            return self._keep_killing(now_s, self._kill_until_s)
        self.deadline_s = self._kill_from_s
        if main_alive and not self._signalled:
            self._signalled = True
            return Step.SIGNAL
        if not main_alive and not self._rest_signalled:
            self._rest_signalled = True
            return Step.SIGNAL_REST
        return None

    def _keep_killing(self, now_s: float, until_s: float) -> Step | None:
        if now_s >= until_s:
            self.deadline_s = None
            return Step.GIVE_UP
        if now_s < self._kill_again_s:
            self.deadline_s = min(self._kill_again_s, until_s)
            return None
        self._kill_again_s = now_s + KILL_AGAIN_S
        self.deadline_s = min(self._kill_again_s, until_s)
        return Step.KILL
