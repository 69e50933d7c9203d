"""How a table takes in facts behind a hole in its journal: what fits, and what has to be filled in.

What is missing between two facts is filled in with as little as possible: a command by its id, so
that it is never run again; a start, because something ran. Pure: no IO, no clock, no entropy.
"""

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from bus.errors import ErrorCode
from bus.events import (
    AnyEvent,
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
    GroupEvent,
    GroupPaused,
    GroupRemoved,
    GroupResumed,
    JobChanged,
    JobCleared,
    JobDefined,
    JobEvent,
    JobGaveUp,
    JobInvalid,
    JobPaused,
    JobRemoved,
    JobResumed,
    ScheduleBegun,
    ScheduleDecided,
    SchedulePaused,
    ScheduleResumed,
    SystemClock,
    SystemForgotten,
    SystemMaintenance,
)
from bus.job_definition import Job
from bus.lifecycle import command_may_follow, may_follow
from bus.model import CommandRecord, CommandStatus, Execution, ExecutionStatus, Reason
from handlers.decisions.command_events import ended_without_success
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.records import awaited
from handlers.decisions.waiting_commands import done_or_merged, end_waiting, settle

_BECOMES = {
    ExecutionStarted: ExecutionStatus.STARTING,
    ExecutionRunning: ExecutionStatus.RUNNING,
    ExecutionStopping: ExecutionStatus.STOPPING,
    ExecutionUnknown: ExecutionStatus.UNKNOWN,
}


def fitting(table: ReadableTable, event: AnyEvent, at_ms: int) -> Iterator[AnyEvent]:
    """The facts by which the table takes `event` in, in order; none if it has it, or cannot.

    Each is to be applied before the next is asked for.
    """
    match event:
        case CommandAccepted():
            yield from () if _is_known(table, event.command_id) else (event,)
        case CommandEnded():
            yield from _command_ended(table, event, at_ms)
        case ExecutionQueued():
            yield from _queued(table, event, at_ms)
        case ExecutionStarted() | ExecutionRunning() | ExecutionStopping() | ExecutionUnknown():
            yield from _moved(table, event.execution_id, event, _BECOMES[type(event)])
        case ExecutionEnded(execution_id=execution_id, status=status):
            yield from _moved(table, execution_id, event, status)
        case ExecutionCaused():
            yield from _caused(table.execution(event.execution_id), event)
        case ExecutionDeleted(execution_id=execution_id):
            yield from _deleted(table.execution(execution_id), event, at_ms)
        case JobDefined() | JobChanged() | JobGaveUp() | JobCleared() | JobRemoved() | JobInvalid():
            if _is_news(table.job(event.job_id), event):
                yield event
        case SystemForgotten():
            yield from _forgotten(table, event, at_ms)
        case (
            SystemMaintenance()
            | SystemClock()
            | ScheduleBegun()
            | ScheduleDecided()
            | SchedulePaused()
            | ScheduleResumed()
        ):
            yield from (event,) if _is_undecided(table, event) else ()
        case (
            JobPaused()
            | JobResumed()
            | GroupDefined()
            | GroupRemoved()
            | GroupPaused()
            | GroupResumed()
        ):
            yield from _of_queue(table, event)
        case ExecutionHealth():
            yield from _checked(table.execution(event.execution_id), event)
        case ExecutionProgress():
            return


def _checked(execution: Execution | None, event: ExecutionHealth) -> Iterator[AnyEvent]:
    if execution is not None and execution.status is ExecutionStatus.RUNNING:
        yield event


def _caused(execution: Execution | None, event: ExecutionCaused) -> Iterator[AnyEvent]:
    is_final = execution is not None and execution.is_final
    if execution is not None and is_final and event.caused not in execution.caused:
        yield event


def stranded(table: ReadableTable) -> Iterator[CommandEnded]:
    """The ends of commands whose executions ended or ran in a part that was replayed."""
    for command in table.unfinished_commands():
        found = [table.execution(execution_id) for execution_id in awaited(command)]
        known = [execution for execution in found if execution is not None]
        if not known:
            yield ended_without_success(
                command.id,
                CommandStatus.FAILED,
                ErrorCode.INTERRUPTED,
                "the journal was damaged where the end of this command stood",
            )
        elif not command.waits_for and known[0].start_ms is not None:
            yield done_or_merged(command)
        elif all(execution.is_final for execution in known):
            yield from _ends_of(settle(table, command, known[-1], _end_of(known[-1])))


def without_trace(
    table: ReadableTable, has_trace: Callable[[Execution, CommandRecord | None], bool], now_ms: int
) -> Iterator[AnyEvent]:
    """The ends of executions that the table takes for live and that were forgotten since.

    Only what has ended is ever forgotten. So it ran, or was cancelled; it must not run now.
    """
    for execution in table.live_executions():
        if not has_trace(execution, table.command(execution.command_id)):
            yield from end_waiting(table, execution, _lost(execution, now_ms))


def _is_undecided(table: ReadableTable, event: AnyEvent) -> bool:
    """Whether a decision of a schedule is of an instant that none is known of, and a pause of a
    schedule that is known; others are news."""
    if not isinstance(event, ScheduleDecided | SchedulePaused | ScheduleResumed):
        return True
    state = table.schedules_of(event.job_id).get(event.schedule)
    if state is None or not isinstance(event, ScheduleDecided):
        return state is not None
    return (state.decided_ms or 0) < event.instant_ms


