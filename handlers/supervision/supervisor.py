"""The service's side of running programs: what it is made of, what it is told to do, when it looks.

It never holds a pipe or waits for a job: the shims do, and go on when this part is dead.
"""

import asyncio
import math
import os
from collections.abc import Callable, Container, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from bus.clock import Clock
from bus.jobs import JobSpec
from bus.layout import DataLayout
from bus.model import Execution, ExecutionStatus, ExitRecord, Reason
from bus.ports import OutputNotice, ReportSink
from bus.tasks import kept_up
from bus.threads import DISK
from handlers.supervision import execution_files
from handlers.supervision.asking import Asking
from handlers.supervision.doorbell import Doorbell
from handlers.supervision.environment import base_environment
from handlers.supervision.execution_files import NeverRan
from handlers.supervision.hearing import Hearing
from handlers.supervision.orders import Orders
from handlers.supervision.orphan_trees import Orphanage
from handlers.supervision.progress_watch import ProgressWatch
from handlers.supervision.request import ProgramDefaults, Requests, SupervisorSettings
from handlers.supervision.roster import Roster
from handlers.supervision.secrets import SecretValues
from handlers.supervision.settling import Settling
from handlers.supervision.spawner_link import SpawnerLink
from handlers.supervision.watched import Watched

__all__ = ["ProcessSupervisor", "SupervisorSettings"]


