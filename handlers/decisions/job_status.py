"""What a `status` command answers.

Pure: no IO, no clock, no entropy.
"""

from collections.abc import Iterable

import msgspec

from bus.commands import GetStatus
from bus.envelope import Envelope
from bus.job_definition import Job
from bus.model import Execution, ExecutionStatus, Outcome
from bus.views import ExecutionView, execution_view, job_view
from handlers.decisions.command_events import accepted_as, completed
from handlers.decisions.decision import Context, Decision
from handlers.decisions.permissions import visible_job
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.waiting_reasons import waiting_for

_EXECUTIONS_MAX = 100


def status(
    table: ReadableTable, envelope: Envelope, command: GetStatus, context: Context
) -> Decision:
    job = check_status(table, envelope, command, context)
    live = table.live_of(job.id)[:_EXECUTIONS_MAX]
    last = next(iter(table.executions_of(job.id)), None)
    entry = {
        "job": job_view(job),
        "status": status_word(live, last),
        "executions": [_view(table, e, context) for e in live],
        "last": _view(table, last, context) if last is not None else None,
    }
    result = msgspec.Raw(msgspec.json.encode(entry))
    ended = completed(envelope.id, Outcome.DONE, result=result)
    return Decision((accepted_as(envelope, job.id), ended))


def _view(table: ReadableTable, execution: Execution, context: Context) -> ExecutionView:
    return execution_view(execution, waiting_for(table, execution, context.now_ms))


def check_status(
    table: ReadableTable, envelope: Envelope, command: GetStatus, context: Context
) -> Job:
    """The job, if the principal may view it; raises Refused if not."""
    return visible_job(table, envelope, command.job_id, context)


def status_word(live: Iterable[Execution], last: Execution | None) -> str:
    """One word for a job: the furthest of its live executions, else how the last one ended."""
    order = [
        ExecutionStatus.RUNNING,
        ExecutionStatus.STARTING,
        ExecutionStatus.STOPPING,
        ExecutionStatus.UNKNOWN,
        ExecutionStatus.QUEUED,
    ]
    present = {execution.status for execution in live}
    for candidate in order:
        if candidate in present:
            return candidate.value
    return last.status.value if last is not None else "Idle"
