"""The service's side of running programs: feeds the machine of each execution, and acts for it.

It never holds a pipe or waits for a job: the shims do, and go on when this part is dead. What
follows from what is decided by `execution_machine`; here is what that takes of the system.
"""

import asyncio
import math
import os
from collections.abc import Callable, Container, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from bus.clock import Clock
from bus.commands import ReportHealth
from bus.job_definition import JobSpec
from bus.layout import DataLayout
from bus.model import Execution, StopRequest
from bus.ports import OutputNotice, ReportSink
from bus.tasks import kept_up
from bus.threads import DISK, STOPS
from handlers.catalog.probe_targets import health_target, ready_target
from handlers.supervision import execution_actions as actions
from handlers.supervision import execution_files
from handlers.supervision import execution_inputs as inputs
from handlers.supervision.connections import Connections
from handlers.supervision.doorbell import Doorbell
from handlers.supervision.execution_machine import ExecutionMachine, Phase
from handlers.supervision.health_checks import Checked, HealthChecks
from handlers.supervision.health_count import Verdict
from handlers.supervision.orphan_trees import OrphanTrees
from handlers.supervision.progress_watch import ProgressWatch
from handlers.supervision.provisions import (
    NO_PROVISIONS,
    NotProvided,
    Provisions,
    let_pass,
    provisions_of,
)
from handlers.supervision.ready_probes import ReadyProbes
from handlers.supervision.record import ShimState, encode_control
from handlers.supervision.request import (
    ProgramDefaults,
    Requests,
    SupervisorSettings,
    base_environment,
    program_place,
)
from handlers.supervision.secrets import SecretValues
from handlers.supervision.shim_ends import ShimEnds
from handlers.supervision.spawner_link import Forked, SpawnerLink

__all__ = ["ProcessSupervisor", "SupervisorSettings"]


class Supervised:
    """One live execution. `machine` knows all about it; only `ProcessSupervisor._take` feeds it.

    `is_copied`: it was begun before this data directory was copied, perhaps by the original.
    `timers` are those that run, by what they are for.
    """

    __slots__ = ("is_copied", "machine", "spec", "timers")

    def __init__(self, machine: ExecutionMachine, spec: JobSpec | None, *, is_copied: bool) -> None:
        self.machine = machine
        self.spec = spec
        self.is_copied = is_copied
        self.timers: dict[actions.Timer, asyncio.TimerHandle] = {}

    @property
    def id(self) -> str:
        return self.machine.execution.id


