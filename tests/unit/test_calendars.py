"""Calendars and blackouts: what they contain, why, until when, and what is wrong in their file."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bus.calendars import BlackoutAct
from bus.schedules import Bar, ScheduleSpec
from handlers.calendars.calendar_set import CalendarSet, Faulty, compiled, decode
from handlers.calendars.days import Source
from handlers.calendars.ics import IcsError, read_ics
from handlers.schedule.plan import AHEAD_MAX, ms_of, next_allowed
from handlers.schedule.rules import due_between, rule_of

BERLIN = ZoneInfo("Europe/Berlin")
TOML = """
[calendar.Holidays]
holidays = { country = "DE", subdivision = "BY" }

[calendar.Weekend]
weekdays = ["Sat", "Sunday"]

[calendar.Closed]
dates = ["2026-12-24", "12-31", "12-28..01-02"]
weekdays = ["Mon..Tue"]

[calendar.Events]
ics = "events.ics"

[blackout.Night]
daily = ["22:00..06:00"]
jobs = ["Reports/*"]
zone = "Europe/Berlin"
reason = "backups run"

[blackout.Feast]
on = ["Holidays"]
do = "skip"
zone = "Europe/Berlin"
"""
ICS = b"""BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//tests//EN
BEGIN:VEVENT
UID:1
SUMMARY:Inventory
DTSTART;VALUE=DATE:20261210
DTEND;VALUE=DATE:20261212
END:VEVENT
BEGIN:VEVENT
UID:2
SUMMARY:Freeze
DTSTART;TZID=Europe/Berlin:20261201T220000
DTEND;TZID=Europe/Berlin:20261202T060000
RRULE:FREQ=WEEKLY;BYDAY=TU;UNTIL=20261231T230000Z
EXDATE;TZID=Europe/Berlin:20261208T220000
END:VEVENT
BEGIN:VEVENT
UID:2
RECURRENCE-ID;TZID=Europe/Berlin:20261215T220000
SUMMARY:Freeze (moved)
DTSTART;TZID=Europe/Berlin:20261216T100000
DURATION:PT2H
END:VEVENT
BEGIN:VEVENT
UID:3
SUMMARY:Off
STATUS:CANCELLED
DTSTART;VALUE=DATE:20261217
END:VEVENT
BEGIN:VEVENT
UID:4
SUMMARY:Birthday
DTSTART;VALUE=DATE:20200229
RRULE:FREQ=YEARLY
END:VEVENT
END:VCALENDAR
"""


def calendars(text: str = TOML, zone: str = "UTC") -> CalendarSet:
    written = decode(text.encode(), "apps/calendars.toml")
    sources: dict[str, Source] = {"events.ics": read_ics(ICS)}
    return compiled([written], sources, zone)


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def why(name: str, text: str) -> str | None:
    cover = calendars().calendars[name].cover(berlin(text))
    return None if cover is None else cover.why


@pytest.mark.parametrize(
    ("name", "moment", "expected"),
    [
        ("Holidays", "2026-12-25T00:00", "25 December: Christmas Day in DE-BY"),
        ("Holidays", "2026-01-06T23:59", "6 January: Epiphany in DE-BY"),
        ("Holidays", "2026-12-24T12:00", None),
        ("Weekend", "2026-11-28T12:00", "it is a Saturday"),
        ("Weekend", "2026-11-30T00:00", None),
        ("Closed", "2026-12-24T12:00", "24 December is listed"),
        ("Closed", "2027-12-24T12:00", None),
        ("Closed", "2031-12-31T12:00", "31 December is listed"),
        ("Closed", "2027-01-02T23:00", "2 January is in 12-28..01-02"),
        ("Closed", "2027-01-07T00:00", None),
        ("Closed", "2026-12-01T00:00", "it is a Tuesday"),
        ("Events", "2026-12-11T23:59", "Inventory"),
        ("Events", "2026-12-12T00:00", None),
        ("Events", "2026-12-02T05:59", "Freeze"),
        ("Events", "2026-12-02T06:00", None),
        ("Events", "2026-12-08T23:00", None),
        ("Events", "2026-12-15T23:00", None),
        ("Events", "2026-12-16T11:59", "Freeze (moved)"),
        ("Events", "2026-12-17T12:00", None),
        ("Events", "2027-01-05T23:00", None),
        ("Events", "2028-02-29T12:00", "Birthday"),
        ("Events", "2027-02-28T12:00", None),
    ],
)
def test_calendar_contains_a_moment_and_says_why(
    name: str, moment: str, expected: str | None
) -> None:
    assert why(name, moment) == expected


def test_day_is_that_of_the_zone_of_who_asks() -> None:
    holidays = calendars().calendars["Holidays"]
    in_utc = datetime(2026, 12, 24, 23, 30, tzinfo=UTC)
    assert holidays.cover(in_utc) is None
    assert holidays.cover(in_utc.astimezone(BERLIN)) is not None


def bar(job: str, moment: str, **fields: tuple[str, ...]) -> tuple[str, str, str | None] | None:
    spec = ScheduleSpec(name="s", zone="Europe/Berlin", **fields)  # type: ignore[arg-type]
    at_ms = int(berlin(moment).timestamp() * 1000)
    found = calendars().bar(job, spec, at_ms)
    if found is None:
        return None
    until = found.until_ms
    shown = until and datetime.fromtimestamp(until / 1000, BERLIN).isoformat()[:16]
    return found.why, found.text, shown or None


def test_only_and_except_bar_instants_with_a_reason() -> None:
    skips = bar("A/B", "2026-12-25T09:00", except_=("Weekend", "Holidays"))
    assert skips == ("calendar", "except Holidays: 25 December: Christmas Day in DE-BY", None)
    assert bar("A/B", "2026-12-23T09:00", only=("Weekend",)) == (
        "calendar",
        "23 December is not in Weekend",
        None,
    )
    assert bar("A/B", "2026-12-19T09:00", only=("Weekend", "Closed")) is None
    assert bar("A/B", "2026-12-23T09:00", only=("Gone",)) == (
        "calendar",
        "the calendar Gone cannot be read",
        None,
    )


def test_blackout_waits_until_no_window_holds_any_more_or_skips() -> None:
    assert bar("Reports/Daily", "2026-11-30T23:00") == (
        "blackout",
        "blackout Night: backups run",
        "2026-12-01T06:00",
    )
    assert bar("Reports/Daily", "2026-11-30T05:59") is not None
    assert bar("Reports/Daily", "2026-11-30T06:00") is None
    assert bar("Other/Daily", "2026-11-30T23:00") is None
    # A feast begins within the night: what waits for the end of the night waits for its end, too.
    night = bar("Reports/Daily", "2026-12-24T23:00")
    assert night is not None
    assert night[2] == "2026-12-27T06:00"
    feast = bar("Other/Daily", "2026-12-25T12:00")
    assert feast == (
        "blackout",
        "blackout Feast: Holidays, 25 December: Christmas Day in DE-BY",
        None,
    )


def test_window_ends_by_the_clock_of_its_zone_on_days_on_which_clocks_are_set() -> None:
    assert bar("Reports/Daily", "2026-03-28T23:00") == (
        "blackout",
        "blackout Night: backups run",
        "2026-03-29T06:00",
    )
    [night] = [each for each in calendars().blackouts if each.name == "Night"]
    assert night.do is BlackoutAct.WAIT
    held = night.holds_at(berlin("2026-10-24T23:00").astimezone(UTC))
    assert held is not None
    assert held[1] == berlin("2026-10-25T06:00").astimezone(UTC)
    assert held[1] - berlin("2026-10-24T22:00").astimezone(UTC) == timedelta(hours=9)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[calendar.A]\n", 1, "it is empty; give holidays"),
        ('[calendar.A]\nweekdays = ["Mon"]\nweekday = 1', 3, 'unknown key "weekday"'),
        ('[calendar.A]\nweekdays = ["Mo"]', 2, "is no weekday"),
        ('[calendar.A]\ndates = ["12-24",\n "2026-02-30"]', 3, "no such day"),
        ('[calendar.A]\ndates = ["24.12."]', 2, "is no date"),
        ('[calendar.A]\ndates = ["2026-01-02..2026-01-01"]', 2, "ends before it begins"),
        ('[calendar.A]\ndates = ["2026-01-02..01-04"]', 2, "give both days a year"),
        ('[calendar.A]\nholidays = { country = "Germany" }', 2, "there is no country"),
        ('[calendar.A]\nholidays = { country = "DE", subdivision = "XX" }', 2, "no part"),
        ('[calendar.A]\nholidays = { country = "DE", categories = ["bank"] }', 2, "has no"),
        ("[calendar.A]\nholidays = {}", 2, "holidays.country is missing"),
        ("[blackout.A]\n", 1, "it would hold always"),
        ('[blackout.A]\ndaily = ["22-6"]', 2, "is no span of a day"),
        ('[blackout.A]\ndaily = ["24:30..06:00"]', 2, "is no span of a day"),
        ('[blackout.A]\ndaily = ["22:00..06:00"]\nzone = "Berlin"', 3, "Europe/Berlin"),
        ('[blackout.A]\ndaily = ["22:00..06:00"]\ndo = "stop"', 3, "skip"),
        (
            '[calendar.Feasts]\ndates = ["12-24"]\n[blackout.A]\non = ["Feast"]',
            4,
            'did you mean "Feasts"',
        ),
        ("[calendar", 1, ""),
    ],
)
def test_fault_has_its_line_and_what_would_be_right(text: str, line: int, words: str) -> None:
    with pytest.raises(Faulty) as caught:
        calendars(text)
    first = caught.value.mistakes[0]
    assert (first.file, first.line) == ("apps/calendars.toml", line), first
    assert words in first.reason


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("SUMMARY:a", "without a beginning"),
        ("DTSTART:2026", "DTSTART"),
        ("DTSTART:20261201T220000Z\nRRULE:FREQ=HOURLY", "recurs hourly"),
        ("DTSTART:20261201T220000Z\nRRULE:FREQ=DAILY;BYSECOND=1,2,3", "BYSECOND"),
        ("DTSTART;TZID=Nowhere/Else:20261201T220000", "Nowhere/Else"),
        ("DTSTART:20261201T220000Z\nDTEND:20261201T210000Z", "ends before it begins"),
        ("DTSTART:20261201T220000Z\nRECURRENCE-ID;RANGE=THISANDFUTURE:20261201T220000Z", "RANGE"),
    ],
)
def test_event_that_is_not_understood_makes_its_file_faulty(event: str, words: str) -> None:
    text = f"BEGIN:VCALENDAR\nBEGIN:VEVENT\n{event}\nEND:VEVENT\nEND:VCALENDAR\n"
    with pytest.raises(IcsError, match=words):
        read_ics(text.encode())


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = """
[calendar.X]
countri = "DE"
weekdays = ["Mo"]
[calendar.Y]
weekdays = ["Xy"]
[calendar.Z]
holidays = { subdivision = "BY" }
[calendar.File]
ics = "gone.ics"
[blackout.B]
on = ["Nowhere"]
daily = 3
[blackout.C]
zone = "Nowhere"
on = ["X"]
"""
    with pytest.raises(Faulty) as caught:
        decode(text.encode(), "apps/calendars.toml")
    assert sorted((each.line, each.key) for each in caught.value.mistakes) == [
        (3, "calendar.X.countri"),
        (4, "calendar.X.weekdays[0]"),
        (6, "calendar.Y.weekdays[0]"),
        (8, "calendar.Z.holidays.country"),
        (12, "blackout.B.on[0]"),
        (13, "blackout.B.daily"),
        (15, "blackout.C.zone"),
    ]


def test_each_source_of_a_calendar_and_each_key_of_a_blackout_has_its_mistakes_said() -> None:
    text = """[calendar.X]
