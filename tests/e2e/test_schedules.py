"""`[[schedule]]` of a job.toml as its user has it: starts by themselves, once for each instant."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import Apps
from tests.service import Http, Service, eventually, eventually_answered, running_service
from tests.shifted_clock import (
    DAY_S,
    HOUR_S,
    YEAR_S,
    ShiftedService,
    run_shifted,
    shifted_service,
)

OFTEN = "T/Often"
HOURLY = "T/Hourly"
DECIDED = "schedule.decided"
SAYS = 'echo "$JOBBUS_SCHEDULED_AT $JOBBUS_VAR_Kind" >> "$BOARD/said"'


def define(apps: Apps) -> None:
    apps.shell(
        OFTEN,
        SAYS,
        max_running=5,
        variables={"Kind": {"default": "by hand"}},
        schedule=[
            {
                "name": "seconds",
                "every_s": 1,
                "zone": "Asia/Kolkata",
                "variables": {"Kind": "by itself"},
            }
        ],
    )


def define_hourly(apps: Apps) -> None:
    apps.shell(HOURLY, SAYS, schedule=[{"name": "hourly", "every_s": HOUR_S, "zone": "UTC"}])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


@pytest.fixture
def shifted(tmp_path: Path) -> Iterator[ShiftedService]:
    with shifted_service(tmp_path, define_hourly) as running:
        yield running


def has_lines(service: Service, count: int) -> bool:
    return len(service.apps.lines("said")) >= count


async def schedule_of(http: Http, job_id: str) -> dict[str, Any]:
    job = await http.get(f"/jobs/{job_id}")
    (schedule,) = job["schedules"]
    assert isinstance(schedule, dict)
    return schedule


async def test_schedule_starts_its_job_and_each_instant_is_shown_wherever_starts_are(
    service: Service,
) -> None:
    async with service.http() as http, await service.stream() as events:
        change = (await events.until_change("schedule.decided"))[-1].data
        assert (change["job"], change["subject"]) == (OFTEN, f"jobs/{OFTEN}")
        decided = change["data"]
        assert (decided["schedule"], decided["verdict"]) == ("seconds", "started")
        execution = await http.ended(decided["executionId"])
        assert execution["userId"] == execution["cause"] == "schedule:seconds"
        assert execution["scheduledAt"].endswith("+05:30")
        assert f"{execution['scheduledAt']} by itself" in service.apps.lines("said")
        command = await http.get(f"/commands/{decided['commandId']}")
        assert (command["status"], command["command"]) == ("Completed", "start")
        job = await http.get(f"/jobs/{OFTEN}")
        assert job["nextAt"] is not None
        (schedule,) = job["schedules"]
        assert schedule["last"]["verdict"] == "started"
        assert len({each["at"] for each in schedule["next"]}) == 10


async def test_schedule_without_a_zone_goes_by_that_of_the_service_which_is_shown(
    tmp_path: Path,
) -> None:
    def define_daily(apps: Apps) -> None:
        apps.shell("T/Daily", "true", schedule=[{"cron": "30 2 * * *"}])

    with shifted_service(tmp_path, define_daily, TZ="Asia/Tokyo") as service:
        async with service.http() as http:
            before = await schedule_of(http, "T/Daily")
        assert service.end() == 0
        service.settings = {"TZ": ":America/New_York"}
        service.start()
        async with service.http() as http:
            after = await schedule_of(http, "T/Daily")
    assert (before["name"], before["zone"]) == ("cron 30 2 * * *", "Asia/Tokyo")
    assert before["next"][0]["at"].endswith("T02:30:00+09:00")
    assert after["zone"] == "America/New_York"
    assert after["next"][0]["at"][10:19] == "T02:30:00"


async def test_each_instant_is_decided_once_when_the_service_is_killed_again_and_again(
    service: Service,
) -> None:
    for wanted in (2, 4, 6):
        await eventually(partial(has_lines, service, wanted), f"{wanted} starts")
        service.kill9()
        service.start()
    said = service.apps.lines("said")
    assert len(said) == len(set(said))


def said(service: Service) -> list[str]:
    return [line.split()[0] for line in service.apps.lines("said")]


async def decided(service: Service, count: int) -> list[dict[str, Any]]:
    """All decisions so far, as soon as there are so many."""

    async def look() -> list[dict[str, Any]] | None:
        found = [data for data in await all_changes(service) if data["type"] == DECIDED]
        return found if len(found) >= count else None

    changes = await eventually_answered(look, f"{count} decisions")
    return [change["data"] for change in changes]


async def all_changes(service: Service) -> list[dict[str, Any]]:
    async with service.http() as http:
        page = await http.call("GET", "/events?start=earliest&limit=500", Accept="application/json")
        assert page.status == 200, page.body
        items: list[dict[str, Any]] = page.json["items"]
        return items


async def test_outage_is_made_up_for_once_and_the_rest_is_on_record(
    shifted: ShiftedService,
) -> None:
    """Three days: longer than `missed_within_s`, and no reason to doubt the clock."""
    async with shifted.http() as http:
        last = (await schedule_of(http, HOURLY))["next"][0]["at"]
    assert shifted.end() == 0
    shifted.set_clock(3 * DAY_S)
    shifted.start()
    found = await decided(shifted, 3)
    assert [(each["verdict"], each["why"]) for each in found] == [
        ("skipped", "missed"),
        ("coalesced", None),
        ("started", None),
    ]
    assert found[0]["firstAt"] == last.replace("+00:00", ".000Z")
    assert found[1]["executionId"] == found[2]["executionId"]
    assert sum(each["count"] for each in found) in (72, 73)
    await eventually(lambda: len(said(shifted)) == 1, "the one start")
    log = shifted.log.read_text(encoding="utf-8")
    assert "is skipped: missed" in log
    assert "is coalesced" in log
    where = ("--data", str(shifted.data))
    shown = run_shifted(shifted, "status", HOURLY, *where).stdout
    assert "hourly (every 3600 s), UTC" in shown
    assert f"started for {said(shifted)[0][:10]}" in shown
    assert "next" in shown
    listed = run_shifted(shifted, "jobs", "--wide", *where).stdout.splitlines()
    assert "NEXT" in listed[0]
    assert ":00:00" in listed[1]


@pytest.mark.parametrize("ahead_s", [YEAR_S, -DAY_S])
async def test_clock_that_jumps_starts_nothing_until_a_person_says_that_it_is_right(
    shifted: ShiftedService, ahead_s: int
) -> None:
    shifted.set_clock(ahead_s)
    shifted.apps.shell("T/Other", "true", schedule=[{"every_s": 1, "zone": "UTC"}])
    async with shifted.http() as http:
        clock = await eventually_answered(partial(doubted, http), "the doubt")
        assert clock["lastBelieved"] is not None
        assert "jobbus clock believe" in (await schedule_of(http, HOURLY))["why"]
    shifted.restart()
    async with shifted.http() as http:
        assert not (await http.get("/system"))["clock"]["believed"]
    assert DECIDED not in {change["type"] for change in await all_changes(shifted)}
    done = run_shifted(shifted, "clock", "believe", "--data", str(shifted.data))
    assert (done.returncode, done.stdout) == (0, "believed\n")
    assert "started" in {each["verdict"] for each in await decided(shifted, 1)}
    async with shifted.http() as http:
        entries = (await http.get("/audit?action=clock.believed"))["items"]
        assert [entry["actor"] for entry in entries] == ["admin"]
        assert (await schedule_of(http, HOURLY))["why"] is None


async def test_wrong_year_at_boot_starts_nothing_and_the_right_one_goes_on_by_itself(
    shifted: ShiftedService,
) -> None:
    assert shifted.end() == 0
    for ahead_s in (YEAR_S, YEAR_S + HOUR_S):
        shifted.set_clock(ahead_s)
        shifted.start()
        async with shifted.http() as http:
            assert not (await http.get("/system"))["clock"]["believed"]
        assert shifted.end() == 0
    shifted.set_clock(2 * HOUR_S)
    shifted.start()
    async with shifted.http() as http:
        assert (await http.get("/system"))["clock"] == {"believed": True}
    assert [each["verdict"] for each in await decided(shifted, 2)] == ["coalesced", "started"]
    assert len(said(shifted)) <= 1


async def doubted(http: Http) -> dict[str, Any] | None:
    clock: dict[str, Any] = (await http.get("/system"))["clock"]
    return None if clock["believed"] else clock
