"""The record of a command that is not attempted, and what must not stand in it.

Pure: no IO, no clock, no entropy.
"""

from typing import get_args

from bus.commands import AnyCommand, Report, RestartJob, StartJob, job_of, kind_of
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.events import CommandAccepted, CommandEnded
from bus.jobs import JobSpec
from bus.model import CommandStatus, Value
from bus.ports import Policy, TableReader
from handlers.catalog.variables import reveals
from handlers.decisions.decision import Circumstances, Decision
from handlers.decisions.lasting import READS_BYTES_MAX
from handlers.decisions.readable_table import ReadableTable

_REPORTS = get_args(Report)

_UNATTEMPTED: dict[str, CommandStatus] = {
    ErrorCode.EXPIRED: CommandStatus.EXPIRED,
    ErrorCode.SUPERSEDED: CommandStatus.CANCELLED,
    ErrorCode.CANCELLED: CommandStatus.CANCELLED,
}


def refusal(
    table: ReadableTable, envelope: Envelope, refused: Refused, around: Circumstances
) -> Decision:
    """The record of a command that was not attempted.

    If a secret may stand in it in clear, nothing is kept of its body: not even the hash, by which
    a value could be guessed. Nothing of the variables is, either, of who has sent too many already.
    """
    command = envelope.command
    is_telling = refused.code is ErrorCode.SECRET_BY_VALUE or tells_secret(
        table, command, around.policy
    )
    assert not isinstance(command, _REPORTS), "reports are never refused"
    held_bytes = table.without_effect.of(envelope.principal.user_id).size_bytes
    is_bare = is_telling or held_bytes >= READS_BYTES_MAX
    return Decision(
        (
            CommandAccepted(
                command_id=envelope.id,
                kind=kind_of(command),
                user_id=envelope.principal.user_id,
                submitted_ms=envelope.submitted_ms,
                body_hash="" if is_telling else envelope.body_hash,
                job_id=job_of(command),
                roles=envelope.principal.roles,
                via=envelope.principal.via,
                variables=None if is_bare else _variables_of(command),
                submitted_text=envelope.submitted_text,
                id_text=envelope.id_text,
                attempted=False,
            ),
            CommandEnded(
                command_id=envelope.id,
                status=_UNATTEMPTED.get(refused.code, CommandStatus.REJECTED),
                error_code=refused.code,
                error=refused.message,
            ),
        )
    )


def _variables_of(command: AnyCommand) -> dict[str, Value] | None:
    return command.variables if isinstance(command, StartJob | RestartJob) else None


def tells_secret(table: TableReader, command: AnyCommand, policy: Policy) -> bool:
    """Whether a value that was meant to be secret may stand in the command: it must not be kept,
    whatever else is wrong with it, and whoever may not hear of the job."""
    job_id = job_of(command)
    if isinstance(command, RestartJob) and command.execution_id is not None:
        execution = table.execution(command.execution_id)
        job_id = execution.job_id if execution is not None else job_id
    job = table.job(job_id) if job_id is not None else None
    spec = job.spec if job is not None and job.spec is not None else JobSpec(command=())
    return reveals(spec, _variables_of(command) or {}, policy.secrets)
