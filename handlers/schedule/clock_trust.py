"""Whether the wall clock is believed, as far as starts by schedule depend on it. Pure.

A clock that jumps is not believed: it may have been set wrong. Nor is one that a start of the
service finds set back, or ahead by more than an outage takes. It is believed again when it is where
it would be without the jump, when a person says that it is right, or when it has gone on steadily
for a day.
"""

from bus.clock import from_rfc3339

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

JUMP_MS_MAX = HOUR_MS
"""By so much the clock may be set while the service runs; time servers do it, and people."""

OUTAGE_MS_MAX = 31 * DAY_MS
"""A service may have been down for so long; a clock that is further ahead of its last record is
taken for a wrong one."""

STEADY_S = 86_400.0

BUILT_MS = from_rfc3339("2026-01-01T00:00:00Z")
"""No clock that shows an earlier time is right: the program is younger."""


class ClockTrust:
    """`_wall_ms` is what was believed last, at `_at_s` of a clock that only goes on; `_allowed_ms`
    by how much the wall clock may be ahead of that. While it is not believed, `_doubted` is what it
    showed and when, since it goes on steadily. Only the methods here write these."""

    def __init__(self, believed_ms: int | None, at_s: float) -> None:
        """`believed_ms` is when the last service was there, by a clock that it believed; None if
        there was none."""
        self._wall_ms = believed_ms
        self._at_s = at_s
        self._allowed_ms = OUTAGE_MS_MAX
        self._doubted: tuple[int, float] | None = None
        self.is_doubted = False

    @property
    def believed_ms(self) -> int | None:
        """The last time that was believed."""
        return self._wall_ms

    def look(self, now_ms: int, now_s: float) -> bool:
        """Whether the clock is believed that shows `now_ms`."""
        if self._fits(now_ms, now_s) or self._is_steady(now_ms, now_s):
            self.believe(now_ms, now_s)
        else:
            self.is_doubted = True
        return not self.is_doubted

    def believe(self, now_ms: int, now_s: float) -> None:
        """The clock is right: it fits, or a person says so."""
        self._wall_ms, self._at_s = now_ms, now_s
        self._allowed_ms = JUMP_MS_MAX
        self._doubted = None
        self.is_doubted = False

    def _fits(self, now_ms: int, now_s: float) -> bool:
        if now_ms < BUILT_MS:
            return False
        if self._wall_ms is None:
            return True
        ahead_ms = now_ms - (self._wall_ms + (now_s - self._at_s) * 1000)
        return -JUMP_MS_MAX <= ahead_ms <= self._allowed_ms

    def _is_steady(self, now_ms: int, now_s: float) -> bool:
        """Whether the clock goes on for a day already since it jumped."""
        if self._doubted is not None:
            since_ms, since_s = self._doubted
            passed_s = now_s - since_s
            if abs(now_ms - since_ms - passed_s * 1000) <= JUMP_MS_MAX:
                return passed_s >= STEADY_S
        self._doubted = (now_ms, now_s)
        return False
