"""What a changed catalog leads to: jobs defined, changed, faulty, removed. Pure."""

from collections.abc import Iterable, Iterator

from bus.commands import ApplyCatalog, Definition
from bus.events import (
    AnyEvent,
    JobChanged,
    JobDefined,
    JobInvalid,
    JobRemoved,
)
from bus.job_definition import Job, JobSpec
from bus.model import Execution, ExecutionStatus, Reason
from handlers.decisions.decision import Context, Decision, joined
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.retries import is_still_ordered
from handlers.decisions.schedules import schedules_begun
from handlers.decisions.slots import Soon, next_to_start, starts
from handlers.decisions.waiting_commands import end_unstarted


def apply_catalog(table: ReadableTable, report: ApplyCatalog, context: Context) -> Decision:
    """The events that turn the table's catalog into the one on disk; none if they are equal."""
    events: list[AnyEvent] = []
    unwanted: list[Execution] = []
    new: dict[str, Job] = {}
    for definition in report.definitions:
        difference = _difference(table, definition)
        events += difference
        if difference and definition.spec is not None:
            job = Job(id=definition.job_id, spec=definition.spec, revision=definition.revision)
            new[job.id] = job
            ordered = list(_unwanted(table, job.id, definition.spec))
            events += schedules_begun(table, job.id, definition.spec, context)
            events += _called_off(table, ordered, context)
            unwanted += ordered
    present = {definition.job_id for definition in report.definitions}
    heirs = {
        name: definition.spec
        for definition in report.definitions
        if definition.spec is not None
        for name in definition.spec.formerly
    }
    removed = (
        _removed(table, job.id, heirs.get(job.id), context)
        for job in table.jobs()
        if job.id not in present
    )
    # More slots than before let waiting executions start at once.
    followers = next_to_start(
        table,
        [job_id for job_id in new if table.queued(job_id)],
        context.now_ms,
        soon=Soon(without={execution.id for execution in unwanted}, jobs=new),
        is_low=context.is_low,
    )
    return joined([Decision(tuple(events)), starts(table, followers, new), *removed])


def _unwanted(table: ReadableTable, job_id: str, spec: JobSpec | None) -> Iterator[Execution]:
    """What waits because a policy ordered it that is no longer in force."""
    for execution in table.queued(job_id):
        if execution.cause and (spec is None or not is_still_ordered(execution, spec)):
            yield execution


def _removed(table: ReadableTable, job_id: str, heir: JobSpec | None, context: Context) -> Decision:
    """`heir` is the definition under which a renamed job goes on."""
    unwanted = _unwanted(table, job_id, heir)
    return Decision((*_called_off(table, unwanted, context), JobRemoved(job_id=job_id)))


def _called_off(
    table: ReadableTable, executions: Iterable[Execution], context: Context
) -> Iterator[AnyEvent]:
    for execution in executions:
        yield from end_unstarted(
            table, execution, ExecutionStatus.SKIPPED, Reason.DISABLED, context.now_ms
        )


def _difference(table: ReadableTable, definition: Definition) -> list[AnyEvent]:
    before = table.job(definition.job_id)
    if definition.fault is not None:
        if before is not None and before.fault == definition.fault:
            return []
        return [JobInvalid(job_id=definition.job_id, fault=definition.fault)]
    assert definition.spec is not None, definition.job_id
    if before is None or before.spec is None:
        kind: type[JobDefined | JobChanged] = JobDefined
    elif before.revision != definition.revision or before.fault is not None:
        kind = JobChanged
    else:
        return []
    return [kind(job_id=definition.job_id, revision=definition.revision, spec=definition.spec)]
