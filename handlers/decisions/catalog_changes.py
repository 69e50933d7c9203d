"""What a changed catalog leads to: jobs defined, changed, faulty, removed. Pure."""

from bus.commands import ApplyCatalog, Definition
from bus.events import AnyEvent, ExecutionStarted, JobChanged, JobDefined, JobInvalid, JobRemoved
from handlers.decisions.decision import Circumstances, Decision, Effect, SpawnExecution
from handlers.decisions.outcomes import next_to_start
from handlers.decisions.readable_table import ReadableTable


def apply_catalog(table: ReadableTable, report: ApplyCatalog, around: Circumstances) -> Decision:
    """The events that turn the table's catalog into the one on disk; none if they are equal."""
    events: list[AnyEvent] = []
    effects: list[Effect] = []
    for definition in report.definitions:
        difference = _difference(table, definition)
        events.extend(difference)
        if difference and definition.spec is not None:
            # More slots than before let waiting executions start at once.
            slots = definition.spec.max_running
            for execution in next_to_start(table, definition.job_id, around.now_ms, slots=slots):
                events.append(ExecutionStarted(execution_id=execution.id))
                effects.append(SpawnExecution(execution.id))
    present = {definition.job_id for definition in report.definitions}
    events.extend(JobRemoved(job_id=j.id) for j in table.jobs() if j.id not in present)
    return Decision(tuple(events), tuple(effects))


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
