"""Which of a job's queued executions may start: who has a slot, who waits for what. Pure."""

from collections.abc import Collection, Iterable, Iterator

from bus.job_definition import Job
from bus.model import Execution
from handlers.decisions.decision import Decision, SpawnExecution
from handlers.decisions.delays import is_delayed_start, is_due, unattended_spec
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.retries import start_of


def next_to_start(
    table: ReadableTable,
    job_id: str,
    now_ms: int,
    *,
    freed: Execution | None = None,
    without: Collection[str] = (),
    job: Job | None = None,
    after_maintenance: bool = False,
    is_low: bool = False,
) -> Iterator[Execution]:
    """The queued executions that may start now; none during maintenance, unless its end is decided.

    `freed` is one whose end is being decided, `without` are waiting ones whose end is; `job` is
    the entry of the catalog about to be in force.
    """
    if table.maintenance is not None and not after_maintenance:
        return
    job_id = table.name_now(job_id)
    busy = [e for e in table.in_slots(job_id) if freed is None or e.id != freed.id]
    busy_ids = {e.id for e in busy}
    job = job or table.job(job_id)
    slots = job.spec.max_running if job is not None and job.spec is not None else 1
    for execution in table.queued(job_id):
        if len(busy_ids) >= slots:
            return
        if execution.id in without:
            continue
        if execution.replaces in busy_ids or not is_due(execution, now_ms):
            continue
        if is_low and execution.replaces is None and execution.previous is None:
            continue  # new work; what takes the place of another needs no more than that did
        if is_delayed_start(execution) and unattended_spec(job) is None:
            continue
        busy_ids.add(execution.id)
        yield execution


def starts(
    table: ReadableTable, executions: Iterable[Execution], job: Job | None = None
) -> Decision:
    """The starts of queued executions; `job` is the entry of the catalog about to be in force."""
    taken = list(executions)
    return Decision(
        tuple(start_of(table, execution, job) for execution in taken),
        tuple(SpawnExecution(execution.id) for execution in taken),
    )
