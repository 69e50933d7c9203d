"""kill -9 of the service at any moment between a start, its readiness and a restart for its health.

Programs become ready while the service dies: the next one finds that out. One that is not well is
started again once, whether its state, the order to stop it or the restart was on record, or none.
"""

import asyncio
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_readiness import HTTP, OUTPUT, PORT, TCP, WAYS, free_port
from tests.jobs import Apps
from tests.service import Http, Service, eventually, eventually_answered, jobs_of, running_service
from tests.tally import Kind, Tally

STAMP = """
import os
with open(os.environ["BOARD"] + "/starts", "a") as starts:
    starts.write(os.environ["JOBBUS_EXECUTION_ID"] + "\\n")
"""
UNWELL = 'echo "$JOBBUS_EXECUTION_ID" >> "$BOARD/starts"; exec sleep 600'
SECOND_IS_WELL = ("sh", "-c", '[ "$JOBBUS_ATTEMPT" -ge 2 ]')
DEATH_S_MAX = 0.5
"""After the start, and after what makes programs ready, at most so long: in between all happens."""

LONG = (pytest.mark.exhaustive, pytest.mark.timeout(1800))
DEATHS = [2, pytest.param(100, marks=LONG)]


def define(apps: Apps) -> None:
    for name, program, ready in (
        ("Tcp", TCP, "tcp:{{Port}}"),
        ("Http", HTTP, "http:http://127.0.0.1:{{Port}}/health?of=all"),
        ("Output", OUTPUT, "output:listens on [0-9]+$"),
    ):
        apps.python(f"L/{name}", STAMP + program, ready=ready, variables=PORT)
    health = {"command": SECOND_IS_WELL, "every_s": 0.1, "failures": 2, "action": "restart"}
    soon = {"delay_s": 0.05, "jitter": 0.0}
    apps.shell("L/Unwell", UNWELL, health=health, retry=soon, restart={"limit": 1})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


@pytest.mark.parametrize("deaths", DEATHS)
async def test_programs_become_ready_and_are_healed_once_whenever_the_service_dies(
    service: Service, tally: Tally, deaths: int
) -> None:
    chance = random.Random(20261129)
    for _ in range(deaths):
        with tally.trial(Kind.KILL_POINTS, "readiness and health"):
            await see_through(service, chance)
    starts = service.apps.lines("starts")
    assert len(starts) == len(set(starts)) == 5 * deaths
    await eventually(lambda: not jobs_of(service.data), "nothing is left")


async def see_through(service: Service, chance: random.Random) -> None:
    """One death, and what the next service makes of what it left."""
    for name in WAYS.values():
        (service.apps.board / name).unlink(missing_ok=True)
    async with service.http() as http:
        ids = {name: await published(http, name) for name in (*WAYS, "Unwell")}
    await asyncio.sleep(chance.random() * DEATH_S_MAX)
    for name in WAYS.values():
        service.apps.put(name)
    await asyncio.sleep(chance.random() * DEATH_S_MAX)
    service.kill9(spawner=chance.random() < 0.5)
    service.start()
    async with service.http() as http:
        for name, command_id in ids.items():
            await eventually_answered(partial(is_done, http, command_id), f"{name} is ready")
        first, second = await eventually_answered(lambda: healed(http, ids["Unwell"]), "healed")
        assert (first["status"], first["reason"]) == ("Failed", "unhealthy")
        assert (second["cause"], second["previous"]) == ("policy:restart", first["executionId"])
        for name in ids:
            await http.publish(20, command="stop", jobId=f"L/{name}")


async def published(http: Http, name: str) -> str:
    variables = {"Port": free_port()} if name in WAYS else {}
    command = await http.publish(command="start", jobId=f"L/{name}", variables=variables)
    return str(command["commandId"])


async def is_done(http: Http, command_id: str) -> bool:
    command = await http.get(f"/commands/{command_id}")
    assert command["status"] in ("Pending", "Running", "Completed"), command
    return bool(command["status"] == "Completed")


async def healed(http: Http, command_id: str) -> list[dict[str, Any]] | None:
    """Both executions, the first one first, once the second is well."""
    all_ = [e for e in await http.executions("L/Unwell") if e["commandId"] == command_id]
    found = sorted(all_, key=lambda each: int(each["attempt"]))
    assert len(found) <= 2, found
    health = found[-1]["health"] if found else None
    is_well = health is not None and health["status"] == "healthy"
    return found if len(found) == 2 and is_well else None
