"""What would be decided of a command now, without deciding it: on the published table, for callers
outside of the owner; and the context in which decisions are made."""

import random
from collections.abc import Callable

from bus.clock import Clock
from bus.commands import BackfillSchedule, RestartJob, RetryExecution, RunSchedule, StartJob
from bus.envelope import Envelope, new_uuid
from bus.errors import NoSpace, Refused
from bus.ports import Policy
from bus.schedules import Bar, ScheduleSpec
from handlers.decisions.decision import Context
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.refusals import reveals_secret
from handlers.decisions.registry import changes_others, check, decide

NO_SPACE_AGAIN_S = 5.0
"""When a start that found little room may be tried again: the next look at the disk."""

STARTING = (StartJob, RestartJob, RetryExecution, RunSchedule, BackfillSchedule)
"""What is refused first when room gets scarce; stops and exits use the reserve."""


class Checks:
    """Implements `bus.ports.Checker`. `_policy` is what is in force; only `go_by` sets it.

    `_undecided` gives commands on their way to the owner; `connect` sets it, before the first call.
    `bar_of` asks calendars and blackouts; the wiring sets it before the first decision.
    """

    def __init__(
        self,
        published: ReadableTable,
        clock: Clock,
        policy: Policy,
        is_low: Callable[[], bool],
        undecided: Callable[[str], Envelope | None],
    ) -> None:
        self._published = published
        self._clock = clock
        self._policy = policy
        self._is_low = is_low
        self._undecided = undecided
        self.bar_of: Callable[[str, ScheduleSpec, int], Bar | None] = lambda *_: None

    def connect(self, undecided: Callable[[str], Envelope | None]) -> None:
        """Who knows the commands on their way: made with these checks, and so after them."""
        self._undecided = undecided

    def context(self) -> Context:
        """What a decision of this moment is given besides the table."""
        now_ms = self._clock.now_ms()
        return Context(
            now_ms,
            lambda: new_uuid(now_ms),
            self._policy,
            random.random,
            self._undecided,
            self._is_low(),
            self.bar_of,
        )

    def check(self, envelope: Envelope) -> None:
        """See `bus.ports.Checker`: nothing comes of it.

        Raises:
            NoSpace: it would start something, and little room is left on the disk.
        """
        check(self._published, envelope, self.context())
        if isinstance(envelope.command, STARTING) and self._is_low():
            raise NoSpace(
                "little room is left on the disk of the data directory; nothing is started until "
                "there is more",
                retry_after_s=NO_SPACE_AGAIN_S,
            )

    def changes_others(self, envelope: Envelope) -> bool:
        """Whether more would come of the command than its own record, as far as is known now."""
        try:
            decision = decide(self._published, envelope, self.context())
        except Refused:
            return False
        return changes_others(envelope, decision)

    def reveals_secret(self, envelope: Envelope) -> bool:
        """Whether the command holds the value of a secret, as far as is known now."""
        return reveals_secret(self._published, envelope.command, self._policy)

    def go_by(self, policy: Policy) -> None:
        """What is decided from now on is decided by these settings."""
        self._policy = policy
