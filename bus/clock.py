"""Time as the parts receive it: wall time for records, monotonic time for deadlines. No IO."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999: the last that RFC 3339 can write."""

TIME_MS_MIN = -62_135_596_800_000
"""The beginning of the year 1: the first."""

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Where time comes from; tests pass a clock that they move themselves."""

    def now_ms(self) -> int:
        """Wall time in milliseconds since 1970-01-01 UTC; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back; the origin has no meaning."""
        ...

    def steady_s(self) -> float:
        """The same, on a clock that goes on while the machine sleeps."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def steady_s(self) -> float:
        return time.clock_gettime(_STEADY)


def rfc3339(at_ms: int) -> str:
    """`at_ms` as RFC 3339 in UTC with milliseconds, e.g. `2026-01-26T18:00:00.000Z`.

    A time beyond the years that can be written becomes the first or last of them: a record that
    holds such a time must not make the whole answer fail.
    """
    whole_s, milli = divmod(min(max(at_ms, TIME_MS_MIN), TIME_MS_MAX), 1000)
    return f"{_second(whole_s)}.{milli:03d}Z"


@lru_cache(256)
def _second(whole_s: int) -> str:
    # Most times that are written lie in the second of now. Not by strftime: it would write the
    # year 1 as `1`.
    return datetime.fromtimestamp(whole_s, tz=UTC).replace(tzinfo=None).isoformat()


def from_rfc3339(text: str, *, with_zone: bool = False) -> int:
    """Milliseconds since 1970 of an RFC 3339 time; digits beyond milliseconds are cut.

    Takes what foreign writers produce: up to nine fractional digits, any zone. A time without a
    zone is taken as UTC, unless it must come `with_zone`.

    Raises:
        ValueError: `text` is no such time, or its zone puts it outside of the years of UTC.
    """
    head, dot, tail = text.strip().partition(".")
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        if not digits:
            raise ValueError(f"no digits after the point in {text!r}")
        head, text_zone = f"{head}.{digits[:6].ljust(6, '0')}", tail[len(digits) :]
        head += text_zone
    stamp = datetime.fromisoformat(head)
    if stamp.tzinfo is None:
        if with_zone:
            raise ValueError(f"{text!r} does not say its zone")
        stamp = stamp.replace(tzinfo=UTC)
    at_ms = (stamp - _EPOCH) // timedelta(milliseconds=1)  # whole numbers: a float loses some
    if not TIME_MS_MIN <= at_ms <= TIME_MS_MAX:
        raise ValueError(f"{text!r} lies outside of the years 1 to 9999 in UTC")
    return at_ms


A_MOMENT = "a time with its zone such as 2026-01-26T18:00:00+01:00 or 2026-01-26T17:00:00Z"
"""What `canonical_moment` takes, for sentences."""


def canonical_moment(text: str) -> str:
    """The moment that `text` names, as `rfc3339` writes it: equal texts for equal moments.

    Raises:
        ValueError: it is no RFC 3339 time, or does not say its zone: whose clock was meant?
    """
    return rfc3339(from_rfc3339(text, with_zone=True))
