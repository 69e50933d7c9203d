"""A job that is renamed and says so in `formerly` goes on: its history, its slots, its retries, its
schedules and what was paused."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.jobs import WAITING, Apps
from tests.service import Http, Service, eventually_answered, running_service


def define(apps: Apps) -> None:
    for app in ("Moved", "Slots", "Retried", "Both"):
        apps.shell(f"{app}/Old", "echo old", roles={"output": ["operator"]})
    apps.shell("Slots/Old", "echo up; " + WAITING.format(name="slot"))
    for app in ("Held", "Late"):
        apps.shell(f"{app}/Old", "true", schedule=[{"name": "often", "every_s": 3600}])
    apps.shell("Retried/Old", "exit 3", retry={"attempts": 2, "delay_s": 600, "delay_s_max": 600})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("renamed"), define) as running:
        yield running


async def job_is(http: Http, job_id: str, *, there: bool) -> bool:
    return ((await http.call("GET", f"/jobs/{job_id}")).status == 200) is there


async def rename(service: Service, http: Http, app: str) -> None:
    """The folder is moved, with the line in its definition, and that is in force."""
    old, new = service.apps.folder(f"{app}/Old"), service.apps.folder(f"{app}/New")
    text = (old / "job.toml").read_text()
    (old / "job.toml").write_text(f'formerly = ["{app}/Old"]\n' + text)
    fault = await eventually_answered(lambda: fault_of(http, f"{app}/Old"), "the line is read")
    assert "formerly names the job itself" in fault["reason"]
    old.rename(new)
    await eventually_answered(lambda: job_is(http, f"{app}/New", there=True), "the new name")
    assert await job_is(http, f"{app}/Old", there=False)


async def fault_of(http: Http, job_id: str) -> dict[str, Any] | None:
    fault: dict[str, Any] | None = (await http.get(f"/jobs/{job_id}"))["fault"]
    return fault


async def test_history_of_a_renamed_job_is_its_own(service: Service) -> None:
    async with service.http() as http:
        first = await http.start("Moved/Old")
        await http.ended(first)
        await rename(service, http, "Moved")
        second = await http.start("Moved/New")
        await http.ended(second)
        for _ in range(2):
            listed = await http.executions("Moved/New")
            assert [each["executionId"] for each in listed] == [second, first]
            assert [each["jobId"] for each in listed] == ["Moved/New", "Moved/Old"]
            job = await http.get("/jobs/Moved/New")
            last = [each["executionId"] for each in job["lastExecutions"]]
            assert last == [second, first]
            assert await http.output(first) == b"old\n"
        again = await http.call("POST", f"/executions/{first}/retry", {}, Prefer="wait=20")
        assert (again.json["status"], again.json["jobId"]) == ("Completed", "Moved/New")
        await http.ended(again.json["executionId"])
        refused = await http.call("POST", "/commands", {"command": "start", "jobId": "Moved/Old"})
        assert 'did you mean \\"Moved/New\\"?' in refused.body.decode()
    service.restart()
    async with service.http() as http:
        listed = await http.executions("Moved/New")
        assert [each["jobId"] for each in listed] == ["Moved/New", "Moved/New", "Moved/Old"]


async def test_what_runs_under_the_old_name_holds_the_slot_and_is_stopped_by_the_new_one(
    service: Service,
) -> None:
    async with service.http() as http:
        running = await http.start("Slots/Old")
        await rename(service, http, "Slots")
        start = {"command": "start", "jobId": "Slots/New"}
        refused = await http.call("POST", "/commands", start)
        assert (refused.status, refused.json["code"]) == (409, "already_running")
        assert running in refused.json["detail"]
        stopped = await http.publish(20, command="stop", jobId="Slots/New")
        assert (stopped["status"], stopped["outcome"]) == ("Completed", "done")
        assert (await http.ended(running))["status"] == "Stopped"


async def test_retry_that_waits_is_made_under_the_new_name_s_definition(service: Service) -> None:
    async with service.http() as http:
        first = await http.start("Retried/Old")
        await http.ended(first)
        await rename(service, http, "Retried")
        waiting, ended = await http.executions("Retried/New")
        assert (ended["executionId"], waiting["status"]) == (first, "Queued")
        started = await http.publish(20, command="start", jobId="Retried/New")
        assert started["executionId"] == waiting["executionId"]
        again = await http.ended(waiting["executionId"])
        revision = (await http.get("/jobs/Retried/New"))["revision"]
        assert (again["revision"], again["exitCode"]) == (revision, 3)


@pytest.mark.parametrize("app", ["Held", "Late"])
async def test_what_was_paused_stays_so_under_the_new_name_over_a_kill(
    service: Service, app: str
) -> None:
    async with service.http() as http:
        for command in ("schedule.pause", "queue.pause"):
            paused = await http.publish(20, command=command, jobId=f"{app}/Old", reason="audit")
            assert paused["status"] == "Completed", paused
        if app == "Held":
            await rename(service, http, app)
        else:  # the folder first, the line when that is in force
            service.apps.folder("Late/Old").rename(service.apps.folder("Late/New"))
            await eventually_answered(lambda: job_is(http, "Late/New", there=True), "the new name")
            text = service.apps.definition("Late/New").read_text()
            service.apps.definition("Late/New").write_text('formerly = ["Late/Old"]\n' + text)
        job = await eventually_answered(lambda: paused_job(http, f"{app}/New"), "the pause")
        assert job["paused"]["reason"] == "audit"
    service.kill9()
    service.start()
    async with service.http() as http:
        assert await paused_job(http, f"{app}/New") == job


async def paused_job(http: Http, job_id: str) -> dict[str, Any] | None:
    """The job if its schedule is paused, without what the time of the answer changes."""
    job = await http.get(f"/jobs/{job_id}")
    (schedule,) = job["schedules"]
    return {"paused": job["paused"], "of": schedule["paused"]} if schedule["paused"] else None


async def test_both_names_at_a_time_are_a_fault_at_the_line_until_the_old_one_goes(
    service: Service,
) -> None:
    async with service.http() as http:
        first = await http.start("Both/Old")
        await http.ended(first)
        service.apps.shell("Both/New", "echo new", formerly=["Both/Old"])
        fault = await eventually_answered(lambda: both(http), "a fault")
        assert fault["line"] == 2
        assert 'formerly names "Both/Old", which is there as well' in fault["reason"]
        assert await job_is(http, "Both/Old", there=True)
        service.apps.definition("Both/Old").unlink()
        service.apps.folder("Both/Old").rmdir()

        async def is_sound() -> bool:
            return (await http.get("/jobs/Both/New"))["fault"] is None

        await eventually_answered(is_sound, "the new one is in force")
        assert [each["executionId"] for each in await http.executions("Both/New")] == [first]


async def both(http: Http) -> dict[str, Any] | None:
    answer = await http.call("GET", "/jobs/Both/New")
    return answer.json["fault"] if answer.status == 200 else None
