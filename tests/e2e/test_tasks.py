"""A whole node inside the test's own loop, for what only the inside can show: its asyncio tasks,
and whether anything stops that loop."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from blockbuster import blockbuster_ctx

from jobbus.service.settings import ServeSettings, Settings
from jobbus.service.start import Node, running_node
from tests.jobs import Apps
from tests.raw_stream import RawStream, request
from tests.service import eventually, processes_of


@asynccontextmanager
async def node(tmp_path: Path, apps: Apps) -> AsyncIterator[Node]:
    serve = ServeSettings(data=tmp_path / "data", apps=apps.root, listen="127.0.0.1:0")
    async with running_node(Settings(serve=serve)) as running:
        yield running


def names() -> Counter[str]:
    return Counter(task.get_name() for task in asyncio.all_tasks())


async def test_streams_and_waits_that_were_left_leave_no_task(tmp_path: Path) -> None:
    apps = Apps(tmp_path)
    apps.shell("T/Brief", "echo hello")
    outside = names()
    async with node(tmp_path, apps) as running:
        port = int(running.url.rpartition(":")[2])
        await twenty_visits(port, running.token)
        await eventually(lambda: not visitors(), "the first visitors are gone")
        before = names()
        for _ in range(2):
            await twenty_visits(port, running.token)
        await eventually(lambda: names() - before == Counter(), "the visitors are gone")
    assert names() == outside
    assert processes_of(tmp_path / "data") == []


def visitors() -> list[str]:
    return [name for name in names() if name.startswith(("Task-", "wait ", "closing "))][1:]


async def twenty_visits(port: int, token: str) -> None:
    """Streams that are left after their first frame, and calls that wait and are left."""
    async with asyncio.TaskGroup() as group:
        for _ in range(15):
            group.create_task(_visit(port, token), name="visit")
        for _ in range(5):
            group.create_task(_impatient_call(port, token), name="call")


async def _visit(port: int, token: str) -> None:
    async with await RawStream.open(port, "/api/v1/events", token) as stream:
        if stream.status == 200:
            await stream.next()
        assert stream.status in (200, 429)


async def _impatient_call(port: int, token: str) -> None:
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Prefer": "wait=30",
    }
    body = b'{"command": "status", "jobId": "T/Brief"}'
    answer = await request(port, "POST", "/api/v1/commands", headers, body)
    assert answer.status == 200


async def test_nothing_that_the_service_does_blocks_its_event_loop(tmp_path: Path) -> None:
    """A file, a name or a lock that is waited for in the loop is an error with its place."""
    apps = Apps(tmp_path)
    apps.shell("T/Brief", "echo 50 >> $JOBBUS_PROGRESS; echo hello")
    apps.shell("T/Stay", "sleep 60")
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    async with node(tmp_path, apps) as running:
        with blockbuster_ctx(["jobbus", "bus", "handlers", "transports"]):
            await _a_working_day(running, apps)
    assert not failed


async def _a_working_day(running: Node, apps: Apps) -> None:
    headers = {"Authorization": f"Bearer {running.token}"}
    async with aiohttp.ClientSession(running.url, headers=headers) as session:

        async def call(method: str, path: str, body: object = None, **more: str) -> str:
            spelled = {name.replace("_", "-"): value for name, value in more.items()}
            async with session.request(
                method, f"/api/v1{path}", json=body, headers=spelled
            ) as answer:
                text = await answer.text()
                assert answer.status < 400, (path, text)
                return text

        brief = {"command": "start", "jobId": "T/Brief"}
        accepted = await call("POST", "/commands", brief, Prefer="wait=20", Idempotency_Key="once")
        await call("POST", "/commands", brief, Idempotency_Key="once")
        execution = json.loads(accepted)["executionId"]
        await call("GET", f"/executions/{execution}/stream")
        await call("GET", f"/executions/{execution}/output?grep=hello&format=json")
        await call("GET", f"/executions/{execution}/output", Range="bytes=0-1")
        for command in ("start", "restart", "status", "stop"):
            body = {"command": command, "jobId": "T/Stay"}
            await call("POST", "/commands", body, Prefer="wait=20")
        await call("DELETE", f"/executions/{execution}", Prefer="wait=20")
        apps.shell("T/Brief", "echo changed")
        token = {"userId": "bob", "roles": ["viewer"]}
        made = json.loads(await call("POST", "/tokens", token))
        await call("DELETE", f"/tokens/{made['id']}")
        for path in ("/jobs", "/jobs/T/Brief", "/executions", "/commands", "/system", "/audit"):
            await call("GET", path)
        await call("GET", "/events?start=earliest", Accept="application/json")
        await call("GET", "/openapi.json")
        async with session.ws_connect("/api/v1/ws", protocols=["jobbus.v1"]) as socket:
            assert (await socket.receive_json())["op"] == "hello"
        async with session.get("/metrics") as metrics:
            assert metrics.status == 200
