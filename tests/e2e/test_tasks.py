"""A whole node inside the test's own loop, for what only the inside can tell: its asyncio tasks."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bus.app import Node, running_node
from bus.config import ServeSettings, Settings
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
