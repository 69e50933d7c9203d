"""From what a shim says to what is reported: each thing once. No IO."""

from collections.abc import Iterator

from bus.commands import Report, ReportProgress, ReportRunning, ReportStopping
from bus.model import Reason
from handlers.supervision.record import ShimState
from handlers.supervision.watched import Watched

_LIMITS = frozenset({Reason.RUN_TIMEOUT, Reason.START_TIMEOUT, Reason.WATCHDOG})


def news_in(state: ShimState, watched: Watched) -> Iterator[Report]:
    """The reports of what `watched` did not know, which it does then. The end is told elsewhere."""
    execution_id = watched.execution.id
    if state.ready_ms is not None and not watched.told_running and state.pid is not None:
        watched.told_running = True
        started_ms = state.started_ms or state.ready_ms
        yield ReportRunning(execution_id=execution_id, pid=state.pid, started_ms=started_ms)
    if state.stop is not None and state.stop.reason in _LIMITS and not watched.told_stop:
        watched.told_stop = True
        watched.stop = watched.stop or state.stop
        yield ReportStopping(execution_id=execution_id, stop=state.stop)
    if state.progress is not None and state.progress != watched.progress:
        watched.progress = state.progress
        yield ReportProgress(execution_id=execution_id, progress=state.progress)
