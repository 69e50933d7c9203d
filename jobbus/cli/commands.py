"""`start`, `stop`, `restart`, `cancel`, `retry`, `delete`: commands to the service."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from cyclopts import Parameter

from bus.wording import quoted
from jobbus.cli.answers import AT_ONCE, Reply, left_in_directory, published, show_answer
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.naming import (
    LIVE,
    execution_meant,
    for_each,
    full_id,
    is_job_name,
    job_called,
    job_expected,
    listed,
    meaning,
)
from jobbus.cli.show import say
from jobbus.cli.target import HERE, Target, client_of, locate
from jobbus.cli.values import coming_moment, looks_typed, variables_of
from jobbus.client.client import Client
from jobbus.client.command_records import (
    CancelCommand,
    CommandRequest,
    DeleteExecution,
    RestartJob,
    RetryExecution,
    StartJob,
    StopJob,
    Value,
)
from jobbus.client.records import Execution, Job, Variable

GRACE_S_MAX = 86_400

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
At = Annotated[
    str | None,
    Parameter(
        name="--at",
        show_default=False,
        help="Not before then: 18:00, +2h, 2026-11-30 18:00 (this machine's clock) or RFC 3339",
    ),
]
Kill = Annotated[bool, Parameter(negative=(), help="Kill at once")]


async def start(
    job: str,
    /,
    *,
    var: Variables = (),
    at: At = None,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Start a job once: prints the execution's id, and on a terminal what to do next.

    Parameters
    ----------
    job
        The job's id, App/Job.
    """
    reply.check()
    place = locate(target)
    _check_job(job)
    moment = _moment(at)
    if place.url is None:
        request = StartJob(job_id=job, variables=_untyped(var), not_before=moment)
        return await left_in_directory(place, request, reply)
    async with client_of(place) as client:
        async with job_expected(client, job):
            values = variables_of(var, await declared_variables(client, job, var))
            request = StartJob(job_id=job, variables=values, not_before=moment)
            answer = await published(client, request, reply)
        return await show_answer(client, answer, reply)


