"""What begins and ends a maintenance. Pure."""

from bus.commands import SetMaintenance
from bus.events import SystemMaintenance
from bus.model import ExecutionStatus
from handlers.decisions.decision import NOTHING, Context, Decision, joined
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.slots import next_to_start, starts


def set_maintenance(table: ReadableTable, report: SetMaintenance, context: Context) -> Decision:
    """Nothing is started any more; or what had to wait for it starts now."""
    before = table.maintenance
    if not report.on:
        return _end(table, report, context) if before is not None else NOTHING
    if before is not None and (before.reason, before.by) == (report.reason, report.by):
        return NOTHING
    return Decision((SystemMaintenance(on=True, by=report.by, reason=report.reason),))


def _end(table: ReadableTable, report: SetMaintenance, context: Context) -> Decision:
    over = Decision((SystemMaintenance(on=False, by=report.by, reason=report.reason),))
    waiting = [e for e in table.live_executions() if e.status is ExecutionStatus.QUEUED]
    followers = (
        next_to_start(table, job_id, context.now_ms, after_maintenance=True, is_low=context.is_low)
        for job_id in dict.fromkeys(table.name_now(execution.job_id) for execution in waiting)
    )
    return joined([over, *(starts(table, each) for each in followers)])