def _is_known(table: ReadableTable, command_id: str) -> bool:
    return table.command(command_id) is not None or table.forgotten(command_id) is not None


def _command_ended(table: ReadableTable, event: CommandEnded, at_ms: int) -> Iterator[AnyEvent]:
    record = table.command(event.command_id)
    if record is not None:
        if command_may_follow(record.status, event.status):
            yield event
    elif table.forgotten(event.command_id) is None:
        execution = table.execution(event.execution_id) if event.execution_id else None
        yield _command_by_id(event.command_id, at_ms, execution)
        yield event


def _queued(table: ReadableTable, event: ExecutionQueued, at_ms: int) -> Iterator[AnyEvent]:
    if table.execution(event.execution_id) is not None:
        return
    if not _is_known(table, event.command_id):
        yield CommandAccepted(
            command_id=event.command_id,
            kind="start",
            user_id=event.user_id,
            submitted_ms=at_ms,
            body_hash="",
            job_id=event.job_id,
            execution_id=event.execution_id,
        )
    job = table.job(event.job_id)
    if table.spec(event.job_id, event.revision) is None and job is not None and job.spec:
        event = replace(event, revision=job.revision)  # the nearest that is known of its version
    yield event


def _moved(
    table: ReadableTable, execution_id: str, event: AnyEvent, after: ExecutionStatus
) -> Iterator[AnyEvent]:
    """The step, and before it the start that it supposes."""
    execution = table.execution(execution_id)
    if execution is None:
        return
    if may_follow(execution.status, after):
        yield event
    elif execution.status is ExecutionStatus.QUEUED:
        if may_follow(ExecutionStatus.STARTING, after):
            spec = table.spec_of(execution)
            groups = spec.groups if spec is not None else ()
            yield ExecutionStarted(execution_id=execution.id, groups=groups)
            yield event
    elif isinstance(event, ExecutionStopping) and execution.status is after:
        yield event


def _of_queue(
    table: ReadableTable, event: JobPaused | JobResumed | GroupEvent
) -> Iterator[AnyEvent]:
    if isinstance(event, GroupPaused | GroupResumed) and table.group(event.name) is None:
        return
    yield event


def _deleted(
    execution: Execution | None, event: ExecutionDeleted, at_ms: int
) -> Iterator[AnyEvent]:
    if execution is None:
        return
    if not execution.is_final:
        yield _lost(execution, at_ms)
    yield event


def _is_news(job: Job | None, event: JobEvent) -> bool:
    """Whether the table's catalog can and should take it in; the one on disk corrects it anyway."""
    match event:
        case JobDefined() | JobChanged():
            return job is None or job.fault is not None or job.revision != event.revision
        case JobGaveUp() | JobCleared() | JobRemoved():
            return job is not None
        case JobInvalid() | JobPaused() | JobResumed():
            return True


def _forgotten(table: ReadableTable, event: SystemForgotten, at_ms: int) -> Iterator[AnyEvent]:
    """Only what had ended was ever forgotten. How many ids were dropped by then is not known."""
    commands = [i for i in event.commands if table.forgotten(i) is None]
    for command_id in commands:
        record = table.command(command_id)
        if record is None:
            yield _command_by_id(command_id, at_ms, None)
        if record is None or not record.is_final:
            yield CommandEnded(command_id=command_id, status=CommandStatus.COMPLETED)
    executions = [e for i in event.executions if (e := table.execution(i)) is not None]
    for execution in executions:
        if not execution.is_final:
            yield _lost(execution, at_ms)
    ended = [i for i in event.traceless if (c := table.command(i)) is not None and c.is_final]
    if executions or commands or ended or event.horizon_ms or event.turned:
        ids = tuple(execution.id for execution in executions)
        yield replace(
            event,
            executions=ids,
            commands=tuple(commands),
            traceless=tuple(ended),
            ids_dropped=0,
        )


def _command_by_id(command_id: str, at_ms: int, execution: Execution | None) -> CommandAccepted:
    """All that is left of a command: it was, so it is not to be run again."""
    return CommandAccepted(
        command_id=command_id,
        kind="",
        user_id=execution.user_id if execution is not None else "",
        submitted_ms=at_ms,
        body_hash="",
        job_id=execution.job_id if execution is not None else None,
        attempted=False,
    )


def _lost(execution: Execution, at_ms: int) -> ExecutionEnded:
    return ExecutionEnded(
        execution_id=execution.id,
        status=ExecutionStatus.LOST,
        reason=Reason.NO_EXIT_RECORD,
        ended_ms=at_ms,
    )


def _end_of(execution: Execution) -> ExecutionEnded:
    """The end as it was recorded."""
    return ExecutionEnded(
        execution_id=execution.id,
        status=execution.status,
        reason=execution.reason or Reason.NO_EXIT_RECORD,
        ended_ms=execution.end_ms or 0,
        error=execution.error,
    )


def _ends_of(events: Iterator[AnyEvent]) -> Iterator[CommandEnded]:
    for event in events:
        assert isinstance(event, CommandEnded)
        yield event