async def stop(
    what: tuple[str, ...],
    /,
    *,
    all_: Annotated[
        bool, Parameter(name="--all", negative=(), help="All executions of a job, not just one")
    ] = False,
    grace: Grace = None,
    kill: Kill = False,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Stop executions. Of a job with several that run, say which, or --all.

    Parameters
    ----------
    what
        Ids of executions, of the commands that made them, or of jobs (App/Job).
    """

    _check_grace(grace)

    def order(job_id: str | None, execution_id: str | None) -> StopJob:
        return StopJob(job_id=job_id, execution_id=execution_id, grace_s=grace, kill=kill)

    async def stop_one(client: Client, word: str) -> CommandRequest:
        meant = await meaning(client, word)
        if not isinstance(meant, Job):
            found = meant if isinstance(meant, Execution) else await execution_meant(client, word)
            return order(None, found.execution_id)
        live = (await client.executions(job=meant.job_id, status=LIVE, limit=100)).items
        if len(live) > 1 and not all_:
            raise CliError(
                f"{len(live)} executions of {meant.job_id} have not ended: {listed(live)}; "
                "say which, or --all",
                Exit.CONFLICT,
            )
        return order(meant.job_id, None)

    def stop_offline(word: str) -> CommandRequest:
        return order(word, None) if is_job_name(word) else order(None, full_id(word, _EXECUTION))

    return await _each(what, stop_one, stop_offline, reply, target)


async def restart(
    what: tuple[str, ...],
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
        Ids of executions, of the commands that made them, or of jobs (App/Job).
    """

    def order(job_id: str | None, execution_id: str | None, values: dict[str, Value]) -> RestartJob:
        return RestartJob(
            job_id=job_id,
            execution_id=execution_id,
            variables=values if var else None,
            grace_s=grace,
            kill=kill,
        )

    async def restart_one(client: Client, word: str) -> CommandRequest:
        meant = await meaning(client, word)
        if isinstance(meant, Job):
            return order(meant.job_id, None, variables_of(var, meant.variables))
        found = meant if isinstance(meant, Execution) else await execution_meant(client, word)
        declared = await declared_variables(client, found.job_id, var)
        return order(None, found.execution_id, variables_of(var, declared))

    def restart_offline(word: str) -> CommandRequest:
        values = _untyped(var)
        if is_job_name(word):
            return order(word, None, values)
        return order(None, full_id(word, _EXECUTION), values)

    return await _each(what, restart_one, restart_offline, reply, target)


async def cancel(
    what: tuple[str, ...],
    /,
    *,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Take back commands whose executions still wait for their turn.

    Parameters
    ----------
    what
        Ids of commands, of the executions that they made, or of jobs (App/Job).
    """

    async def cancel_one(client: Client, word: str) -> CommandRequest:
        meant = await meaning(client, word)
        if not isinstance(meant, Job):
            return CancelCommand(target_id=meant.command_id)
        page = await client.executions(job=meant.job_id, status=("Queued",), limit=100)
        waiting = page.items
        if len(waiting) == 1:
            return CancelCommand(target_id=waiting[0].command_id)
        if not waiting:
            raise CliError(f"no execution of {meant.job_id} waits for its turn", Exit.CONFLICT)
        raise CliError(
            f"{len(waiting)} executions of {meant.job_id} wait: {listed(waiting)}; say which",
            Exit.CONFLICT,
        )

    def cancel_offline(word: str) -> CommandRequest:
        return CancelCommand(target_id=full_id(word, "a command"))

    return await _each(what, cancel_one, cancel_offline, reply, target)


async def retry(
    what: tuple[str, ...],
    /,
    *,
    at: At = None,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Start the jobs of ended executions again, with the same variables.

    Parameters
    ----------
    what
        Ids of executions, of the commands that made them, or of jobs (App/Job), for the newest.
    """

    moment = _moment(at)

    async def retry_one(client: Client, word: str) -> CommandRequest:
        found = await execution_meant(client, word)
        return RetryExecution(execution_id=found.execution_id, not_before=moment)

    def retry_offline(word: str) -> CommandRequest:
        return RetryExecution(execution_id=full_id(word, _EXECUTION), not_before=moment)

    return await _each(what, retry_one, retry_offline, reply, target)


async def delete(
    what: tuple[str, ...],
    /,
    *,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Forget ended executions and remove their output.

    Parameters
    ----------
    what
        Ids of executions, or of the commands that made them.
    """

    async def delete_one(client: Client, word: str) -> CommandRequest:
        if is_job_name(word):
            job = await job_called(client, word)
            raise CliError(
                f"{job.job_id} is a job: name the executions that are to be deleted; "
                f"jobbus ps -a --job {job.job_id} lists them",
                Exit.USAGE,
            )
        return DeleteExecution(execution_id=(await execution_meant(client, word)).execution_id)

    def delete_offline(word: str) -> CommandRequest:
        return DeleteExecution(execution_id=full_id(word, _EXECUTION))

    return await _each(what, delete_one, delete_offline, reply, target)


_EXECUTION = "an execution"


async def declared_variables(
    client: Client, job_id: str, var: tuple[str, ...]
) -> Mapping[str, Variable] | None:
    """What the service knows about the job's variables, if some are given."""
    return (await job_called(client, job_id)).variables if var else None


async def _each(
    words: tuple[str, ...],
    request: Callable[[Client, str], Awaitable[CommandRequest]],
    offline: Callable[[str], CommandRequest],
    reply: Reply,
    target: Target,
) -> int:
    """The command was sent for each word, and what became of it shown; the exit code."""
    reply.check()
    place = locate(target)
    if place.url is None:
        return await for_each(words, lambda word: left_in_directory(place, offline(word), reply))
    async with client_of(place) as client:

        async def act(word: str) -> int:
            answer = await published(client, await request(client, word), reply)
            return await show_answer(client, answer, reply)

        return await for_each(words, act)


def _check_job(word: str) -> None:
    if not word.strip():
        raise CliError("the name of the job is empty; jobs are called App/Job", Exit.USAGE)
    if "=" in word:
        raise CliError(f"{quoted(word)} is no job; a variable is given as --var {word}", Exit.USAGE)


def _moment(at: str | None) -> str | None:
    return coming_moment("--at", at, time.time()) if at is not None else None


def _check_grace(grace_s: float | None) -> None:
    if grace_s is not None and not 0 <= grace_s <= GRACE_S_MAX:
        raise CliError(f"--grace must be from 0 to {GRACE_S_MAX} seconds", Exit.USAGE)


def _untyped(var: tuple[str, ...]) -> dict[str, Value]:
    """Variables for a command that no service has typed."""
    for assignment in filter(looks_typed, var):
        name = assignment.partition("=")[0]
        say(f"no service to ask for types: {assignment} is text; write {name}:=… for JSON")
    return variables_of(var, None)
