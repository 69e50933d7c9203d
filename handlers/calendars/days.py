"""Which days a calendar contains, and why. Pure.

A calendar is asked about a moment of local time, in the zone of who asks: a day is that zone's day.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import msgspec

from bus.calendars import CalendarSpec, HolidaysSpec
from bus.wording import did_you_mean, quoted


class Cover(NamedTuple):
    """Why a moment is in a calendar, e.g. `25 December: Christmas Day in DE-BY`, and until when at
    least; what follows may be in it, too."""

    why: str
    until: datetime


Source = Callable[[datetime], Cover | None]
"""What covers a moment of local time, which knows its zone; None if nothing does."""

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FULL = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY = re.compile(r"(?:(\d{4})-)?(\d{2})-(\d{2})")
_LEAP_YEAR = 2024


class CalendarError(Exception):
    """What is wrong with a calendar; `path` leads to it in the file."""

    def __init__(self, path: tuple[str | int, ...], reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


class CalendarErrors(Exception):
    """All that is wrong with one calendar, or with one blackout."""

    def __init__(self, errors: Iterable[CalendarError]) -> None:
        super().__init__()
        self.errors = tuple(errors)


_T = TypeVar("_T")


def all_of(parts: Iterable[Callable[[], _T]]) -> list[_T]:
    """What the parts make, in order.

    Raises:
        CalendarErrors: some of them are faulty; with all that is wrong with any.
    """
    made: list[_T] = []
    errors: list[CalendarError] = []
    for part in parts:
        try:
            made.append(part())
        except CalendarError as error:
            errors.append(error)
        except CalendarErrors as several:
            errors += several.errors
    if errors:
        raise CalendarErrors(errors)
    return made


def no_calendar(name: str, known: Iterable[str]) -> str:
    """The sentence about a calendar that there is not."""
    there = list(known)
    hint = (
        did_you_mean(name, there) if there else "; they stand in apps/calendars.toml or jobbus.toml"
    )
    return f"there is no calendar {quoted(name)}{hint}"


class Calendar(msgspec.Struct, frozen=True):
    """The sources of one `[calendar.NAME]`: it contains what any of them does."""

    name: str
    sources: tuple[Source, ...]
    is_of_days: bool = True
    """Whether it contains whole days alone."""

    def cover(self, local: datetime) -> Cover | None:
        """Why it contains the moment; None if it does not."""
        covers = (source(local) for source in self.sources)
        return next((cover for cover in covers if cover is not None), None)


def calendar_of(name: str, spec: CalendarSpec, ics: Source | None = None) -> Calendar:
    """The calendar that is defined so; `ics` is its file, read already.

    Raises:
        CalendarErrors: days, a country or weekdays are none, or it would contain nothing.
    """
    parts: list[Callable[[], Source]] = []
    if spec.ics is not None and not is_file_name(spec.ics):
        parts.append(partial(_no_file, spec.ics))
    if spec.weekdays:
        parts.append(partial(_weekdays, spec.weekdays))
    if spec.dates:
        parts.append(partial(_dates, spec.dates))
    if spec.holidays is not None:
        parts.append(partial(_holidays, spec.holidays))
    sources = all_of(parts)
    if ics is not None:
        sources.append(ics)
    if not sources and spec.ics is None:
        raise CalendarErrors(
            [CalendarError((), "it is empty; give holidays, ics, dates or weekdays")]
        )
    return Calendar(name, tuple(sources), is_of_days=spec.ics is None)


def is_file_name(text: str) -> bool:
    """Whether a file could have that name."""
    return bool(text) and "\0" not in text


def _no_file(text: str) -> Source:
    raise CalendarError(("ics",), f'{quoted(text)} is no file; write for example "company.ics"')


def _shown(day: date) -> str:
    return f"{day.day} {day:%B}"


def _day_of(local: datetime, why: str) -> Cover:
    """The cover of the whole day of a moment."""
    return Cover(why, day_after(local))


def day_after(local: datetime) -> datetime:
    """When the day after that of a moment begins."""
    after = local.date() + timedelta(days=1)
    return datetime(after.year, after.month, after.day, tzinfo=local.tzinfo)


def _weekdays(words: Sequence[str]) -> Source:
    found = all_of(partial(_numbers_of, word, index) for index, word in enumerate(words))
    wanted = set(chain.from_iterable(found))

    def source(local: datetime) -> Cover | None:
        if local.weekday() not in wanted:
            return None
        return _day_of(local, f"it is a {_FULL[local.weekday()]}")

    return source


def _numbers_of(word: str, index: int) -> list[int]:
    first, _, last = word.replace("-", "..").partition("..")
    begin = _number_of(first, word, index)
    end = _number_of(last, word, index) if last else begin
    return [(begin + step) % 7 for step in range((end - begin) % 7 + 1)]


def _number_of(name: str, word: str, index: int) -> int:
    known = {short.casefold(): at for at, short in enumerate(WEEKDAYS)}
    known |= {full.casefold(): at for at, full in enumerate(_FULL)}
    if (number := known.get(name.strip().casefold())) is not None:
        return number
    days = ", ".join(WEEKDAYS)
    raise CalendarError(
        ("weekdays", index),
        f"{quoted(word)} is no weekday; write {days} or a span such as Mon..Fri",
    )


def _dates(texts: Sequence[str]) -> Source:
    spans = all_of(partial(_span, text, index) for index, text in enumerate(texts))

    def source(local: datetime) -> Cover | None:
        day = local.date()
        for text, contains in spans:
            if contains(day):
                how = f"in {text}" if ".." in text else "listed"
                return _day_of(local, f"{_shown(day)} is {how}")
        return None

    return source


def _span(text: str, index: int) -> tuple[str, Callable[[date], bool]]:
    first, _, last = text.partition("..")
    begin, begin_year = _day(first, text, index)
    end, end_year = _day(last, text, index) if last else (begin, begin_year)
    if (begin_year is None) != (end_year is None):
        raise CalendarError(("dates", index), f"{quoted(text)}: give both days a year, or neither")
    if begin_year is not None and end_year is not None:
        low, high = (begin_year, *begin), (end_year, *end)
        if low > high:
            raise CalendarError(("dates", index), f"{quoted(text)} ends before it begins")
        return text, lambda day: low <= (day.year, day.month, day.day) <= high
    if begin <= end:
        return text, lambda day: begin <= (day.month, day.day) <= end
    return text, lambda day: not end < (day.month, day.day) < begin


def _day(part: str, text: str, index: int) -> tuple[tuple[int, int], int | None]:
    match = _DAY.fullmatch(part.strip())
    if match is not None:
        year = int(match[1]) if match[1] else None
        try:
            day = date(year or _LEAP_YEAR, int(match[2]), int(match[3]))
        except ValueError:
            raise CalendarError(
                ("dates", index), f"{quoted(text)}: there is no such day in the calendar"
            ) from None
        return (day.month, day.day), year
    raise CalendarError(
        ("dates", index),
        f"{quoted(text)} is no date; write 2026-12-24, 12-24 for each year, or 12-24..01-06",
    )


def _holidays(spec: HolidaysSpec) -> Source:
    place = f"{spec.country}-{spec.subdivision}" if spec.subdivision else spec.country
    days = _holidays_of(spec)

    def source(local: datetime) -> Cover | None:
        name = days.get(local.date())
        return _day_of(local, f"{_shown(local.date())}: {name} in {place}") if name else None

    return source


def _holidays_of(spec: HolidaysSpec) -> Mapping[date, str]:
    """The days, which the library works out year by year as they are asked for."""
    import holidays  # here: it takes time and memory that those without calendars need not give

    known: Mapping[str, Sequence[str]] = holidays.list_supported_countries()
    if spec.country not in known:
        raise CalendarError(
            ("holidays", "country"),
            f"there is no country {quoted(spec.country)}; write its ISO code, such as DE or US"
            + (did_you_mean(spec.country.upper(), known) if len(spec.country) == 2 else ""),
        )
    kind: Any = getattr(holidays, spec.country)
    errors: list[CalendarError] = []
    places = (*known[spec.country], *getattr(kind, "subdivisions_aliases", {}))
    if spec.subdivision and spec.subdivision not in places:
        reason = f"{spec.country} has no part {quoted(spec.subdivision)}" + did_you_mean(
            spec.subdivision, known[spec.country] or ("none at all",)
        )
        errors.append(CalendarError(("holidays", "subdivision"), reason))
    for index, category in enumerate(spec.categories):
        if category not in kind.supported_categories:
            reason = f"{spec.country} has no {quoted(category)} holidays" + did_you_mean(
                category, sorted(kind.supported_categories)
            )
            errors.append(CalendarError(("holidays", "categories", index), reason))
    if errors:
        raise CalendarErrors(errors)
    language = "en_US" if "en_US" in getattr(kind, "supported_languages", ()) else None
    categories = tuple(dict.fromkeys((*kind.supported_categories[:0], "public", *spec.categories)))
    if "public" not in kind.supported_categories:
        categories = spec.categories or tuple(kind.supported_categories)
    found: Mapping[date, str] = holidays.country_holidays(
        spec.country,
        subdiv=spec.subdivision or None,
        categories=categories,
        language=language,
    )
    return found
