"""`calendars.toml` as its user has it: in force when saved; a broken one changes nothing."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import Apps
from tests.service import (
    ROOT,
    Http,
    Service,
    eventually,
    eventually_answered,
    kill,
    running_service,
)

SAYS = 'echo "$JOBBUS_JOB_ID" >> "$BOARD/said"'
EVERY_DAY = '["Mon..Sun"]'


def calendars(apps: Apps, text: str) -> None:
    draft = apps.root / ".calendars.draft"
    draft.write_text(text, encoding="utf-8")
    draft.replace(apps.root / "calendars.toml")


def closed(weekdays: str) -> str:
    return f'[calendar.Closed]\ndates = ["2000-01-01"]\nweekdays = {weekdays}\n'


def define(apps: Apps) -> None:
    seconds = {"name": "seconds", "every_s": 1}
    apps.shell("C/Except", SAYS, max_running=9, schedule=[{**seconds, "except": ["Closed"]}])
    apps.shell("C/Only", SAYS, max_running=9, schedule=[{**seconds, "only": ["Closed"]}])
    apps.shell("C/Unknown", SAYS, schedule=[{**seconds, "only": ["Close"]}])
    calendars(apps, closed(EVERY_DAY))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


async def last_verdict(http: Http, job_id: str, verdict: str) -> dict[str, Any]:
    """What was decided last of the job's schedule, as soon as it is that."""

    async def look() -> dict[str, Any] | None:
        [schedule] = (await http.get(f"/jobs/{job_id}"))["schedules"]
        last: dict[str, Any] | None = schedule["last"]
        return last if last is not None and last["verdict"] == verdict else None

    return await eventually_answered(look, f"{job_id} {verdict}")


async def test_calendars_decide_and_a_changed_file_is_in_force_and_a_broken_one_is_not(
    service: Service,
) -> None:
    async with service.http() as http:
        await last_verdict(http, "C/Only", "started")
        assert (await last_verdict(http, "C/Except", "skipped"))["why"] == "calendar"
        [schedule] = (await http.get("/jobs/C/Except"))["schedules"]
        assert "starts nothing: except Closed: it is a" in schedule["next"][0]["note"]
        assert (await http.get("/jobs/C/Except"))["nextAt"] is None
        unknown = (await http.get("/jobs/C/Unknown"))["fault"]
        assert 'there is no calendar "Close"; did you mean "Closed"' in unknown["reason"]
        assert unknown["file"].endswith("C/jobs/Unknown/job.toml")
        assert unknown["line"] > 1
        calendars(service.apps, closed("[]"))
        await last_verdict(http, "C/Except", "started")
        assert (await last_verdict(http, "C/Only", "skipped"))["why"] == "calendar"
        calendars(service.apps, closed('["Mn"]'))

        async def fault() -> dict[str, Any] | None:
            jobs = (await http.get("/jobs"))["items"]
            return next((each["fault"] for each in jobs if each["jobId"] == "*/calendars"), None)

        shown = await eventually_answered(fault)
        assert (shown["file"], shown["line"]) == ("apps/calendars.toml", 3)
        assert '"Mn" is no weekday' in shown["reason"]
        before = len(service.apps.lines("said"))

        async def goes_on() -> bool:
            said = service.apps.lines("said")[before:]
            return said.count("C/Except") >= 2 and "C/Only" not in said

        await eventually_answered(goes_on, "the last good calendars are in force")
        for path in (service.apps.root, service.apps.root / "calendars.toml"):
            checked = await asyncio.to_thread(check, service, path)
            assert "apps/calendars.toml:3: " in checked
        calendars(service.apps, closed(EVERY_DAY))
        await last_verdict(http, "C/Only", "started")

        async def is_well() -> bool:
            return await fault() is None

        await eventually_answered(is_well)


