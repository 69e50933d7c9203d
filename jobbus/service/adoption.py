"""The first thing that a start decides: which definitions are in force, and what became of the
executions that the last service left.
"""

from collections.abc import Sequence

import structlog

from bus.commands import ApplyCatalog, Definition, PassTime, SetGroups, SetMaintenance
from bus.model import Execution, ExecutionStatus
from bus.threads import DISK
from jobbus.service.draining import DRAIN
from jobbus.service.wiring import Parts, notes_on_roles

log = structlog.get_logger("jobbus")


async def adopt(parts: Parts) -> None:
    """The catalog is in force, live executions are adopted or reconciled, and the files of results
    and states are true. The supervisor runs, the owner does not: its batches are handled here."""
    await parts.space.look()  # before anything is accepted
    await _log_findings(parts)
    definitions = await DISK.run(parts.catalog.first)
    clock = parts.scheduler.first_report()
    if clock is not None:
        parts.inbox.report(clock)
    parts.inbox.report(SetGroups(limits=parts.settings.group_limits()))
    parts.inbox.report(ApplyCatalog(definitions=definitions))
    table = parts.table
    if table.maintenance is not None and table.maintenance.by == DRAIN:
        parts.inbox.report(SetMaintenance(on=False, by=DRAIN))
    live = [e for e in table.live_executions() if e.status is not ExecutionStatus.QUEUED]
    poison = await DISK.run(parts.transport.look_back)
    await parts.supervisor.adopt([(e, table.spec(e.job_id, e.revision)) for e in live], poison)
    parts.inbox.report(PassTime())  # a delay may have passed, a slot may be free by now
    while len(parts.inbox):
        await parts.owner.handle(await parts.inbox.take())
    _repeat_stop_orders(parts, live)
    _log_outcome(parts, live, definitions)
    if not parts.recovered.clean:
        await parts.projections.rewrite(parts.recovered.projected)


def _repeat_stop_orders(parts: Parts, live: Sequence[Execution]) -> None:
    """An order may have been recorded and not yet passed on when the last service died."""
    for execution in live:
        now = parts.table.execution(execution.id)
        if now is not None and now.status is ExecutionStatus.STOPPING:
            parts.supervisor.stop(now)


async def _log_findings(parts: Parts) -> None:
    for note in parts.recovered.notes:
        log.warning("journal", note=note)
    for complaint in await DISK.run(parts.secrets.complaints):
        log.warning("jobs with this secret cannot start", reason=complaint)


def _log_outcome(
    parts: Parts, live: Sequence[Execution], definitions: Sequence[Definition]
) -> None:
    parts.job_log.begun(live, definitions)
    for sentence in notes_on_roles(parts):
        log.warning("a role without effect", reason=sentence)
