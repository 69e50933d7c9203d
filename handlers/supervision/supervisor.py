"""The service's side of running programs: asks for shims, hears them, passes orders, reports.

It never holds a pipe or waits for a job: the shims do, and go on when this part is dead.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence

import structlog

from bus.clock import Clock
from bus.commands import (
    ReportEnded,
    ReportLost,
    ReportSpawnFailed,
    ReportUnknown,
)
from bus.jobs import JobSpec
from bus.layout import DataLayout
from bus.model import Execution, ExecutionStatus, ExitRecord, Reason
from bus.ports import OutputNotice, ReportSink
from handlers.shim.process_tree import process
from handlers.supervision import adoption
from handlers.supervision.adoption import Alive, Ended, Finding, Gone, NeverRan, Orphaned
from handlers.supervision.asking import Asking
from handlers.supervision.doorbell import Doorbell
from handlers.supervision.news import news_in
from handlers.supervision.orders import Orders
from handlers.supervision.orphans import Orphanage
from handlers.supervision.progress_watch import ProgressWatch
from handlers.supervision.record import ShimState
from handlers.supervision.request import Requests, SupervisorSettings, signal_number
from handlers.supervision.secrets import SecretValues
from handlers.supervision.spawner_link import Forked, SpawnerLink
from handlers.supervision.watched import Watched

__all__ = ["ProcessSupervisor", "SupervisorSettings"]

log = structlog.get_logger("jobbus.supervisor")

GENERATIONS_MAX = 5
"""How often a shim that dies before its claim is replaced before the start counts as failed."""


PROGRESS_LISTEN_AFTER_S = 0.2

RETRY_S = 0.2
"""How soon an execution is asked about again that could give no answer."""


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
    ) -> None:
        self._layout = layout
        self._instance = instance
        self._clock = clock
        self._report = report
        self._output = output
        self._settings = settings or SupervisorSettings()
        self._watched: dict[str, Watched] = {}
        self._link = SpawnerLink(self._forked, self._spawner_died)
        self._bell = Doorbell(instance)
        requests = Requests(
            layout,
            instance,
            self._bell,
            self._settings,
            dict(os.environ if base_env is None else base_env),
        )
        self._asking = Asking(
            requests,
            self._link,
            secrets or SecretValues({}),
            is_watched=self._is_watched,
            fail=self._fail,
            start=self._start,
        )
        self._orders = Orders(layout, instance, self._bell, self._is_watched)
        self._orphans = Orphanage(self._orphan_gone)
        self._progress = ProgressWatch(self._progress_written)
        self._group: asyncio.TaskGroup | None = None

    @property
    def spawner_pid(self) -> int:
        """The warm process that runs now; 0 before the first."""
        return self._link.pid

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Ends on cancellation; all jobs go on. `ready` is set when orders are taken."""
        warm = asyncio.Event()
        with self._bell.listening(self._heard):
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    group.create_task(self._link.run(warm), name="spawner")
                    group.create_task(self._orphans.run(), name="orphans")
                    group.create_task(self._progress.run(), name="progress watch")
                    await warm.wait()
                    if ready is not None:
                        ready.set()
                    await self._look_now_and_then()
            finally:
                self._group = None
                for watched in self._watched.values():
                    self._unwatch_pidfd(watched)

    # -- orders

    def spawn(self, execution: Execution, spec: JobSpec | None) -> None:
        """Start the program under a shim, at most once; what comes of it is reported."""
        self._ask(Watched(execution, spec))

    def stop(self, execution: Execution) -> None:
        """Make whoever watches the tree follow `execution.stop`."""
        watched, order = self._watched.get(execution.id), execution.stop
        if order is None or watched is None:
            return
        watched.stop = order
        if execution.id in self._orphans:
            self._orphans.order(execution.id, order, self._clock.now_ms())
        elif not watched.is_ordering:
            watched.is_ordering = True
            self._start(self._orders.pass_on(watched), f"order {execution.id}")

    async def adopt(self, live: Sequence[tuple[Execution, JobSpec | None]]) -> None:
        """Every live execution is watched, spawned afresh, or reported as over."""
        ids = [execution.id for execution, _ in live]
        findings = await asyncio.to_thread(adoption.investigate_all, self._layout, ids)
        for (execution, spec), finding in zip(live, findings, strict=True):
            watched = self._watched[execution.id] = Watched(execution, spec)
            watched.ran = execution.start_ms is not None or execution.pid is not None
            watched.told_running = watched.ran and execution.status is not ExecutionStatus.UNKNOWN
            self._conclude(watched, finding)

    # -- starting

    def _ask(self, watched: Watched) -> None:
        self._watched[watched.execution.id] = watched
        self._asking.ask(watched)

    def _forked(self, answer: Forked, pidfd: int | None) -> None:
        """The spawner has answered."""
        watched = self._watched.get(answer.id)
        if watched is None:
            if pidfd is not None:
                os.close(pidfd)
            return
        if answer.error is not None:
            self._fail(watched, f"the system gave no process: {answer.error}")
            return
        watched.shim = answer.pid
        if pidfd is not None:
            self._watch_pidfd(watched, pidfd)
        if watched.early is not None and watched.early[0] == answer.pid:
            self._learn(watched, watched.early[1])
        watched.early = None

    def _spawner_died(self, unanswered: frozenset[str]) -> None:
        """Their requests may have been carried out or not: the claims decide."""
        for execution_id in unanswered:
            watched = self._watched.get(execution_id)
            if watched is not None:
                self._settle_soon(watched)

    # -- hearing

    def _heard(self, sender: int, state: ShimState) -> None:
        watched = self._watched.get(state.execution)
        if watched is None:
            return
        if watched.shim == 0:
            watched.early = (sender, state)  # the ring was faster than the spawner's answer
        elif watched.shim == sender:
            self._learn(watched, state)

    def _learn(self, watched: Watched, state: ShimState) -> None:
        """Reports what is new in `state`, once."""
        watched.socket = state.socket or watched.socket
        if state.started_ms is not None and not watched.ran and state.exit is None:
            watched.ran = True
            # Not at once: a program that ends within a moment is spared the effort.
            loop = asyncio.get_running_loop()
            loop.call_later(PROGRESS_LISTEN_AFTER_S, self._listen_to_progress, watched)
        for report in news_in(state, watched):
            self._report(report)
        if state.output_end > watched.output_end:
            watched.output_end = state.output_end
            self._output.grown(watched.execution.id)
        if state.exit is not None:
            self._end(watched, state.exit)

    def _listen_to_progress(self, watched: Watched) -> None:
        execution_id = watched.execution.id
        if not self._is_watched(watched):
            return
        self._progress.add(execution_id, self._layout.execution(execution_id).progress)
        self._bell.wake(watched.socket)  # for what was written before

    def _progress_written(self, execution_id: str) -> None:
        watched = self._watched.get(execution_id)
        if watched is not None:
            self._bell.wake(watched.socket)

    async def _look_now_and_then(self) -> None:
        """Backs every hint by a look at the files."""
        while True:
            await asyncio.sleep(self._settings.look_s)
            if not self._watched:
                continue
            self._progress.try_again()
            ids = [i for i in self._watched if i not in self._orphans]
            looks = await asyncio.to_thread(adoption.look_at_all, self._layout, ids)
            for execution_id, (state, has_ended) in zip(ids, looks, strict=True):
                watched = self._watched.get(execution_id)
                if watched is None:
                    continue
                if state is not None:
                    self._learn(watched, state)
                if has_ended or (watched.pidfd is None and watched.shim):
                    self._settle_soon(watched)

    # -- the end of a shim

    def _watch_pidfd(self, watched: Watched, pidfd: int) -> None:
        self._unwatch_pidfd(watched)
        watched.pidfd = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._shim_ended, watched)

    def _unwatch_pidfd(self, watched: Watched) -> None:
        if watched.pidfd is not None:
            asyncio.get_running_loop().remove_reader(watched.pidfd)
            os.close(watched.pidfd)
            watched.pidfd = None

    def _shim_ended(self, watched: Watched) -> None:
        self._unwatch_pidfd(watched)
        self._settle_soon(watched)

    def _settle_soon(self, watched: Watched) -> None:
        if not watched.is_settling:
            watched.is_settling = True
            self._start(self._settle(watched), f"settle {watched.execution.id}")

    async def _settle(self, watched: Watched) -> None:
        """Asks the files what became of an execution whose shim cannot be heard."""
        execution_id = watched.execution.id
        [finding] = await asyncio.to_thread(adoption.investigate_all, self._layout, [execution_id])
        watched.is_settling = False
        if self._is_watched(watched) and execution_id not in self._orphans:
            self._conclude(watched, finding)

    def _conclude(self, watched: Watched, finding: Finding) -> None:
        match finding:
            case Ended(exit=exit_):
                self._end(watched, exit_)
            case Alive(state=state):
                self._adopt_shim(watched, state)
            case NeverRan(generation=generation):
                self._start_afresh(watched, generation)
            case Orphaned(state=state):
                self._take_orphan(watched, state)
            case Gone(reason=reason):
                self._forget(watched)
                self._report(ReportLost(execution_id=watched.execution.id, reason=reason))

    def _adopt_shim(self, watched: Watched, state: ShimState | None) -> None:
        """A shim of an earlier service or spawner: watched like our own from now on."""
        if state is None:
            asyncio.get_running_loop().call_later(RETRY_S, self._settle_again, watched)
            return
        watched.shim = state.shim
        try:
            pidfd = os.pidfd_open(state.shim)
        except OSError:
            self._settle_again(watched)
            return
        self._watch_pidfd(watched, pidfd)
        found = process(state.shim)
        if found is None or found.ticks != state.shim_ticks:
            self._unwatch_pidfd(watched)  # the pid was given to somebody else meanwhile
            asyncio.get_running_loop().call_later(RETRY_S, self._settle_again, watched)
            return
        watched.ran = False  # so that its progress is listened to
        self._learn(watched, state)

    def _settle_again(self, watched: Watched) -> None:
        if self._is_watched(watched):
            self._settle_soon(watched)

    def _start_afresh(self, watched: Watched, generation: int) -> None:
        """The claim is ours: nothing ran. Whether it should run now depends on what was known."""
        execution = watched.execution
        if watched.ran or execution.status is ExecutionStatus.UNKNOWN:
            self._forget(watched)
            self._report(ReportLost(execution_id=execution.id, reason=Reason.NO_EXIT_RECORD))
        elif watched.stop is not None:
            now_ms = self._clock.now_ms()
            self._end(watched, ExitRecord(ended_ms=now_ms, cause=watched.stop.reason))
        elif generation > GENERATIONS_MAX:
            self._fail(watched, "its shim died again and again before it could begin")
        else:
            watched.generation = generation
            watched.shim = 0
            self._ask(watched)

    def _take_orphan(self, watched: Watched, state: ShimState) -> None:
        """The shim is dead. The orphanage says `gone` at its first look if the tree is, too."""
        self._unwatch_pidfd(watched)
        spec = watched.spec
        number = signal_number(spec.stop_signal) if spec is not None else signal.SIGTERM
        self._orphans.take(state, number)
        self._start(self._tell_unknown(watched, state), f"orphan {state.execution}")
        if watched.stop is not None:
            self._orphans.order(state.execution, watched.stop, self._clock.now_ms())

    async def _tell_unknown(self, watched: Watched, state: ShimState) -> None:
        if await asyncio.to_thread(self._orphans.is_alive, state.execution):
            self._report(ReportUnknown(execution_id=watched.execution.id))

    def _orphan_gone(self, execution_id: str) -> None:
        watched = self._watched.get(execution_id)
        if watched is not None:
            self._forget(watched)
        self._report(ReportLost(execution_id=execution_id, reason=Reason.NO_EXIT_RECORD))

    # -- ends

    def _end(self, watched: Watched, exit_: ExitRecord) -> None:
        execution_id = watched.execution.id
        self._forget(watched)
        if exit_.error is not None and exit_.started_ms is None:
            self._report(ReportSpawnFailed(execution_id=execution_id, error=exit_.error))
            return
        self._report(ReportEnded(execution_id=execution_id, exit=exit_))
        self._output.grown(execution_id)

    def _fail(self, watched: Watched, error: str) -> None:
        self._forget(watched)
        self._report(ReportSpawnFailed(execution_id=watched.execution.id, error=error))

    def _is_watched(self, watched: Watched) -> bool:
        """Whether it is the newest of its execution; one that was asked for again has another."""
        return self._watched.get(watched.execution.id) is watched

    def _forget(self, watched: Watched) -> None:
        self._unwatch_pidfd(watched)
        self._progress.discard(watched.execution.id)
        self._watched.pop(watched.execution.id, None)

    def _start(self, coroutine: "asyncio._CoroutineLike[None]", name: str) -> None:
        assert self._group is not None, "orders are taken only while run() runs"
        self._group.create_task(coroutine, name=name)
