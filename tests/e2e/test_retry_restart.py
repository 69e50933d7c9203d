"""What follows an end by itself, from `job.toml` to every place where people look: retry, restart.

Delays that have to be seen are long, and a person's start ends them; those that have to pass are
short, and what is asserted of them is that nothing began before its `notBefore`.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from bus.clock import from_rfc3339
from handlers.shim.cgroup import delegation
from tests.browser import chromium
from tests.jobs import Apps
from tests.raw_stream import RawEvent, changes
from tests.service import (
    PATIENCE_S,
    ROOT,
    Http,
    Service,
    eventually,
    eventually_answered,
    kill,
    running_service,
)

Content = dict[str, Any]

STAMP = 'echo "$JOBBUS_JOB_ID $JOBBUS_EXECUTION_ID $JOBBUS_ATTEMPT" >> "$BOARD/runs"; '
THIRD = STAMP + '[ "$JOBBUS_ATTEMPT" -ge 3 ] || exit 7'
FAILS = STAMP + "exit 1"
STAYS = STAMP + 'until [ -e "$BOARD/never" ]; do sleep 0.1; done'
SOON = {"delay_s": 0.02, "jitter": 0.0}
LATE = {"delay_s": 3600.0, "jitter": 0.0, "delay_s_max": 3600.0}


def define(apps: Apps) -> None:
    apps.shell("R/Third", THIRD, retry={"attempts": 5, **SOON})
    apps.shell("R/Fails", FAILS, retry={"attempts": 3, **SOON})
    apps.shell(
        "R/Grows", FAILS, retry={"attempts": 4, "delay_s": 0.1, "backoff": 3.0, "jitter": 0.5}
    )
    apps.shell("R/TimesOut", STAYS, timeout_s=0.2, retry={"attempts": 2, **SOON})
    apps.shell("R/OnlyTimedOut", FAILS, retry={"attempts": 3, "on": ["TimedOut"], **SOON})
    apps.shell("R/NoProgram", "", retry={"attempts": 2, **SOON})
    apps.write("R/NoProgram", ("./none",), retry={"attempts": 2, **SOON})
    for name in ("Waits", "Stopped", "Taken", "Replaced", "Watched", "Gone", "Disabled"):
        apps.shell(f"R/{name}", FAILS, retry={"attempts": 3, **LATE})
    stay = {"Stay": {"type": "boolean", "default": False}}
    either = STAMP + 'until [ "$JOBBUS_VAR_Stay" = false ]; do sleep 0.1; done; exit 1'
    apps.shell("R/Queue", either, overlap="queue", variables=stay, retry={"attempts": 2, **LATE})
    for name, policy, script in (
        ("No", "no", FAILS),
        ("OnFailure", "on-failure", FAILS),
        ("Content", "on-failure", STAMP + "exit 0"),
        ("Always", "always", STAMP + "exit 0"),
    ):
        restart = {"policy": policy, "limit": 2, "limit_window_s": 600}
        apps.shell(f"S/{name}", script, restart=restart, retry=SOON)
    apps.shell("S/Kept", STAYS, restart={"policy": "always"}, retry=SOON)
    apps.shell("S/Backs", FAILS, restart={"policy": "always"}, retry=LATE)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Shared: each test has jobs of its own."""
    with running_service(tmp_path_factory.mktemp("again"), define) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncIterator[Http]:
    async with service.http() as session:
        yield session


async def chain(http: Http, job_id: str, length: int) -> list[Content]:
    """The job's executions, oldest first, when there are so many and all have ended."""

    async def look() -> list[Content] | None:
        found = await http.executions(job_id)
        return found if len(found) == length and all(map(is_over, found)) else None

    return (await eventually_answered(look, f"{length} executions of {job_id}"))[::-1]


def is_over(execution: Content) -> bool:
    return execution["endTime"] is not None


