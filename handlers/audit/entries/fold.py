"""From events to entries of the audit: one for each command and for each act of the service itself.

This is the way through the events; what an entry says is in `commands` and `acts`. No IO, no clock.
"""

from bus.audit import AuditEntry
from bus.events import (
    CommandAccepted,
    CommandEnded,
    ExecutionCaused,
    ExecutionDeleted,
    ExecutionEnded,
    ExecutionHealth,
    ExecutionProgress,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStarted,
    ExecutionStopping,
    ExecutionUnknown,
    GroupDefined,
    GroupPaused,
    GroupRemoved,
    GroupResumed,
    JobChanged,
    JobCleared,
    JobDefined,
    JobGaveUp,
    JobInvalid,
    JobPaused,
    JobRemoved,
    JobResumed,
    Published,
    ScheduleBegun,
    ScheduleDecided,
    SchedulePaused,
    ScheduleResumed,
    SystemClock,
    SystemForgotten,
    SystemMaintenance,
)
from bus.model import ExecutionStatus
from handlers.audit.entries import acts
from handlers.audit.entries.command_entries import CommandEntries
from handlers.audit.entries.states import States
from handlers.decisions.queue_orders import TIME_PASSED
from handlers.decisions.readable_table import ReadableTable


class AuditFold:
    """Follows the events from a table on.

    Events up to `written_until` only change what is held: their entries are there already.
    """

    def __init__(self, *, written_until: int = 0) -> None:
        self._written_until = written_until
        self._states = States()
        self._commands = CommandEntries(self._states)

    def begin(self, table: ReadableTable) -> None:
        """The next event is the first that `table` has not taken in."""
        self._states.begin(table)
        self._commands.begin(table)

    def begin_writing(self) -> None:
        """The replay is over: all events from now on are new, even where numbers begin again."""
        self._written_until = 0

    def take(self, published: Published) -> AuditEntry | None:
        """The entry that this event makes, if it makes one. The table may be ahead of it."""
        is_written = published.seq <= self._written_until
        event = published.event
        if is_written and isinstance(event, CommandEnded):
            # Most of what a start replays; making these would be most of its time.
            self._commands.drop(event.command_id)
            return None
        entry = self._entry(published)
        return None if is_written else entry

    def _entry(self, published: Published) -> AuditEntry | None:
        states = self._states
        event = published.event
        match event:
            case ExecutionProgress() | ExecutionHealth():
                return None
            case CommandAccepted():
                self._commands.accept(event)
                return None
            case CommandEnded():
                return self._commands.end(published, event)
            case ExecutionQueued():
                states.queue(event)
                if event.replaces is not None:
                    self._commands.replace(event.command_id, event.replaces)
                previous = states.of(event.previous) if event.previous else None
                return acts.queued(published, event, previous)
            case ExecutionStarted() | ExecutionRunning():
                self._goes_on(event)
                return None
            case ExecutionStopping(execution_id=i):
                before = states.order(event)
                return acts.stopping(published, event, states.live(i), before)
            case ExecutionUnknown(execution_id=i):
                before = states.become(i, ExecutionStatus.UNKNOWN)
                return acts.unknown(published, event, states.live(i), before)
            case ExecutionEnded(execution_id=i):
                before = states.end(event)
                entry = acts.ended(published, event, states.live(i), before, states.ending(i))
                states.settle(i)
                return entry
            case ExecutionDeleted(execution_id=i):
                states.delete(i)
                return None
            case JobDefined() | JobChanged() | JobInvalid() | JobRemoved() | JobGaveUp():
                return acts.job(published, event, *states.revise(event))
            case JobCleared() | ScheduleBegun() | SchedulePaused() | ScheduleResumed():
                return None  # the entry of the command, or of the definition, says it
            case GroupDefined() | GroupRemoved():
                return acts.group(published, event)
            case JobPaused() | JobResumed() | GroupPaused() | GroupResumed():
                return self._queue(published, event)
            case (
                ExecutionCaused()
                | SystemForgotten()
                | SystemMaintenance()
                | SystemClock()
                | ScheduleDecided()
            ):
                return acts.of_service(published, event)

    def _goes_on(self, event: ExecutionStarted | ExecutionRunning) -> None:
        if isinstance(event, ExecutionRunning):
            self._states.run(event)
        else:
            self._states.become(event.execution_id, ExecutionStatus.STARTING)

    def _queue(
        self, published: Published, event: JobPaused | JobResumed | GroupPaused | GroupResumed
    ) -> AuditEntry | None:
        if isinstance(event, JobResumed | GroupResumed) and event.by == TIME_PASSED:
            return acts.resumed(published, event)
        self._commands.describe(acts.about_queue(event))  # the command's own entry says it
        return None
