"""What a changed catalog leads to: jobs defined, changed, faulty, removed. Pure."""

from collections.abc import Iterator

from bus.commands import ApplyCatalog, Definition
from bus.events import (
    AnyEvent,
    ExecutionEnded,
    JobChanged,
    JobDefined,
    JobInvalid,
    JobRemoved,
)
from bus.jobs import Job, JobSpec
from bus.model import Execution, ExecutionStatus, Reason
from handlers.decisions.decision import Context, Decision, Effect, SpawnExecution
from handlers.decisions.policies import is_still_ordered, start_of
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.slots import next_to_start
from handlers.decisions.waiting_commands import end_waiting


def apply_catalog(table: ReadableTable, report: ApplyCatalog, context: Context) -> Decision:
    """The events that turn the table's catalog into the one on disk; none if they are equal."""
    events: list[AnyEvent] = []
    effects: list[Effect] = []
    for definition in report.definitions:
        difference = _difference(table, definition)
        events.extend(difference)
        if difference and definition.spec is not None:
            unwanted = list(_unwanted(table, definition.job_id, definition.spec))
            for execution in unwanted:
                events.extend(_called_off(table, execution, context))
            # More slots than before let waiting executions start at once.
            job = Job(id=definition.job_id, spec=definition.spec, revision=definition.revision)
            for execution in next_to_start(
                table,
                job.id,
                context.now_ms,
                without={execution.id for execution in unwanted},
                slots=definition.spec.max_running,
                is_low=context.is_low,
            ):
                events.append(start_of(table, execution, job))
                effects.append(SpawnExecution(execution.id))
    present = {definition.job_id for definition in report.definitions}
    for gone in [job.id for job in table.jobs() if job.id not in present]:
        for execution in _unwanted(table, gone, None):
            events.extend(_called_off(table, execution, context))
        events.append(JobRemoved(job_id=gone))
    return Decision(tuple(events), tuple(effects))


def _unwanted(table: ReadableTable, job_id: str, spec: JobSpec | None) -> Iterator[Execution]:
    """What waits because a policy ordered it that is no longer in force."""
    for execution in table.queued(job_id):
        if execution.cause and (spec is None or not is_still_ordered(execution, spec)):
            yield execution


def _called_off(table: ReadableTable, execution: Execution, context: Context) -> Iterator[AnyEvent]:
    final = ExecutionEnded(
        execution_id=execution.id,
        status=ExecutionStatus.SKIPPED,
        reason=Reason.DISABLED,
        ended_ms=context.now_ms,
        output_end=0,
    )
    return end_waiting(table, execution, final)


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
