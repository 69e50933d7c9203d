"""The output of executions for all readers: one thread hop a call, bounded memory."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from aiofiles.threadpool import wrap

from bus.envelope import canonical_uuid
from bus.layout import DataLayout
from bus.ports import OutputChunk, OutputHits, OutputPage
from bus.threads import READS
from handlers.output.output_files import OutputFiles, open_output
from handlers.output.search import offset_of_tail, page_of, search

LIVE_LOOK_S = 2.0
"""A follower of a live execution looks this often without a hint."""

ENDED_LOOK_S = 15.0
"""The same where nothing is expected any more."""

STREAMS_MAX = 64
"""Readers of whole outputs that keep a file open; further ones open it again for each piece. Many
who read slowly must not take the descriptors that starts need."""

Answer = TypeVar("Answer")


class OutputStore:
    """Implements `bus.ports.OutputLineReader` and `bus.ports.OutputNotice`.

    `_followers` holds an event of each reader that waits for growth, by execution: `growth` adds
    and removes it, `grown` sets it. `_streaming` are the files that readers of whole outputs keep
    open now.

    `is_live` says whether an execution may still print, `ended_at` where the output of one ends
    that may not; they and `grown` are called on the loop.
    """

    def __init__(
        self,
        layout: DataLayout,
        is_live: Callable[[str], bool],
        ended_at: Callable[[str], int | None] = lambda _: None,
    ) -> None:
        self._layout = layout
        self._is_live = is_live
        self._ended_at = ended_at
        self._followers: dict[str, set[asyncio.Event]] = {}
        self._streaming = 0

    async def size(self, execution_id: str) -> int:
        return await self._with_files(execution_id, lambda files: files.end)

    async def read(self, execution_id: str, start: int, limit: int) -> OutputChunk:
        return await self._with_files(execution_id, lambda files: files.read(start, limit))

    async def pieces(
        self, execution_id: str, start: int, end: int, size: int
    ) -> AsyncGenerator[OutputChunk, None]:
        while start < end:
            chunk = None
            if self._streaming < STREAMS_MAX:
                async with aclosing(self._from_file(execution_id, start, end, size)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            if chunk is None:
                chunk = await self.read(execution_id, start, min(size, end - start))
                if chunk.data or chunk.gap is not None:
                    yield chunk
            if not chunk.data:
                return
            start = chunk.end

    async def _from_file(
        self, execution_id: str, start: int, end: int, size: int
    ) -> AsyncGenerator[OutputChunk, None]:
        """The pieces of the one file that holds `start`, or the next kept byte; none at the end."""
        self._streaming += 1
        try:
            part = await self._with_files(execution_id, lambda files: files.part(start, end))
            if part is None:
                return
            gap = (start, part.start) if part.start > start else None
            file = wrap(part.file, executor=READS.executor())
            try:
                at = part.start
                while at < part.end and (data := await file.read(min(size, part.end - at))):
                    yield OutputChunk(start=at, end=at + len(data), data=data, gap=gap)
                    at, gap = at + len(data), None
            finally:
                await file.close()
        finally:
            self._streaming -= 1

    async def offset_of_tail(self, execution_id: str, lines: int) -> int:
        return await self._with_files(execution_id, lambda files: offset_of_tail(files, lines))

    async def offset_of_line(self, execution_id: str, number: int) -> int:
        return await self._with_files(execution_id, lambda files: files.offset_of_line(number))

    async def page(
        self, execution_id: str, start: int, limit_bytes: int, *, stream: str | None = None
    ) -> OutputPage:
        # Asked before reading: an execution that ends in between is looked at once more, while a
        # line could be taken for whole too early the other way round.
        is_live = self._is_live(execution_id)
        return await self._with_files(
            execution_id,
            lambda files: page_of(files, start, limit_bytes, is_live=is_live, stream=stream),
        )

    async def search(
        self,
        execution_id: str,
        needle: str,
        limit: int,
        *,
        start: int = 0,
        stream: str | None = None,
        time_s: float | None = None,
    ) -> OutputHits:
        abandoned = threading.Event()
        timer = None
        if time_s is not None:
            timer = asyncio.get_running_loop().call_later(time_s, abandoned.set)
        try:
            return await self._with_files(
                execution_id,
                lambda files: search(
                    files, needle, limit, start=start, stream=stream, abandoned=abandoned
                ),
            )
        finally:
            if timer is not None:
                timer.cancel()
            abandoned.set()  # no caller waits any more: the thread must not search gigabytes on

    def grown(self, execution_id: str) -> None:
        for grew in self._followers.get(execution_id, ()):
            grew.set()

    async def growth(self, execution_id: str) -> AsyncGenerator[None, None]:
        """See `OutputReader.growth`. Never ends by itself: who follows knows the final size."""
        grew = asyncio.Event()
        followers = self._followers.setdefault(execution_id, set())
        followers.add(grew)
        try:
            while True:
                grew.clear()  # before the reader looks: growth meanwhile counts for the next
                yield
                try:
                    async with asyncio.timeout(self._patience_s(execution_id)):
                        await grew.wait()
                except TimeoutError:
                    continue  # hints get lost; time to look
        finally:
            followers.discard(grew)
            if not followers and self._followers.get(execution_id) is followers:
                del self._followers[execution_id]

    def _patience_s(self, execution_id: str) -> float:
        return LIVE_LOOK_S if self._is_live(execution_id) else ENDED_LOOK_S

    async def _with_files(self, execution_id: str, ask: Callable[[OutputFiles], Answer]) -> Answer:
        """The answer of `ask`, on a thread, about the execution's files as they are now.

        Raises:
            ValueError: `execution_id` is no UUID; nothing else becomes part of a path.
        """
        folder = self._layout.execution(canonical_uuid(execution_id)).root
        # Asked before reading: what is written until the end is on record is in the files by then.
        ended_at = self._ended_at(execution_id)

        def answer() -> Answer:
            with open_output(folder, ended_at) as files:
                return ask(files)

        return await READS.run(answer)
