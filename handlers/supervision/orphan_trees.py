"""Trees whose shim is dead: watched, stopped on order, until they are gone or survived their KILL.

No exit code can be had for them any more; only the service acts here, by pidfd.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable

import structlog

from bus.model import StopRequest
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from handlers.shim.cgroup import ControlGroup
from handlers.shim.ladder import Step, StopLadder
from handlers.shim.process_tree import (
    Marks,
    Process,
    all_marks,
    all_processes,
    kill_all,
    members,
    process,
    send,
    strays_of,
)
from handlers.supervision.record import ShimState

log = structlog.get_logger("jobbus.orphans")

_troubles = Recurring(log)

LOOK_S = 1.0
LADDER_LOOK_S = 0.1


class OrphanTree:
    """One tree without a shim."""

    def __init__(self, state: ShimState, stop_signal: int) -> None:
        self.state = state
        self._stop_signal = stop_signal
        self._ladder = StopLadder()
        self._group = None if state.cgroup is None else ControlGroup(state.cgroup)
        self._known: frozenset[tuple[int, int]] = frozenset()
        """Pid and start ticks of the members at the last look: one that has neither group nor marks
        is known by its session, and by nothing any more once the session's leader has ended."""

    @property
    def is_stopping(self) -> bool:
        return self._ladder.is_climbing

    def order(self, request: StopRequest, now_ms: int) -> None:
        """The ladder begins, or its KILL comes nearer."""
        grace_s = request.grace_s - max(0, now_ms - request.at_ms) / 1000
        self._ladder.order(time.monotonic(), grace_s, kill=request.kill)

    def find(self, table: dict[int, Process], marks: dict[int, Marks]) -> set[int]:
        """The living members; `marks` are those of all processes."""
        strays = strays_of(marks, self.state.execution, self.state.instance)
        strays |= {pid for pid, ticks in self._known if pid in table and table[pid].ticks == ticks}
        found = members(table, leader=(self.state.session, self.state.ticks), strays=strays)
        if self._group is not None:
            found |= self._group.pids() & table.keys()
        self._known = frozenset((pid, table[pid].ticks) for pid in found)
        return found

    def act(self, table: dict[int, Process], alive: set[int]) -> bool:
        """The next step of the ladder, if one is due; False if nothing more can be done."""
        main = table.get(self.state.pid or 0)
        main_alive = main is not None and main.ticks == self.state.ticks
        step = self._ladder.step(time.monotonic(), main_alive=main_alive)
        if step is Step.SIGNAL and main is not None:
            _signal([main], self._stop_signal)
        elif step is Step.SIGNAL_REST:
            _signal([table[pid] for pid in alive], self._stop_signal)
        elif step is Step.KILL:
            self._kill()
        return step is not Step.GIVE_UP

    def dissolve(self) -> None:
        if self._group is not None:
            self._group.remove()

    def _kill(self) -> None:
        if self._group is not None:
            self._group.kill()
        kill_all(lambda table: self.find(table, all_marks(table)))


class OrphanTrees:
    """All such trees; one look at the process table serves them all.

    `_trees` are those that are watched, by execution: `take` adds, `discard` and the looks of `run`
    take out. `found` is called at each look at which members live or may live, `gone` or `survived`
    once, when the tree is watched no more.
    """

    def __init__(
        self,
        *,
        found: Callable[[str], None],
        gone: Callable[[str], None],
        survived: Callable[[str, tuple[int, ...]], None],
    ) -> None:
        self._found = found
        self._gone = gone
        self._survived = survived
        self._trees: dict[str, OrphanTree] = {}
        self._changed = asyncio.Event()

    def take(self, state: ShimState, stop_signal: int) -> None:
        """The tree is watched from now on."""
        self._trees[state.execution] = OrphanTree(state, stop_signal)
        self._changed.set()

    def order(self, execution_id: str, request: StopRequest, now_ms: int) -> None:
        """The tree is to be gone."""
        self._trees[execution_id].order(request, now_ms)
        self._changed.set()

    def discard(self, execution_id: str) -> None:
        """The tree, if there is one, is not watched any more."""
        self._trees.pop(execution_id, None)

    async def run(self) -> None:
        """Looks while there are any."""
        while True:
            self._changed.clear()
            if self._trees:
                trees = dict(self._trees)
                over = await DISK.run(_look_or_wait, trees)
                for execution_id, tree in trees.items():
                    if self._trees.get(execution_id) is tree:  # not let go meanwhile
                        self._looked(execution_id, over.get(execution_id))
            await self._rest()

    def _looked(self, execution_id: str, survivors: tuple[int, ...] | None) -> None:
        if survivors is None:
            self._found(execution_id)
            return
        del self._trees[execution_id]
        if survivors:
            self._survived(execution_id, survivors)
        else:
            self._gone(execution_id)

    async def _rest(self) -> None:
        if not self._trees:
            await self._changed.wait()
            return
        stopping = any(tree.is_stopping for tree in self._trees.values())
        try:
            async with asyncio.timeout(LADDER_LOOK_S if stopping else LOOK_S):
                await self._changed.wait()
        except TimeoutError:
            return


def look_at(trees: dict[str, OrphanTree]) -> dict[str, tuple[int, ...]]:
    """Those that are over, each with what outlived its KILL; the others took the step that was due.
    Blocking.

    Raises:
        OSError: the living processes cannot be read.
    """
    table = _processes()
    marks = all_marks(table)
    over: dict[str, tuple[int, ...]] = {}
    for execution_id, tree in trees.items():
        alive = tree.find(table, marks)
        if not alive:
            tree.dissolve()
            over[execution_id] = ()
        elif not tree.act(table, alive):
            over[execution_id] = tuple(sorted(alive))
    return over


def _look_or_wait(trees: dict[str, OrphanTree]) -> dict[str, tuple[int, ...]]:
    try:
        over = look_at(trees)
    except OSError as error:
        _troubles.say(f"processes cannot be looked at: {reason_of(error)}")
        return {}

    _troubles.over("processes can be looked at again")
    return over


def _processes() -> dict[int, Process]:
    """All living processes.

    Raises:
        OSError: they cannot be read: then not even this one can, before or after.
    """
    table = all_processes()
    own = os.getpid()
    if own not in table or process(own) is None:
        raise OSError("/proc cannot be read")
    return table


def _signal(targets: list[Process], number: int) -> None:
    for each in targets:
        send(each, number)
        send(each, signal.SIGCONT)
