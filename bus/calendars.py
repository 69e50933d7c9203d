"""What `apps/calendars.toml` and `jobbus.toml` say: days that schedules go by, and windows in which
none starts. No IO."""

from enum import StrEnum

import msgspec


class HolidaysSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Public holidays of a country, as the library `holidays` knows them.

    `country` is an ISO 3166 code such as `DE`, `subdivision` a part of it such as `BY`;
    `categories` are further kinds of holidays that the country has, beside the public ones.
    """

    country: str
    subdivision: str = ""
    categories: tuple[str, ...] = ()


class CalendarSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`[calendar.NAME]`: days, and times of days. It contains what any of its sources contains.

    `ics` is a file, counted from the folder of the file that names it; `dates` are `2026-12-24`,
    each year's `12-24`, or spans of either, `12-24..01-06`; `weekdays` are `Mon` … `Sun` or
    `Mon..Fri`.
    """

    holidays: HolidaysSpec | None = None
    ics: str | None = None
    dates: tuple[str, ...] = ()
    weekdays: tuple[str, ...] = ()


class BlackoutAct(StrEnum):
    """What becomes of a start by schedule that falls into a blackout."""

    WAIT = "wait"
    SKIP = "skip"


class BlackoutSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`[blackout.NAME]`: a window in which no schedule starts a job.

    `daily` are spans of the clock such as `22:00..06:00`, all day without; `on` are calendars on
    whose days alone it holds. `jobs` are patterns such as `Reports/*`. Times are those of `zone`,
    or of the service's zone.
    """

    daily: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    zone: str = ""
    jobs: tuple[str, ...] = ("*",)
    do: BlackoutAct = BlackoutAct.WAIT
    reason: str = ""


class CalendarsSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole of `calendars.toml`, or what `jobbus.toml` says of the same."""

    calendar: dict[str, CalendarSpec] = {}
    blackout: dict[str, BlackoutSpec] = {}
