"""Threads that exist from the start: what must be done at a bad moment needs none to be made then.

All blocking work of a service runs in one of the lanes below, or in a pool of one thread of the
part that owns a file. Nothing else makes threads.
"""

import asyncio
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from bus.errors import NoThread

P = ParamSpec("P")
T = TypeVar("T")

REST_S = 10.0
"""So long an end waits for calls whose callers have gone."""


class Pool(Executor):
    """`size` threads, all of them running when the constructor returns; fewer if the system gives
    no more. Takes calls without a bound: who calls is bounded elsewhere.

    Raises:
        NoThread: the system does not give a single one.
    """

    def __init__(self, name: str, size: int = 1) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self.in_hand: set[Future[Any]] = set()
        self._threads: list[threading.Thread] = []
        for number in range(size):
            try:
                self._threads.append(start_thread(self._work, f"{name}-{number}"))
            except NoThread:
                if not self._threads:
                    raise
                break

    @property
    def size(self) -> int:
        return len(self._threads)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """See `concurrent.futures.Executor.submit`; never needs a new thread."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        future: Future[T] = Future()
        self.in_hand.add(future)
        future.add_done_callback(self.in_hand.discard)
        self._calls.put(partial(_carry_out, future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What was submitted before is done; nothing is taken any more."""
        assert not cancel_futures, "a call that was taken is carried out"
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # it may hold secrets, and the next one may be long in coming


class Lane:
    """A pool of the process that is made once: by `prepare`, or at its first use.

    `_pool` is that pool; a forked process begins without it.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._pool: Pool | None = None

    def prepare(self) -> int:
        """Its threads run; how many.

        Raises:
            NoThread: there is none.
        """
        return self._ready().size

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `call` returns; as `asyncio.to_thread`."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        return await loop.run_in_executor(
            self._ready(), partial(context.run, partial(call, *args, **kwargs))
        )

    async def finish(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`; but a caller that is cancelled waits until the call has returned, so that a
        lock that it holds covers all of the call."""
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._ready(), partial(call, *args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                with suppress(asyncio.CancelledError):  # the first one is raised below
                    await asyncio.wait([work])
            work.exception()  # retrieved: asyncio would log it otherwise
            raise

    def executor(self) -> Executor:
        """For a library that wants one; the threads are those of this lane."""
        return self._ready()

    def in_hand(self) -> set[Future[Any]]:
        """Calls that are not done yet."""
        return set() if self._pool is None else set(self._pool.in_hand)

    def forget_threads(self) -> None:
        """For a fork, in which none of them runs."""
        self._pool = None

    def _ready(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(self._name, self._size)
        return self._pool


STOPS = Lane("stops", 2)
"""Orders to shims, and nothing else: whatever the disk or the readers do, a stop has a thread."""

DISK = Lane("disk", 4)
"""What the service itself needs to go on: queue, executions, results, spawner."""

READS = Lane("reads", 6)
"""What people read, and what tidies up: a slow disk or a long search holds up nothing else."""

_LANES = (STOPS, DISK, READS)
for _lane in _LANES:
    os.register_at_fork(after_in_child=_lane.forget_threads)


def prepare_threads() -> None:
    """The threads of all lanes run.

    Raises:
        NoThread: a lane would have none.
    """
    for lane in _LANES:
        lane.prepare()


async def threads_at_rest() -> None:
    """Calls without a waiting caller (it was cancelled) have ended, or take long."""
    left = [asyncio.wrap_future(each) for lane in _LANES for each in lane.in_hand()]
    if left:
        await asyncio.wait(left, timeout=REST_S)


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """A thread of that name runs `target`. It does not keep the process from ending.

    Raises:
        NoThread: the system gives none.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise NoThread(
            "the system gives this service too few threads; allow it more processes (ulimit -u, "
            "TasksMax= in a unit, pids.max of its control group) or more memory (ulimit -v)"
        ) from error
    return thread


def check_threads(count: int) -> None:
    """The system gives this process so many threads more, at this moment.

    For libraries that make their own and cannot do without.

    Raises:
        NoThread: it does not.
    """
    over = threading.Event()
    made: list[threading.Thread] = []

    def wait() -> None:
        over.wait()

    try:
        while len(made) < count:
            made.append(start_thread(wait, f"check-{len(made)}"))
    finally:
        over.set()
        for thread in made:
            thread.join()


def _carry_out(future: "Future[T]", call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001, RUF100 - it belongs to the waiting caller
        future.set_exception(error)
    else:
        future.set_result(result)
