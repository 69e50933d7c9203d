"""One look at an output serves all who follow it: pages are read once, hints are shared.

Readers at the same place get the same page and the same encoded lines. A page counts until the
output grows; what is kept is a few pages for each execution that somebody follows.
"""

import asyncio
from collections.abc import AsyncGenerator

from bus.ports import OutputLineReader, OutputPage
from transports.http.output.lines import lines_json, output_data, text_json
from transports.http.streams.outlets import Wakeup

PAGES_KEPT = 4


class SharedPage:
    """A page with what frames say of it, encoded when first asked for.

    `settled` are the lines that will not be sent again.
    """

    __slots__ = ("_encoded", "page", "settled")

    def __init__(self, page: OutputPage) -> None:
        self.page = page
        self.settled = tuple(line for line in page.lines if not line.partial)
        self._encoded: dict[bool, bytes] = {}

    def data(self, *, partial: bool) -> bytes:
        """The data of an `output` frame, with the open lines or without."""
        data = self._encoded.get(partial)
        if data is None:
            page = self.page
            lines = lines_json(page.lines if partial else self.settled)
            data = output_data(page.lines[0].at, page.next, text_json(page), lines)
            self._encoded[partial] = data
        return data


class Tail:
    """What is shared among the followers of one execution.

    `wakeups` are those of the followers, added and removed by `SharedOutput`. `_reading` are the
    pages that count now, by place, at most `PAGES_KEPT`: `page` adds them, each growth clears them.
    `_tasks` are all reads under way, also of pages that count no more.
    """

    def __init__(self, execution_id: str, output: OutputLineReader) -> None:
        self._id = execution_id
        self._output = output
        self.wakeups: set[Wakeup] = set()
        self._reading: dict[tuple[int, bool], asyncio.Task[SharedPage]] = {}
        self._tasks: set[asyncio.Task[SharedPage]] = set()
        self._watching = asyncio.create_task(self._watch(), name=f"growth {execution_id}")

    async def page(self, start: int, limit_bytes: int, *, is_final: bool) -> SharedPage:
        """The lines from `start` on as they were after the last growth, or later.

        `is_final` keeps pages of a live execution apart from those of an ended one: a last line
        that is open in the first is whole in the second.
        """
        key = (start, is_final)
        reading = self._reading.get(key)
        if reading is None:
            if self._watching.done():
                self._watching.result()  # without hints nothing may be kept: raise what ended them
            reading = asyncio.create_task(self._read(start, limit_bytes), name=f"page {self._id}")
            self._reading[key] = reading
            self._tasks.add(reading)
            while len(self._reading) > PAGES_KEPT:
                del self._reading[next(iter(self._reading))]
            reading.add_done_callback(lambda task: self._read_ended(key, task))
        # A reader that leaves must not take the page away from the others.
        return await asyncio.shield(reading)

    def look_again(self) -> None:
        """The next page is read again. What the index says of lines comes after their bytes, and
        without a hint: a line may be whole by now that was open in the last page."""
        self._reading.clear()

    async def aclose(self) -> None:
        """The last follower has left."""
        tasks = [self._watching, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _read(self, start: int, limit_bytes: int) -> SharedPage:
        return SharedPage(await self._output.page(self._id, start, limit_bytes))

    def _read_ended(self, key: tuple[int, bool], task: "asyncio.Task[SharedPage]") -> None:
        self._tasks.discard(task)
        if (task.cancelled() or task.exception() is not None) and self._reading.get(key) is task:
            del self._reading[key]

    async def _watch(self) -> None:
        growth = self._output.growth(self._id)
        try:
            async for _ in growth:
                self._reading.clear()
                for wakeup in self.wakeups:
                    wakeup.set()
        finally:
            if isinstance(growth, AsyncGenerator):
                await growth.aclose()
            for wakeup in self.wakeups:
                wakeup.set()


class SharedOutput:
    """`_tails` are those of all executions that are followed now: made by the first `join`, closed
    by the last `leave`."""

    def __init__(self, output: OutputLineReader) -> None:
        self._output = output
        self._tails: dict[str, Tail] = {}

    def join(self, execution_id: str, wakeup: Wakeup) -> Tail:
        """`wakeup` is rung whenever there may be more to read, until `leave`."""
        tail = self._tails.get(execution_id)
        if tail is None:
            tail = self._tails[execution_id] = Tail(execution_id, self._output)
        tail.wakeups.add(wakeup)
        return tail

    async def leave(self, execution_id: str, wakeup: Wakeup) -> None:
        tail = self._tails[execution_id]
        tail.wakeups.discard(wakeup)
        if not tail.wakeups:
            del self._tails[execution_id]
            await tail.aclose()
