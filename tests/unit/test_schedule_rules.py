"""The instants of schedules, over every change of the clocks of two years in twelve zones."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from bus.schedules import Fold, Gap, ScheduleSpec
from handlers.schedule.rules import (
    AtRule,
    EveryRule,
    ScheduleError,
    calendar_rule,
    cron_rule,
    due_between,
    next_after,
    rule_of,
)
from handlers.schedule.wall_time import wall_of

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Pacific/Apia",
    "America/St_Johns",
)
LINES = (
    "30 2 * * *",
    "*/15 2 * * *",
    "0 * * * *",
    "*/5 * * * *",
    "0 0 * * *",
    "15 0 1 * *",
    "0 3 * * 0",
    "0 9-17 * * 1-5",
    "59 23 L * *",
    "0 0 13 * 5",
    "30 1,2,3 * * *",
    "0 12 29 2 *",
    "10 30 2 * * *",
    "*/20 0 0 * * *",
    "0 4 * * 5#2",
    "0 0 1 1 *",
    "*/7 1-3 * * *",
    "5 0 * * SUN",
    "0 2 LW * *",
    "*/30 * * * *",
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def transitions(zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    hours = (begin + timedelta(hours=n) for n in range(int((end - begin).total_seconds() // 3600)))
    return [
        a
        for a, b in pairwise(hours)
        if a.astimezone(zone).utcoffset() != b.astimezone(zone).utcoffset()
    ]


SHORT = ("Australia/Lord_Howe",)
"""Of the others the long form; this one changes by half an hour."""


@pytest.mark.parametrize(
    "zone",
    [zone if zone in SHORT else pytest.param(zone, marks=pytest.mark.exhaustive) for zone in ZONES],
)
def test_each_change_of_the_clocks_gives_each_wall_time_its_instants(zone: str) -> None:
    place = ZoneInfo(zone)
    for change in transitions(place, at("2026-01-01"), at("2028-01-01")):
        begin, end = change - timedelta(hours=8), change + timedelta(hours=30)
        moments = [begin + timedelta(seconds=10 * n) for n in range(1, 38 * 360 + 1)]
        shown = [(moment, wall_of(moment, place)) for moment in moments]
        for line in LINES:
            walls = walls_between(
                line, shown[0][1] - timedelta(days=1), shown[-1][1] + timedelta(days=1)
            )
            wanted = [moment for moment, wall in shown if wall in walls]
            rule = cron_rule(line, zone, Gap.SKIP, Fold.TWICE)
            assert list(due_between(rule, begin, end)) == wanted, (line, zone, change)
            for gap, fold in ((Gap.RUN, Fold.ONCE), (Gap.RUN, Fold.TWICE), (Gap.SKIP, Fold.ONCE)):
                found = list(due_between(cron_rule(line, zone, gap, fold), begin, end))
                assert found == sorted(set(found)), (line, zone)
                extra = set(found) - set(wanted)
                assert len(extra) <= (1 if gap is Gap.RUN else 0), (line, zone, extra)
                if fold is Fold.ONCE:
                    seen = [wall_of(due, place) for due in found]
                    assert len(seen) == len(set(seen)), (line, zone)


def walls_between(line: str, begin: datetime, end: datetime) -> set[datetime]:
    return set(takewhile(lambda wall: wall <= end, CronSim(line, begin)))


def test_berlin() -> None:
    day = (at("2026-03-28T12:00"), at("2026-03-29T12:00"))
    assert list(due_between(cron_rule("30 2 * * *", "Europe/Berlin"), *day)) == [
        at("2026-03-29T01:00")
    ]
    assert list(due_between(cron_rule("*/15 2 * * *", "Europe/Berlin"), *day)) == [
        at("2026-03-29T01:00")
    ]
    fold = (at("2026-10-24T12:00"), at("2026-10-25T12:00"))
    assert list(due_between(cron_rule("30 2 * * *", "Europe/Berlin"), *fold)) == [
        at("2026-10-25T00:30")
    ]
    assert len(list(due_between(cron_rule("*/15 2 * * *", "Europe/Berlin"), *fold))) == 8


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0 31 2 *", "there is no day 31 in February"),
        ("0 0 30 FEB *", "never due"),
        ("0 0 31 4,6 *", "there is no day 31 in month 4,6"),
        ("0 0 ? * *", "write '*'"),
        ("0 0 15W * *", "write 'LW'"),
        ("H H * * *", "jitter_s"),
        ("0 0 0 1 1 * 2027", "seven fields"),
        ("@often", "@daily"),
        ("61 * * * *", '"61" is no minute'),
        ("0 0 * *", "4 fields; write five"),
        ("0 0 * * 9", '"9" is no day of the week'),
        ("0 0 * JANUARY *", "JAN-DEC"),
        ("0 0 * 13 *", '"13" is no month'),
        ("", "cron is empty"),
        ("a b c d e", '"a" is no minute'),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_write(line: str, said: str) -> None:
    with pytest.raises(ScheduleError, match=re.escape(said)):
        cron_rule(line, "UTC")


def test_every_and_at() -> None:
    assert next_after(EveryRule(every_s=3600), at("2026-01-01T00:30")) == at("2026-01-01T01:00")
    assert next_after(AtRule(instants=(at("2026-01-01"),)), at("2026-01-01")) is None
    assert next_after(calendar_rule("Mon..Fri 09:00", "Europe/Berlin"), at("2026-11-28")) == at(
        "2026-11-30T08:00"
    )
    assert next_after(
        calendar_rule("*-*-01 04:30:00 America/New_York", "UTC"), at("2026-11-28")
    ) == at("2026-12-01T09:30")


@pytest.mark.parametrize(
    ("line", "zone", "day", "minutes"),
    [
        ("5 * * * *", "Europe/Berlin", "2026-03-29", {60}),
        ("*/15 * * * *", "Europe/Berlin", "2026-03-29", {15}),
        ("*/15 * * * *", "Europe/Berlin", "2026-10-25", {15}),
        ("0 * * * *", "Europe/Berlin", "2026-10-25", {60}),
        ("0 * * * *", "Australia/Lord_Howe", "2026-10-03", {30, 60}),
        ("*/30 * * * *", "Africa/Cairo", "2026-04-23", {30}),
    ],
)
def test_patterns_follow_elapsed_time_through_changes_and_never_crowd(
    line: str, zone: str, day: str, minutes: set[int]
) -> None:
    begin = at(f"{day}T00:00") - timedelta(hours=6)
    found = list(due_between(cron_rule(line, zone), begin, begin + timedelta(hours=36)))
    assert {(b - a) // timedelta(minutes=1) for a, b in pairwise(found)} == minutes


@pytest.mark.parametrize(
    ("spec", "key", "said"),
    [
        (ScheduleSpec(zone="UTC"), "", "needs one of cron, every_s, at, calendar"),
        (ScheduleSpec(cron="* * * * *", every_s=5, zone="UTC"), "every_s", "cron and every_s"),
        (ScheduleSpec(cron="* * * * *", zone="Berlin"), "zone", 'did you mean "Europe/Berlin"?'),
        (ScheduleSpec(cron="* * * * *", zone="Europe/Berln"), "zone", '"Europe/Berlin"'),
        (ScheduleSpec(cron="* * * * *", zone="../UTC"), "zone", "there is no zone"),
        (ScheduleSpec(cron="* * * * *", zone="Europe"), "zone", "there is no zone"),
        (ScheduleSpec(cron="* * * * *", anchor="2026-01-01", zone="UTC"), "anchor", "every_s"),
        (ScheduleSpec(every_s=5, anchor="noon", zone="UTC"), "anchor", "no date and time"),
        (ScheduleSpec(at=("24.12.2026",), zone="UTC"), "at", "no date and time"),
        (ScheduleSpec(at=(), zone="UTC"), "at", "at is empty"),
        (
            ScheduleSpec(at=("9999-12-31T23:59:59-12:00",), zone="UTC"),
            "at",
            "between 1970 and 9000",
        ),
        (ScheduleSpec(at=("0001-01-01",), zone="Asia/Tokyo"), "at", "between 1970 and 9000"),
        (ScheduleSpec(at=("2026-01-01",) * 1001, zone="UTC"), "at", "several schedules"),
        (ScheduleSpec(calendar="whenever", zone="UTC"), "calendar", "Mon..Fri 09:00"),
        (ScheduleSpec(calendar="*-02-31 10:00", zone="UTC"), "calendar", "never due"),
        (ScheduleSpec(calendar="09:00 Europe/Berln", zone="UTC"), "calendar", "no zone"),
    ],
)
def test_schedule_that_cannot_be_names_its_key_and_what_would_be_right(
    spec: ScheduleSpec, key: str, said: str
) -> None:
    with pytest.raises(ScheduleError, match=re.escape(said)) as caught:
        rule_of(spec)
    assert caught.value.key == key


def test_instants_without_an_offset_are_in_the_zone() -> None:
    spec = ScheduleSpec(at=("2026-12-24T18:00:00", "2026-12-24T18:00:00+05:30"), zone="Asia/Tokyo")
    assert rule_of(spec) == AtRule(instants=(at("2026-12-24T09:00"), at("2026-12-24T12:30")))


def test_every_is_counted_from_its_anchor_and_begins_with_it() -> None:
    rule = rule_of(ScheduleSpec(every_s=3600, anchor="2026-01-01T00:10:00", zone="UTC"))
    assert next_after(rule, at("2025-01-01")) == at("2026-01-01T00:10")
    assert next_after(rule, at("2026-01-01T00:10")) == at("2026-01-01T01:10")
