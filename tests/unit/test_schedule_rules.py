"""The instants of schedules, over every change of the clocks of two years in twelve zones."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from bus.schedules import Fold, Gap
from handlers.schedule.rules import (
    AtRule,
    EveryRule,
    ScheduleError,
    calendar_rule,
    cron_rule,
    due_between,
    next_after,
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


@pytest.mark.parametrize("zone", ZONES)
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
    "line",
    [
        "0 0 31 2 *",
        "0 0 ? * *",
        "0 0 15W * *",
        "H H * * *",
        "0 0 0 1 1 * 2027",
        "@often",
        "61 * * * *",
        "0 0 * *",
        "a b c d e",
    ],
)
def test_what_cannot_be_is_refused_with_what_to_write(line: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        cron_rule(line, "UTC")
    print(caught.value)


def test_every_and_at() -> None:
    assert next_after(EveryRule(every_s=3600), at("2026-01-01T00:30")) == at("2026-01-01T01:00")
    assert next_after(AtRule(instants=(at("2026-01-01"),)), at("2026-01-01")) is None
    assert next_after(calendar_rule("Mon..Fri 09:00", "Europe/Berlin"), at("2026-11-28")) == at(
        "2026-11-30T08:00"
    )
    assert next_after(
        calendar_rule("*-*-01 04:30:00 America/New_York", "UTC"), at("2026-11-28")
    ) == at("2026-12-01T09:30")