async def waiting(http: Http, job_id: str) -> Content:
    """The execution that waits for its delay."""

    async def look() -> Content | None:
        found = await http.executions(job_id)
        return next((e for e in found if e["notBefore"] is not None), None)

    return await eventually_answered(look, f"something of {job_id} that waits")


def runs(service: Service, job_id: str) -> list[str]:
    """Which executions of the job ran, by their own word."""
    lines = map(str.split, service.apps.lines("runs"))
    return [execution for job, execution, _ in lines if job == job_id]


def ends(executions: list[Content]) -> list[tuple[int, str]]:
    return [(e["attempt"], e["status"]) for e in executions]


def delays_s(executions: list[Content]) -> list[float]:
    """From each end to the moment before which the next one must not start."""
    queued = (e["queuedAt"] for e in executions[1:])
    started = (e["startTime"] for e in executions[1:])
    pairs = zip(queued, started, strict=True)
    return [(from_rfc3339(after) - from_rfc3339(before)) / 1000 for before, after in pairs]


async def test_retry_is_a_new_execution_until_one_succeeds(service: Service, http: Http) -> None:
    first = await http.start("R/Third")
    found = await chain(http, "R/Third", 3)
    assert ends(found) == [(1, "Failed"), (2, "Failed"), (3, "Succeeded")]
    assert [e["previous"] for e in found] == [None, *(e["executionId"] for e in found[:-1])]
    assert [e["cause"] for e in found] == ["", "policy:retry", "policy:retry"]
    assert {(e["userId"], e["commandId"]) for e in found} == {("admin", found[0]["commandId"])}
    assert runs(service, "R/Third") == [e["executionId"] for e in found]
    assert found[0]["executionId"] == first
    file = service.status(found[1]["executionId"])
    assert file is not None
    assert (file["Attempt"], file["Attempts"], file["Cause"], file["NotBefore"]) == (
        *(2, 5),
        "policy:retry",
        None,
    )


async def test_retries_end_with_the_attempts_of_the_definition(
    service: Service, http: Http
) -> None:
    await http.start("R/Fails")
    found = await chain(http, "R/Fails", 3)
    assert ends(found) == [(1, "Failed"), (2, "Failed"), (3, "Failed")]
    job = await http.get("/jobs/R/Fails")
    assert (job["attempts"], job["gaveUpAt"]) == (3, None)
    assert len(runs(service, "R/Fails")) == 3


async def test_delays_grow_by_backoff_and_nothing_starts_before_them(http: Http) -> None:
    await http.start("R/Grows")
    least = delays_s(await chain(http, "R/Grows", 4))
    assert least[0] >= 0.1
    assert least[1] >= 0.3
    assert least[2] >= 0.9


@pytest.mark.parametrize(
    ("job_id", "statuses"),
    [
        ("R/TimesOut", ["TimedOut", "TimedOut"]),
        ("R/OnlyTimedOut", ["Failed"]),
        ("R/NoProgram", ["Failed", "Failed"]),
    ],
)
async def test_retry_follows_the_ends_that_are_listed(
    http: Http, job_id: str, statuses: list[str]
) -> None:
    await http.publish(20, command="start", jobId=job_id)
    found = await chain(http, job_id, len(statuses))
    assert [e["status"] for e in found] == statuses


