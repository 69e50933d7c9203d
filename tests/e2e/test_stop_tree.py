"""Stop over HTTP against trees that will not go: gone when the command is Completed, or named."""

import asyncio
import json
import sys
from collections.abc import Iterator

import pytest

from tests.jobs import Apps
from tests.service import (
    PATIENCE_S,
    ROOT,
    Http,
    Service,
    eventually,
    eventually_answered,
    is_alive,
    jobs_of,
    running_service,
)

STUBBORN = r"""
trap '' TERM HUP INT
loop='trap "" TERM HUP INT; echo $$ >> "$0"; while :; do sleep 0.2; done'
setsid sh -c "$loop" "$BOARD/pids" &
sh -c "setsid sh -c '$loop' '$BOARD/pids' & exit 0"
env -i PATH="$PATH" setsid sh -c "$loop" "$BOARD/pids" < /dev/null > /dev/null 2>&1 &
echo $$ >> "$BOARD/pids"
while :; do sleep 0.2; done
"""
"""Four processes: the job, a session of its own, an orphan, and one without marker and pipes."""

POLITE = """
trap 'echo bye; exit 5' TERM
echo here
while :; do sleep 0.1; done
"""


def define(apps: Apps) -> None:
    apps.shell("T/Stubborn", STUBBORN, stop_grace_s=0.5)
    apps.shell("T/Polite", POLITE, stop_grace_s=20, max_running=8)
    apps.shell("T/Deaf", "trap '' TERM; echo here; while :; do sleep 0.2; done", stop_grace_s=60)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("stop"), define) as running:
        yield running


async def test_tree_that_ignores_term_is_gone_when_its_stop_is_completed(service: Service) -> None:
    async with service.http() as http, await service.stream() as events:
        await events.until_kind("snapshot_end")
        execution_id = await http.start("T/Stubborn")
        await eventually(lambda: len(service.apps.lines("pids")) == 4, "all four run")
        pids = [int(line) for line in service.apps.lines("pids")]
        assert all(is_alive(pid) for pid in pids)
        accepted = await http.publish(command="stop", jobId="T/Stubborn")
        frames = await events.until_change("command.ended", commandId=accepted["commandId"])
        survivors = [pid for pid in pids if is_alive(pid)]
        execution = await http.execution(execution_id)
        command = frames[-1].data["data"]
    if survivors:
        assert (command["status"], command["errorCode"]) == ("Failed", "stop_incomplete")
        assert set(survivors) <= set(execution["survivors"])
        assert (execution["status"], execution["contained"]) == ("Failed", False)
    else:
        assert (command["status"], command["outcome"]) == ("Completed", "done")
        assert (execution["status"], execution["reason"]) == ("Stopped", "user")
        assert (execution["contained"], execution["survivors"]) == (True, [])
    assert execution["containment"] in ("cgroup", "subreaper", "session", "marker")
    states = [each.data for each in frames if each.kind == "change"]
    names = [each["type"] for each in states if each.get("execution") == execution_id]
    assert names.index("execution.stopping") < names.index("execution.ended")
    assert names.index("execution.ended") < len(names) - 1


async def test_polite_job_has_its_grace_and_its_last_words(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("T/Polite")
        await output_has(service, execution_id, b"here\n")
        stopped = await http.publish(20, command="stop", executionId=execution_id)
        assert (stopped["status"], stopped["outcome"]) == ("Completed", "done")
        execution = await http.execution(execution_id)
        assert (execution["status"], execution["reason"]) == ("Stopped", "user")
        assert execution["exitCode"] == 5
        assert execution["stop"]["by"] == "admin"
        assert await http.output(execution_id) == b"here\nbye\n"
        again = await http.call("POST", f"/executions/{execution_id}/stop", {})
        assert again.status in (202, 409)
        assert jobs_of(service.data) == []


async def test_second_stop_shortens_the_grace_and_both_are_completed(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("T/Deaf")
        await output_has(service, execution_id, b"here\n")
        patient = await http.publish(command="stop", jobId="T/Deaf")
        await eventually_answered(lambda: is_stopping(http, execution_id), "it is stopping")
        started = await http.call("POST", "/commands", {"command": "start", "jobId": "T/Deaf"})
        assert started.status == 202, started.body
        hard = await http.publish(20, command="stop", jobId="T/Deaf", kill=True)
        assert hard["status"] == "Completed"
        first = await http.get(f"/commands/{patient['commandId']}")
        assert first["status"] == "Completed"
        execution = await http.execution(execution_id)
        assert (execution["status"], execution["signal"]) == ("Stopped", 9)
        late = await http.get(f"/commands/{started.json['commandId']}")
        assert (late["status"], late["errorCode"]) == ("Cancelled", "superseded")


async def test_stop_without_an_execution_stops_all_and_idle_is_a_noop(service: Service) -> None:
    async with service.http() as http:
        ids = await asyncio.gather(*(http.start("T/Polite") for _ in range(8)))
        for execution_id in ids:
            await output_has(service, execution_id, b"here\n")
        stopped = await http.publish(20, command="stop", jobId="T/Polite")
        assert (stopped["status"], stopped["outcome"]) == ("Completed", "done")
        found = [await http.execution(execution_id) for execution_id in ids]
        assert {each["status"] for each in found} == {"Stopped"}
        idle = await http.publish(20, command="stop", jobId="T/Polite")
        assert (idle["status"], idle["outcome"]) == ("Completed", "noop")


async def test_stop_goes_on_when_the_service_is_killed_in_the_middle(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with running_service(tmp_path_factory.mktemp("middle"), define) as service:
        async with service.http() as http:
            execution_id = await http.start("T/Stubborn")
            await eventually(lambda: len(service.apps.lines("pids")) == 4, "all four run")
            pids = [int(line) for line in service.apps.lines("pids")]
            accepted = await http.publish(command="stop", executionId=execution_id, graceS=1)
            status = service.data / "JobOutput" / execution_id / "control"
            await eventually(status.exists, "the order is on record")
        service.kill9(spawner=True)
        await eventually(lambda: not any(map(is_alive, pids)), "the tree is gone")
        service.start()
        async with service.http() as http:
            execution = await http.ended(execution_id)
            command = await http.get(f"/commands/{accepted['commandId']}")
        assert (execution["status"], execution["reason"]) == ("Stopped", "user")
        assert (command["status"], command["outcome"]) == ("Completed", "done")


async def test_stop_supersedes_the_starts_that_were_accepted_before_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with running_service(tmp_path_factory.mktemp("lanes"), define) as service:
        assert service.end() == 0
        accepted = [await left_in_directory(service, word) for word in ("start", "stop")]
        service.start()
        results = [
            await eventually(lambda id=command_id: service.result(id))  # type: ignore[misc]
            for command_id in accepted
        ]
        assert [each["ErrorCode"] for each in results] == ["superseded", None]
        assert jobs_of(service.data) == []


async def left_in_directory(service: Service, word: str) -> str:
    """The id of a command that the CLI leaves while no service runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobbus", word, "T/Polite", "--json", "--data", str(service.data)),
        cwd=ROOT,
        env=service.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err
    command_id: str = json.loads(out)["commandId"]
    return command_id


async def is_stopping(http: Http, execution_id: str) -> bool:
    return bool((await http.execution(execution_id))["status"] == "Stopping")


async def output_has(service: Service, execution_id: str, data: bytes) -> None:
    log = service.data / "JobOutput" / execution_id / "output.log"
    await eventually(lambda: log.exists() and data in log.read_bytes(), f"output {data!r}")
