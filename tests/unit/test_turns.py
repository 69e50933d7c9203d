"""Turns of searches: some at a time, one of each, and nobody waits for a stranger's queue."""

import asyncio

import pytest

from transports.http.access.rate import Places
from transports.http.output.search import Turns
from transports.http.problems import Problem


async def test_who_asks_for_many_keeps_nobody_else_from_their_turn() -> None:
    turns = Turns(2, Places(100, 50))
    over = asyncio.Event()
    at_work: list[str] = []

    async def search(user: str) -> None:
        async with turns.one_for(user):
            at_work.append(user)
            await over.wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(search("eve"))
        await asyncio.sleep(0)
        group.create_task(search("alice"))
        while len(at_work) < 2:
            await asyncio.sleep(0)
        assert at_work == ["eve", "alice"]
        over.set()
    assert at_work.count("eve") == 50
    assert not turns._own


async def test_too_many_that_wait_are_refused_and_others_are_not() -> None:
    turns = Turns(1, Places(10, 2))
    async with turns.one_for("alice"):
        waiting = asyncio.create_task(turns.one_for("alice").__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(Problem) as caught:
            await turns.one_for("alice").__aenter__()
        waiting.cancel()
        await asyncio.wait([waiting])
    assert caught.value.status == 429
    async with turns.one_for("alice"):
        pass
