"""Verified stand-ins for the outside: a clock moved by hand. Nothing of our own code is mocked."""


class ManualClock:
    """Time that passes only when it is moved; implements `bus.clock.Clock`."""

    def __init__(self, now_ms: int = 1_769_450_400_000) -> None:
        self._now_ms = now_ms
        self._monotonic_s = 1000.0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def steady_s(self) -> float:
        return self._monotonic_s

    def advance_s(self, seconds: float) -> None:
        """Both clocks move on."""
        self._now_ms += int(seconds * 1000)
        self._monotonic_s += seconds

    def jump_wall_s(self, seconds: float) -> None:
        """Only the wall clock jumps, as when somebody sets it."""
        self._now_ms += int(seconds * 1000)
