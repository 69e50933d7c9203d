"""kill -9 of the service under load: running jobs go on, nothing is lost, nothing runs twice."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from jobbus.client.client import Client
from tests.jobs import Apps
from tests.service import (
    Http,
    Service,
    children_of,
    eventually,
    eventually_answered,
    is_alive,
    kill,
    running_service,
)

JOBS = 20
FEW = 4
BURST_JOBS = 20
BURSTS = [60, pytest.param(200, marks=pytest.mark.exhaustive)]

TICK = """
echo "$JOBBUS_EXECUTION_ID" >> "$BOARD/starts"
n=0
until [ -e "$BOARD/go" ]; do n=$((n + 1)); echo "tick $n"; sleep 0.1; done
echo "end"
exit "$JOBBUS_VAR_Code"
"""
BRIEF = 'echo "$JOBBUS_COMMAND_ID" >> "$BOARD/starts"; exit 0'


def define(apps: Apps) -> None:
    code = {"type": "integer", "min": 0, "max": 99}
    apps.shell("T/Tick", TICK, max_running=JOBS, variables={"Code": code})
    apps.shell("T/Few", TICK, max_running=FEW, variables={"Code": code})
    apps.shell("T/After", "exit 0")
    for number in range(BURST_JOBS):
        apps.shell(f"Burst/Job{number}", BRIEF, max_running=5, overlap="queue")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


def size_of_output(service: Service, execution_id: str) -> int:
    return (service.data / "JobOutput" / execution_id / "output.log").stat().st_size


async def start_ticking(service: Service, jobs: int) -> dict[str, int]:
    """So many jobs run; the exit code that each will have, by execution."""
    async with service.http() as http:
        ids = await asyncio.gather(*(http.start("T/Tick", Code=code) for code in range(jobs)))
    await eventually(lambda: all(size_of_output(service, each) for each in ids), "first output")
    return {each: code for code, each in enumerate(ids)}


@pytest.mark.parametrize(
    "spawner",
    [
        pytest.param(False, id="service", marks=pytest.mark.exhaustive),
        pytest.param(True, id="service-and-spawner"),
    ],
)
async def test_jobs_outlive_the_kill_of_the(service: Service, *, spawner: bool) -> None:
    codes = await start_ticking(service, JOBS)
    async with service.http() as http:
        before = {each["executionId"]: each["pid"] for each in await http.executions("T/Tick")}
    service.kill9(spawner=spawner)
    sizes = {each: size_of_output(service, each) for each in codes}
    # No service runs now; the output goes on all the same.
    await eventually(
        lambda: all(size_of_output(service, each) > sizes[each] for each in codes),
        "output while no service runs",
    )
    service.start()
    async with service.http() as http:
        found = await http.executions("T/Tick")
        assert {each["executionId"]: each["pid"] for each in found} == before
        assert {each["status"] for each in found} == {"Running"}
        assert all(is_alive(pid) for pid in before.values())
        seen = {each: len(await http.output(each)) for each in codes}
        assert all(seen[each] > sizes[each] for each in codes)
        service.apps.put("go")
        ended = {each: await http.ended(each) for each in codes}
        assert {each: ended[each]["exitCode"] for each in codes} == codes
        outcomes = {each: (ended[each]["status"], ended[each]["reason"]) for each in codes}
        assert outcomes == {
            each: ("Failed" if code else "Succeeded", "exit_code") for each, code in codes.items()
        }
        for each in codes:
            *ticks, last = (await http.output(each)).decode().splitlines()
            assert last == "end"
            assert ticks == [f"tick {number}" for number in range(1, len(ticks) + 1)]
        assert sorted(service.apps.lines("starts")) == sorted(codes)
        assert len(await http.executions("T/Tick")) == JOBS
        await http.start("T/After")


async def test_adopted_job_can_be_stopped_and_its_slot_is_held(service: Service) -> None:
    async with service.http() as http:
        ids = await asyncio.gather(*(http.start("T/Few", Code=0) for _ in range(FEW)))
    service.kill9()
    service.start()
    async with service.http() as http:
        full = await http.call(
            "POST", "/commands", {"command": "start", "jobId": "T/Few", "variables": {"Code": 1}}
        )
        assert (full.status, full.json["code"]) == (409, "already_running")
        stopped = await http.publish(20, command="stop", executionId=ids[0])
        assert (stopped["status"], stopped["outcome"]) == ("Completed", "done")
        assert (await http.execution(ids[0]))["status"] == "Stopped"
        await http.start("T/Few", Code=1)
        service.apps.put("go")


async def test_job_that_ends_while_no_service_runs_has_its_exact_code(service: Service) -> None:
    codes = await start_ticking(service, FEW)
    service.kill9(spawner=True)
    service.apps.put("go")
    records = [service.data / "JobOutput" / each / "exit.json" for each in codes]
    await eventually(lambda: all(path.exists() for path in records), "all exit records")
    service.start()
    async with service.http() as http:
        found = {each["executionId"]: each["exitCode"] for each in await http.executions("T/Tick")}
    assert found == codes
    for each, code in codes.items():
        status = await eventually(lambda each=each: service.status(each))  # type: ignore[misc]
        assert status["ExitCode"] == code


async def test_death_of_the_spawner_alone_is_not_noticed_by_anybody(service: Service) -> None:
    async with service.http() as http:
        first = await http.start("T/Tick", Code=7)
        for pid in children_of(service.pid):
            kill(pid, signal.SIGKILL)
        second = await http.start("T/Tick", Code=8)
        service.apps.put("go")
        assert (await http.ended(first))["exitCode"] == 7
        assert (await http.ended(second))["exitCode"] == 8


@pytest.mark.parametrize("size", BURSTS)
async def test_each_accepted_start_of_a_burst_runs_once_when_the_service_dies_in_it(
    service: Service, size: int
) -> None:
    accepted: list[str] = []
    tried: list[str] = []
    room = asyncio.Semaphore(16)

    async def start(http: Http, number: int) -> None:
        command_id = str(uuid4())
        tried.append(command_id)
        job_id = f"Burst/Job{number % BURST_JOBS}"
        try:
            async with room:
                await http.publish(command="start", jobId=job_id, commandId=command_id)
        except (aiohttp.ClientError, ConnectionError):
            return  # no answer: accepted or not, and at most once either way
        accepted.append(command_id)
        if len(accepted) == size // 3:
            service.kill9()

    async with service.http() as http, asyncio.TaskGroup() as group:
        for number in range(size):
            group.create_task(start(http, number), name=f"start {number}")
    assert size // 3 <= len(accepted) < size
    service.start()
    await all_handled_once(service, accepted, tried)


@pytest.mark.exhaustive
@pytest.mark.parametrize("size", [200])
async def test_burst_that_is_repeated_until_accepted_runs_each_start_once_through_three_kills(
    service: Service, size: int
) -> None:
    ids = [str(uuid4()) for _ in range(size)]
    marks = {size // 8: asyncio.Event(), size // 3: asyncio.Event(), size // 2: asyncio.Event()}
    accepted = 0
    room = asyncio.Semaphore(32)

    async def start(number: int, command_id: str) -> None:
        nonlocal accepted
        body = {"command": "start", "jobId": f"Burst/Job{number % BURST_JOBS}"}
        async with room:
            await eventually_answered(lambda: try_once(body | {"commandId": command_id}))
        accepted += 1
        if accepted in marks:
            marks[accepted].set()

    async def try_once(body: dict[str, str]) -> bool:
        try:
            async with service.http() as http:
                answer = await http.call("POST", "/commands", body)
        except (aiohttp.ClientError, ConnectionError):
            return False
        assert answer.status in (202, 503), answer.body
        return answer.status == 202

    async def kill_and_restart() -> None:
        for mark in marks.values():
            await mark.wait()
            service.kill9(spawner=True)
            await asyncio.to_thread(service.start)

    async with asyncio.TaskGroup() as group:
        group.create_task(kill_and_restart(), name="kills")
        for number, command_id in enumerate(ids):
            group.create_task(start(number, command_id), name=f"start {number}")
    # What was in hand at two of the kills is blamed for them. After the first all suspects are
    # handled one by one, so that each further kill finds one at most.
    await all_handled_once(service, ids, ids, set_aside_max=len(marks) - 1)


async def all_handled_once(
    service: Service, accepted: list[str], tried: list[str], set_aside_max: int = 0
) -> None:
    """Every accepted command is Completed with one execution that ran once; no other ran twice.

    So many may have been set aside instead, as poison, and never ran.
    """
    set_aside = set()
    async with asyncio.timeout(40), Client(service.url, service.token) as client:
        for command_id in accepted:
            ended = await client.wait_command(command_id)
            if (ended.status, ended.error_code) == ("Rejected", "poison"):
                set_aside.add(command_id)
                continue
            assert (ended.status, ended.outcome) == ("Completed", "done"), ended
    assert len(set_aside) <= set_aside_max
    async with service.http() as http:
        items = await eventually_answered(lambda: when_all_ended(http), "all executions ended")
    by_command = Counter(each["commandId"] for each in items)
    assert set(accepted) - set_aside <= set(by_command) <= set(tried) - set_aside
    assert set(by_command.values()) == {1}
    assert {(each["status"], each["exitCode"]) for each in items} == {("Succeeded", 0)}
    starts = Counter(service.apps.lines("starts"))
    assert set(starts.values()) == {1}
    assert set(starts) == set(by_command)
    queue = service.data / "JobCommandQueue"
    await eventually(lambda: not list(queue.glob("*.json")), "the queue is empty")
    for command_id in accepted:
        result = await eventually(lambda id=command_id: service.result(id))  # type: ignore[misc]
        assert result["Status"] == "Completed"


async def when_all_ended(http: Http) -> list[dict[str, object]] | None:
    if (await http.get("/executions?status=Queued&status=Starting&status=Running"))["items"]:
        return None
    items: list[dict[str, object]] = (await http.get("/executions?limit=500"))["items"]
    return items
