"""Which function decides which command: the table of contents of the pure half. No IO, no clock."""

from collections.abc import Callable
from typing import Any

from bus.commands import (
    ApplyCatalog,
    CancelCommand,
    Command,
    DeleteExecution,
    Forget,
    GetStatus,
    PassTime,
    ReportEnded,
    ReportLost,
    ReportProgress,
    ReportRunning,
    ReportSpawnFailed,
    ReportStopping,
    ReportUnknown,
    RestartJob,
    RetryExecution,
    SetMaintenance,
    StartJob,
    StopJob,
)
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from handlers.decisions import catalog_changes as definitions
from handlers.decisions import (
    executions,
    job_status,
    maintenance,
    outcomes,
    past,
    retention,
    stopping,
    timing,
)
from handlers.decisions.decision import NOTHING, Circumstances, Decision
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.refusals import refusal, tells_secret

COMMANDS: dict[type, Callable[[ReadableTable, Envelope, Any, Circumstances], Decision]] = {
    StartJob: executions.start,
    StopJob: stopping.stop,
    RestartJob: executions.restart,
    CancelCommand: stopping.cancel,
    GetStatus: job_status.status,
    RetryExecution: past.retry,
    DeleteExecution: past.delete,
}
"""What people may ask for."""

CHECKS: dict[type, Callable[[ReadableTable, Envelope, Any, Circumstances], Any]] = {
    **COMMANDS,
    GetStatus: job_status.check_status,
}
"""What says no to them: the decision itself, or its refusals alone where the answer is dear."""

REPORTS: dict[type, Callable[[ReadableTable, Any, Circumstances], Decision]] = {
    ReportRunning: outcomes.running,
    ReportProgress: outcomes.progress,
    ReportStopping: outcomes.stopping,
    ReportEnded: outcomes.ended,
    ReportSpawnFailed: outcomes.spawn_failed,
    ReportUnknown: outcomes.unknown,
    ReportLost: outcomes.lost,
    ApplyCatalog: definitions.apply_catalog,
    PassTime: timing.pass_time,
    Forget: retention.forget,
    SetMaintenance: maintenance.set_maintenance,
}
"""What the parts of the service tell."""


def decide(table: ReadableTable, envelope: Envelope, around: Circumstances) -> Decision:
    """What follows from this command or report on this table. The table is not changed.

    A command whose id the table knows leads to nothing: it was decided before.

    Raises:
        Refused: the command must not be attempted.
    """
    command = envelope.command
    report = REPORTS.get(type(command))
    if report is not None:
        return report(table, command, around)
    if table.command(envelope.id) is not None or table.forgotten(envelope.id) is not None:
        return NOTHING
    _check_times(table, envelope, around)
    return COMMANDS[type(command)](table, envelope, command, around)


def check(table: ReadableTable, envelope: Envelope, around: Circumstances) -> None:
    """A new command would be attempted, as far as this table can tell.

    Raises:
        Refused: as `decide`.
    """
    _check_times(table, envelope, around)
    CHECKS[type(envelope.command)](table, envelope, envelope.command, around)


def _check_times(table: ReadableTable, envelope: Envelope, around: Circumstances) -> None:
    command = envelope.command
    if envelope.submitted_ms <= table.horizon_ms:
        raise Refused(
            ErrorCode.EXPIRED,
            "it was submitted longer ago than command ids are remembered; it may have been handled"
            " before, so it is not run: submit it anew",
        )
    if envelope.expires_ms is not None and envelope.expires_ms <= around.now_ms:
        raise Refused(ErrorCode.EXPIRED, "its expiresAt passed before it was handled")
    if isinstance(command, StartJob | RestartJob) and command.job_id is not None:
        stopped_ns = table.stopped_ns(command.job_id)
        if 0 < envelope.accepted_ns < stopped_ns:
            raise Refused(ErrorCode.SUPERSEDED, "a later stop of the job came first")


__all__ = ["COMMANDS", "REPORTS", "Command", "check", "decide", "refusal", "tells_secret"]