async def test_waiting_retry_is_seen_wherever_people_look(service: Service, http: Http) -> None:
    async with await service.stream("/api/v1/events?job=R/Watched&start=now") as stream:
        await http.start("R/Watched")
        received = await stream.until(is_waiting)
        record = received[-1].data["data"]
        types = [each.data["type"] for each in changes(received)]
        assert types.index("execution.ended") < types.index("execution.queued", 2)
    assert (record["attempt"], record["attempts"], record["cause"]) == (2, 3, "policy:retry")
    wait_s = (from_rfc3339(record["notBefore"]) - from_rfc3339(record["queuedAt"])) / 1000
    assert wait_s == pytest.approx(3600, abs=1)
    async with await service.stream("/api/v1/events?job=R/Watched") as stream:
        snapshot = await stream.until_kind("snapshot_end")
        items = [
            item for each in snapshot if each.kind == "snapshot" for item in each.data["items"]
        ]
        shown = [item for item in items if item.get("notBefore")]
    assert [item["executionId"] for item in shown] == [record["executionId"]]
    listed = await http.get("/jobs/R/Watched")
    assert listed["lastExecutions"][0]["notBefore"] == record["notBefore"]
    status = await http.publish(20, command="status", jobId="R/Watched")
    assert status["result"]["status"] == "Queued"
    assert status["result"]["executions"][0]["notBefore"] == record["notBefore"]
    file = service.status(record["executionId"])
    assert file is not None
    assert (file["Status"], file["NotBefore"]) == ("Queued", record["notBefore"])
    words = r"Queued \(retry in \d+ s, attempt 2 of 3\)"
    for arguments in (("ps", "--job", "R/Watched"), ("status", record["executionId"])):
        code, out, _ = cli(service, *arguments)
        assert code == 0
        assert re.search(words, out), out
    assert "R/Watched" in cli(service, "jobs")[1]


def is_waiting(event: RawEvent) -> bool:
    return event.kind == "change" and bool(event.data["data"].get("notBefore"))


