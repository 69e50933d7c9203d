"""Data and apps in a shared folder: what others write there is not announced, and found soon."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.jobs import WAITING, Apps
from tests.service import (
    Http,
    Service,
    eventually,
    eventually_answered,
    running_service,
)
from tests.shared_folder import shared_by_fuse, shared_by_layers

TURNS = 15
"""So many waits of some seconds each would take longer than the test is patient."""


def define(apps: Apps) -> None:
    apps.shell("S/Brief", "true", max_running=50)
    apps.shell("S/Waits", WAITING.format(name="end"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    with (
        shared_by_fuse(tmp_path_factory.mktemp("fuse")) as (behind, seen),
        running_service(seen, define) as service,
    ):
        yield service, behind


async def ended(service: Service, behind: Path, job_id: str = "S/Brief") -> dict[str, Any]:
    """The result of a command that was written elsewhere."""
    command_id = str(uuid4())
    fields = {"CommandID": command_id, "Command": "start", "JobID": job_id, "UserID": "alice"}
    path = behind / "data" / "JobCommandQueue" / f"{command_id}.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    result = await eventually(lambda: service.result(command_id), f"result of {command_id}")
    assert result["Status"] == "Completed", result
    return result


async def system(http: Http) -> list[str]:
    unannounced: list[str] = (await http.get("/system"))["unannounced"]
    return unannounced


@pytest.mark.timeout(60)
async def test_commands_that_nothing_announces_wait_for_no_slow_look(
    shared: tuple[Service, Path],
) -> None:
    service, behind = shared
    for _ in range(TURNS):
        await ended(service, behind)


@pytest.mark.timeout(60)
async def test_definitions_that_nothing_announces_do_not_either(
    shared: tuple[Service, Path],
) -> None:
    service, behind = shared
    definition = behind / "apps" / "S" / "jobs" / "Brief" / "job.toml"
    text = definition.read_text(encoding="utf-8")
    async with service.http() as http:
        for turn in range(TURNS):
            definition.write_text(f'description = "{turn}"\n{text}', encoding="utf-8")

            async def is_read(wanted: str = str(turn)) -> bool:
                return bool((await http.get("/jobs/S/Brief"))["description"] == wanted)

            await eventually_answered(is_read)


@pytest.mark.timeout(60)
async def test_progress_that_nothing_announces_is_seen(shared: tuple[Service, Path]) -> None:
    service, behind = shared
    async with service.http() as http:
        execution_id = await http.start("S/Waits")
        progress = behind / "data" / "JobOutput" / execution_id / "progress"
        for percent in range(10, 15):
            progress.write_text(f"{percent}\n", encoding="utf-8")

            async def is_seen(wanted: float = percent) -> bool:
                shown = (await http.execution(execution_id))["progress"]
                return shown is not None and bool(shown["percent"] == wanted)

            await eventually_answered(is_seen)
        service.apps.put("end")
        await http.ended(execution_id)


async def test_that_they_are_looked_at_often_is_said_once_in_the_log_and_in_the_system(
    shared: tuple[Service, Path],
) -> None:
    service, _ = shared
    async with service.http() as http:
        warnings = await system(http)
    assert [text.partition(" is on fuse")[0] for text in warnings] == [
        str(service.data / "JobCommandQueue"),
        str(service.apps.root),
    ]
    assert all("every 250 ms" in text for text in warnings)
    log = [json.loads(line).get("event", "") for line in service.log.read_text().splitlines()]
    assert sorted(text for text in log if "it is looked at every" in text) == sorted(warnings)


@pytest.mark.timeout(90)
async def test_where_the_type_says_nothing_it_is_noticed(tmp_path: Path) -> None:
    with (
        shared_by_layers(tmp_path) as (behind, seen),
        running_service(seen, define) as service,
    ):
        async with service.http() as http:
            assert await system(http) == []
            for _ in range(3):
                await http.start("S/Brief")
            assert await system(http) == []
            await ended(service, behind)

            async def is_noticed() -> list[str]:
                return await system(http)

            [warning] = await eventually_answered(is_noticed)
            assert "holds entries that were not announced" in warning
            for _ in range(TURNS):
                await ended(service, behind)


async def test_where_changes_are_announced_nothing_is_looked_at_often(tmp_path: Path) -> None:
    with running_service(tmp_path, define) as service:
        for _ in range(TURNS):
            await ended(service, tmp_path)
        service.apps.shell("S/New", "true")
        async with service.http() as http:

            async def is_there() -> bool:
                return (await http.call("GET", "/jobs/S/New")).status == 200

            await eventually_answered(is_there)
            assert await system(http) == []
