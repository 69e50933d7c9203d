"""Finds out when programs are ready that do not say so themselves: by a port, a URL, their output.

Hints wake, and looks decide: output is read when it has grown, and now and then. Nothing is kept
but a position in an output: who starts in the middle of it comes to the same answer.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from bus.layout import DataLayout
from bus.recurring import Backoff
from bus.tasks import kept_up
from bus.threads import READS
from handlers.catalog.probe_targets import OutputTarget, Target
from handlers.output.line_search import LineSearch
from handlers.output.output_files import open_output
from handlers.supervision.connections import Connections, NoAnswer

ANSWER_S = 5.0
"""So long one try may take."""

FIRST_PAUSE_S = 0.05
PAUSE_S_MAX = 2.0
PAUSE_SHARE = 0.2
"""A pause between two tries is so much of the time that the program has taken already: what is
ready after 10 s is known so 2 s later at most."""

TRIES_A_S = 100
"""Of all programs together: with more of them that wait, pauses grow."""

LOOK_S = 1.0
LOOK_S_MAX = 10.0
"""Output is looked at so often without a hint, first and later on."""

PIECE_BYTES = 65_536
PIECES_A_LOOK = 16
"""One look takes a thread for a moment only, whatever a program prints meanwhile."""


class Probing:
    """One program that is not ready yet. `grew` is set when there may be more output."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.grew = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class ReadyProbes:
    """Calls `ready(execution_id)` once while `run` runs; then, or by `discard`, it is over.

    `_probing` has each program that is not ready: `watch` adds, its task and `discard` take it
    out. `_group` is that of `run`, in which the tasks are made; None while it does not run.
    """

    def __init__(
        self, layout: DataLayout, connections: Connections, ready: Callable[[str], None]
    ) -> None:
        self._layout = layout
        self._connections = connections
        self._ready = ready
        self._probing: dict[str, Probing] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Ends on cancellation."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for execution_id in self._probing:
                    self._begin(execution_id)
                await asyncio.Event().wait()
        finally:
            self._group = None

    def watch(self, execution_id: str, target: Target) -> None:
        """The program of this execution runs and is not ready."""
        self.discard(execution_id)
        self._probing[execution_id] = Probing(target)
        self._begin(execution_id)

    def grown(self, execution_id: str) -> None:
        """There may be more output than was looked at."""
        probing = self._probing.get(execution_id)
        if probing is not None:
            probing.grew.set()

    def discard(self, execution_id: str) -> None:
        """Whether it becomes ready is not of interest any more."""
        probing = self._probing.pop(execution_id, None)
        if probing is not None and probing.task is not None:
            probing.task.cancel()

    def _begin(self, execution_id: str) -> None:
        if self._group is not None:
            probing = self._probing[execution_id]
            name = f"readiness of {execution_id}"
            probe = partial(self._probe, execution_id, probing)
            probing.task = self._group.create_task(kept_up(probe, name), name=name)

    async def _probe(self, execution_id: str, probing: Probing) -> None:
        if isinstance(probing.target, OutputTarget):
            await self._read_output(execution_id, probing, probing.target.expression)
        else:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            while True:
                try:
                    await self._connections.ask(probing.target, ANSWER_S)
                    break
                except NoAnswer:
                    share_s = (loop.time() - began_s) * PAUSE_SHARE
                    own_s = min(max(FIRST_PAUSE_S, share_s), PAUSE_S_MAX)
                    await asyncio.sleep(self._pause_s(own_s))
        probing.task = None
        del self._probing[execution_id]
        self._ready(execution_id)

    def _pause_s(self, own_s: float) -> float:
        return max(own_s, len(self._probing) / TRIES_A_S)

    async def _read_output(self, execution_id: str, probing: Probing, expression: str) -> None:
        search = LineSearch(expression)
        pauses = Backoff(LOOK_S, LOOK_S_MAX)
        while True:
            probing.grew.clear()  # before the look: growth meanwhile counts for the next
            found, is_more = await READS.run(self._look, execution_id, search)
            if found:
                return
            if not is_more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s(pauses.next_s())):
                        await probing.grew.wait()

    def _look(self, execution_id: str, search: LineSearch) -> tuple[bool, bool]:
        """Whether the line has been found, and whether there is more to look at. Blocking."""
        with open_output(self._layout.execution(execution_id).root) as files:
            for _ in range(PIECES_A_LOOK):
                chunk = files.read(search.position, PIECE_BYTES)
                if not chunk.data:
                    return False, False
                if search.finds(chunk.start, chunk.data):
                    return True, False
        return False, True
