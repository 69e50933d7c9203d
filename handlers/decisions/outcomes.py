"""What follows when something happened to an execution: final states, and what waited for it.

Pure: no IO, no clock, no entropy.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from bus.commands import (
    ReportEnded,
    ReportLost,
    ReportProgress,
    ReportRunning,
    ReportSpawnFailed,
    ReportStopping,
    ReportUnknown,
)
from bus.events import (
    AnyEvent,
    CommandEnded,
    ExecutionEnded,
    ExecutionProgress,
    ExecutionRunning,
    ExecutionStopping,
    ExecutionUnknown,
)
from bus.job_definition import JobSpec
from bus.model import (
    NO_RESULT,
    Execution,
    ExecutionStatus,
    ExitRecord,
    Reason,
    StopRequest,
    Usage,
)
from handlers.decisions.decision import (
    NOTHING,
    Context,
    Decision,
    Effect,
    StopExecution,
    joined,
)
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.retries import follow_up
from handlers.decisions.slots import Soon, next_to_start, starts
from handlers.decisions.stop_orders import grace_of
from handlers.decisions.waiting_commands import done_or_merged, end_waiting, unstarted

_TIMEOUTS = frozenset({Reason.RUN_TIMEOUT, Reason.START_TIMEOUT})
_LIMITS = _TIMEOUTS | {Reason.WATCHDOG}
_FAILURES = frozenset({Reason.WATCHDOG, Reason.UNHEALTHY})
_ORDERED = frozenset({Reason.USER, Reason.POLICY, Reason.REPLACED, Reason.SHUTDOWN})


def running(table: ReadableTable, report: ReportRunning, context: Context) -> Decision:
    execution = table.execution(report.execution_id)
    if execution is None or execution.status not in (
        ExecutionStatus.STARTING,
        ExecutionStatus.UNKNOWN,
    ):
        return NOTHING
    events = list(_now_running(table, execution, report.started_ms, report.pid))
    effects: list[Effect] = []
    follower = _replacement_of(table, execution)
    if follower is not None:
        stop = StopRequest(
            reason=Reason.REPLACED,
            by=follower.user_id,
            at_ms=context.now_ms,
            grace_s=grace_of(table, execution),
            command_id=follower.command_id,
        )
        events.append(ExecutionStopping(execution_id=execution.id, stop=stop))
        effects.append(StopExecution(execution.id))
    return Decision(tuple(events), tuple(effects))


def progress(table: ReadableTable, report: ReportProgress, _: Context) -> Decision:
    execution = table.execution(report.execution_id)
    if execution is None or execution.is_final or execution.progress == report.progress:
        return NOTHING
    return Decision((ExecutionProgress(execution_id=execution.id, progress=report.progress),))


def stopping(table: ReadableTable, report: ReportStopping, _: Context) -> Decision:
    execution = table.execution(report.execution_id)
    if execution is None or execution.status not in (
        ExecutionStatus.STARTING,
        ExecutionStatus.RUNNING,
        ExecutionStatus.UNKNOWN,
    ):
        return NOTHING
    return Decision((ExecutionStopping(execution_id=execution.id, stop=report.stop),))


def unknown(table: ReadableTable, report: ReportUnknown, _: Context) -> Decision:
    execution = table.execution(report.execution_id)
    if execution is None or execution.is_final or execution.status is ExecutionStatus.UNKNOWN:
        return NOTHING
    return Decision((ExecutionUnknown(execution_id=execution.id),))


def ended(table: ReadableTable, report: ReportEnded, context: Context) -> Decision:
    execution = table.execution(report.execution_id)
    if execution is None or execution.is_final:
        return NOTHING
    exit_ = report.exit
    events: list[AnyEvent] = []
    if execution.status is ExecutionStatus.STARTING and exit_.started_ms is not None:
        # It ran and ended between two looks: subscribers still see each state once.
        spec = table.spec(execution.job_id, execution.revision)
        is_ready = exit_.ready_ms is not None
        if is_ready or spec is None or spec.ready == "spawn":
            events.extend(_now_running(table, execution, exit_.started_ms, exit_.pid))
    status, reason = final_state(execution, exit_, table.spec(execution.job_id, execution.revision))
    final = ExecutionEnded(
        execution_id=execution.id,
        status=status,
        reason=reason,
        ended_ms=exit_.ended_ms,
        exit_code=exit_.exit_code,
        signal=exit_.signal,
        error=exit_.error,
        contained=exit_.contained,
        survivors=exit_.survivors,
        containment=exit_.containment,
        output_end=exit_.output_end,
        progress=exit_.progress or execution.progress,
        usage=_usage_of(exit_),
        core_dumped=exit_.core_dumped,
        result=_encoded(exit_.result),
        result_note=exit_.result_note,
        artifacts=exit_.artifacts,
        artifact_bytes=exit_.artifact_bytes,
        artifacts_note=exit_.artifacts_note,
    )
    settled = {event.command_id for event in events if isinstance(event, CommandEnded)}
    return after_end(table, execution, final, context, before=events, settled=settled)


def spawn_failed(table: ReadableTable, report: ReportSpawnFailed, context: Context) -> Decision:
    execution = table.execution(report.execution_id)
    if execution is None or execution.is_final:
        return NOTHING
    final = unstarted(
        execution, ExecutionStatus.FAILED, Reason.SPAWN_ERROR, context.now_ms, error=report.error
    )
    return after_end(table, execution, final, context)


def lost(table: ReadableTable, report: ReportLost, context: Context) -> Decision:
    execution = table.execution(report.execution_id)
    if execution is None or execution.is_final:
        return NOTHING
    status, reason = ExecutionStatus.LOST, Reason(report.reason)
    if execution.stop is not None and not report.elsewhere:
        # It was to end and is gone: that it was ended is known, only its last code is not.
        status, reason = _forced(execution.stop.reason) or (status, reason)
    final = ExecutionEnded(
        execution_id=execution.id,
        status=status,
        reason=reason,
        ended_ms=context.now_ms,
        progress=execution.progress,  # progress is not in the journal, so its last value ends here
    )
    # What may still run is not begun again by itself.
    return after_end(table, execution, final, context, is_repeated=not report.elsewhere)


def final_state(
    execution: Execution, exit_: ExitRecord, spec: JobSpec | None
) -> tuple[ExecutionStatus, Reason]:
    """The final status and its reason; what forced the end counts before what the program said."""
    if not exit_.contained:
        return ExecutionStatus.FAILED, Reason.STOP_INCOMPLETE
    cause = exit_.cause
    if cause not in _LIMITS and execution.stop is not None and execution.stop.reason in _ORDERED:
        cause = execution.stop.reason
    forced = _forced(cause)
    if forced is not None:
        return forced
    if exit_.cause is Reason.OOM:
        return ExecutionStatus.FAILED, Reason.OOM
    never_ready = execution.status is ExecutionStatus.STARTING and exit_.ready_ms is None
    if never_ready and spec is not None and spec.ready != "spawn":
        return ExecutionStatus.FAILED, Reason.NOT_READY
    if exit_.signal is not None:
        return ExecutionStatus.FAILED, Reason.SIGNAL
    success = spec.success_codes if spec is not None else (0,)
    good = exit_.exit_code in success
    return (ExecutionStatus.SUCCEEDED if good else ExecutionStatus.FAILED), Reason.EXIT_CODE


def _usage_of(exit_: ExitRecord) -> Usage | None:
    if exit_.started_ms is None:
        return None
    return Usage(
        cpu_s=exit_.cpu_s, memory_bytes_max=exit_.memory_bytes_max, oom_kills=exit_.oom_kills
    )


def _forced(cause: Reason | None) -> tuple[ExecutionStatus, Reason] | None:
    """The state of what was ended for that cause; None if it is none that ends by an order."""
    if cause in _TIMEOUTS:
        return ExecutionStatus.TIMED_OUT, cause
    if cause in _FAILURES:
        return ExecutionStatus.FAILED, cause
    return (ExecutionStatus.STOPPED, cause) if cause in _ORDERED else None


def after_end(
    table: ReadableTable,
    execution: Execution,
    final: ExecutionEnded,
    context: Context,
    *,
    before: list[AnyEvent] | None = None,
    settled: set[str] | None = None,
    is_repeated: bool = True,
) -> Decision:
    """The end itself, the commands it settles, and the next execution that gets the slot. With
    `is_repeated` the job's definition may order a retry or a restart."""
    events = [*(before or ()), *end_waiting(table, execution, final, settled=settled)]
    again = follow_up(table, execution, final, context) if is_repeated else None
    if again is not None:
        events.append(again)
    followers = next_to_start(
        table,
        (execution.job_id,),
        context.now_ms,
        groups=execution.groups,
        soon=Soon(freed=execution),
        is_low=context.is_low,
    )
    return joined([Decision(tuple(events)), starts(table, followers)])


def _encoded(result: dict[str, Any] | None) -> msgspec.Raw:
    """As bytes a result takes a fraction of what it takes as objects, and executions are kept."""
    return NO_RESULT if result is None else msgspec.Raw(msgspec.json.encode(result))


def _now_running(
    table: ReadableTable, execution: Execution, started_ms: int, pid: int | None
) -> Iterator[AnyEvent]:
    yield ExecutionRunning(execution_id=execution.id, started_ms=started_ms, pid=pid)
    for command in table.commands_waiting_for(execution.id):
        if not command.waits_for:
            yield done_or_merged(command)


def _replacement_of(table: ReadableTable, execution: Execution) -> Execution | None:
    """The restart that waits for this execution to be up before it stops it."""
    for queued in table.queued(table.name_now(execution.job_id)):
        if queued.replaces == execution.id:
            return queued
    return None
