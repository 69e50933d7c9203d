"""Threads that are there before they are needed, and parts that are begun again."""

import asyncio
import errno
import logging
import threading

import pytest

from bus import tasks
from bus.errors import NoThread, StorageFailed
from bus.scarcity import lack_of_watches
from bus.tasks import kept_up
from bus.threads import Pool


@pytest.fixture
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)


async def test_a_pool_needs_no_thread_when_it_is_asked(
    request: pytest.FixtureRequest,
) -> None:
    pool = Pool("test", 3)
    request.getfixturevalue("no_more_threads")
    loop = asyncio.get_running_loop()
    names = {await loop.run_in_executor(pool, lambda: threading.current_thread().name)}
    gate = threading.Barrier(3)
    at_once = [loop.run_in_executor(pool, gate.wait, 20) for _ in range(3)]
    assert sorted(await asyncio.gather(*at_once)) == [0, 1, 2]
    assert names <= {"test-0", "test-1", "test-2"}
    pool.shutdown()


@pytest.mark.usefixtures("no_more_threads")
def test_a_pool_without_any_thread_says_what_to_allow() -> None:
    with pytest.raises(NoThread, match=r"ulimit -u.*TasksMax"):
        Pool("test", 3)


async def test_what_a_call_raises_belongs_to_its_caller_and_the_thread_goes_on() -> None:
    pool = Pool("test")
    loop = asyncio.get_running_loop()
    with pytest.raises(MemoryError):
        await loop.run_in_executor(pool, bytes, 1 << 60)
    assert await loop.run_in_executor(pool, abs, -1) == 1
    pool.shutdown()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.001)


class Part:
    """Dies of each of `deaths` in turn, then returns."""

    def __init__(self, *deaths: Exception) -> None:
        self.deaths = list(deaths)

    async def run(self) -> None:
        await asyncio.sleep(0)
        if self.deaths:
            raise self.deaths.pop(0)


@pytest.mark.usefixtures("quick")
async def test_a_part_is_begun_again_and_a_lack_of_the_system_leaves_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lacks = [MemoryError(), OSError(24, "x"), RuntimeError("can't start new thread")]
    part = Part(*lacks, *[MemoryError() for _ in range(3)])
    await kept_up(part.run, "part one")
    assert not part.deaths
    assert len(caplog.records) == 3
    assert not any(each.exc_info or each.levelno > logging.WARNING for each in caplog.records)


@pytest.mark.usefixtures("quick", "defects_expected")
async def test_a_defect_is_logged_with_its_trace_once(caplog: pytest.LogCaptureFixture) -> None:
    await kept_up(Part(*[KeyError("x") for _ in range(4)]).run, "part two")
    traces = [each for each in caplog.records if each.exc_info]
    assert len(traces) == 1
    assert "report" in traces[0].getMessage()


async def test_a_storage_failure_ends_it_also_from_inside_a_group() -> None:
    failure = StorageFailed("a sync failed")
    with pytest.raises(StorageFailed):
        await kept_up(Part(failure).run, "part")
    with pytest.raises(ExceptionGroup):
        await kept_up(Part(ExceptionGroup("parts", [KeyError("x"), failure])).run, "part")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError('OS file watch limit reached. about ["/srv"] (Error { kind: MaxFilesWatch })'),
        RuntimeError("error creating watcher: OS file watch limit reached."),
        RuntimeError("No space left on device (os error 28)"),
        OSError("No space left on device (os error 28)"),
    ],
    ids=str,
)
def test_a_lack_of_watches_is_said_alike_by_whichever_library(error: Exception) -> None:
    assert lack_of_watches(error) == lack_of_watches(OSError(errno.ENOSPC, ""))