class ProcessSupervisor:
    """Implements `bus.ports.Supervisor`; all methods are called in the loop."""

    def __init__(
        self,
        layout: DataLayout,
        instance: str,
        clock: Clock,
        report: ReportSink,
        output: OutputNotice,
        *,
        settings: SupervisorSettings | None = None,
        base_env: Mapping[str, str] | None = None,
        secrets: SecretValues | None = None,
        is_copy: bool = False,
        look_s_max: Callable[[], float] = lambda: math.inf,
        in_hand: Callable[[Sequence[str]], None] = lambda command_ids: None,
    ) -> None:
        self._in_hand = in_hand
        self._is_copy = is_copy
        self._layout = layout
        self._clock = clock
        self._settings = settings or SupervisorSettings()
        self._group: asyncio.TaskGroup | None = None
        self._bell = Doorbell(layout.sockets)
        self._progress = ProgressWatch(self._progress_written)
        self._roster = Roster(report, output, self._progress, self._shim_ended)
        self._hearing = Hearing(layout, self._roster, self._bell, self._progress, report, output)
        self._link = SpawnerLink(self._hearing.forked, self._spawner_died)
        self._orders = Orders(layout, self._bell, self._roster.holds, self._start)
        self._orphans = Orphanage(self._orphan_gone, self._orphan_survived)
        env = base_environment(os.environ if base_env is None else base_env)
        self._requests = Requests(layout, instance, self._settings, env, look_s_max)
        self._asking = Asking(
            self._requests,
            self._link,
            secrets or SecretValues({}),
            is_watched=self._roster.holds,
            fail=self._roster.fail,
            start=self._start,
        )
        self._settling = Settling(
            layout,
            instance,
            clock,
            report,
            self._roster,
            self._hearing,
            self._asking,
            self._orphans,
            start=self._start,
        )

    @property
    def spawner_pid(self) -> int:
        """The warm process that runs now; 0 before the first."""
        return self._link.pid

    @property
    def trouble(self) -> str | None:
        """Why no program can be started now; None if some can."""
        return self._link.trouble

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Ends on cancellation; all jobs go on. `ready` is set when orders are taken."""
        warm = asyncio.Event()
        with self._bell.listening(self._hearing.rung):
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    self._start(partial(self._link.run, warm), "spawner")
                    self._start(self._orphans.run, "orphans")
                    self._start(self._progress.run, "progress watch")
                    await warm.wait()
                    if ready is not None:
                        ready.set()
                    await kept_up(self._look_now_and_then, "supervisor")
            finally:
                self._group = None
                self._roster.unfollow_all()

    # -- orders

    def go_by(self, programs: ProgramDefaults) -> None:
        """Programs that are started from now on get these where their definitions say nothing."""
        self._requests.go_by(programs)

    def spawn(self, execution: Execution, spec: JobSpec | None) -> None:
        """Start the program under a shim, at most once; what comes of it is reported."""
        watched = Watched(execution, spec)
        self._roster.add(watched)
        self._asking.ask(watched)

    def stop(self, execution: Execution) -> None:
        """Make whoever watches the tree follow `execution.stop`."""
        watched, order = self._roster.get(execution.id), execution.stop
        if order is None or watched is None:
            return
        watched.stop = order
        if execution.id in self._orphans:
            self._orphans.order(execution.id, order, self._clock.now_ms())
        else:
            self._orders.pass_on(watched)

    async def adopt(
        self,
        live: Sequence[tuple[Execution, JobSpec | None]],
        poison: Container[str] = frozenset(),
    ) -> None:
        """Every live execution is watched, spawned afresh, or reported as over.

        Those of the commands `poison` are not spawned any more: starts of the service died of it.
        """
        ids = [execution.id for execution, _ in live]
        findings = await DISK.run(
            execution_files.investigate_all, self._layout, ids, is_copied=self._is_copy
        )
        spawned = []
        for (execution, spec), finding in zip(live, findings, strict=True):
            watched = Watched(execution, spec)
            watched.is_copied = self._is_copy
            watched.is_poison = execution.command_id in poison
            watched.ran = execution.start_ms is not None or execution.pid is not None
            watched.told_running = watched.ran and execution.status is not ExecutionStatus.UNKNOWN
            self._roster.add(watched)
            if isinstance(finding, NeverRan):
                spawned.append((watched, finding))
            else:
                self._settling.conclude(watched, finding)
        for watched, finding in spawned:
            if self._roster.holds(watched):
                command_id = watched.execution.command_id
                await DISK.run(self._in_hand, (command_id,))
                self._settling.conclude(watched, finding)
        if spawned:
            await DISK.run(self._in_hand, ())

    # -- what the parts have to tell one another

    def _progress_written(self, execution_id: str) -> None:
        self._hearing.progress_written(execution_id)

    def _shim_ended(self, watched: Watched) -> None:
        self._settling.soon(watched)

    def _spawner_died(self, unanswered: frozenset[str]) -> None:
        """Their requests may have been carried out or not: the claims decide."""
        for execution_id in unanswered:
            watched = self._roster.get(execution_id)
            if watched is not None:
                self._settling.soon(watched)

    def _orphan_gone(self, execution_id: str) -> None:
        self._roster.lose(execution_id, Reason.NO_EXIT_RECORD)

    def _orphan_survived(self, execution_id: str, survivors: tuple[int, ...]) -> None:
        """The stop has done what it can, as a shim's own ladder would tell."""
        watched = self._roster.get(execution_id)
        if watched is not None:
            cause = watched.stop.reason if watched.stop is not None else None
            now_ms = self._clock.now_ms()
            exit_ = ExitRecord(ended_ms=now_ms, cause=cause, contained=False, survivors=survivors)
            self._roster.end(watched, exit_)

    def _start(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Nothing that happens to one execution ends the supervision of the others."""
        assert self._group is not None, "orders are taken only while run() runs"
        self._group.create_task(kept_up(run, name), name=name)

    # -- looks

    async def _look_now_and_then(self) -> None:
        """Backs every hint by a look at the files."""
        while True:
            await asyncio.sleep(self._settings.look_s)
            if not self._roster:
                continue
            self._progress.try_again()
            ids = [each for each in self._roster if each not in self._orphans]
            looks = await DISK.run(execution_files.look_at_all, self._layout, ids)
            for execution_id, (state, has_ended) in zip(ids, looks, strict=True):
                watched = self._roster.get(execution_id)
                if watched is None:
                    continue
                if state is not None:
                    self._hearing.learn(watched, state)
                if has_ended or (watched.pidfd is None and watched.shim):
                    self._settling.soon(watched)