def cli(service: Service, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and words of the command line."""
    done = subprocess.run(
        (sys.executable, "-W", "error", "-m", "jobbus", *arguments),
        cwd=ROOT,
        env=service.environment() | {"JOBBUS_URL": service.url, "JOBBUS_TOKEN": service.token},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_run_follows_the_retries_and_ends_as_the_last_one(service: Service) -> None:
    service.apps.shell(
        "R/Run", 'echo "try $JOBBUS_ATTEMPT"; ' + THIRD, retry={"attempts": 3, **SOON}
    )

    async def is_known() -> bool:
        async with service.http() as http:
            return (await http.call("GET", "/jobs/R/Run")).status == 200

    await eventually_answered(is_known)
    code, out, words = await asyncio.to_thread(cli, service, "run", "R/Run", "--exit-code")
    assert (code, out) == (0, "try 1\ntry 2\ntry 3\n")
    assert words.count("R/Run: failed: exit code 7; retry") == 2


async def test_page_shows_what_waits_and_what_gave_up(tmp_path: Path) -> None:
    def two(apps: Apps) -> None:
        apps.shell("P/Waits", FAILS, retry={"attempts": 3, **LATE})
        apps.shell("P/Up", FAILS, restart={"policy": "always", "limit": 1}, retry=SOON)

    with running_service(tmp_path, two) as service:
        async with service.http() as http, chromium() as browser:
            page = await browser.new_page()
            await page.goto(service.url)
            await page.fill("#token", service.token)
            await page.click("#sign-in button")
            await http.start("P/Waits")
            rows = page.locator("tbody tr")
            await expect(rows.filter(has_text="Queued")).to_contain_text(
                re.compile(r"retry in 3[56]\d\d s, attempt 2 of 3")
            )
            await expect(page.locator("#gave-up")).to_be_hidden()
            await http.start("P/Up")
            await chain(http, "P/Up", 2)
            await expect(page.locator("#gave-up")).to_contain_text("P/Up gave up at")
            await page.reload()
            await expect(page.locator("#gave-up")).to_contain_text("P/Up gave up at")
            service.apps.shell("P/Up", STAYS)
            await eventually_answered(lambda: has_policy(http, "P/Up", "no"))
            await http.start("P/Up")
            await expect(page.locator("#gave-up")).to_be_hidden()


async def has_policy(http: Http, job_id: str, policy: str) -> bool:
    return bool((await http.get(f"/jobs/{job_id}"))["restart"] == policy)


async def test_stop_cancels_a_waiting_retry(service: Service, http: Http) -> None:
    await http.start("R/Stopped")
    retry = await waiting(http, "R/Stopped")
    stop = await http.publish(20, command="stop", jobId="R/Stopped")
    assert (stop["status"], stop["outcome"]) == ("Completed", "done")
    ended = await http.execution(retry["executionId"])
    assert (ended["status"], ended["reason"], ended["notBefore"]) == (
        *("Cancelled", "superseded"),
        None,
    )
    assert len(runs(service, "R/Stopped")) == 1


async def test_start_by_a_person_takes_the_retry_that_waits(service: Service, http: Http) -> None:
    await http.start("R/Taken")
    retry = await waiting(http, "R/Taken")
    assert await http.start("R/Taken") == retry["executionId"]
    await eventually(lambda: runs(service, "R/Taken")[-1] == retry["executionId"])


async def test_restart_by_a_person_does_not_wait_for_the_delay(
    service: Service, http: Http
) -> None:
    await http.start("R/Replaced")
    await waiting(http, "R/Replaced")
    answer = await http.publish(20, command="restart", jobId="R/Replaced")
    assert (answer["status"], answer["outcome"]) == ("Completed", "done")
    await eventually(lambda: runs(service, "R/Replaced")[-1] == answer["executionId"])


async def test_slot_is_free_for_others_while_a_retry_waits(service: Service, http: Http) -> None:
    """In a queue, too: what was queued runs, and the retry does not go first before its time."""
    stays = await http.start("R/Queue", Stay=True)
    fails = await http.publish(command="start", jobId="R/Queue")
    await http.call("POST", f"/executions/{stays}/stop", {"kill": True})
    retry = await waiting(http, "R/Queue")
    assert retry["commandId"] == fails["commandId"]
    again = await http.start("R/Queue", Stay=True)
    assert again != retry["executionId"]
    await http.publish(20, command="stop", jobId="R/Queue", kill=True)
    assert retry["executionId"] not in runs(service, "R/Queue")


@pytest.mark.parametrize("how", ["removed", "disabled"])
async def test_retry_is_called_off_with_its_definition(
    service: Service, http: Http, how: str
) -> None:
    job_id = "R/Gone" if how == "removed" else "R/Disabled"
    await http.start(job_id)
    retry = await waiting(http, job_id)
    if how == "removed":
        service.apps.definition(job_id).unlink()
    else:
        service.apps.shell(job_id, FAILS, disabled=True, retry={"attempts": 3, **LATE})
    ended = await http.ended(retry["executionId"])
    assert (ended["status"], ended["reason"]) == ("Skipped", "disabled")


async def test_retry_runs_by_the_definition_in_force_when_it_starts(
    service: Service, http: Http
) -> None:
    await http.start("R/Waits")
    retry = await waiting(http, "R/Waits")
    before = (await http.get("/jobs/R/Waits"))["revision"]
    service.apps.shell(
        "R/Waits",
        STAMP + 'echo "$JOBBUS_VAR_New"',
        variables={"New": {"type": "string", "default": "repaired"}},
        retry={"attempts": 3, **LATE},
    )

    async def is_changed() -> bool:
        return bool((await http.get("/jobs/R/Waits"))["revision"] != before)

    await eventually_answered(is_changed)
    assert await http.start("R/Waits") == retry["executionId"]
    ended = await http.ended(retry["executionId"])
    assert (ended["status"], ended["variables"]) == ("Succeeded", {"New": "repaired"})
    assert await http.output(retry["executionId"]) == b"repaired\n"


@pytest.mark.parametrize(
    ("job_id", "count", "gives_up"),
    [("S/No", 1, False), ("S/OnFailure", 3, True), ("S/Content", 1, False), ("S/Always", 3, True)],
)
async def test_restart_keeps_to_its_policy_and_limit(
    service: Service, http: Http, job_id: str, count: int, gives_up: bool
) -> None:
    async with await service.stream(f"/api/v1/events?job={job_id}&start=now") as stream:
        await http.start(job_id)
        found = await chain(http, job_id, count)
        if gives_up:
            [*_, event] = await stream.until_change("job.gave_up")
            assert event.data["data"]["gaveUpAt"] is not None
    assert [e["attempt"] for e in found] == list(range(1, count + 1))
    assert {e["cause"] for e in found[1:]} == ({"policy:restart"} if count > 1 else set())
    job = await http.get(f"/jobs/{job_id}")
    assert (job["gaveUpAt"] is not None) == gives_up
    state = next(line for line in cli(service, "jobs")[1].splitlines() if job_id in line)
    assert ("gave up" in state) == gives_up


async def test_start_by_a_person_clears_what_gave_up(tmp_path: Path) -> None:
    def service_that_fails(apps: Apps) -> None:
        restart = {"policy": "on-failure", "limit": 1}
        apps.shell("S/Fails", FAILS, restart=restart, retry=SOON)

    with running_service(tmp_path, service_that_fails) as service:
        async with service.http() as http:
            await http.start("S/Fails")
            await chain(http, "S/Fails", 2)
        service.restart()
        async with (
            service.http() as http,
            await service.stream("/api/v1/events?job=S/Fails&type=job.*&start=now") as stream,
        ):
            assert (await http.get("/jobs/S/Fails"))["gaveUpAt"] is not None
            await http.start("S/Fails")
            [*_, event] = await stream.until_change("job.cleared")
            assert event.data["data"]["gaveUpAt"] is None
            await stream.until_change("job.gave_up")
            found = await chain(http, "S/Fails", 4)
            assert [e["attempt"] for e in found] == [1, 2, 1, 2]


async def test_service_that_is_killed_comes_back_and_one_that_was_stopped_does_not(
    service: Service, http: Http
) -> None:
    first = await http.start("S/Kept")
    kill((await http.execution(first))["pid"], signal.SIGKILL)

    async def next_one() -> Content | None:
        newest = (await http.executions("S/Kept"))[0]
        return newest if newest["previous"] == first and newest["status"] == "Running" else None

    second = await eventually_answered(next_one)
    assert (await http.execution(first))["reason"] == "signal"
    await http.publish(20, command="stop", jobId="S/Kept", kill=True)
    found = await http.executions("S/Kept")
    assert [e["executionId"] for e in found] == [second["executionId"], first]
    assert found[0]["status"] == "Stopped"


async def test_start_by_a_person_begins_the_count_of_restarts_again(
    service: Service, http: Http
) -> None:
    await http.start("S/Backs")
    restart = await waiting(http, "S/Backs")
    assert restart["cause"] == "policy:restart"
    async with await service.stream("/api/v1/events?job=S/Backs&start=now") as stream:
        assert await http.start("S/Backs") == restart["executionId"]
        await stream.until_change("job.cleared")
    await http.publish(20, command="stop", jobId="S/Backs")


@pytest.mark.parametrize("delay_s", [0.0, 1.5])
async def test_waiting_delay_survives_a_kill_and_its_retry_happens_once(
    tmp_path: Path, delay_s: float
) -> None:
    def once(apps: Apps) -> None:
        retry = {"attempts": 2, "delay_s": delay_s, "jitter": 0.0}
        apps.shell("R/Once", FAILS, retry=retry)

    with running_service(tmp_path, once) as service:
        async with service.http() as http:
            await http.start("R/Once")
            before = await waiting(http, "R/Once") if delay_s else None
        service.kill9()
        service.start()
        async with service.http() as http:
            found = await chain(http, "R/Once", 2)
            assert ends(found) == [(1, "Failed"), (2, "Failed")]
            if before is not None:
                due_ms = from_rfc3339(before["notBefore"])
                assert found[1]["executionId"] == before["executionId"]
                assert from_rfc3339(found[1]["startTime"]) >= due_ms
        assert runs(service, "R/Once") == [e["executionId"] for e in found]


@pytest.mark.parametrize("exits_after_s", [0.0, 0.5])
async def test_program_is_ready_after_the_seconds_of_its_definition(
    tmp_path: Path, exits_after_s: float
) -> None:
    def slow(apps: Apps) -> None:
        apps.shell("R/Slow", STAYS, ready="after_s:0.3")
        apps.shell("R/Short", f"sleep {exits_after_s}", ready="after_s:0.2")

    with running_service(tmp_path, slow) as service:
        async with service.http() as http:
            answer = await http.publish(20, command="start", jobId="R/Slow")
            assert (answer["status"], answer["outcome"]) == ("Completed", "done")
            took_ms = from_rfc3339(answer["processedAt"]) - from_rfc3339(answer["submittedAt"])
            assert took_ms >= 300
            await http.publish(20, command="stop", jobId="R/Slow", kill=True)
            answer = await http.publish(20, command="start", jobId="R/Short")
            ended = await http.ended(answer["executionId"])
            if exits_after_s:
                assert (answer["status"], ended["status"]) == ("Completed", "Succeeded")
            else:
                assert (answer["errorCode"], ended["reason"]) == ("not_ready", "not_ready")


async def test_program_that_was_ready_and_ended_while_no_service_ran_was_ready(
    tmp_path: Path,
) -> None:
    def short(apps: Apps) -> None:
        wait = 'until [ -e "$BOARD/go" ]; do sleep 0.05; done; sleep 2.2; exit 0'
        apps.shell("R/Short", STAMP + wait, ready="after_s:2", start_timeout_s=60)

    with running_service(tmp_path, short) as service:
        async with service.http() as http:
            answer = await http.publish(command="start", jobId="R/Short")
            await eventually(lambda: runs(service, "R/Short"), "the program began")
        service.kill9()
        service.apps.put("go")
        execution_id = await eventually_file(service)
        service.start()
        async with service.http() as http:
            ended = await http.ended(execution_id)
            assert (ended["status"], ended["exitCode"]) == ("Succeeded", 0)
            assert (await http.get(f"/commands/{answer['commandId']}"))["outcome"] == "done"


async def eventually_file(service: Service) -> str:
    """The execution whose record of its end is on disk."""

    async def look() -> str | None:
        found = list(service.data.glob("JobOutput/*/exit.json"))
        return found[0].parent.name if found else None

    return await eventually_answered(look, "an exit record")


LIMITS = """
import json, os, resource
print(json.dumps({
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "cpu": resource.getrlimit(resource.RLIMIT_CPU),
    "memory": resource.getrlimit(resource.RLIMIT_AS),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "oom": int(open("/proc/self/oom_score_adj").read()),
}))
"""


async def test_limits_of_the_definition_are_those_of_the_program(tmp_path: Path) -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0) + 3
    old = {"nice": nice, "cpu_s": 30, "memory_bytes": 1 << 30, "oom_score_adj": 300}
    new = {"cpu_s": 30, "memory": "1G", "open_files": 64}

    def limited(apps: Apps) -> None:
        apps.python("R/Old", LIMITS, limits=old)
        apps.python("R/New", LIMITS, limits=new, nice=nice, oom_score_adj=300)
        apps.shell("R/Burns", "while :; do :; done", limits={"cpu_s": 1})

    with running_service(tmp_path, limited) as service:
        async with service.http() as http:
            burns = await http.start("R/Burns")
            for job_id, files in (("R/Old", 1024), ("R/New", 64)):
                execution_id = await http.start(job_id)
                assert (await http.ended(execution_id))["status"] == "Succeeded"
                has_group = "memory" in delegation().controllers
                assert json.loads(await http.output(execution_id)) == {
                    "nice": nice,
                    "cpu": [30, 31],
                    "memory": [-1, -1] if has_group else [1 << 30, 1 << 30],
                    "files": files,
                    "oom": 300,
                }
            ended = await http.ended(burns)
            assert (ended["status"], ended["signal"]) == ("Failed", signal.SIGXCPU)
