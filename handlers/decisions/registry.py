"""Which function decides which command: the table of contents of the pure half. No IO, no clock."""

from collections.abc import Callable
from typing import Any

from bus.commands import (
    AnyCommand,
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
    job_of,
    kind_of,
)
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.events import CommandAccepted, CommandEnded
from bus.model import CommandStatus, JobSpec, Value
from bus.ports import Policy, TableReader
from handlers.catalog.variables import reveals
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
from handlers.decisions.table import JobTable

COMMANDS: dict[type, Callable[[JobTable, Envelope, Any, Circumstances], Decision]] = {
    StartJob: executions.start,
    StopJob: stopping.stop,
    RestartJob: executions.restart,
    CancelCommand: stopping.cancel,
    GetStatus: job_status.status,
    RetryExecution: past.retry,
    DeleteExecution: past.delete,
}
"""What people may ask for."""

REPORTS: dict[type, Callable[[JobTable, Any, Circumstances], Decision]] = {
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


def decide(table: JobTable, envelope: Envelope, around: Circumstances) -> Decision:
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
    return COMMANDS[type(command)](table, envelope, command, around)


_UNATTEMPTED: dict[str, CommandStatus] = {
    ErrorCode.EXPIRED: CommandStatus.EXPIRED,
    ErrorCode.SUPERSEDED: CommandStatus.CANCELLED,
}


def refusal(
    table: JobTable, envelope: Envelope, refused: Refused, around: Circumstances
) -> Decision:
    """The record of a command that was not attempted.

    If a secret may stand in it in clear, nothing is kept of its body: not even the hash, by which
    a value could be guessed.
    """
    command = envelope.command
    is_telling = refused.code is ErrorCode.SECRET_BY_VALUE or tells_secret(
        table, command, around.policy
    )
    is_person = not isinstance(command, tuple(REPORTS))
    assert is_person, "reports are never refused"
    return Decision(
        (
            CommandAccepted(
                command_id=envelope.id,
                kind=kind_of(command),
                user_id=envelope.principal.user_id,
                submitted_ms=envelope.submitted_ms,
                body_hash="" if is_telling else envelope.body_hash,
                job_id=job_of(command),
                roles=envelope.principal.roles,
                via=envelope.principal.via,
                variables=None if is_telling else _variables_of(command),
                submitted_text=envelope.submitted_text,
                id_text=envelope.id_text,
                attempted=False,
            ),
            CommandEnded(
                command_id=envelope.id,
                status=_UNATTEMPTED.get(refused.code, CommandStatus.REJECTED),
                error_code=refused.code,
                error=refused.message,
            ),
        )
    )


def _variables_of(command: AnyCommand) -> dict[str, Value] | None:
    return command.variables if isinstance(command, StartJob | RestartJob) else None


def tells_secret(table: TableReader, command: AnyCommand, policy: Policy) -> bool:
    """Whether a value that was meant to be secret may stand in the command: it must not be kept,
    whatever else is wrong with it, and whoever may not hear of the job."""
    job_id = job_of(command)
    if isinstance(command, RestartJob) and command.execution_id is not None:
        execution = table.execution(command.execution_id)
        job_id = execution.job_id if execution is not None else job_id
    job = table.job(job_id) if job_id is not None else None
    spec = job.spec if job is not None and job.spec is not None else JobSpec(command=())
    return reveals(spec, _variables_of(command) or {}, policy.secrets)


__all__ = ["COMMANDS", "REPORTS", "Command", "decide", "refusal"]
