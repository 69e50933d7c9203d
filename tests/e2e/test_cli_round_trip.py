"""A person's session at the command line, against a service that comes and goes."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import WAITING, Apps
from tests.service import PATIENCE_S, ROOT, Service, eventually, running_service


def define(apps: Apps) -> None:
    number = {"type": "integer", "default": 0, "max": 9}
    apps.shell("T/Code", 'echo "code $JOBBUS_VAR_N"; exit "$JOBBUS_VAR_N"', variables={"N": number})
    apps.shell("T/Stay", f"echo here; {WAITING.format(name='go')}; echo gone")
    apps.shell("T/Once", 'echo "$JOBBUS_COMMAND_ID" >> "$BOARD/starts"', max_running=50)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def jobbus(service: Service, *arguments: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "jobbus", *arguments),
        cwd=ROOT,
        env=service.environment() | {"JOBBUS_DATA": str(service.data)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ended(process.returncode, out.decode(), err.decode())


async def test_session_from_start_to_stop(service: Service) -> None:
    started = await jobbus(service, "start", "T/Stay", "--wait", "--json")
    assert (started.code, started.json["status"]) == (0, "Completed")
    execution_id = started.json["executionId"]
    running, busy, unknown, command = await asyncio.gather(
        jobbus(service, "ps", "--json"),
        jobbus(service, "start", "T/Stay"),
        jobbus(service, "stop", "T/Nothing"),
        jobbus(service, "command", started.json["commandId"], "--json"),
    )
    assert [each["executionId"] for each in running.json["items"]] == [execution_id]
    assert (busy.code, "already running" in busy.err) == (6, True)
    assert (unknown.code, "T/Nothing" in unknown.err) == (3, True)
    assert command.json["executionId"] == execution_id
    following = asyncio.create_task(jobbus(service, "logs", "-f", execution_id), name="logs")
    stopped = await jobbus(service, "stop", execution_id, "--wait", "--json")
    assert (stopped.code, stopped.json["outcome"]) == (0, "done")
    assert (await following).out == "here\n"
    assert (await following).code == 0
    assert (await jobbus(service, "ps", "--json")).json["items"] == []


@pytest.mark.parametrize("code", [7])
async def test_run_exits_with_the_code_of_the_job(service: Service, code: int) -> None:
    ended = await jobbus(service, "run", "T/Code", "-V", f"N={code}", "--exit-code")
    assert (ended.code, ended.out) == (code, f"code {code}\n")


@pytest.mark.exhaustive
async def test_commands_left_while_no_service_runs_are_handled_once_when_it_comes(
    service: Service,
) -> None:
    service.kill9()
    left = await asyncio.gather(*(jobbus(service, "start", "T/Once", "--json") for _ in range(5)))
    assert [(each.code, each.json["status"]) for each in left] == [(0, "Pending")] * 5
    ids = [each.json["commandId"] for each in left]
    assert service.queue_files() == sorted(f"{each}.json" for each in ids)
    assert (await jobbus(service, "ps")).code == 5
    service.start()
    for command_id in ids:
        result = await eventually(lambda id=command_id: service.result(id))  # type: ignore[misc]
        assert (result["Status"], result["Outcome"]) == ("Completed", "done")
    await eventually(lambda: len(service.apps.lines("starts")) == 5, "all have run")
    service.restart()
    listed = await jobbus(service, "commands", "--json")
    assert sorted(each["commandId"] for each in listed.json["items"]) == sorted(ids)
    assert Counter(service.apps.lines("starts")) == Counter(ids)
