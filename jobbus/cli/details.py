"""`inspect`, `command`: everything about a thing, and what became of a command."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from jobbus.cli.answers import AT_ONCE, Reply, check_timeout, refusal_word
from jobbus.cli.exits import Exit, exit_of_command
from jobbus.cli.naming import execution_meant, for_each, is_job_name, meaning
from jobbus.cli.show import on_terminal, say, show_json, show_line
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.words import short_id
from jobbus.client.client import Client
from jobbus.client.command_records import canonical_id
from jobbus.client.errors import ApiProblem
from jobbus.client.frames import OutputLine
from jobbus.client.records import Command, Execution, Job

_EXECUTIONS = 10
_LINES = 20
"""Last lines of output that `inspect` has."""
_ID_SIGNS = frozenset("0123456789abcdef-")
_T = TypeVar("_T")


class Everything(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is known of one thing; `inspect`."""

    execution: Execution | None = None
    command: Command | None = None
    job: Job | None = None
    executions: tuple[Execution, ...] = ()
    last_lines: tuple[OutputLine, ...] = ()


async def inspect(what: tuple[str, ...], /, *, target: Target = HERE) -> int:
    """Print everything about executions, commands or jobs as JSON, one document each.

    Parameters
    ----------
    what
        Ids of executions or commands, or jobs (App/Job).
    """
    async with Client(*service_at(target)) as client:

        async def show(word: str) -> int:
            show_json(await _everything(client, await meaning(client, word)))
            return Exit.OK

        return await for_each(what, show)


async def command(
    command_id: str,
    /,
    *,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Show what became of a command; the exit code is that of its outcome.

    Parameters
    ----------
    command_id
        The id of a command, of the execution that it made, or a job (App/Job), for its newest.
    """
    check_timeout(reply.timeout)
    async with Client(*service_at(target)) as client:
        id_ = await _command_meant(client, command_id)
        if reply.wait:
            answer = await client.wait_command(id_, timeout_s=reply.timeout)
        else:
            reply.check()
            answer = await client.command(id_)
    show_command(answer, as_json=reply.as_json)
    return exit_of_command(answer)


def show_command(answer: Command, *, as_json: bool) -> None:
    """A command with its status; why it did not work goes to stderr as well."""
    if as_json:
        show_json(answer)
        return
    narrow = on_terminal()
    words = [short_id(answer.command_id) if narrow else answer.command_id]
    words += [answer.command, answer.job_id or "", answer.status.lower(), answer.outcome or ""]
    if answer.execution_id:
        words.append(
            f"execution {short_id(answer.execution_id) if narrow else answer.execution_id}"
        )
    show_line(" ".join(filter(None, words)))
    if answer.error or answer.error_code:
        say(f"jobbus: {refusal_word(answer)}")


async def _command_meant(client: Client, word: str) -> str:
    """The id of the command: given whole, begun, or by the execution that it made."""
    try:
        id_ = canonical_id(word)
    except ValueError:
        found = (await client.commands(id=word, limit=2)).items if _may_begin(word) else ()
        if len(found) == 1:
            return found[0].command_id
        meant = await meaning(client, word)
    else:
        try:
            return (await client.command(id_)).command_id
        except ApiProblem as problem:
            if problem.status != 404:
                raise
        meant = await meaning(client, id_)
    if isinstance(meant, Job):
        meant = await execution_meant(client, word)
    return meant.command_id


def _may_begin(word: str) -> bool:
    return not is_job_name(word) and 4 <= len(word) < 36 and set(word.lower()) <= _ID_SIGNS


async def _everything(client: Client, meant: Job | Execution | Command) -> Everything:
    match meant:
        case Job():
            page = await client.executions(job=meant.job_id, limit=_EXECUTIONS)
            return Everything(job=meant, executions=page.items)
        case Command():
            return Everything(command=meant)
        case Execution():
            return Everything(
                execution=meant,
                command=await _found(client.command, meant.command_id),
                job=await _found(client.job, meant.job_id),
                last_lines=await last_lines(client, meant),
            )


async def last_lines(client: Client, execution: Execution) -> tuple[OutputLine, ...]:
    if execution.start_time is None:
        return ()
    try:
        page = await client.output_lines(execution.execution_id, tail=_LINES)
    except ApiProblem:
        return ()  # may be read by others only, or is not kept any more
    return page.lines[-_LINES:]


async def _found(look: Callable[[str], Awaitable[_T]], id_: str) -> _T | None:
    try:
        return await look(id_)
    except ApiProblem as problem:
        if problem.status not in (403, 404, 410):
            raise
        return None
