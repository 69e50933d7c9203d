"""Who may do what with which job or execution, as refusals with a sentence.

Pure: no IO, no clock, no entropy.
"""

from bus.access import Action, may
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.jobs import Job, JobSpec
from bus.model import Execution
from handlers.decisions.decision import Circumstances
from handlers.decisions.readable_table import ReadableTable

_SHOWN_MAX = 200
"""Characters of a name that is no job's, as they are told back."""


def visible_job(
    table: ReadableTable, envelope: Envelope, job_id: str, around: Circumstances
) -> Job:
    job = table.job(job_id)
    if job is None or not _may(table, envelope, Action.VIEW, job_id, around):
        shown = job_id[:_SHOWN_MAX]
        raise Refused(ErrorCode.UNKNOWN_JOB, f"there is no job {shown!r}", pointer="/jobId")
    return job


def startable_job(
    table: ReadableTable, envelope: Envelope, job_id: str, action: Action, around: Circumstances
) -> tuple[Job, JobSpec]:
    job = visible_job(table, envelope, job_id, around)
    if job.spec is None:
        where = f" ({job.fault.file}:{job.fault.line}: {job.fault.reason})" if job.fault else ""
        raise Refused(ErrorCode.INVALID_JOB, f"the definition of {job_id} is faulty{where}")
    if not _may(table, envelope, action, job_id, around):
        raise Refused(
            ErrorCode.NOT_PERMITTED, f"you may not {action} {job_id}: none of your roles allows it"
        )
    if job.spec.disabled:
        raise Refused(ErrorCode.DISABLED, f"{job_id} is disabled by its definition")
    if table.maintenance is not None:
        why = f": {table.maintenance.reason}" if table.maintenance.reason else ""
        raise Refused(ErrorCode.MAINTENANCE, f"nothing is started during maintenance{why}")
    return job, job.spec


def may_stop(
    table: ReadableTable, envelope: Envelope, job_id: str | None, around: Circumstances
) -> bool:
    return _may(table, envelope, Action.STOP, job_id, around)


def may_view(
    table: ReadableTable, envelope: Envelope, job_id: str | None, around: Circumstances
) -> bool:
    return _may(table, envelope, Action.VIEW, job_id, around)


def permitted_execution(
    table: ReadableTable,
    envelope: Envelope,
    execution_id: str,
    action: Action,
    around: Circumstances,
) -> Execution:
    execution = table.execution(execution_id)
    roles = table.roles(execution.job_id) if execution is not None else None
    principal, defaults = envelope.principal, around.policy.roles
    if execution is None or not may(
        principal, Action.VIEW, roles, defaults, owner=execution.user_id
    ):
        raise Refused(
            ErrorCode.UNKNOWN_EXECUTION,
            f"there is no execution {execution_id}",
            pointer="/executionId",
        )
    if not may(principal, action, roles, defaults, owner=execution.user_id):
        raise Refused(
            ErrorCode.NOT_PERMITTED,
            f"you may not {action} {execution.job_id}: none of your roles allows it",
        )
    return execution


def same_job(execution: Execution, job_id: str | None) -> None:
    if job_id is not None and job_id != execution.job_id:
        raise Refused(
            ErrorCode.UNKNOWN_EXECUTION,
            f"there is no execution {execution.id} of {job_id}",
            pointer="/executionId",
        )


def _may(
    table: ReadableTable,
    envelope: Envelope,
    action: Action,
    job_id: str | None,
    around: Circumstances,
) -> bool:
    roles = table.roles(job_id) if job_id is not None else None
    return may(envelope.principal, action, roles, around.policy.roles)
