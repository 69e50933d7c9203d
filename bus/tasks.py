"""Starting, stopping and keeping up the asyncio tasks of parts. Knows no part."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from bus.errors import StorageFailed
from bus.recurring import Backoff, Recurring
from bus.scarcity import lack_of

log = structlog.get_logger("jobbus.tasks")

AGAIN_S = 0.2
AGAIN_S_MAX = 5.0


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


async def kept_up(run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    """`run()` has returned; until then it is begun again after whatever it dies of.

    A lack of the system (files, threads, memory) is said once. Anything else is a defect of ours:
    logged with its trace, so that tests and people see it, and no reason to leave all jobs alone.

    Raises:
        StorageFailed: the one thing that only a restart can repair.
    """
    pauses = Backoff(AGAIN_S, AGAIN_S_MAX)
    defects = Recurring(log, "error")
    loop = asyncio.get_running_loop()
    while True:
        began_s = loop.time()
        try:
            await run()
        except Exception as error:
            if _is_of_storage(error):
                raise
            if loop.time() - began_s > AGAIN_S_MAX:
                pauses.reset()
            lack = lack_of(error)
            kind = type(error).__name__
            if lack is not None:
                _lacks.say(f"{name} waits: {lack}", f"{name} {lack}")
            elif not defects:
                log.exception("%s broke and is begun again; please report that", name)
                defects.say(f"{name} broke with {kind}", kind)
            else:
                defects.say(f"{name} broke again with {kind}", kind)
        else:
            return
        await asyncio.sleep(pauses.next_s())


_lacks = Recurring(log)


def _is_of_storage(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_of_storage, error.exceptions))
    return isinstance(error, StorageFailed)


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
