"""An iCalendar file (RFC 5545) as a source of a calendar: which event covers a moment. Pure.

Events are all-day or timed, single or recurring by RRULE, RDATE and EXDATE with single occurrences
changed (RECURRENCE-ID). An event without a zone is meant in the zone of who asks. What is not
understood makes the file faulty, since a day that is left out in silence starts what should not.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

import msgspec

from bus.visible_text import visible
from bus.wording import quoted
from handlers.calendars.days import Cover, Source

EVENTS_MAX = 5_000
NAME_MAX = 100
_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")
_FINER = ("BYHOUR", "BYMINUTE", "BYSECOND")
_DAY = timedelta(days=1)
_LOOK_BACK = timedelta(days=366)
"""No occurrence is longer: a longer one makes the file faulty."""


class IcsError(Exception):
    """What is wrong with an `.ics` file, for its writer."""


class Event(msgspec.Struct, frozen=True):
    """One event: occurrences begin at `starts`, or by `rule`, in `zone` (None: that of who asks).

    `start` and the keys of `without` are wall-clock times of that zone.
    """

    name: str
    is_all_day: bool
    start: datetime
    length: timedelta
    zone: tzinfo | None
    rule: Any = None
    starts: tuple[datetime, ...] = ()
    without: frozenset[datetime] = frozenset()

    def end_of(self, wall: datetime) -> datetime | None:
        """The end of the occurrence that covers a wall-clock time of its zone, if one does."""
        for begin in self._begun(wall):
            if begin <= wall < begin + self.length:
                return begin + self.length
        return None

    def _begun(self, wall: datetime) -> Iterator[datetime]:
        """The beginnings that `wall` may belong to."""
        yield from (at for at in self.starts if at not in self.without)
        if self.rule is not None:
            earliest = wall - self.length
            found: Iterable[datetime] = self.rule.between(earliest, wall, inc=True)
            yield from (at for at in found if at not in self.without)


def read_ics(content: bytes) -> Source:
    """The source that an `.ics` file is.

    Raises:
        IcsError: it cannot be read, or says something that is not understood.
    """
    events = _events(content)

    def source(local: datetime) -> Cover | None:
        walls: dict[tzinfo | None, datetime] = {}  # there are many events and few zones
        for event in events:
            zone = event.zone or local.tzinfo
            if zone not in walls:
                walls[zone] = local.astimezone(zone).replace(tzinfo=None)
            end = event.end_of(walls[zone])
            if end is not None:
                return Cover(event.name, end.replace(tzinfo=zone))
        return None

    return source


def _events(content: bytes) -> Sequence[Event]:
    import icalendar  # here: those without calendars need not load it

    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        calendars = icalendar.Calendar.from_ical(content, multiple=True)
    except (ValueError, IndexError, KeyError, TypeError) as exc:
        raise IcsError(f"it is no iCalendar file: {_first_line(content)}") from exc
    if not content.rstrip().upper().endswith(b"END:VCALENDAR"):
        raise IcsError(f"it is no whole iCalendar file: {_first_line(content)}")
    parts = [part for each in calendars for part in each.walk("VEVENT")]
    if len(parts) > EVENTS_MAX:
        raise IcsError(f"it has {len(parts)} events; at most {EVENTS_MAX} are read")
    changed = _changed(parts)
    events = (_event(part, changed) for part in parts)
    return [event for event in events if event is not None]


def _first_line(content: bytes) -> str:
    line = content.lstrip()[:80].split(b"\n", 1)[0]
    if not line:
        return "it is empty"
    if line.strip().upper() == b"BEGIN:VCALENDAR":
        return "it ends before END:VCALENDAR"
    # The file may be any that the service can read: nothing of it is shown to who names it.
    return "it does not begin with BEGIN:VCALENDAR"


def _changed(parts: Sequence[Any]) -> dict[str, set[datetime]]:
    """By UID the occurrences of recurring events that are replaced by one of their own."""
    found: dict[str, set[datetime]] = {}
    for part in parts:
        instead_of = part.get("RECURRENCE-ID")
        if instead_of is None:
            continue
        if str(instead_of.params.get("RANGE", "")):
            raise _not_understood(part, "RANGE of a changed occurrence")
        found.setdefault(str(part.get("UID", "")), set()).add(_wall(instead_of.dt))
    return found


def _event(part: Any, changed: dict[str, set[datetime]]) -> Event | None:
    if str(part.get("STATUS", "")).upper() == "CANCELLED":
        return None
    if part.get("DTSTART") is None:
        raise _not_understood(part, "an event without a beginning (DTSTART)")
    if part.errors:
        raise _not_understood(part, f"its line {part.errors[0][0]}")
    first = part["DTSTART"].dt
    is_all_day = not isinstance(first, datetime)
    given_zone = part["DTSTART"].params.get("TZID")
    if given_zone and not is_all_day and first.tzinfo is None:
        raise _not_understood(part, f"the zone {quoted(str(given_zone))}")
    start, zone = _wall(first), None if is_all_day else first.tzinfo
    is_changed = part.get("RECURRENCE-ID") is not None
    uid = str(part.get("UID", ""))
    excluded = {_wall_in(each.dt, zone) for each in _listed(part.get("EXDATE"))}
    rule = _rule(part, start) if not is_changed else None
    added = tuple(_wall_in(_begin_of(part, each), zone) for each in _listed(part.get("RDATE")))
    return Event(
        name=visible(str(part.get("SUMMARY", "") or "an event"))[:NAME_MAX],
        is_all_day=is_all_day,
        start=start,
        length=_length(part, start, zone, is_all_day=is_all_day),
        zone=zone,
        rule=rule,
        starts=(start, *added) if rule is None else added,
        without=frozenset(excluded | (set() if is_changed else changed.get(uid, set()))),
    )


def _length(part: Any, start: datetime, zone: tzinfo | None, *, is_all_day: bool) -> timedelta:
    if part.get("DTEND") is not None:
        length = _wall_in(part["DTEND"].dt, zone) - start
    elif part.get("DURATION") is not None:
        length = part["DURATION"].dt
    else:
        length = _DAY if is_all_day else timedelta(0)
    if is_all_day:
        length = max(length, _DAY)
    if not timedelta(0) <= length <= _LOOK_BACK:
        raise _not_understood(part, "an event that ends before it begins, or lasts over a year")
    return length


def _rule(part: Any, start: datetime) -> Any:
    from dateutil.rrule import rrulestr

    given = part.get("RRULE")
    if given is None:
        return None
    if isinstance(given, list):
        raise _not_understood(part, "more than one RRULE")
    frequency = str(given.get("FREQ", [""])[0]).upper()
    if frequency not in _FREQUENCIES:
        raise _not_understood(part, f"a rule that recurs {frequency.lower() or 'without FREQ'}")
    finer = [key for key in _FINER if key in given]
    if finer:
        raise _not_understood(part, f"a rule with {finer[0]}: it recurs more often than daily")
    rule = given.to_ical().decode()
    until = given.get("UNTIL")
    if until:
        at = until[0]
        zone = part["DTSTART"].dt.tzinfo if isinstance(part["DTSTART"].dt, datetime) else None
        wall = _wall_in(at, zone)
        kept = (word for word in rule.split(";") if not word.upper().startswith("UNTIL="))
        rule = ";".join((*kept, f"UNTIL={wall:%Y%m%dT%H%M%S}"))
    try:
        return rrulestr(rule, dtstart=start, cache=True)
    except (ValueError, TypeError, KeyError) as exc:
        raise _not_understood(part, f"the rule {quoted(rule)}") from exc


def _begin_of(part: Any, value: Any) -> date:
    if isinstance(value.dt, tuple):
        raise _not_understood(part, "an added occurrence (RDATE) with a length of its own")
    found: date = value.dt
    return found


def _listed(value: Any) -> list[Any]:
    """The values of a property that may stand several times, each time with several."""
    if value is None:
        return []
    given = value if isinstance(value, list) else [value]
    return [each for part in given for each in part.dts]


def _wall(value: date) -> datetime:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - a wall-clock time


def _wall_in(value: date, zone: tzinfo | None) -> datetime:
    """The wall-clock time in the zone of the event, whatever zone it was given in."""
    if isinstance(value, datetime) and value.tzinfo is not None and zone is not None:
        value = value.astimezone(zone)
    return _wall(value)


def _not_understood(part: Any, what: str) -> IcsError:
    name = str(part.get("SUMMARY", "") or "without a name")
    return IcsError(f"the event {quoted(name[:NAME_MAX])} has what is not understood: {what}")
