"""The log of a service as its operators read it: what became of their jobs, in sentences."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import WAITING, Apps
from tests.service import Service, eventually, is_alive, running_service


def define(apps: Apps) -> None:
    apps.shell("L/Good", "true")
    apps.shell("L/Bad", "exit 3")
    apps.shell("L/Waits", WAITING.format(name="go"))
    apps.shell("L/Tries", "exit 9", retry={"attempts": 2, "delay_s": 0.1})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log.read_text().splitlines()]


def about(service: Service, job_id: str) -> list[tuple[str, str]]:
    """Level and sentence of each line about the job."""
    return [(line["level"], line["event"]) for line in lines(service) if line.get("job") == job_id]


async def test_starts_and_ends_are_logged_with_how_and_how_long(service: Service) -> None:
    async with service.http() as http:
        good = await http.start("L/Good")
        bad = await http.start("L/Bad")
        await http.ended(good)
        await http.ended(bad)
        stopped = await http.start("L/Waits")
        await http.publish(20, command="stop", executionId=stopped, graceS=0)
        await http.ended(stopped)
        first = await http.start("L/Tries")
        await http.ended(first)
    await eventually(lambda: len(about(service, "L/Tries")) == 6)
    assert about(service, "L/Good")[1][1] == "L/Good started"
    assert about(service, "L/Good")[2][1].startswith("L/Good succeeded, after ")
    assert about(service, "L/Bad")[2][0] == "warning"
    assert about(service, "L/Bad")[2][1].startswith("L/Bad failed: exit code 3, after ")
    assert [words for _, words in about(service, "L/Waits")][2] == "L/Waits is being stopped"
    assert about(service, "L/Waits")[3][1].startswith("L/Waits stopped by admin, after ")
    tries = [words for _, words in about(service, "L/Tries")]
    assert tries[1] == "L/Tries started, attempt 1 of 2"
    assert tries[3].startswith("L/Tries waits for its retry")
    assert tries[4] == "L/Tries started, attempt 2 of 2"
    (ended,) = [e for e in lines(service) if e.get("execution") == bad and "status" in e]
    assert (ended["status"], ended["duration_s"] >= 0) == ("Failed", True)


async def test_definitions_and_their_faults_are_logged(service: Service) -> None:
    def says(words: str) -> bool:
        return words in service.log.read_text()

    assert says("jobs that are defined: 4")
    file = service.apps.definition("L/Good")
    good = file.read_text()
    file.write_text("command = [\n")
    await eventually(lambda: says("L/jobs/Good/job.toml:1: no valid TOML"))
    assert says("the last good version is in force")
    file.write_text(good + "\n")
    await eventually(lambda: says("L/Good has a new definition, which is right again"))
    flat = service.apps.root / "L" / "Flat"
    flat.mkdir()
    (flat / "job.toml").write_text(good)
    await eventually(lambda: says("apps/L/Flat/job.toml: is not below jobs: move the folder Flat"))
    async with service.http() as http:
        jobs = {job["jobId"]: job for job in (await http.get("/jobs"))["items"]}
        refused = (await http.get("/jobs/L/Flat"))["may"]["start"]["why"]
    assert "move the folder Flat to jobs/Flat" in jobs["L/Flat"]["fault"]["reason"]
    assert "faulty (apps/L/Flat/job.toml: is not below" in refused, "it named a line 0"


async def test_a_start_says_what_it_adopted(service: Service) -> None:
    async with service.http() as http:
        going_on = await http.start("L/Waits")
        pid = (await http.execution(going_on))["pid"]
    service.end()
    before = len(lines(service))
    service.start()
    said = [line["event"] for line in lines(service)[before:]]
    assert "L/Waits goes on and is watched again" in said
    assert "adopted: 1 executions go on, 0 ended without a service" in said
    service.end()
    before = len(lines(service))
    service.apps.put("go")
    await eventually(lambda: not is_alive(pid))
    service.start()
    events = [line["event"] for line in lines(service)[before:]]
    assert "adopted: 0 executions go on, 1 ended without a service" in events
    assert [event for event in events if event.startswith("L/Waits succeeded, after ")]


@pytest.mark.parametrize(
    ("form", "begins"),
    [("text", "20"), ("journal", "<6>"), ("json", "{")],
)
async def test_the_format_of_the_log_is_a_setting(tmp_path: Path, form: str, begins: str) -> None:
    (tmp_path / "jobbus.toml").write_text(f'[log]\nformat = "{form}"\n')
    service = Service(tmp_path)
    define(service.apps)
    try:
        service.start()  # the file is found: it lies beside the data directory
        async with service.http() as http:
            await http.ended(await http.start("L/Bad"))
        log = service.log.read_text().splitlines()
    finally:
        service.clear_away()
    assert [line for line in log if not line.startswith((begins, "<4>"))] == []
    assert f"settings are from {tmp_path / 'jobbus.toml'}" in log[0]
    (ended,) = [line for line in log if "failed: exit code 3" in line]
    assert ("<4>" in ended) == (form == "journal")
