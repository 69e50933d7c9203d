"""`Prefer: wait` on reads: an answer that would be "unchanged" waits for the change."""

import asyncio

import aiohttp
import pytest

from tests.gateway_fixture import ALICE, Backend, bearer, serving
from transports.http.settings import GatewaySettings


async def ask(
    session: aiohttp.ClientSession, path: str, tag: str = "", wait: str = ""
) -> tuple[int, str, object]:
    headers = bearer(ALICE)
    headers |= {"If-None-Match": tag} if tag else {}
    headers |= {"Prefer": f"wait={wait}"} if wait else {}
    async with session.get(path, headers=headers) as response:
        body = await response.json() if response.status == 200 else None
        return response.status, response.headers.get("ETag", ""), body


async def waiting(backend: Backend) -> None:
    """Somebody waits for a change of the feed."""
    async with asyncio.timeout(20):
        while not backend.feed._waiting:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("path", ["/executions/{id}", "/executions", "/jobs", "/jobs/App/Job"])
async def test_an_unchanged_answer_waits_for_the_change(path: str) -> None:
    backend = Backend()
    backend.define("App/Job")
    execution = backend.queue("App/Job")
    path = "/api/v1" + path.format(id=execution)
    async with serving(backend) as (_, session):
        _, tag, _ = await ask(session, path)
        waits = asyncio.create_task(ask(session, path, tag, "30"), name="waits")
        await waiting(backend)
        backend.run(execution)
        if path.startswith("/api/v1/jobs"):
            backend.define("App/Job", description="another")
        status, changed, _ = await waits
    assert status == 200
    assert changed != tag


async def test_a_wait_that_is_over_says_unchanged() -> None:
    backend = Backend()
    path = f"/api/v1/executions/{backend.queue('App/Job')}"
    async with serving(backend) as (_, session):
        _, tag, _ = await ask(session, path)
        waits = asyncio.create_task(ask(session, path, tag, "1"), name="waits")
        await waiting(backend)
        backend.define("Other/Job")
        assert (await waits)[:2] == (304, tag)


async def test_a_wait_ends_when_the_service_leaves() -> None:
    backend = Backend()
    path = f"/api/v1/executions/{backend.queue('App/Job')}"
    async with (
        asyncio.timeout(20),
        serving(backend, GatewaySettings(wait_s_max=3600)) as (_, session),
    ):
        _, tag, _ = await ask(session, path)
        waits = asyncio.create_task(ask(session, path, tag, "3600"), name="waits")
        await waiting(backend)
    waits.cancel()
    await asyncio.wait([waits])


async def test_a_command_is_waited_for_to_its_end() -> None:
    backend = Backend()
    backend.handle_at_once = False
    async with serving(backend) as (_, session):
        start = {"command": "start", "jobId": "App/Job"}
        made = await session.post("/api/v1/commands", json=start, headers=bearer(ALICE))
        path = made.headers["Location"]
        waits = asyncio.create_task(ask(session, path, wait="30"), name="waits")
        await asyncio.sleep(0)
        backend.end_command(backend.published[0].id)
        status, _, body = await waits
    assert status == 200
    assert isinstance(body, dict)
    assert body["status"] == "Completed"
