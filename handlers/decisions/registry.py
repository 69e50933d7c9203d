"""Which function decides which command: the table of contents of the pure half. No IO, no clock."""

from collections.abc import Callable
from typing import Any

from bus.commands import (
    ApplyCatalog,
    BackfillSchedule,
    CancelCommand,
    DeleteExecution,
    Forget,
    GetStatus,
    PassTime,
    PauseQueue,
    PauseSchedule,
    ReportClock,
    ReportEnded,
    ReportHealth,
    ReportLost,
    ReportProgress,
    ReportRunning,
    ReportScheduleDue,
    ReportSpawnFailed,
    ReportStopping,
    ReportUnknown,
    RestartJob,
    ResumeQueue,
    ResumeSchedule,
    RetryExecution,
    RunSchedule,
    SetGroups,
    SetMaintenance,
    StartJob,
    StopJob,
    is_urgent,
)
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from handlers.decisions import catalog_changes as definitions
from handlers.decisions import (
    ended_executions,
    health,
    job_status,
    maintenance,
    outcomes,
    queue_orders,
    retention,
    schedule_orders,
    schedules,
    stopping,
    timing,
)
from handlers.decisions import starting as executions
from handlers.decisions.decision import NOTHING, Context, Decision
from handlers.decisions.kept_commands import READS_BYTES_IN_ALL_MAX, READS_BYTES_MAX, READS_MAX
from handlers.decisions.readable_table import ReadableTable

COMMANDS: dict[type, Callable[[ReadableTable, Envelope, Any, Context], Decision]] = {
    StartJob: executions.start,
    StopJob: stopping.stop,
    RestartJob: executions.restart,
    CancelCommand: stopping.cancel,
    GetStatus: job_status.status,
    RetryExecution: ended_executions.retry,
    DeleteExecution: ended_executions.delete,
    PauseQueue: queue_orders.pause,
    ResumeQueue: queue_orders.resume,
    PauseSchedule: schedule_orders.pause,
    ResumeSchedule: schedule_orders.resume,
    RunSchedule: schedule_orders.run,
    BackfillSchedule: schedule_orders.backfill,
}
"""What people may ask for."""

CHECKS: dict[type, Callable[[ReadableTable, Envelope, Any, Context], Any]] = {
    **COMMANDS,
    GetStatus: job_status.check_status,
}
"""What refuses them: the decision itself, or its checks alone where the answer is expensive."""

REPORTS: dict[type, Callable[[ReadableTable, Any, Context], Decision]] = {
    ReportRunning: outcomes.running,
    ReportProgress: outcomes.progress,
    ReportHealth: health.health,
    ReportStopping: outcomes.stopping,
    ReportEnded: outcomes.ended,
    ReportSpawnFailed: outcomes.spawn_failed,
    ReportUnknown: outcomes.unknown,
    ReportLost: outcomes.lost,
    ApplyCatalog: definitions.apply_catalog,
    PassTime: timing.pass_time,
    Forget: retention.forget,
    SetMaintenance: maintenance.set_maintenance,
    SetGroups: queue_orders.set_groups,
    ReportScheduleDue: schedules.due,
    ReportClock: schedules.clock,
}
"""What the parts of the service report."""


def decide(table: ReadableTable, envelope: Envelope, context: Context) -> Decision:
    """What follows from this command or report on this table. The table is not changed.

    A command whose id the table knows leads to nothing: it was decided before.

    Raises:
        Refused: the command must not be attempted.
    """
    command = envelope.command
    report = REPORTS.get(type(command))
    if report is not None:
        return report(table, command, context)
    if table.command(envelope.id) is not None or table.forgotten(envelope.id) is not None:
        return NOTHING
    _check_times(table, envelope, context)
    decision = COMMANDS[type(command)](table, envelope, command, context)
    _check_room(table, envelope, decision, context)
    return decision


def check(table: ReadableTable, envelope: Envelope, context: Context) -> None:
    """A new command would be attempted, as far as this table shows.

    Raises:
        Refused: as `decide`.
    """
    _check_times(table, envelope, context)
    decision = CHECKS[type(envelope.command)](table, envelope, envelope.command, context)
    _check_room(table, envelope, decision, context)


def _check_times(table: ReadableTable, envelope: Envelope, context: Context) -> None:
    command = envelope.command
    # What is urgent is late at worst, never too old.
    if not is_urgent(command) and envelope.submitted_ms <= table.horizon_at(context.now_ms):
        raise Refused(
            ErrorCode.EXPIRED,
            "it was submitted longer ago than command ids are remembered; it may have been handled"
            " before, so it is not run: submit it again under a new id",
        )
    if envelope.expires_ms is not None and envelope.expires_ms <= context.now_ms:
        raise Refused(ErrorCode.EXPIRED, "its expiresAt passed before it was handled")
    starts = StartJob | RestartJob | RunSchedule | BackfillSchedule
    if isinstance(command, starts) and command.job_id is not None:
        stopped_ns = table.stopped_ns(command.job_id)
        if 0 < envelope.accepted_ns < stopped_ns:
            raise Refused(ErrorCode.SUPERSEDED, "a later stop of the job came first")


def _check_room(
    table: ReadableTable, envelope: Envelope, decision: Decision | None, context: Context
) -> None:
    """There is room to remember the command for as long as promised.

    The new command is refused, never an old id dropped. A stop or cancel that
    changes anything always passes: there are no more of these than starts. Of the others there may
    be twice as many ids, so that who has no room for starts still has it for them.
    """
    user_id, keeping = envelope.principal.user_id, context.policy.keeping
    if isinstance(envelope.command, GetStatus):
        held, in_all = table.without_effect.of(user_id), table.without_effect.in_all
        share = READS_BYTES_IN_ALL_MAX // max(1, len(table.without_effect))
        if (
            held.count >= READS_MAX
            or held.size_bytes >= READS_BYTES_MAX
            or (in_all.size_bytes >= READS_BYTES_IN_ALL_MAX and held.size_bytes >= share)
        ):
            raise Refused(
                ErrorCode.TOO_MANY_COMMANDS,
                f"{user_id} has {held.count} answers that are kept for a moment; ask less often",
            )
        return
    urgent = is_urgent(envelope.command)
    if urgent and changes_others(envelope, decision):
        return
    times = 2 if urgent else 1
    ids, most_in_all = table.ids_of(user_id), times * keeping.ids_in_all
    share = most_in_all // max(1, table.remembered.principals, len(table.with_effect))
    if ids >= times * keeping.ids or (table.ids_in_all >= most_in_all and ids >= share):
        raise Refused(
            ErrorCode.TOO_MANY_COMMANDS,
            f"the ids of {ids} commands of {user_id} are remembered, each for "
            f"{keeping.id_days:g} days, and there is no room for more; `[keep] ids` and "
            "`ids_in_all` of jobbus.toml say how many there may be",
        )


def changes_others(envelope: Envelope, decision: Decision | None) -> bool:
    """Whether the command leads to more than its own record."""
    if decision is None or decision.effects:
        return True
    return any(getattr(e, "command_id", None) != envelope.id for e in decision.events)
