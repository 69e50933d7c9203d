"""Every call that a piece of code makes to the disk, counted, so that one of them can go wrong."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CALLS = (
    "open",
    "write",
    "pwrite",
    "fsync",
    "fdatasync",
    "ftruncate",
    "unlink",
    "rename",
    "replace",
    "link",
    "posix_fallocate",
)

Interrupt = Callable[[int, str], None]
"""Called with the number of the call (from 1) and its name, before the call is made."""


@contextmanager
def watched_calls(interrupt: Interrupt) -> Iterator[None]:
    """Inside the block each of `CALLS` is announced first; what `interrupt` raises, it raises."""
    count = 0

    def announced(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            interrupt(count, name)
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, announced(name))
        yield


def count_calls(work: Callable[[], object]) -> int:
    """How many of `CALLS` an undisturbed run makes."""
    calls: list[str] = []
    with watched_calls(lambda _, name: calls.append(name)):
        work()
    return len(calls)


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Runs `work` in a process that kills itself instead of the call with this number.

    False if there was no such call and the work was done.
    """
    child = os.fork()
    if child == 0:
        try:
            with watched_calls(lambda n, _: _kill_self() if n == number else None):
                work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "the work failed; run it without kill points to see why"
    return False


def _kill_self() -> None:
    os.kill(os.getpid(), 9)
