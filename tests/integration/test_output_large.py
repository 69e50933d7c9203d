"""A log of two gigabytes opens at its end at once, and no question about it costs more memory."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from bus.layout import DataLayout
from handlers.output.index import HEADER, MAGIC, RECORD
from handlers.output.store import OutputStore
from tests.gateway_fixture import ALICE, Backend, bearer
from tests.stream_reader import open_stream
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

GIB = 1024**3
SIZE = 2 * GIB
READ = 256 * 1024
LINES = 20_000
MEMORY_MAX = 24 * 1024 * 1024


def line(number: int) -> bytes:
    return b"line %07d of a long log\n" % number


def write_log(folder: Path) -> int:
    """Two gigabytes of which the last `LINES` lines are text and the rest is a hole in the file:
    one endless first line. Returns the size."""
    folder.mkdir(parents=True)
    text = b"\n" + b"".join(line(number) for number in range(2, LINES + 2))
    start = SIZE - len(text)
    with (folder / "output.log").open("wb") as log:
        log.seek(start)
        log.write(text)
    with (folder / "output.idx").open("wb") as index:
        index.write(HEADER.pack(MAGIC, 2 * SIZE, 64 * READ, 0))
        for at in range(0, start, READ):
            index.write(RECORD.pack(at, 1_700_000_000_000, 1, min(READ, start - at), 1))
        for at in range(0, len(text), READ):
            number = 1 + text[:at].count(b"\n")
            length = min(READ, len(text) - at)
            index.write(RECORD.pack(start + at, 1_700_000_001_000, number, length, 1))
    assert (folder / "output.log").stat().st_blocks * 512 < 64 * 1024 * 1024
    return SIZE


@pytest.fixture
def backend() -> Backend:
    return Backend()


@asynccontextmanager
async def serving_large(
    backend: Backend, root: Path, settings: GatewaySettings
) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """The path of an ended execution's large output, and a session."""
    execution = backend.queue("App/Job")
    layout = DataLayout(root)
    write_log(layout.execution(execution).root)
    backend.end(execution)
    ports = replace(backend.ports(), output=OutputStore(layout, lambda _: False))
    gateway = Gateway(ports, settings)
    url = await gateway.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(base_url=url, headers=bearer(ALICE)) as session:
            yield f"/api/v1/executions/{execution}", session
    finally:
        await gateway.aclose()


async def get(session: aiohttp.ClientSession, path: str, **headers: str) -> bytes:
    async with session.get(path, headers=headers) as response:
        assert response.status in (200, 206), await response.read()
        return await response.read()


async def test_every_question_about_two_gigabytes_is_answered_with_little_memory(
    backend: Backend, tmp_path: Path
) -> None:
    settings = GatewaySettings(version="test", search_s=0.2)
    async with asyncio.timeout(50), serving_large(backend, tmp_path, settings) as (path, session):
        await get(session, f"{path}/output?tail=1")
        tracemalloc.start()
        try:
            tail = json.loads(await get(session, f"{path}/output?tail=100&format=json"))
            middle = json.loads(
                await get(session, f"{path}/output?line=12345&limit=30&format=json")
            )
            first = json.loads(await get(session, f"{path}/output?limit=100&format=json"))
            end = await get(session, f"{path}/output", Range="bytes=-27")
            stream = await open_stream(session, f"{path}/stream?tail=500")
            frames = await stream.rest()
            found = json.loads(await get(session, f"{path}/output?grep=line&format=json"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [one["number"] for one in tail["lines"]] == list(range(LINES - 98, LINES + 2))
    assert tail["lines"][-1]["time"] == "2023-11-14T22:13:21.000Z"
    assert (tail["to"], tail["end"], tail["complete"]) == (SIZE, SIZE, True)
    assert middle["lines"][0]["text"] == line(12_345).decode().rstrip()
    assert first["lines"][0]["more"] is True
    assert end == line(LINES + 1)[-27:]
    text = "".join(frame.data["text"] for frame in frames if frame.kind == "output")
    assert text == "".join(line(n).decode() for n in range(LINES - 498, LINES + 2))
    assert frames[-1].data["reason"] == "terminal"
    assert found["lines"] == []
    assert 0 < found["to"] < found["end"], "the search was bounded by time and says where it was"
    assert peak < MEMORY_MAX, peak


async def test_a_search_goes_on_where_it_stopped(backend: Backend, tmp_path: Path) -> None:
    settings = GatewaySettings(version="test")
    async with asyncio.timeout(50), serving_large(backend, tmp_path, settings) as (path, session):
        start = SIZE - 1024 * 1024
        query = f"{path}/output?grep=0012345&format=json&from={start}"
        found = json.loads(await get(session, query))
        rest = json.loads(
            await get(session, f"{path}/output?grep=of a&format=json&limit=3&from={start}")
        )
        after = json.loads(
            await get(session, f"{path}/output?grep=of a&format=json&limit=1&from={rest['to']}")
        )
    assert [one["number"] for one in found["lines"]] == [12_345]
    assert after["lines"][0]["number"] == rest["lines"][-1]["number"] + 1
