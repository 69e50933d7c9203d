"""One supervised execution as a state machine: what follows from what. Pure: no IO, no clock.

States (`Phase`), and what moves an execution from one to the next:

    NEW ── Wanted, or the files say NeverRan ──────────▶ ASKED ── ShimForked ──▶ WATCHED
    NEW ── the files say Alive ────────────────────────▶ WATCHED (IN_DOUBT until the shim is found)
    ASKED ── RequestLost ──▶ IN_DOUBT ── the files say ──▶ ASKED · WATCHED · ORPHANED · ENDED
    WATCHED ── ShimEnded, then the files say ──────────▶ ENDED · ORPHANED · ASKED (it had not begun)
    ORPHANED ── OrphansGone, OrphansSurvived ──────────▶ ENDED

Whatever is in doubt is decided by the files (`ReadFiles`): a claim is won by a shim or by us, and
never by both, so that asking again cannot run a program twice.

Invariants, each a property of `tests/unit/test_execution_machine.py` for any order of inputs:

* At most one of `ReportEnded`, `ReportSpawnFailed`, `ReportLost`, and `Forget` with it; after it
  every input is ignored.
* No shim is asked for after the end, for a tree without a shim, for a program that has run, or
  twice under one generation.
* A stop order is never lost: the newest is written to `control`, or being written, or waits to be
  written again, or was given to the orphans; unless the execution has ended.
* At most one reading of the files and one writing of `control` is under way.
* While it is in doubt, a reading is under way or a timer for it is set.
* Each state of a shim is reported once; after `ReportUnknown` nothing but the end is reported.
* Readiness is asked for once, of a program that runs and is not ready; once it was seen, the shim
  gets to know of it again and again until it says so itself.
"""

import signal
from contextlib import suppress
from enum import Enum

from bus.commands import (
    Report,
    ReportEnded,
    ReportLost,
    ReportSpawnFailed,
    ReportUnknown,
)
from bus.job_definition import JobSpec
from bus.model import (
    Execution,
    ExecutionStatus,
    ExitRecord,
    Reason,
)
from bus.recurring import Backoff
from handlers.supervision import execution_actions as actions
from handlers.supervision import execution_inputs as inputs
from handlers.supervision.execution_actions import Timer
from handlers.supervision.liveness import Liveness
from handlers.supervision.provisions import are_needed
from handlers.supervision.record import ShimState
from handlers.supervision.request import signal_number
from handlers.supervision.shim_news import LIMITS, ShimNews
from handlers.supervision.stop_delivery import StopDelivery

GENERATIONS_MAX = 5
"""How often a shim that dies before its claim is replaced before the start counts as failed."""

RECONCILE_AGAIN_S = 0.05
RECONCILE_AGAIN_S_MAX = 5.0
PROGRESS_AFTER_S = 0.2
"""So long after its start a program's progress file is watched: one that ends within a moment is
spared the effort."""


class Phase(Enum):
    """Where an execution stands."""

    NEW = "new"
    """Nothing was done yet."""
    ASKED = "asked"
    """A shim was asked for and its pid is not known."""
    IN_DOUBT = "in_doubt"
    """Whether it runs is not known; the files decide."""
    WATCHED = "watched"
    """The shim `shim` sees it through."""
    ORPHANED = "orphaned"
    """Its shim is dead; its processes may live."""
    ENDED = "ended"
    """The last report was made."""


