"""From single checks to whether a program is well. Pure.

A single check says little: a program is busy for a moment, or answers once on its way down. It
changes its state after so many checks of one kind in a row, as its definition says.

Invariants, each a property in `tests/unit/test_health_count.py`: no verdict is given twice in a
row, none before `failures` bad or `successes` good checks in a row, and each of these gives one
unless it stands already.
"""

import msgspec

from bus.health import HealthSpec, HealthStatus


class Verdict(msgspec.Struct, frozen=True):
    """The program is in that state from now on; `message` is what the last check said."""

    status: HealthStatus
    message: str


class HealthCount:
    """`status` is the last verdict, of this or an earlier service, None before the first;
    `_in_a_row` are the last checks that were all of the kind `_is_good`."""

    def __init__(self, spec: HealthSpec, status: HealthStatus | None) -> None:
        self._spec = spec
        self.status = status
        self._is_good = False
        self._in_a_row = 0

    def take(self, message: str, *, is_good: bool) -> Verdict | None:
        """One more check; the verdict that it leads to, if any."""
        self._in_a_row = self._in_a_row + 1 if is_good == self._is_good else 1
        self._is_good = is_good
        needed = self._spec.successes if is_good else self._spec.failures
        status = HealthStatus.HEALTHY if is_good else HealthStatus.UNHEALTHY
        if self._in_a_row < needed or status is self.status:
            return None
        self.status = status
        return Verdict(status, message)