weekdays = ["Mo", "Mon", "Xy"]
dates = ["2026-02-30", "12-24", "13-01"]
holidays = { country = "DE", subdivision = "XX", categories = ["none"] }
ics = ""
[blackout.B]
on = ["Nowhere"]
zone = "Nowhere"
daily = ["25:00..26:00", "later"]
"""
    with pytest.raises(Faulty) as caught:
        calendars(text)
    assert sorted((each.line, each.key) for each in caught.value.mistakes) == [
        (2, "calendar.X.weekdays[0]"),
        (2, "calendar.X.weekdays[2]"),
        (3, "calendar.X.dates[0]"),
        (3, "calendar.X.dates[2]"),
        (4, "calendar.X.holidays.categories[0]"),
        (4, "calendar.X.holidays.subdivision"),
        (5, "calendar.X.ics"),
        (7, "blackout.B.on[0]"),
        (8, "blackout.B.zone"),
        (9, "blackout.B.daily[0]"),
        (9, "blackout.B.daily[1]"),
    ]


def test_two_files_count_together_and_a_name_that_both_have_is_a_mistake() -> None:
    one = decode(
        b'[calendar.X]\nweekdays = ["Sun"]\n[blackout.B]\non = ["Y"]\n', "one.toml", ("Y",)
    )
    other = decode(b'[calendar.Y]\ndates = ["12-24"]\n', "other.toml")
    found = compiled([one, other], {}, "UTC")
    assert found.calendars.keys() == {"X", "Y"}
    assert [each.name for each in found.blackouts] == ["B"]
    again = decode(b'\n[calendar.X]\ndates = ["12-24"]\n[blackout.B]\non = ["Z"]\n', "third.toml")
    with pytest.raises(Faulty) as caught:
        compiled([one, again], {}, "UTC")
    assert [str(each) for each in caught.value.mistakes] == [
        "third.toml:2: [calendar.X] stands in one.toml, line 1, too; write it once, or give one "
        "of them another name",
        "third.toml:4: [blackout.B] stands in one.toml, line 3, too; write it once, or give one "
        "of them another name",
        'third.toml:5: there is no calendar "Z"; known are X',
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {"cron": "*/30 * * * *", "except_": ("Closed", "Weekend")},
        {"cron": "17 * * * *", "only": ("Holidays",)},
        {"cron": "0 */2 * * *", "only": ("Holidays", "Events")},
        {"cron": "0 * * * *", "only": ("Weekend",), "except_": ("Closed",)},
        {"every_s": 5000, "except_": ("Events",)},
        {"cron": "@hourly"},
    ],
)
@pytest.mark.parametrize("job_id", ["Reports/X", "Other/X"])
def test_next_start_is_that_of_all_instants_looked_at_one_by_one(
    job_id: str, keys: dict[str, Any]
) -> None:
    known, spec = calendars(), ScheduleSpec(name="x", zone="Europe/Berlin", **keys)
    rule, bar_of = rule_of(spec), partial(known.bar, job_id, spec)
    begin = berlin("2026-10-20T00:00")
    due = [ms_of(each) for each in due_between(rule, begin, begin + timedelta(days=80))]
    bars = {at: bar_of(at) for at in due}
    ahead = None
    for after_ms in range(ms_of(begin), due[-1], 101 * 3_600_000):
        free = (at for at in due if at > after_ms and not ((bar := bars[at]) and not bar.until_ms))
        at = next(free, None)
        if at is None:
            break
        bar = bars[at]
        wanted = bar.until_ms if bar is not None else at
        found = next_allowed(
            job_id, spec, rule, after_ms, bar_of, partial(known.chance_ms, job_id, spec)
        )
        assert found.next_ms == wanted, (after_ms, found)
        if ahead is not None and ahead.counts_at(after_ms):
            assert ahead.next_ms == wanted, (after_ms, ahead)
        ahead = found


def test_schedule_whose_days_are_all_barred_is_looked_through_once_for_months() -> None:
    spec = ScheduleSpec(name="x", zone="UTC", every_s=1, except_=("Days",))
    known = calendars('[calendar.Days]\nweekdays = ["Mon..Sun"]\n')
    asked: list[int] = []

    def bar_of(at_ms: int) -> Bar | None:
        asked.append(at_ms)
        return known.bar("A/B", spec, at_ms)

    chance_of = partial(known.chance_ms, "A/B", spec)
    begin_ms = ms_of(berlin("2026-10-20T00:00"))
    found = next_allowed("A/B", spec, rule_of(spec), begin_ms, bar_of, chance_of)
    assert found.next_ms is None
    assert len(asked) == AHEAD_MAX
    assert found.counts_at(begin_ms + 180 * 86_400_000)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe\0", ICS[:-20], b"BEGIN:VCALENDAR"])
def test_file_that_is_not_whole_is_no_calendar(content: bytes) -> None:
    with pytest.raises(IcsError, match="is no"):
        read_ics(content)


def test_nothing_is_shown_of_a_file_that_is_no_calendar() -> None:
    with pytest.raises(IcsError) as caught:
        read_ics(b"root:hash-of-a-password:20228:0:99999:7:::\n")
    assert "root" not in str(caught.value)


def test_mark_of_utf8_before_an_ics_file_is_passed_over() -> None:
    source = read_ics(b"\xef\xbb\xbf" + ICS)
    assert source(berlin("2026-12-10T12:00")) is not None
