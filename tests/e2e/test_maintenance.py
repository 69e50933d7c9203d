"""Maintenance and draining as an operator sees them."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import WAITING, Apps
from tests.raw_stream import request
from tests.service import Service, eventually, is_alive, kill, running_service


def define(apps: Apps) -> None:
    apps.shell("T/Brief", "exit 0")
    apps.shell("T/Wait", WAITING.format(name="go"), overlap="queue")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


async def ready(service: Service) -> tuple[int, str]:
    answer = await request(service.port, "GET", "/readyz", {}, b"")
    return answer.status, answer.body.decode()


async def test_maintenance_refuses_starts_until_it_is_ended_and_survives_a_kill(
    service: Service,
) -> None:
    async with service.http() as http:
        running = await http.start("T/Wait")
        begun = await http.call("POST", "/system/maintenance", {"on": True, "reason": "new disk"})
        assert begun.status == 200
        maintenance: dict[str, Any] = begun.json["maintenance"]
        assert (maintenance["reason"], maintenance["by"]) == ("new disk", "admin")
    service.kill9()
    service.start()
    async with service.http() as http:
        assert (await http.get("/system"))["maintenance"] == maintenance
        refused = await http.call("POST", "/commands", {"command": "start", "jobId": "T/Brief"})
        assert (refused.status, refused.json["code"]) == (503, "maintenance")
        assert int(refused.headers["Retry-After"]) > 0
        assert "new disk" in refused.json["detail"]
        assert await ready(service) == (200, "ready, in maintenance\n")
        stopped = await http.publish(20, command="stop", executionId=running)
        assert stopped["status"] == "Completed"
        ended = await http.call("POST", "/system/maintenance", {"on": False})
        assert ended.json == {"maintenance": None}
        assert await ready(service) == (200, "ready\n")
        await http.start("T/Brief")


async def test_an_unclear_order_says_what_would_be_right(service: Service) -> None:
    unclear: list[dict[str, Any]] = [{}, {"on": "yes"}, {"on": True, "why": "x"}]
    async with service.http() as http:
        for body in (*unclear, {"on": True, "reason": "x" * 501}):
            answer = await http.call("POST", "/system/maintenance", body)
            assert (answer.status, answer.json["code"]) == (422, "validation")
        assert (await http.get("/system"))["maintenance"] is None


async def test_draining_waits_for_what_runs_and_leaves_what_waits_to_the_next_start(
    service: Service,
) -> None:
    assert service.end() == 0
    service.start("--drain")
    async with service.http() as http:
        running = await http.start("T/Wait")
        queued = await http.publish(command="start", jobId="T/Wait")
        kill(service.pid, signal.SIGTERM)

        async def refused() -> int:
            body = {"command": "start", "jobId": "T/Brief"}
            return (await http.call("POST", "/commands", body)).status

        while await refused() != 503:
            pass
        assert (await ready(service))[0] == 503
        assert (await http.execution(running))["status"] == "Running"
    service.apps.put("go")
    assert service.wait() == 0
    status = service.status(running)
    assert status is not None
    assert status["Status"] == "Succeeded"
    service.start()
    async with service.http() as http:
        command = await http.get(f"/commands/{queued['commandId']}")
        assert (await http.ended(command["executionId"]))["status"] == "Succeeded"
        await http.start("T/Brief")


async def test_a_second_signal_ends_a_drain_at_once_and_jobs_go_on(service: Service) -> None:
    assert service.end() == 0
    service.start("--drain")
    async with service.http() as http:
        running = await http.start("T/Wait")
        job = (await http.execution(running))["pid"]
    kill(service.pid, signal.SIGTERM)
    await eventually(lambda: "draining" in service.log.read_text(), "draining")
    assert service.end() == 0
    assert is_alive(job)
    service.start()
    service.apps.put("go")
    async with service.http() as http:
        assert (await http.ended(running))["status"] == "Succeeded"
