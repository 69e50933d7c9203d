"""What entries have as before and after: states of executions, revisions of jobs. No IO, no clock.

They are those at the event of the entry; the table may be ahead of it.
"""

import msgspec

from bus.audit import cut
from bus.endings import ending
from bus.events import (
    ExecutionEnded,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStopping,
    JobChanged,
    JobDefined,
    JobEvent,
    JobRemoved,
)
from bus.model import Execution, ExecutionStatus, Reason, StopRequest
from handlers.decisions.readable_table import ReadableTable

LIMITS = frozenset({Reason.RUN_TIMEOUT, Reason.START_TIMEOUT, Reason.WATCHDOG})

_ENDED_MAX = 1000
"""Ends that are remembered for commands that end right after them."""


class Live(msgspec.Struct):
    """As much of an execution as entries hold. `limited`: the stop by a limit has its entry."""

    job_id: str
    command_id: str
    status: str
    limited: bool = False
    start_ms: int | None = None
    stop: StopRequest | None = None


class States:
    """Holds live executions, the last that ended, and the revisions of all jobs.

    The fold alone changes them, event by event; `_table` answers for executions that ended before.
    """

    def __init__(self) -> None:
        self._live: dict[str, Live] = {}
        self._ended: dict[str, str] = {}
        self._endings: dict[str, str] = {}
        self._revisions: dict[str, str] = {}
        self._table: ReadableTable | None = None

    def begin(self, table: ReadableTable) -> None:
        self._table = table
        self._live = {execution.id: _live(execution) for execution in table.live_executions()}
        self._revisions = {job.id: job.revision for job in table.jobs()}

    def live(self, execution_id: str) -> Live:
        return self._live[execution_id]

    def of(self, execution_id: str) -> str | None:
        """The execution's state, also when it has ended."""
        live = self._live.get(execution_id)
        if live is not None:
            return live.status
        ended = self._ended.get(execution_id)
        if ended is not None or self._table is None:
            return ended
        found = self._table.execution(execution_id)
        # The table may be ahead: what is live there and not here does not exist yet.
        return found.status.value if found is not None and found.is_final else None

    def queue(self, event: ExecutionQueued) -> None:
        self._live[event.execution_id] = Live(event.job_id, event.command_id, "Queued")

    def become(self, execution_id: str, status: ExecutionStatus) -> str | None:
        """The state before; the execution is in the new one."""
        live = self._live.get(execution_id)
        if live is None:
            live = self._live[execution_id] = Live("", "", "")
        before, live.status = live.status, status.value
        return before or None

    def order(self, event: ExecutionStopping) -> str | None:
        """The state before; the execution is being stopped, and whether by a limit is known."""
        before = self.become(event.execution_id, ExecutionStatus.STOPPING)
        if event.stop.command_id is None:
            self._live[event.execution_id].limited = event.stop.reason in LIMITS
        self._live[event.execution_id].stop = event.stop
        return before

    def run(self, event: ExecutionRunning) -> None:
        self.become(event.execution_id, ExecutionStatus.RUNNING)
        self._live[event.execution_id].start_ms = event.started_ms

    def ending(self, execution_id: str) -> dict[str, str]:
        """How the execution ended, as a detail of an entry; nothing of one that has not, lately."""
        ending = self._endings.get(execution_id)
        return {"ending": ending} if ending else {}

    def end(self, event: ExecutionEnded) -> str | None:
        """The state before; the one that it is in now is its last, until `settle`."""
        before = self.become(event.execution_id, event.status)
        self._endings[event.execution_id] = _ending(self._live[event.execution_id], event)
        if len(self._endings) > _ENDED_MAX:
            del self._endings[next(iter(self._endings))]
        return before

    def settle(self, execution_id: str) -> None:
        """The execution is live no more."""
        self._ended[execution_id] = self._live.pop(execution_id).status
        if len(self._ended) > _ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    def delete(self, execution_id: str) -> None:
        self._ended[execution_id] = "deleted"

    def revise(self, event: JobEvent) -> tuple[str | None, str | None]:
        """The job's revisions before and after."""
        before = self._revisions.get(event.job_id)
        if isinstance(event, JobDefined | JobChanged):
            self._revisions[event.job_id] = event.revision
        elif isinstance(event, JobRemoved):
            self._revisions.pop(event.job_id, None)
        return before or None, self._revisions.get(event.job_id) or None


def _live(execution: Execution) -> Live:
    limited = execution.stop is not None and execution.stop.reason in LIMITS
    return Live(
        execution.job_id,
        execution.command_id,
        execution.status.value,
        limited,
        execution.start_ms,
        execution.stop,
    )


def _ending(live: Live, event: ExecutionEnded) -> str:
    """The sentence of `bus.endings`, without what the program or the system said: entries have no
    error texts."""
    return cut(
        ending(
            Execution(
                id=event.execution_id,
                job_id=live.job_id,
                command_id=live.command_id,
                user_id="",
                status=event.status,
                revision="",
                queued_ms=0,
                reason=event.reason,
                start_ms=live.start_ms,
                end_ms=event.ended_ms,
                exit_code=event.exit_code,
                signal=event.signal,
                survivors=event.survivors,
                stop=live.stop,
            )
        )
    )
