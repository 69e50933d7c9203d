"""What begins and ends a maintenance. Pure."""

from bus.commands import SetMaintenance
from bus.events import SystemMaintenance
from handlers.decisions.decision import NOTHING, Context, Decision, joined
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.slots import Soon, next_to_start, starts


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
    followers = next_to_start(
        table,
        table.waiting_jobs(),
        context.now_ms,
        soon=Soon(after_maintenance=True),
        is_low=context.is_low,
    )
    return joined([over, starts(table, followers)])
