"""Who may do what with which job or execution, as refusals with a sentence.

Pure: no IO, no clock, no entropy.
"""

from collections.abc import Sequence

from bus.access import ADMIN, Action, may, role_words
from bus.envelope import RESERVED_USERS, Envelope
from bus.errors import ErrorCode, Refused
from bus.job_definition import Job, JobSpec, plain_id
from bus.model import Execution
from bus.wording import quoted
from handlers.decisions.decision import Context
from handlers.decisions.readable_table import ReadableTable

_WORDS_SHOWN_MAX = 10
"""Role words that a refusal repeats."""


def visible_job(table: ReadableTable, envelope: Envelope, job_id: str, context: Context) -> Job:
    job = table.job(job_id)
    if job is None or not _may(table, envelope, Action.VIEW, job_id, context):
        user = envelope.principal.user_id
        raise Refused(
            ErrorCode.UNKNOWN_JOB,
            f"no job {quoted(job_id)} that {user} may see"
            + (
                _spelled_right(table, envelope, job_id, context)
                or _roles_hint(table, envelope, context)
            ),
            pointer="/jobId",
        )
    return job


def startable_job(
    table: ReadableTable, envelope: Envelope, job_id: str, action: Action, context: Context
) -> tuple[Job, JobSpec]:
    job = visible_job(table, envelope, job_id, context)
    if job.spec is None:
        where = f" ({job.fault})" if job.fault else ""
        raise Refused(ErrorCode.INVALID_JOB, f"the definition of {job_id} is faulty{where}")
    if not _may(table, envelope, action, job_id, context):
        raise Refused(
            ErrorCode.NOT_PERMITTED,
            f"you may not {action} {job_id}: none of your roles allows it"
            + _roles_hint(table, envelope, context),
        )
    if job.spec.disabled:
        raise Refused(ErrorCode.DISABLED, f"{job_id} is disabled by its definition")
    if table.maintenance is not None:
        why = f": {table.maintenance.reason}" if table.maintenance.reason else ""
        raise Refused(ErrorCode.MAINTENANCE, f"nothing is started during maintenance{why}")
    return job, job.spec


def may_stop(
    table: ReadableTable, envelope: Envelope, job_id: str | None, context: Context
) -> bool:
    return _may(table, envelope, Action.STOP, job_id, context)


def may_start(
    table: ReadableTable, envelope: Envelope, job_id: str | None, context: Context
) -> bool:
    return _may(table, envelope, Action.START, job_id, context)


def may_view(
    table: ReadableTable, envelope: Envelope, job_id: str | None, context: Context
) -> bool:
    return _may(table, envelope, Action.VIEW, job_id, context)


def permitted_execution(
    table: ReadableTable,
    envelope: Envelope,
    execution_id: str,
    action: Action,
    context: Context,
) -> Execution:
    execution = table.execution(execution_id)
    roles = table.roles(execution.job_id) if execution is not None else None
    principal, defaults = envelope.principal, context.policy.roles
    if execution is None or not may(
        principal, Action.VIEW, roles, defaults, owner=execution.user_id
    ):
        raise Refused(
            ErrorCode.UNKNOWN_EXECUTION,
            f"there is no execution {execution_id} that {principal.user_id} may see"
            + _roles_hint(table, envelope, context),
            pointer="/executionId",
        )
    if not may(principal, action, roles, defaults, owner=execution.user_id):
        raise Refused(
            ErrorCode.NOT_PERMITTED,
            f"you may not {action} {execution.job_id}: none of your roles allows it"
            + _roles_hint(table, envelope, context),
        )
    return execution


def same_job(table: ReadableTable, execution: Execution, job_id: str | None) -> None:
    if job_id is not None and job_id not in (execution.job_id, table.name_now(execution.job_id)):
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
    context: Context,
) -> bool:
    roles = table.roles(job_id) if job_id is not None else None
    return may(envelope.principal, action, roles, context.policy.roles)


def _spelled_right(table: ReadableTable, envelope: Envelope, job_id: str, context: Context) -> str:
    """The end of the sentence that names the job which was meant, of those that the asker may see:
    Windows separates by a backslash and takes no notice of case, and people leave out the app."""
    meant = plain_id(table.name_now(job_id))
    for job in table.jobs():
        known = plain_id(job.id)
        if meant in (known, known.rpartition("/")[2]) and _may(
            table, envelope, Action.VIEW, job.id, context
        ):
            return f"; did you mean {quoted(job.id)}?"
    return "" if "/" in meant else "; a job's id is App/Job"


def _roles_hint(table: ReadableTable, envelope: Envelope, context: Context) -> str:
    """The end of the sentence for who wrote role words into a file: those that mean nothing here.

    Only files of the service's own account are believed; what other accounts may is set by uid.
    """
    principal = envelope.principal
    if principal.via != "directory" or principal.user_id.startswith(RESERVED_USERS):
        return ""
    if not principal.roles:
        return "; no role came that counts here (admin only with [directory] admin = true)"
    lists = (table.roles(job.id) for job in table.jobs())
    known = role_words(context.policy.roles, lists) | context.policy.mapped_roles | {ADMIN}
    unknown = [word for word in principal.roles if word not in known][:_WORDS_SHOWN_MAX]
    if not unknown:
        return f"; the roles that count are {_listed(principal.roles[:_WORDS_SHOWN_MAX])}"
    return (
        f"; nothing here knows the roles {_listed(unknown)}: say in [directory.role_map] of "
        f'jobbus.toml what they count as, such as {quoted(unknown[0])} = ["operator"], or list '
        "them in [roles] of the job"
    )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(map(quoted, words))
