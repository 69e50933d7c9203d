"""From what a shim says of itself to what is reported: each thing once. Pure, no IO."""

from collections.abc import Iterator

from bus.commands import ReportProgress, ReportRunning, ReportStopping
from bus.model import Execution, ExecutionStatus, Progress, Reason
from handlers.supervision import execution_actions as actions
from handlers.supervision.record import ShimState

LIMITS = frozenset({Reason.RUN_TIMEOUT, Reason.START_TIMEOUT, Reason.WATCHDOG})
"""Stops that a shim orders itself."""


class ShimNews:
    """What was reported of one execution by this run of the service, so that nothing is repeated.

    `_running` and `_limit` say that the execution was reported as running and as stopping by a
    limit, `_progress` and `_output_end` what was reported last. Only `news` writes them.
    """

    def __init__(self, execution: Execution) -> None:
        self._id = execution.id
        ran = execution.start_ms is not None or execution.pid is not None
        self._running = ran and execution.status is not ExecutionStatus.UNKNOWN
        self._limit = False
        self._progress: Progress | None = execution.progress
        self._output_end = 0

    def news(self, state: ShimState) -> Iterator[actions.Output]:
        """What was not reported before. An exit record in `state` is left to the caller."""
        if state.ready_ms is not None and state.pid is not None and not self._running:
            self._running = True
            began_ms = state.started_ms or state.ready_ms
            yield ReportRunning(execution_id=self._id, pid=state.pid, started_ms=began_ms)
        if state.stop is not None and state.stop.reason in LIMITS and not self._limit:
            self._limit = True
            yield ReportStopping(execution_id=self._id, stop=state.stop)
        if state.progress is not None and state.progress != self._progress:
            self._progress = state.progress
            yield ReportProgress(execution_id=self._id, progress=state.progress)
        if state.output_end > self._output_end:
            self._output_end = state.output_end
            yield actions.NoteGrowth()
