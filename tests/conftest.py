"""What holds for every test: it leaves no asyncio task behind."""

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest

GRACE_S = 2.0
"""For tasks that were told to end and have not had their turn yet: aiohttp's server has such."""


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Set up first and torn down last, when the fixtures of the test have ended what they began."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_S)
    assert not left, "\n".join(f"left running: {task!r}" for task in left)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "no_leaked_tasks")