class ProcessSupervisor:
    """Implements `bus.ports.Supervisor`; all methods are called in the loop.

    `_supervised` has each live execution: `spawn` and `adopt` add it, its machine's `Forget` takes
    it out. `_group` is that of `run`, None while it does not run; every task here is made in it.
    The parts below each keep what their own class says, and call back with an execution's id.
    """

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
        self._layout = layout
        self._instance = instance
        self._clock = clock
        self._report = report
        self._output = output
        self._settings = settings or SupervisorSettings()
        self._secrets = secrets or SecretValues({})
        self._is_copy = is_copy
        self._in_hand = in_hand
        self._supervised: dict[str, Supervised] = {}
        self._group: asyncio.TaskGroup | None = None
        env = base_environment(os.environ if base_env is None else base_env)
        self._requests = Requests(layout, instance, self._settings, env, look_s_max)
        self._doorbell = Doorbell(layout.sockets)
        self._progress = ProgressWatch(lambda each: self._happened(each, inputs.ProgressWritten()))
        # Each has connections of its own: URLs that hang do not keep others from becoming ready.
        self._ready_probes = ReadyProbes(
            layout, Connections(), lambda each: self._happened(each, inputs.ReadinessSeen())
        )
        self._health = HealthChecks(clock, Connections(), self._ask_check, self._report_health)
        self._ends = ShimEnds(lambda each: self._happened(each, inputs.ShimEnded()))
        self._spawner = SpawnerLink(self._spawner_answered, self._spawner_died)
        self._orphans = OrphanTrees(
            found=lambda each: self._happened(each, inputs.OrphansFound()),
            gone=lambda each: self._happened(each, inputs.OrphansGone()),
            survived=lambda each, pids: self._happened(each, inputs.OrphansSurvived(pids)),
        )

    @property
    def spawner_pid(self) -> int:
        """The warm process that runs now; 0 before the first."""
        return self._spawner.pid

    @property
    def trouble(self) -> str | None:
        """Why no program can be started now; None if some can."""
        return self._spawner.trouble

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Ends on cancellation; all jobs go on. `ready` is set when orders are taken."""
        warm = asyncio.Event()
        with self._doorbell.listening(self._shim_sent):
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    self._start(partial(self._spawner.run, warm), "spawner")
                    self._start(self._orphans.run, "orphan trees")
                    self._start(self._progress.run, "progress watch")
                    self._start(self._ready_probes.run, "readiness")
                    self._start(self._health.run, "health")
                    self._start(partial(self._doorbell.watch, self._shim_sent), "doorbell")
                    await warm.wait()
                    if ready is not None:
                        ready.set()
                    await kept_up(self._look_now_and_then, "supervisor")
            finally:
                self._group = None
                self._ends.leave_all()
                for supervised in self._supervised.values():
                    _cancel_timers(supervised)

    # -- orders

    def go_by(self, programs: ProgramDefaults) -> None:
        """Programs that are started from now on get these where their definitions say nothing."""
        self._requests.go_by(programs)

    def spawn(self, execution: Execution, spec: JobSpec | None) -> None:
        """Start the program under a shim, at most once; what comes of it is reported."""
        if execution.id not in self._supervised:
            supervised = self._add(ExecutionMachine(execution, spec), spec)
            self._take(supervised, inputs.Wanted())

    def stop(self, execution: Execution) -> None:
        """Make the shim, or us if it is dead, follow `execution.stop`."""
        if execution.stop is not None:
            self._leave_alone(execution.id)
            self._happened(execution.id, inputs.StopOrdered(execution.stop))

    async def adopt(
        self,
        live: Sequence[tuple[Execution, JobSpec | None]],
        poison: Container[str] = frozenset(),
    ) -> None:
        """Every live execution is supervised, spawned, or reported as over.

        Those of the commands `poison` are not spawned any more: starts of the service died of it.
        """
        ids = [execution.id for execution, _ in live]
        if any(spec is not None and spec.names_account for _, spec in live):
            await DISK.run(let_pass, self._layout)  # the start may have closed the directory
        findings = await DISK.run(
            execution_files.investigate_all, self._layout, ids, is_copied=self._is_copy
        )
        unstarted = []
        for (execution, spec), finding in zip(live, findings, strict=True):
            is_poison = execution.command_id in poison
            machine = ExecutionMachine(execution, spec, is_poison=is_poison)
            supervised = self._add(machine, spec, is_copied=self._is_copy)
            if isinstance(finding, inputs.NeverRan):
                unstarted.append((supervised, finding))
            else:
                self._take(supervised, inputs.FilesRead(finding))
        for supervised, finding in unstarted:
            await DISK.run(self._in_hand, (supervised.machine.execution.command_id,))
            self._take(supervised, inputs.FilesRead(finding))
        if unstarted:
            await DISK.run(self._in_hand, ())

    def _add(
        self, machine: ExecutionMachine, spec: JobSpec | None, *, is_copied: bool = False
    ) -> Supervised:
        supervised = Supervised(machine, spec, is_copied=is_copied)
        self._supervised[supervised.id] = supervised
        return supervised

    # -- inputs

    def _happened(self, execution_id: str, happened: inputs.Input) -> None:
        supervised = self._supervised.get(execution_id)
        if supervised is not None:
            self._take(supervised, happened)

    def _shim_sent(self, sender: int, state: ShimState) -> None:
        self._happened(state.execution, inputs.ShimSent(sender, state))

    def _spawner_answered(self, answer: Forked, pidfd: int | None) -> None:
        forked = (
            inputs.ShimForked(answer.pid)
            if answer.error is None
            else inputs.ForkRefused(answer.error)
        )
        self._happened(answer.id, forked)
        if pidfd is None:
            return
        supervised = self._supervised.get(answer.id)
        if supervised is not None and supervised.machine.shim == answer.pid:
            self._ends.follow(answer.id, pidfd)
        else:
            os.close(pidfd)

    def _spawner_died(self, unanswered: frozenset[str]) -> None:
        for execution_id in unanswered:
            self._happened(execution_id, inputs.RequestLost())

    async def _look_now_and_then(self) -> None:
        """Backs every hint by a look at the files."""
        while True:
            await asyncio.sleep(self._settings.look_s)
            if not self._supervised:
                continue
            self._progress.try_again()
            ids = [
                execution_id
                for execution_id, each in self._supervised.items()
                if each.machine.phase is not Phase.ORPHANED
            ]
            looks = await DISK.run(execution_files.look_at_all, self._layout, ids)
            for execution_id, (state, has_exit) in zip(ids, looks, strict=True):
                self._happened(
                    execution_id, inputs.Looked(state, has_exit, execution_id in self._ends)
                )

    # -- outputs

    def _take(
        self,
        supervised: Supervised,
        happened: inputs.Input,
        provisions: Provisions = NO_PROVISIONS,
    ) -> None:
        """The machine knows of it, and what it asks for is done, in that order."""
        for output in supervised.machine.take(happened, self._clock.now_ms()):
            self._do(supervised, output, provisions)

    def _do(self, supervised: Supervised, output: actions.Output, provisions: Provisions) -> None:
        execution_id = supervised.id
        match output:
            case actions.ReadFiles():
                self._start(partial(self._read_files, supervised), f"reconcile {execution_id}")
            case actions.ReadProvisions(generation=generation):
                reading = partial(self._read_provisions, supervised, generation)
                self._start(reading, f"provisions {execution_id}")
            case actions.AskSpawner(generation=generation):
                self._ask_spawner(supervised, generation, provisions)
            case actions.FollowShim(state=state):
                is_there = self._ends.find(state)
                self._take(
                    supervised, inputs.ShimFollowed(state) if is_there else inputs.ShimMissing()
                )
            case actions.UnfollowShim():
                self._ends.leave(execution_id)
            case actions.WriteControl(order=order):
                self._start(
                    partial(self._write_control, supervised, order), f"order {execution_id}"
                )
            case actions.WakeShim(address=address, order=order):
                self._wake(supervised, address, order)
            case (
                actions.WatchProgress()
                | actions.ProbeReadiness()
                | actions.SayReady()
                | actions.CheckHealth()
                | actions.NoteCheck()
            ):
                self._look_after(supervised, output)
            case actions.TakeOrphans(state=state, stop_signal=stop_signal):
                self._leave_alone(execution_id)
                self._orphans.take(state or self._only_marked(execution_id), stop_signal)
            case actions.OrderOrphans(order=order):
                self._orphans.order(execution_id, order, self._clock.now_ms())
            case actions.WarnOfCopy(state=state):
                execution_files.warn_of_copy(execution_id, state)
            case actions.Wait(timer=timer, delay_s=delay_s):
                self._wait(supervised, timer, delay_s)
            case actions.NoteGrowth():
                self._output.grown(execution_id)
                self._ready_probes.grown(execution_id)
            case actions.Forget():
                self._forget(supervised)
            case _:
                self._report(output)

    def _look_after(self, supervised: Supervised, output: actions.OfProgram) -> None:
        execution_id = supervised.id
        match output:
            case actions.WatchProgress():
                place = program_place(self._layout, execution_id, supervised.spec)
                self._progress.add(execution_id, place.progress)
            case actions.ProbeReadiness():
                self._probe_readiness(supervised)
            case actions.SayReady(address=address):
                self._doorbell.say_ready(execution_id, address)
            case actions.CheckHealth(ready_ms=ready_ms):
                self._check_health(supervised, ready_ms)
            case actions.NoteCheck(result=result):
                self._health.answered(execution_id, result)

    def _start(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Nothing that happens to one execution ends the supervision of the others."""
        assert self._group is not None, "orders are taken only while run() runs"
        self._group.create_task(kept_up(run, name), name=name)

    async def _read_files(self, supervised: Supervised) -> None:
        [finding] = await DISK.run(
            execution_files.investigate_all,
            self._layout,
            [supervised.id],
            is_copied=supervised.is_copied,
        )
        self._take(supervised, inputs.FilesRead(finding))

    async def _read_provisions(self, supervised: Supervised, generation: int) -> None:
        """They go with the request; nothing here keeps them."""
        execution, spec = supervised.machine.execution, supervised.spec
        assert spec is not None
        read = partial(provisions_of, execution, spec, secrets=self._secrets, layout=self._layout)
        try:
            provisions = await DISK.run(read)
        except NotProvided as error:
            self._take(supervised, inputs.CallFailed(generation, str(error)))
        else:
            self._take(supervised, inputs.ProvisionsRead(generation), provisions)

    def _ask_spawner(self, supervised: Supervised, generation: int, provisions: Provisions) -> None:
        execution, spec = supervised.machine.execution, supervised.spec
        assert spec is not None
        try:
            self._spawner.request(
                self._requests.assignment(execution, spec, generation, provisions)
            )
        except (ValueError, msgspec.MsgspecError) as error:
            sentence = f"the program call cannot be made: {error}"
            self._take(supervised, inputs.CallFailed(generation, sentence))

    async def _write_control(self, supervised: Supervised, order: StopRequest) -> None:
        is_written = await STOPS.run(
            execution_files.try_control, self._layout, supervised.id, order
        )
        self._take(supervised, inputs.ControlTried(order, is_written))

    def _wake(self, supervised: Supervised, address: str, order: StopRequest | None) -> None:
        execution_id = supervised.id
        if order is not None:
            self._ends.set_going(execution_id)
        content = None if order is None else encode_control(order)
        if not self._doorbell.wake(execution_id, address, content):
            self._take(supervised, inputs.WakeRefused(order))

    def _probe_readiness(self, supervised: Supervised) -> None:
        assert supervised.spec is not None
        # It fits the values: the shim was asked for with the same ones.
        target = ready_target(supervised.spec, supervised.machine.execution.variables)
        assert target is not None
        self._ready_probes.watch(supervised.id, target)

    def _check_health(self, supervised: Supervised, ready_ms: int) -> None:
        execution, spec = supervised.machine.execution, supervised.spec
        assert spec is not None
        assert spec.health is not None
        known = execution.health
        checked = Checked(
            spec=spec.health,
            target=health_target(spec.health, execution.variables),
            status=None if known is None else known.status,
            ready_ms=ready_ms,
        )
        self._health.watch(execution.id, checked)

    def _ask_check(self, execution_id: str, number: int) -> None:
        supervised = self._supervised[execution_id]
        self._doorbell.ask_check(execution_id, supervised.machine.address, number)

    def _report_health(self, execution_id: str, verdict: Verdict) -> None:
        self._report(
            ReportHealth(execution_id=execution_id, status=verdict.status, message=verdict.message)
        )

    def _leave_alone(self, execution_id: str) -> None:
        """How the program is, is of no interest any more: it is to end, or has no shim."""
        self._ready_probes.discard(execution_id)
        self._health.discard(execution_id)

    def _only_marked(self, execution_id: str) -> ShimState:
        """For a tree that no file describes: its members carry the marker."""
        return ShimState(execution=execution_id, shim=0, instance=self._instance)

    def _wait(self, supervised: Supervised, timer: actions.Timer, delay_s: float) -> None:
        earlier = supervised.timers.get(timer)
        if earlier is not None:
            earlier.cancel()
        loop = asyncio.get_running_loop()
        supervised.timers[timer] = loop.call_later(
            delay_s, self._take, supervised, inputs.TimePassed(timer)
        )

    def _forget(self, supervised: Supervised) -> None:
        del self._supervised[supervised.id]
        self._ends.leave(supervised.id)
        self._progress.discard(supervised.id)
        self._leave_alone(supervised.id)
        self._orphans.discard(supervised.id)
        _cancel_timers(supervised)


def _cancel_timers(supervised: Supervised) -> None:
    for handle in supervised.timers.values():
        handle.cancel()
    supervised.timers.clear()