async def test_calendars_of_the_settings_count_beside_the_file_and_change_with_a_reload(
    tmp_path: Path,
) -> None:
    def in_settings(text: str) -> None:
        (tmp_path / "jobbus.toml").write_text(text, encoding="utf-8")

    def define_beside(apps: Apps) -> None:
        define(apps)
        (apps.root / "calendars.toml").unlink()
        seconds = {"name": "seconds", "every_s": 1}
        apps.shell("C/Barred", SAYS, max_running=9, schedule=[seconds])
        window = '[blackout.Always]\non = ["Days"]\njobs = ["C/Barred"]\ndo = "skip"\n'
        calendars(apps, f"[calendar.Days]\nweekdays = {EVERY_DAY}\n")
        in_settings(closed(EVERY_DAY) + window)

    with running_service(tmp_path, define_beside) as service:
        async with service.http() as http:
            await last_verdict(http, "C/Only", "started")
            assert (await last_verdict(http, "C/Except", "skipped"))["why"] == "calendar"
            assert (await last_verdict(http, "C/Barred", "skipped"))["why"] == "blackout"

            in_settings(closed('["Mn"]'))
            kill(service.pid, signal.SIGHUP)
            said = 'Mn\\" is no weekday'
            await eventually(lambda: said in service.log.read_text(), "the settings stay")
            before = len(service.apps.lines("said"))
            await eventually(lambda: "C/Only" in service.apps.lines("said")[before:], "goes on")

            in_settings(closed("[]"))
            kill(service.pid, signal.SIGHUP)
            await last_verdict(http, "C/Except", "started")
            assert (await last_verdict(http, "C/Only", "skipped"))["why"] == "calendar"
            await last_verdict(http, "C/Barred", "started")

            calendars(service.apps, closed(EVERY_DAY))

            async def fault() -> dict[str, Any] | None:
                jobs = (await http.get("/jobs"))["items"]
                return next((e["fault"] for e in jobs if e["jobId"] == "*/calendars"), None)

            shown = await eventually_answered(fault)
            assert (shown["file"], shown["line"]) == ("apps/calendars.toml", 1)
            assert "[calendar.Closed] stands in jobbus.toml, line 1, too" in shown["reason"]
            for path in (service.root, service.apps.root):
                checked = await asyncio.to_thread(check, service, path)
                assert "apps/calendars.toml:1: [calendar.Closed] stands in jobbus.toml" in checked

            in_settings("")
            kill(service.pid, signal.SIGHUP)
            await last_verdict(http, "C/Only", "started")

            async def is_repaired() -> bool:
                return await fault() is None

            await eventually_answered(is_repaired)


def check(service: Service, path: Path) -> str:
    done = subprocess.run(
        (sys.executable, "-W", "error", "-m", "jobbus", "check", str(path)),
        cwd=service.root,
        env=service.environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return done.stdout.decode()


def ics(begin: datetime, end: datetime) -> str:
    times = (f"{word}:{at:%Y%m%dT%H%M%SZ}" for word, at in (("DTSTART", begin), ("DTEND", end)))
    event = "\n".join(("BEGIN:VEVENT", "SUMMARY:Backups", *times, "END:VEVENT"))
    return f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//tests//EN\n{event}\nEND:VCALENDAR\n"


async def test_start_in_a_blackout_waits_for_its_end_that_an_ics_file_names(
    tmp_path: Path,
) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=8)
    seconds = {"name": "seconds", "every_s": 1}

    def blackout(apps: Apps) -> None:
        apps.shell("B/Waits", SAYS, max_running=9, schedule=[seconds])
        apps.shell("B/Free", SAYS, max_running=9, schedule=[seconds])
        (apps.root / "backups.ics").write_text(ics(end - timedelta(hours=1), end))
        calendars(
            apps,
            '[calendar.Backups]\nics = "backups.ics"\n'
            '[blackout.Backups]\non = ["Backups"]\njobs = ["B/Wa*"]\n',
        )

    with running_service(tmp_path, blackout) as service:
        async with service.http() as http:
            await last_verdict(http, "B/Free", "started")
            coalesced = await last_verdict(http, "B/Waits", "coalesced")
            assert coalesced["why"] == "blackout"
            [waiting] = await http.executions("B/Waits")
            assert (waiting["status"], waiting["cause"]) == ("Queued", "schedule:seconds")
            assert waiting["notBefore"] == end.strftime("%Y-%m-%dT%H:%M:%S.000Z")
            ended = await http.ended(waiting["executionId"])
            assert ended["status"] == "Succeeded"
            assert ended["startTime"] >= waiting["notBefore"]
            [decided] = [
                each
                for each in (await http.get("/audit?limit=500"))["items"]
                if each.get("job") == "B/Waits" and "blackout" in str(each)
            ][-1:]
            assert "blackout" in str(decided)
