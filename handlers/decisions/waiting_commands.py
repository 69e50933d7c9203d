"""How the end of an execution ends the commands that waited for it. Pure."""

from collections.abc import Iterator

from bus.errors import ErrorCode
from bus.events import AnyEvent, CommandEnded, ExecutionEnded
from bus.model import CommandRecord, CommandStatus, Execution, ExecutionStatus, Outcome, Reason
from handlers.decisions.command_events import completed, ended_without_success, superseded
from handlers.decisions.readable_table import ReadableTable

CANCELLED_WAITING = "it was cancelled while waiting"


def end_waiting(
    table: ReadableTable,
    execution: Execution,
    final: ExecutionEnded,
    *,
    settled: set[str] | None = None,
) -> Iterator[AnyEvent]:
    """The end, and of each command that waited for it; `settled` are those that ended before."""
    yield final
    for command in table.commands_waiting_for(execution.id):
        if command.id not in (settled or ()):
            yield from settle(table, command, execution, final)


def end_unstarted(
    table: ReadableTable,
    execution: Execution,
    status: ExecutionStatus,
    reason: Reason,
    now_ms: int,
    *,
    error: str | None = None,
) -> Iterator[AnyEvent]:
    """The end of an execution of which no program has run, and of each command that waited."""
    return end_waiting(table, execution, unstarted(execution, status, reason, now_ms, error=error))


def unstarted(
    execution: Execution,
    status: ExecutionStatus,
    reason: Reason,
    now_ms: int,
    *,
    error: str | None = None,
) -> ExecutionEnded:
    """The end of an execution of which no program has run: it printed nothing."""
    return ExecutionEnded(
        execution_id=execution.id,
        status=status,
        reason=reason,
        ended_ms=now_ms,
        error=error,
        output_end=0,
    )


def settle(
    table: ReadableTable, command: CommandRecord, execution: Execution, final: ExecutionEnded
) -> Iterator[AnyEvent]:
    """How the end of `execution` ends a command that waited for it."""
    if not command.waits_for:
        yield _never_ran(command, final)
        return
    others = [i for i in command.waits_for if i != execution.id]
    ends = [found for i in others if (found := table.execution(i)) is not None]
    if any(not e.is_final for e in ends):
        return
    incomplete = [e.id for e in ends if e.reason is Reason.STOP_INCOMPLETE]
    if final.reason is Reason.STOP_INCOMPLETE:
        incomplete.append(execution.id)
    if incomplete:
        yield ended_without_success(
            command.id,
            CommandStatus.FAILED,
            ErrorCode.STOP_INCOMPLETE,
            f"processes outlived the KILL, see survivors of {', '.join(incomplete)}",
            execution_id=execution.id,
        )
    else:
        yield done_or_merged(command, execution_id=execution.id)


def done_or_merged(command: CommandRecord, *, execution_id: str | None = None) -> CommandEnded:
    """The command did what it asked for, or another had asked for it before."""
    outcome = Outcome.MERGED if command.merged else Outcome.DONE
    return completed(command.id, outcome, execution_id=execution_id)


def _never_ran(command: CommandRecord, final: ExecutionEnded) -> CommandEnded:
    """The end of a start or restart whose execution ended before it ran."""
    match final.status:
        case ExecutionStatus.CANCELLED if final.reason is Reason.EXPIRED:
            status, code = CommandStatus.EXPIRED, ErrorCode.EXPIRED
            text = "it expired before the execution could start"
        case ExecutionStatus.CANCELLED if final.reason is Reason.USER:
            status, code = CommandStatus.CANCELLED, ErrorCode.CANCELLED
            text = CANCELLED_WAITING
        case ExecutionStatus.CANCELLED | ExecutionStatus.STOPPED:
            return superseded(command.id, final.execution_id)
        case ExecutionStatus.SKIPPED if final.reason is Reason.OVERLAP:
            status, code = CommandStatus.CANCELLED, ErrorCode.ALREADY_RUNNING
            text = f"it was skipped: {final.error}"
        case ExecutionStatus.SKIPPED:
            status, code = CommandStatus.CANCELLED, ErrorCode.DISABLED
            text = "the job was disabled, or taken from the catalog, before the execution ran"
        case _ if final.reason is Reason.SPAWN_ERROR:
            status, code = CommandStatus.FAILED, ErrorCode.SPAWN_ERROR
            text = final.error or "the program could not be started"
        case ExecutionStatus.LOST:
            status, code = CommandStatus.FAILED, ErrorCode.INTERRUPTED
            text = "the execution was lost before it was seen running"
        case _:
            status, code = CommandStatus.FAILED, ErrorCode.NOT_READY
            text = final.error or _never_ready(final)
    return ended_without_success(command.id, status, code, text, execution_id=final.execution_id)


def _never_ready(final: ExecutionEnded) -> str:
    """What became of a program that was to become ready and did not."""
    limit = {Reason.START_TIMEOUT: "start_timeout_s", Reason.RUN_TIMEOUT: "timeout_s"}
    if final.reason in limit:
        return f"the program was not ready within {limit[final.reason]}, and was stopped"
    if final.exit_code is not None:
        return f"the program ended with exit code {final.exit_code} before it was ready"
    if final.signal is not None:
        return f"the program was ended by signal {final.signal} before it was ready"
    return "the program ended before it was ready"
