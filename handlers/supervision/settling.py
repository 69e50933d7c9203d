"""Settles what became of an execution whose shim cannot be heard: the files are asked, and what
they tell is acted upon."""

import asyncio
import os
import signal
from functools import partial

import structlog

from bus.clock import Clock
from bus.commands import ReportUnknown
from bus.layout import DataLayout
from bus.model import ExecutionStatus, ExitRecord, Reason
from bus.ports import ReportSink
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from handlers.shim.process_tree import is_alive, process
from handlers.supervision import execution_files
from handlers.supervision.asking import Asking, Start
from handlers.supervision.execution_files import (
    Alive,
    Elsewhere,
    Ended,
    Finding,
    Gone,
    NeverRan,
    Orphaned,
)
from handlers.supervision.hearing import Hearing
from handlers.supervision.news import news_in
from handlers.supervision.orphan_trees import Orphanage
from handlers.supervision.record import ShimState
from handlers.supervision.request import signal_number
from handlers.supervision.roster import Roster
from handlers.supervision.watched import Watched

log = structlog.get_logger("jobbus.adoption")

GENERATIONS_MAX = 5
"""How often a shim that dies before its claim is replaced before the start counts as failed."""


class Settling:
    """Each finding ends in a shim that is heard, a fresh one, an orphan, or a last report."""

    def __init__(
        self,
        layout: DataLayout,
        instance: str,
        clock: Clock,
        report: ReportSink,
        roster: Roster,
        hearing: Hearing,
        asking: Asking,
        orphans: Orphanage,
        *,
        start: Start,
    ) -> None:
        self._layout = layout
        self._instance = instance
        self._clock = clock
        self._report = report
        self._roster = roster
        self._hearing = hearing
        self._asking = asking
        self._orphans = orphans
        self._start = start
        self._troubles = Recurring(log)

    def soon(self, watched: Watched) -> None:
        """The files will be asked, once however often this is called meanwhile."""
        if not watched.is_settling:
            watched.is_settling = True
            self._start(partial(self._settle, watched), f"settle {watched.execution.id}")

    def conclude(self, watched: Watched, finding: Finding) -> None:
        """What was found out about an execution is acted upon."""
        match finding:
            case Ended(exit=exit_):
                self._roster.end(watched, exit_)
            case Alive(state=state):
                self._adopt_shim(watched, state)
            case NeverRan(generation=generation):
                self._start_afresh(watched, generation)
            case Orphaned(state=state):
                self._take_orphan(watched, state)
            case Elsewhere(state=state):
                self._leave_to_original(watched, state)
            case Gone(reason=Reason.NO_EXIT_RECORD):
                self._take_orphan_unseen(watched)
            case Gone(reason=reason):
                self._roster.lose(watched.execution.id, reason)

    async def _settle(self, watched: Watched) -> None:
        execution_id = watched.execution.id
        watched.is_settling = True
        try:
            [finding] = await DISK.run(
                execution_files.investigate_all,
                self._layout,
                [execution_id],
                is_copied=watched.is_copied,
            )
        finally:
            watched.is_settling = False
        if self._roster.holds(watched) and execution_id not in self._orphans:
            self.conclude(watched, finding)

    def _adopt_shim(self, watched: Watched, state: ShimState | None) -> None:
        """A shim of an earlier service or spawner: watched like our own from now on."""
        if state is None:
            self._later(watched)
            return
        watched.shim = state.shim
        try:
            pidfd = os.pidfd_open(state.shim)
        except ProcessLookupError:
            self._later(watched)
            return
        except OSError as error:
            # Nothing announces its end then: the slow look asks the files, and tries this again.
            self._troubles.say(f"ends of jobs are noticed late: {reason_of(error)} (pidfd_open)")
        else:
            self._roster.follow(watched, pidfd)
            self._troubles.over("ends of jobs are noticed at once again")
        found = process(state.shim)
        if found is None or found.ticks != state.shim_ticks:
            self._roster.unfollow(watched)  # the pid was given to another process meanwhile
            self._later(watched)
            return
        watched.pauses.reset()
        watched.ran = False  # so that its progress is listened to
        self._hearing.learn(watched, state)

    def _later(self, watched: Watched) -> None:
        """Asked again after a pause, which grows while there is no answer."""
        pause_s = watched.pauses.next_s()
        asyncio.get_running_loop().call_later(pause_s, self._again, watched)

    def _again(self, watched: Watched) -> None:
        if self._roster.holds(watched):
            self.soon(watched)

    def _start_afresh(self, watched: Watched, generation: int) -> None:
        """The claim is ours: nothing ran. Whether it should run now depends on what was known."""
        execution = watched.execution
        if watched.ran or execution.status is ExecutionStatus.UNKNOWN:
            self._take_orphan_unseen(watched)
        elif watched.stop is not None:
            now_ms = self._clock.now_ms()
            self._roster.end(watched, ExitRecord(ended_ms=now_ms, cause=watched.stop.reason))
        elif watched.is_poison:
            self._roster.fail(watched, "the service died of starting it, again and again")
        elif generation > GENERATIONS_MAX:
            self._roster.fail(watched, "its shim died again and again before it could begin")
        else:
            watched.generation = generation
            watched.shim = 0
            self._asking.ask(watched)

    def _leave_to_original(self, watched: Watched, state: ShimState | None) -> None:
        """What may run is not ours to signal: the files here are copies of its files."""
        execution_id = watched.execution.id
        if state is not None and is_alive(state.shim, state.shim_ticks):
            log.warning(
                "an execution runs in the directory that this one is a copy of; it is left alone",
                execution=execution_id,
                shim=state.shim,
                pid=state.pid,
            )
        self._roster.lose(execution_id, Reason.NO_EXIT_RECORD, elsewhere=True)

    def _take_orphan_unseen(self, watched: Watched) -> None:
        """No file tells of its tree, which may live none the less: its program has removed the
        folder, or the disk had no room. What is left carries the marker."""
        state = ShimState(execution=watched.execution.id, shim=0, instance=self._instance)
        self._take_orphan(watched, state)

    def _take_orphan(self, watched: Watched, state: ShimState) -> None:
        """The shim is dead. The orphanage says `gone` at its first look if the tree is, too."""
        self._roster.unfollow(watched)
        for report in news_in(state, watched):  # above all a limit that it was ended for
            self._report(report)
        spec = watched.spec
        number = signal_number(spec.stop_signal) if spec is not None else signal.SIGTERM
        self._orphans.take(state, number)
        self._start(partial(self._tell_unknown, watched, state), f"orphan {state.execution}")
        if watched.stop is not None:
            self._orphans.order(state.execution, watched.stop, self._clock.now_ms())

    async def _tell_unknown(self, watched: Watched, state: ShimState) -> None:
        if await DISK.run(self._orphans.is_alive, state.execution):
            self._report(ReportUnknown(execution_id=watched.execution.id))
