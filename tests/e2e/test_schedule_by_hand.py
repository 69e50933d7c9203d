"""Schedules by hand: paused, resumed, run, made up for; over HTTP, by file, client and CLI."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jobbus.client.client import Client
from tests.command_line import Cli, in_this_process
from tests.jobs import Apps
from tests.service import Http, Service, eventually, eventually_answered, running_service

SAYS = 'echo "$JOBBUS_SCHEDULED_AT $JOBBUS_VAR_Kind" >> "$BOARD/said"'
JOB = "H/Hourly"
MONDAY = datetime(2026, 6, 1, tzinfo=UTC)


def define(apps: Apps) -> None:
    hourly = {"name": "hourly", "cron": "0 * * * *", "zone": "UTC", "variables": {"Kind": "full"}}
    apps.shell(JOB, SAYS, variables={"Kind": {"default": "quick"}}, schedule=[hourly])
    apps.shell("H/Boot", "true", schedule=[{"cron": "@reboot"}])
    apps.shell("H/Often", "true", max_running=9, schedule=[{"name": "often", "every_s": 1}])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


@pytest.fixture
def jobbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_this_process(monkeypatch, capsys)


async def schedule_of(http: Http, job_id: str) -> dict[str, Any]:
    [schedule] = (await http.get(f"/jobs/{job_id}"))["schedules"]
    found: dict[str, Any] = schedule
    return found


async def test_pause_is_shown_and_kept_over_a_kill_until_it_is_resumed(service: Service) -> None:
    async with service.http() as http, await service.stream() as events:
        until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        paused = await http.publish(
            20, command="schedule.pause", jobId="H/Often", reason="new disk", until=until
        )
        assert (paused["status"], paused["outcome"]) == ("Completed", "done")
        change = (await events.until_change("schedule.paused"))[-1].data
        assert change["data"]["paused"]["reason"] == "new disk"
    service.kill9()
    service.start()
    async with service.http() as http:
        schedule = await schedule_of(http, "H/Often")
        assert schedule["paused"]["by"] == "admin"
        assert schedule["why"].endswith(": new disk")
        found = await http.get("/schedule?job=H/Often&limit=3")
        assert [item["starts"] for item in found["items"]] == [False] * 3
        assert found["items"][0]["note"].startswith("paused by admin until ")

        async def skipped() -> bool:
            last = (await schedule_of(http, "H/Often"))["last"]
            return last is not None and (last["verdict"], last["why"]) == ("skipped", "paused")

        await eventually_answered(skipped)
        # By a file, as other programs ask for it.
        id_ = str(uuid4())
        fields = {"CommandID": id_, "Command": "schedule.resume", "JobID": "H/Often"}
        (service.data / "JobCommandQueue" / f"{id_}.json").write_text(json.dumps(fields))
        result = await eventually(lambda: service.result(id_))
        assert (result["Status"], result["Outcome"]) == ("Completed", "done")

        async def started() -> bool:
            last = (await schedule_of(http, "H/Often"))["last"]
            return bool(last["verdict"] == "started")

        await eventually_answered(started)
        actions = {each["action"] for each in (await http.get("/audit?limit=500"))["items"]}
        assert actions >= {"schedule.pause", "schedule.resume"}


async def test_backfill_runs_each_instant_of_the_span_once(service: Service) -> None:
    async with Client(service.url, service.token) as client:
        begin, end = MONDAY, MONDAY + timedelta(hours=3)
        preview = await client.backfill_schedule(JOB, begin=begin, end=end, preview=True)
        assert json.loads(bytes(preview.result))["started"] == 4
        assert (await client.executions(job=JOB)).items == ()
        done = await client.backfill_schedule(JOB, begin=begin, end=end)
        assert json.loads(bytes(done.result))["started"] == 4
        lines = await eventually(
            lambda: said if len(said := service.apps.lines("said")) == 4 else None
        )
        assert lines == [f"2026-06-01T0{hour}:00:00+00:00 full" for hour in range(4)]
        again = await client.backfill_schedule(JOB, begin=begin, end=end)
        counts = json.loads(bytes(again.result))
        assert (counts["started"], counts["known"]) == (0, 4)
        page = await client.executions(job=JOB)
        assert {each.cause for each in page.items} == {"schedule:hourly"}


def test_command_line_pauses_runs_and_makes_up(service: Service, jobbus: Cli) -> None:
    place = service.root
    paused = jobbus(place, "schedule", "pause", JOB, "hourly", "--reason", "why", "--until", "+2h")
    assert paused.code == 0, paused.err
    assert paused.out.endswith(f"; jobbus schedule resume {JOB} hourly\n")
    shown = jobbus(place, "schedule", "next", JOB).out
    assert re.search(r"paused by admin until [-0-9]+T[:0-9]+[+Z]", shown), shown  # whole seconds
    assert all(line == line.rstrip() for line in shown.splitlines())
    assert "due when the machine has booted" in jobbus(place, "schedule", "next", "H/Boot").out
    assert jobbus(place, "schedule", "pause", JOB, "hurly").code == 2
    assert jobbus(place, "schedule", "resume", JOB).out.startswith("goes on")
    started = jobbus(place, "schedule", "run", JOB)
    assert started.code == 0, started.err
    assert jobbus(place, "wait", started.out.strip()).code == 0
    assert service.apps.lines("said") == [" full"]
    days = ("--from", "2026-06-01", "--to", "2026-06-02")
    counted = jobbus(place, "schedule", "backfill", JOB, *days)
    assert "48 would be started" in counted.out
    assert "--yes" in counted.err
    done = jobbus(place, "schedule", "backfill", JOB, "hourly", *days, "--yes", "--json")
    assert json.loads(json.dumps(done.json["result"]))["started"] == 48
    assert jobbus(place, "schedule", "backfill", JOB, "--from", "x", "--to", "y").code == 2
