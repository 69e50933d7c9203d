"""How much those who have shown nothing may make the log grow. No IO; time is handed in."""

LINES_BURST = 50.0
LINES_PER_S = 0.2


class Quiet:
    """A bucket of log lines for all of them together: clients from many addresses fill no
    more of the log. What is left out is counted."""

    def __init__(self, per_s: float = LINES_PER_S, burst: float = LINES_BURST) -> None:
        self._per_s = per_s
        self._burst = self._level = burst
        self._at_s = 0.0
        self._left_out = 0

    def may_say(self, now_s: float) -> dict[str, int] | None:
        """Fields for one more line, which say how many were left out before it; or None."""
        self._level = min(self._burst, self._level + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._level < 1.0:
            self._left_out += 1
            return None
        self._level -= 1.0
        left_out, self._left_out = self._left_out, 0
        return {"left_out": left_out} if left_out else {}
