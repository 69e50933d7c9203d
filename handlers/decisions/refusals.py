"""The events of a command that is not attempted, and what must not stand in them.

Pure: no IO, no clock, no entropy.
"""

from typing import get_args

from msgspec.structs import replace

from bus.commands import AnyCommand, Report, RestartJob, job_of, variables_of
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.job_definition import JobSpec
from bus.model import CommandStatus
from bus.ports import Policy
from handlers.catalog.variables import reveals
from handlers.decisions.command_events import accepted_as, ended_without_success
from handlers.decisions.decision import Context, Decision
from handlers.decisions.kept_commands import READS_BYTES_MAX
from handlers.decisions.readable_table import ReadableTable

_REPORTS = get_args(Report)

_UNATTEMPTED: dict[str, CommandStatus] = {
    ErrorCode.EXPIRED: CommandStatus.EXPIRED,
    ErrorCode.SUPERSEDED: CommandStatus.CANCELLED,
    ErrorCode.CANCELLED: CommandStatus.CANCELLED,
}


def refusal(
    table: ReadableTable, envelope: Envelope, refused: Refused, context: Context
) -> Decision:
    """The record of a command that was not attempted.

    If a secret may stand in it in clear, nothing is kept of its body: not even the hash, by which
    a value could be guessed. Nothing of the variables is, either, of who has sent too many already.
    """
    command = envelope.command
    is_revealing = refused.code is ErrorCode.SECRET_BY_VALUE or reveals_secret(
        table, command, context.policy
    )
    assert not isinstance(command, _REPORTS), "reports are never refused"
    held_bytes = table.without_effect.of(envelope.principal.user_id).size_bytes
    accepted = accepted_as(envelope, job_of(command), attempted=False)
    if is_revealing:
        accepted = replace(accepted, body_hash="")
    if is_revealing or held_bytes >= READS_BYTES_MAX:
        accepted = replace(accepted, variables=None)
    status = _UNATTEMPTED.get(refused.code, CommandStatus.REJECTED)
    ended = ended_without_success(envelope.id, status, refused.code, refused.message)
    return Decision((accepted, ended))


def reveals_secret(table: ReadableTable, command: AnyCommand, policy: Policy) -> bool:
    """Whether a value that was meant to be secret may stand in the command: it must not be kept,
    whatever else is wrong with it, and even if the principal may not view the job."""
    job_id = job_of(command)
    if isinstance(command, RestartJob) and command.execution_id is not None:
        execution = table.execution(command.execution_id)
        job_id = execution.job_id if execution is not None else job_id
    job = table.job(job_id) if job_id is not None else None
    spec = job.spec if job is not None and job.spec is not None else JobSpec(command=())
    return reveals(spec, variables_of(command) or {}, policy.secrets)
