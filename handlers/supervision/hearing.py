"""Hears spawner and shims: whose shim is whose, and what is new in what a shim says of itself."""

import asyncio
import os

from bus.layout import DataLayout
from bus.ports import OutputNotice, ReportSink
from handlers.supervision.doorbell import Doorbell
from handlers.supervision.news import news_in
from handlers.supervision.progress_watch import ProgressWatch
from handlers.supervision.record import ShimState
from handlers.supervision.roster import Roster
from handlers.supervision.spawner_link import Forked
from handlers.supervision.watched import Watched

PROGRESS_LISTEN_AFTER_S = 0.2


class Hearing:
    """Reports what comes of it; an exit record is the last that is heard of an execution."""

    def __init__(
        self,
        layout: DataLayout,
        roster: Roster,
        bell: Doorbell,
        progress: ProgressWatch,
        report: ReportSink,
        output: OutputNotice,
    ) -> None:
        self._layout = layout
        self._roster = roster
        self._bell = bell
        self._progress = progress
        self._report = report
        self._output = output

    def forked(self, answer: Forked, pidfd: int | None) -> None:
        """The spawner has answered."""
        watched = self._roster.get(answer.id)
        if watched is None:
            if pidfd is not None:
                os.close(pidfd)
            return
        if answer.error is not None:
            self._roster.fail(watched, f"the system gave no process: {answer.error}")
            return
        watched.shim = answer.pid
        if pidfd is not None:
            self._roster.follow(watched, pidfd)
        if watched.early is not None and watched.early[0] == answer.pid:
            self.learn(watched, watched.early[1])
        watched.early = None

    def rung(self, sender: int, state: ShimState) -> None:
        """A shim, or who pretends to be one, has rung the bell."""
        watched = self._roster.get(state.execution)
        if watched is None:
            return
        if watched.shim == 0:
            watched.early = (sender, state)  # the ring was faster than the spawner's answer
        elif watched.shim == sender:
            self.learn(watched, state)

    def learn(self, watched: Watched, state: ShimState) -> None:
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
            self._roster.end(watched, state.exit)

    def progress_written(self, execution_id: str) -> None:
        """The program has written; its shim reads it."""
        watched = self._roster.get(execution_id)
        if watched is not None:
            self._bell.wake(execution_id, watched.socket)

    def _listen_to_progress(self, watched: Watched) -> None:
        execution_id = watched.execution.id
        if not self._roster.holds(watched):
            return
        self._progress.add(execution_id, self._layout.execution(execution_id).progress)
        self._bell.wake(execution_id, watched.socket)  # for what was written before
