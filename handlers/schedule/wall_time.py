"""Which instants a wall-clock time of a zone names. Pure; `zoneinfo` knows the rules of the zones.

A wall-clock time is a `datetime` without a zone, to the second. An instant is one in UTC.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from bus.schedules import Fold, Gap

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def instants_of(wall: datetime, zone: ZoneInfo, gap: Gap, fold: Fold) -> tuple[datetime, ...]:
    """The instants at which clocks of `zone` show `wall`, earliest first.

    A skipped time is taken at the first instant behind the gap, or not at all; one that comes
    twice at its first coming, or at both.
    """
    first = wall.replace(tzinfo=zone, fold=0)
    second = wall.replace(tzinfo=zone, fold=1)
    before, after = first.astimezone(UTC), second.astimezone(UTC)
    if before == after:
        return (before,)
    if before > after:  # PEP 495: in a gap the offset of fold=0 is the one before it
        return (_transition(after, before, zone),) if gap is Gap.RUN else ()
    return (before, after) if fold is Fold.TWICE else (before,)


def skipped_by(wall: datetime, zone: ZoneInfo) -> timedelta:
    """How far the clock is set forward in the gap in which `wall` lies; zero outside of gaps."""
    before = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    after = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return max(before - after, timedelta(0))


def wall_of(instant: datetime, zone: ZoneInfo) -> datetime:
    """What clocks of `zone` show at `instant`."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def set_back_within(instant: datetime, zone: ZoneInfo) -> timedelta:
    """How far clocks of `zone` are set back in the day that follows `instant`; zero if not at all.

    The two halves of that day are looked at apart, so that two changes do not hide each other.
    """
    offsets = [_offset(instant + part * DAY / 2, zone) for part in range(3)]
    drops = (before - after for before, after in pairwise(offsets))
    return max(*drops, timedelta(0))


def _transition(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """The first second in (`low`, `high`] at which the offset of `high` is in force."""
    wanted = _offset(high, zone)
    while high - low > SECOND:
        middle = low + timedelta(seconds=(high - low) // SECOND // 2)
        if _offset(middle, zone) == wanted:
            high = middle
        else:
            low = middle
    return high


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