class ExecutionMachine:
    """`take` alone changes the state.

    `phase` and `shim` (the shim's pid, 0 while it is not known) say where it stands, `generation`
    under which claim a shim was asked for, `has_run` whether the program is known to have been
    executed; that never becomes false again.

    `_stop` has the order in force and its way to the shim, `_news` what was reported of the shim.
    `_is_reading`: the files are being read. `_was_unknown`, `_unknown`: it was reported as unknown
    by the last service, by this one. `_is_progress_due`: its progress file is watched, or will be
    in a moment. `_liveness` has what is asked about the program. `_socket` is the address that the
    shim gave, `_early` what a shim sent before the spawner said that it is ours.
    """

    def __init__(
        self, execution: Execution, spec: JobSpec | None, *, is_poison: bool = False
    ) -> None:
        self.execution = execution
        self._spec = spec
        self._is_poison = is_poison
        self.phase = Phase.NEW
        self.shim = 0
        self.generation = 0
        self.has_run = execution.start_ms is not None or execution.pid is not None
        self._stop = StopDelivery(execution.stop)
        self._was_unknown = execution.status is ExecutionStatus.UNKNOWN
        self._is_reading = False
        self._reconcile_pauses = Backoff(RECONCILE_AGAIN_S, RECONCILE_AGAIN_S_MAX)
        self._unknown = False
        self._news = ShimNews(execution)
        self._is_progress_due = False
        self._liveness = Liveness(spec)
        self._socket = ""
        self._early: tuple[int, ShimState] | None = None
        self._outputs: list[actions.Output] = []

    def take(self, happened: inputs.Input, now_ms: int) -> list[actions.Output]:
        """The state after it, and what is to be done now, in this order."""
        if self.phase is Phase.ORPHANED:
            self._take_without_shim(happened, now_ms)
        elif self.phase is not Phase.ENDED:
            self._take(happened, now_ms)
        outputs, self._outputs = self._outputs, []
        return outputs

    def _take(self, happened: inputs.Input, now_ms: int) -> None:
        match happened:
            case inputs.Wanted():
                if self.phase is Phase.NEW:
                    self._ask(0)
            case (
                inputs.ProvisionsRead()
                | inputs.CallFailed()
                | inputs.ShimForked()
                | inputs.ForkRefused()
                | inputs.RequestLost()
            ):
                if self.phase is Phase.ASKED:
                    self._take_answer(happened)
            case inputs.FilesRead(finding=finding):
                self._is_reading = False
                self._conclude(finding, now_ms)
            case inputs.StopOrdered() | inputs.ControlTried() | inputs.WakeRefused():
                self._take_of_stop(happened)
            case inputs.ProgressWritten():
                self._wake()
            case inputs.ReadinessSeen():
                self._outputs.extend(self._liveness.seen(self._socket))
            case inputs.TimePassed(timer=timer):
                self._time_passed(timer)
            case inputs.OrphansFound() | inputs.OrphansGone() | inputs.OrphansSurvived():
                pass  # its tree has a shim
            case _:
                self._take_of_shim(happened)

    # -- a shim is asked for

    def _ask(self, generation: int) -> None:
        self.phase, self.generation = Phase.ASKED, generation
        if self.shim:
            self._do(actions.UnfollowShim())
        self.shim, self._early = 0, None
        if self._spec is None:
            self._fail("its definition is not known any more")
        elif are_needed(self.execution, self._spec):
            self._do(actions.ReadProvisions(generation))
        else:
            self._request()

    def _request(self) -> None:
        if self.has_run:
            self._doubt()
        else:
            self._do(actions.AskSpawner(self.generation))

    def _take_answer(self, happened: inputs.Answer) -> None:
        match happened:
            case inputs.ProvisionsRead(generation=generation):
                if generation == self.generation:
                    self._request()
            case inputs.CallFailed(generation=generation, error=error):
                if generation == self.generation:
                    self._fail(error)
            case inputs.ForkRefused(error=error):
                self._fail(f"the system gave no process: {error}")
            case inputs.RequestLost():
                self._doubt()  # it may have been carried out
            case inputs.ShimForked(pid=pid):
                self.phase, self.shim = Phase.WATCHED, pid
                early, self._early = self._early, None
                if early is not None and early[0] == pid:
                    self._learn(early[1])

    # -- the files say what became of it

    def _doubt(self) -> None:
        self.phase = Phase.IN_DOUBT
        self._reconcile()

    def _reconcile(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._do(actions.ReadFiles())

    def _conclude(self, finding: inputs.Finding, now_ms: int) -> None:
        match finding:
            case inputs.Ended(exit=exit_):
                self._end(exit_)
            case inputs.Alive(state=state):
                if state is None:
                    self._reconcile_later()
                else:
                    self._do(actions.FollowShim(state))
            case inputs.NeverRan(generation=generation):
                self._start_again(generation, now_ms)
            case inputs.Orphaned(state=state):
                self._orphan(state)
            case inputs.Elsewhere(state=state):
                self._do(actions.WarnOfCopy(state))
                self._lose(Reason.NO_EXIT_RECORD, elsewhere=True)
            case inputs.Gone(reason=Reason.NO_EXIT_RECORD):
                self._orphan(None)  # its program has removed the folder, or the disk had no room
            case inputs.Gone(reason=reason):
                self._lose(reason)

    def _reconcile_later(self) -> None:
        if self.phase is Phase.NEW:
            self.phase = Phase.IN_DOUBT
        self._do(actions.Wait(Timer.RECONCILE, self._reconcile_pauses.next_s()))

    def _start_again(self, generation: int, now_ms: int) -> None:
        """The claim is ours: nothing ran. Whether it should run now depends on what was known."""
        if self.has_run or self._was_unknown:
            self._orphan(None)
        elif self._stop.order is not None:
            self._end(ExitRecord(ended_ms=now_ms, cause=self._stop.order.reason))
        elif self._is_poison:
            self._fail("the service died of starting it, again and again")
        elif generation > GENERATIONS_MAX:
            self._fail("its shim died again and again before it could begin")
        else:
            self._ask(generation)

    @property
    def address(self) -> str:
        """What the shim said of its socket."""
        return self._socket

    # -- what a shim says and does

    def _take_of_shim(self, happened: inputs.OfShim) -> None:
        match happened:
            case inputs.ShimSent(sender=sender, state=state):
                if self.shim == 0:
                    self._early = (sender, state)  # it was faster than the spawner's answer
                elif self.shim == sender:
                    self._learn(state)
            case inputs.ShimFollowed(state=state):
                self.phase, self.shim = Phase.WATCHED, state.shim
                self._reconcile_pauses.reset()
                self._learn(state)
            case inputs.ShimMissing():
                self._reconcile_later()
            case inputs.ShimEnded():
                if self.phase is Phase.WATCHED:
                    self._reconcile()
            case inputs.Looked(state=state, has_exit=has_exit, is_followed=is_followed):
                if state is not None:
                    self._learn(state)
                is_alone = self.phase is Phase.WATCHED and not is_followed
                if (has_exit or is_alone) and self.phase not in (Phase.NEW, Phase.ENDED):
                    self._reconcile()

    def _learn(self, state: ShimState) -> None:
        """What the shim says of itself is known, and reported."""
        self._socket = state.socket or self._socket
        if state.started_ms is not None and state.exit is None:
            self.has_run = True
            if not self._is_progress_due:
                self._is_progress_due = True
                self._do(actions.Wait(Timer.PROGRESS, PROGRESS_AFTER_S))
            self._outputs.extend(self._liveness.learn_readiness(state))
        self._report_news(state)
        if state.exit is None:
            self._outputs.extend(self._liveness.learn_health(state))
        if state.exit is not None:
            self._end(state.exit)

    def _report_news(self, state: ShimState) -> None:
        if state.stop is not None and state.stop.reason in LIMITS:
            self._stop.order = self._stop.order or state.stop
        self._outputs.extend(self._news.news(state))

    def _wake(self) -> None:
        """The shim looks at the progress file now."""
        self._do(actions.WakeShim(self._socket, None))

    # -- stops

    def _take_of_stop(self, happened: inputs.OfStop) -> None:
        match happened:
            case inputs.StopOrdered(order=order):
                self._outputs.extend(self._stop.deliver(order))
            case inputs.ControlTried(order=order, is_written=is_written):
                self._outputs.extend(self._stop.tried(order, self._socket, is_written=is_written))
            case inputs.WakeRefused(order=order):
                self._outputs.extend(self._stop.refused(order))

    # -- a tree without a shim

    def _orphan(self, state: ShimState | None) -> None:
        """The shim is dead. `OrphansGone` follows at once if the tree is, too."""
        self.phase = Phase.ORPHANED
        self._do(actions.UnfollowShim())
        if state is not None:
            self._report_news(state)  # above all a limit that it was ended for
        self._do(actions.TakeOrphans(state, self._stop_signal()))
        if self._stop.order is not None:
            self._do(actions.OrderOrphans(self._stop.order))

    def _take_without_shim(self, happened: inputs.Input, now_ms: int) -> None:
        match happened:
            case inputs.StopOrdered(order=order):
                self._stop.order = order
                self._do(actions.OrderOrphans(order))
            case inputs.OrphansFound():
                if not self._unknown:
                    self._unknown = True
                    self._do(ReportUnknown(execution_id=self._id))
            case inputs.OrphansGone():
                self._lose(Reason.NO_EXIT_RECORD)
            case inputs.OrphansSurvived(survivors=pids):
                stop = self._stop.order
                cause = None if stop is None else stop.reason
                self._end(ExitRecord(ended_ms=now_ms, cause=cause, contained=False, survivors=pids))
            case inputs.ShimSent(sender=sender, state=state):
                # It could not write its exit record, and what it sent instead is read only now.
                if sender == self.shim and state.exit is not None:
                    self._end(state.exit)
            case _:
                pass  # of its shim, and late

    def _stop_signal(self) -> int:
        with suppress(ValueError):
            if self._spec is not None:
                return signal_number(self._spec.stop_signal)
        return signal.SIGTERM

    # -- time

    def _time_passed(self, timer: Timer) -> None:
        match timer:
            case Timer.RECONCILE:
                self._reconcile()
            case Timer.WRITE:
                self._outputs.extend(self._stop.write_again())
            case Timer.WAKE:
                self._outputs.extend(self._stop.wake_again(self._socket))
            case Timer.PROGRESS:
                self._do(actions.WatchProgress())
                self._wake()  # for what was written before
            case Timer.READY:
                self._outputs.extend(self._liveness.say_again(self._socket))

    # -- the end

    def _end(self, exit_: ExitRecord) -> None:
        """It ended, or could not begin, as the record says."""
        if exit_.error is not None and exit_.started_ms is None:
            self._fail(exit_.error)
            return
        self._leave(ReportEnded(execution_id=self._id, exit=exit_))
        self._do(actions.NoteGrowth())

    def _fail(self, error: str) -> None:
        """Its program was not started and will not be."""
        self._leave(ReportSpawnFailed(execution_id=self._id, error=error))

    def _lose(self, reason: Reason, *, elsewhere: bool = False) -> None:
        """Reports the execution Lost; `elsewhere` as in `ReportLost`."""
        self._leave(ReportLost(execution_id=self._id, reason=reason, elsewhere=elsewhere))

    def _leave(self, report: Report) -> None:
        self.phase = Phase.ENDED
        self._do(actions.Forget())
        self._do(report)

    # -- outputs

    @property
    def _id(self) -> str:
        return self.execution.id

    def _do(self, output: actions.Output) -> None:
        self._outputs.append(output)
