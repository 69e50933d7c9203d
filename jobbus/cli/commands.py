"""`start`, `stop`, `cancel` and others: a command goes out, by HTTP or into the data directory."""

import asyncio
import os
import pwd
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from cyclopts import Parameter

from bus.access import ADMIN
from bus.clock import rfc3339
from bus.commands import command_decoder, job_of, kind_of
from bus.envelope import canonical_uuid, seal
from bus.layout import DataLayout
from bus.model import CommandStatus, Principal
from jobbus.cli.exits import CliError, Exit, exit_of_command
from jobbus.cli.show import say, show_command
from jobbus.cli.target import HERE, Place, Target, client_of, locate
from jobbus.cli.values import looks_typed, variables_of
from jobbus.client.calls import WAIT_S_MAX
from jobbus.client.commands import (
    CancelCommand,
    CommandRequest,
    DeleteExecution,
    RestartJob,
    RetryExecution,
    StartJob,
    StopJob,
)
from jobbus.client.errors import WaitTimeout
from jobbus.client.records import Command, Variable
from jobbus.service.instance import prepare, secret_key
from transports.directory.offline_publisher import publish_offline

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON")]
Variables = Annotated[
    tuple[str, ...],
    Parameter(
        name=("--var", "-V"),
        negative=(),
        show_default=False,
        help="A variable, NAME=VALUE, typed as the job declares it; or NAME:=JSON",
    ),
]
Grace = Annotated[
    float | None,
    Parameter(name="--grace", help="Seconds between the stop signal and KILL", show_default=False),
]
Kill = Annotated[bool, Parameter(negative=(), help="Kill at once")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reply:
    """The flags that say what is to be heard of a command, and when."""

    wait: Annotated[bool, Parameter(negative=(), help="Wait until the command has ended")] = False
    timeout: Annotated[
        float | None,
        Parameter(help="Seconds to wait at most; then exit code 124", show_default=False),
    ] = None
    as_json: Json = False


AT_ONCE = Reply()


async def start(
    job: str,
    /,
    *,
    var: Variables = (),
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Start a job once: prints the command's id and status.

    Parameters
    ----------
    job
        The job's id, App/Job.
    """
    place = locate(target)
    values = variables_of(var, await declared_variables(place, job, var))
    return await _send(place, StartJob(job_id=job, variables=values), reply)


async def stop(
    what: str,
    /,
    *,
    grace: Grace = None,
    kill: Kill = False,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Stop one execution, or all of a job's.

    Parameters
    ----------
    what
        An execution's id, or a job's, App/Job.
    """
    job_id, execution_id = job_or_execution(what)
    command = StopJob(job_id=job_id, execution_id=execution_id, grace_s=grace, kill=kill)
    return await _send(locate(target), command, reply)


async def restart(
    what: str,
    /,
    *,
    var: Variables = (),
    grace: Grace = None,
    kill: Kill = False,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Stop what runs and start it again, with its old variables unless new ones are given.

    Parameters
    ----------
    what
        An execution's id, or a job's, App/Job.
    """
    place = locate(target)
    job_id, execution_id = job_or_execution(what)
    declared = await declared_variables(place, job_id, var) if job_id is not None else None
    command = RestartJob(
        job_id=job_id,
        execution_id=execution_id,
        variables=variables_of(var, declared) if var else None,
        grace_s=grace,
        kill=kill,
    )
    return await _send(place, command, reply)


async def cancel(
    command: str,
    /,
    *,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Take back a command whose execution still waits for its turn.

    Parameters
    ----------
    command
        A command's id.
    """
    taken_back = CancelCommand(target_id=_id_of(command, "a command"))
    return await _send(locate(target), taken_back, reply)


async def retry(
    execution: str,
    /,
    *,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Start the job of an ended execution again, with the same variables.

    Parameters
    ----------
    execution
        An execution's id.
    """
    command = RetryExecution(execution_id=_id_of(execution, "an execution"))
    return await _send(locate(target), command, reply)


async def delete(
    execution: str,
    /,
    *,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Forget an ended execution and remove its output.

    Parameters
    ----------
    execution
        An execution's id.
    """
    command = DeleteExecution(execution_id=_id_of(execution, "an execution"))
    return await _send(locate(target), command, reply)


def _id_of(text: str, of_what: str) -> str:
    try:
        return canonical_uuid(text)
    except ValueError as exc:
        raise CliError(f"{text!r} is not the id of {of_what}: {exc}", Exit.USAGE) from exc


def job_or_execution(what: str) -> tuple[str | None, str | None]:
    """Job id and execution id, one of which is None.

    Raises:
        CliError: `what` looks like neither.
    """
    if "/" in what:
        return what, None
    try:
        return None, canonical_uuid(what)
    except ValueError as exc:
        raise CliError(
            f"{what!r} is neither a job's id (App/Job) nor an execution's (a UUID)", Exit.USAGE
        ) from exc


async def declared_variables(
    place: Place, job_id: str, var: tuple[str, ...]
) -> Mapping[str, Variable] | None:
    """What the service knows about the job's variables; None if there is no service to ask."""
    if not var:
        return None
    if place.url is None:
        for assignment in filter(looks_typed, var):
            name = assignment.partition("=")[0]
            say(f"no service to ask for types: {assignment} is text; write {name}:=… for JSON")
        return None
    async with client_of(place) as client:
        return (await client.job(job_id)).variables


async def _send(place: Place, command: CommandRequest, reply: Reply) -> int:
    if place.url is None:
        assert place.layout is not None
        answer = await asyncio.to_thread(_into_directory, place.layout, command)
        say(f"no service runs for {place.layout.root}; the command waits there for one")
        show_command(answer, as_json=reply.as_json)
        if reply.wait:
            raise CliError("there is no service to wait for", Exit.UNREACHABLE)
        return Exit.OK
    async with client_of(place) as client:
        timeout_s = reply.timeout
        wait_s = WAIT_S_MAX if timeout_s is None else min(int(timeout_s), WAIT_S_MAX)
        begun_s = time.monotonic()
        answer = await client.publish(command, wait_s=wait_s if reply.wait else 0)
        if reply.wait:
            left_s = None if timeout_s is None else timeout_s - (time.monotonic() - begun_s)
            try:
                answer = await client.wait_command(answer.command_id, timeout_s=left_s)
            except WaitTimeout as late:
                raise WaitTimeout(
                    f"command {answer.command_id} has not ended within {timeout_s:g} s; it goes on"
                ) from late
    show_command(answer, as_json=reply.as_json)
    return exit_of_command(answer)


def _into_directory(layout: DataLayout, request: CommandRequest) -> Command:
    """The command is durable in the directory's queue. Blocking."""
    if layout.root.stat().st_uid != os.geteuid():
        # What is made here would belong to this account, and the service could not use it.
        raise CliError(
            f"no service runs for {layout.root}, and only the account that owns it may leave "
            "commands there this way",
            Exit.NOT_PERMITTED,
        )
    prepare(layout)
    # Who may read the directory's secret could as well use its admin token.
    principal = Principal(user_id=_account(), roles=(ADMIN,), via="cli")
    command = command_decoder.decode(msgspec.json.encode(request))
    envelope = seal(command, principal, now_ms=time.time_ns() // 1_000_000)
    publish_offline(layout, envelope, secret_key(layout))
    return Command(
        command_id=envelope.id,
        status=CommandStatus.PENDING,
        command=kind_of(command),
        job_id=job_of(command),
        user_id=principal.user_id,
        submitted_at=rfc3339(envelope.submitted_ms),
    )


def _account() -> str:
    """The name of the account, not what the environment calls it."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"  # an account without a name, as in some containers
