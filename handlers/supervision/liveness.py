"""What is to be found out about a program that runs: whether it is ready, and whether it is well.

Pure, no IO. The part of an execution's machine that asks for it, once, by what the shim says.
"""

from collections.abc import Iterator
from enum import Enum

from bus.job_definition import JobSpec
from bus.recurring import Backoff
from handlers.catalog.probe_targets import is_probed
from handlers.supervision import execution_actions as actions
from handlers.supervision.execution_actions import Timer
from handlers.supervision.record import CheckResult, ShimState

READY_AGAIN_S = 0.2
READY_AGAIN_S_MAX = 5.0


class Readiness(Enum):
    """How far it is with a program whose readiness the service has to find out."""

    NOT_ASKED = "not_asked"
    ASKED = "asked"
    SEEN = "seen"
    """The program is ready, and its shim does not know yet, as far as is known here."""
    SAID = "said"
    """The shim says it, or it is not for the service to find out."""


class Liveness:
    """Of one execution; its machine alone calls this.

    `_readiness` says how far it is with a program that does not say itself when it is ready.
    `_is_checked`: its health is looked after; `_check` is the last check that the shim has
    reported.
    """

    def __init__(self, spec: JobSpec | None) -> None:
        is_asked = spec is not None and is_probed(spec.ready)
        self._readiness = Readiness.NOT_ASKED if is_asked else Readiness.SAID
        self._has_health = spec is not None and spec.health is not None
        self._is_checked = False
        self._check: CheckResult | None = None
        self._pauses = Backoff(READY_AGAIN_S, READY_AGAIN_S_MAX)

    def learn_readiness(self, state: ShimState) -> Iterator[actions.Action]:
        """Asks when the program runs and is not ready."""
        if state.ready_ms is not None:
            self._readiness = Readiness.SAID
        elif self._readiness is Readiness.NOT_ASKED and state.stop is None:
            self._readiness = Readiness.ASKED
            yield actions.ProbeReadiness()

    def learn_health(self, state: ShimState) -> Iterator[actions.Action]:
        """Has it checked once it is ready, and passes on what came of checks."""
        if not self._has_health or state.ready_ms is None:
            return
        if not self._is_checked and state.stop is None:
            self._is_checked = True
            yield actions.CheckHealth(state.ready_ms)
        if state.check is not None and state.check != self._check:
            self._check = state.check
            yield actions.NoteCheck(state.check)

    def seen(self, address: str) -> Iterator[actions.Action]:
        """The program was found ready: its shim is to know."""
        if self._readiness is Readiness.ASKED:
            self._readiness = Readiness.SEEN
            yield from self.say_again(address)

    def say_again(self, address: str) -> Iterator[actions.Action]:
        """What is sent may be lost: it is sent again until the shim says that it knows."""
        if self._readiness is Readiness.SEEN:
            yield actions.SayReady(address)
            yield actions.Wait(Timer.READY, self._pauses.next_s())
