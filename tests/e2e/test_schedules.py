"""`[[schedule]]` of a job.toml as its user has it: starts by themselves, once for each instant."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import Apps
from tests.service import Http, Service, eventually, running_service
from tests.shifted_clock import HOUR_S, ShiftedService, shifted_service

OFTEN = "T/Often"
HOURLY = "T/Hourly"
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
        said = await eventually(lambda: service.apps.lines("said"), "the program ran")
        assert said[0] == f"{execution['scheduledAt']} by itself"
        command = await http.get(f"/commands/{decided['commandId']}")
        assert (command["status"], command["command"]) == ("Completed", "start")
        job = await http.get(f"/jobs/{OFTEN}")
        assert job["nextAt"] is not None
        (schedule,) = job["schedules"]
        assert schedule["last"]["verdict"] == "started"
        assert len({each["at"] for each in schedule["next"]}) == 10


async def test_each_instant_is_decided_once_when_the_service_is_killed_again_and_again(
    service: Service,
) -> None:
    for wanted in (2, 4, 6):
        await eventually(partial(has_lines, service, wanted), f"{wanted} starts")
        service.kill9()
        service.start()
    said = service.apps.lines("said")
    assert len(said) == len(set(said))
