"""Starting and stopping the asyncio tasks of parts in order. Knows no part."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


async def started(
    group: asyncio.TaskGroup, run: Callable[[asyncio.Event], Coroutine[Any, Any, None]], name: str
) -> asyncio.Task[None]:
    """The part runs and has said that it is ready."""
    ready = asyncio.Event()
    task = group.create_task(run(ready), name=name)
    waiting = asyncio.ensure_future(ready.wait())
    done, _ = await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    if waiting not in done:
        waiting.cancel()
        task.result()  # it died before it was ready: raise what killed it
    return task


async def stopped(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def done_while(needed: asyncio.Task[None], work: Coroutine[Any, Any, bool]) -> bool:
    """Whether the work is done; it cannot be if the task that it needs has ended."""
    task = asyncio.create_task(work, name="the last files")
    await asyncio.wait((task, needed), return_when=asyncio.FIRST_COMPLETED)
    if needed.done():
        await stopped(task)
        return False
    return task.result()
