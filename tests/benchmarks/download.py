"""Sending a whole output: the file kept open by aiofiles, beside a thread hop that opens it for
each piece, and beside plain reads that hold up everything else."""

import asyncio
import resource
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from bus.layout import DataLayout
from handlers.output.store import OutputStore
from tests.benchmarks.contenders import Contender, Failed, Figures, measure
from tests.benchmarks.tables import Column, Goal, Ratio, render

ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
MEGABYTES = 300
PIECE = 256 * 1024
AT_ONCE = 8
PLAIN, HOPS, AIOFILES = "plain reads", "a thread hop a piece", "aiofiles"

Take = Callable[[DataLayout], Awaitable[int]]


def table(folder: Path, rounds: int, seconds: float) -> str:
    contenders = [
        Contender(PLAIN, _measured(_plain), None),
        Contender(HOPS, _measured(_hops), None),
        Contender(AIOFILES, _measured(_pieces), None),
    ]
    results = measure(contenders, folder, rounds=rounds, seconds=seconds)
    goals = [Goal(AIOFILES, at_least=1.0, of=(HOPS,), words="a thread hop a piece")]
    columns: list[Column | Ratio] = [
        Column("MB/s", "rate", spread=True),
        Ratio("÷ hop", (HOPS,)),
        Column("8 at once", "rate8"),
        Column("CPU ms/GB", "cpu"),
        Column("longest wait of the loop ms", "wait"),
    ]
    title = f"Download of {MEGABYTES} MB of output, in pieces of {PIECE // 1024} KiB"
    return render(title, [PLAIN, HOPS, AIOFILES], columns, goals, results)


def _measured(take: Take) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        layout = DataLayout(folder)
        execution = layout.execution(ID).root
        execution.mkdir(parents=True)
        block = b"".join(b"%099d\n" % number for number in range(10_000))
        with (execution / "output.log").open("wb") as file:
            for _ in range(MEGABYTES):
                file.write(block)
        try:
            return asyncio.run(_figures(layout, take))
        finally:
            shutil.rmtree(folder)

    return run


async def _figures(layout: DataLayout, take: Take) -> Figures:
    await take(layout)  # the page cache and the threads are warm
    waits: list[float] = []
    watching = asyncio.create_task(_watch(waits))
    cpu_s, began_s = _cpu_s(), time.perf_counter()
    if await take(layout) != MEGABYTES * 1_000_000:
        raise Failed("not all was read")
    one_s = time.perf_counter() - began_s
    cpu_s = _cpu_s() - cpu_s
    began_s = time.perf_counter()
    await asyncio.gather(*(take(layout) for _ in range(AT_ONCE)))
    many_s = time.perf_counter() - began_s
    watching.cancel()
    return {
        "rate": MEGABYTES / one_s,
        "rate8": AT_ONCE * MEGABYTES / many_s,
        "cpu": cpu_s * 1000 / (MEGABYTES / 1000),
        "wait": max(waits, default=0.0) * 1000,
    }


async def _watch(waits: list[float]) -> None:
    """How late a task is that wants to run each millisecond."""
    while True:
        began_s = time.perf_counter()
        await asyncio.sleep(0.001)
        waits.append(time.perf_counter() - began_s - 0.001)


async def _plain(layout: DataLayout) -> int:
    count = 0
    with (layout.execution(ID).root / "output.log").open("rb", buffering=0) as file:
        while data := file.read(PIECE):
            count += len(data)
            await asyncio.sleep(0)
    return count


async def _hops(layout: DataLayout) -> int:
    store = OutputStore(layout, lambda _: False)
    at = 0
    while (chunk := await store.read(ID, at, PIECE)).data:
        at = chunk.end
    return at


async def _pieces(layout: DataLayout) -> int:
    store = OutputStore(layout, lambda _: False)
    count = 0
    async with aclosing(store.pieces(ID, 0, await store.size(ID), PIECE)) as chunks:
        async for chunk in chunks:
            count += len(chunk.data)
    return count


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
