"""What a word of a call means: a job, an execution or a command; and what was meant if it is none.

Every command that takes an id takes all of them: `App/Job`, the id of an execution or of a command,
or the beginning of one, as lists show it.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from difflib import get_close_matches

from bus.wording import quoted
from jobbus.cli.exits import CliError, Exit, exit_of
from jobbus.cli.show import say
from jobbus.cli.words import command_word, plain_ending, short_id, short_ids
from jobbus.client.client import Client
from jobbus.client.command_records import canonical_id
from jobbus.client.errors import ApiProblem, JobbusError, Unreachable
from jobbus.client.records import FINAL_EXECUTION, Command, Execution, Job

LIVE = ("Queued", "Starting", "Running", "Stopping", "Unknown")
"""The states of an execution that has not ended."""

BEGINNING_MIN = 4
_BEGINNING = re.compile(r"[0-9a-fA-F-]{4,35}")
_JOB = re.compile(r"[A-Za-z0-9][^/\\\s]*/[A-Za-z0-9][^/\\\s]*")
_SHOWN_MAX = 5
_NEAR_MAX = 3

assert not FINAL_EXECUTION.intersection(LIVE)

Meant = Job | Execution | Command


def is_job_name(word: str) -> bool:
    """Whether it is written like a job, `App/Job`, or as Windows would write one."""
    return "/" in word or "\\" in word


def full_id(word: str, of_what: str) -> str:
    """`word` as a whole id, for when there is no service that could complete it.

    Raises:
        CliError: it is none.
    """
    try:
        return canonical_id(word)
    except ValueError:
        raise CliError(
            f"{quoted(word)} is not the id of {of_what}; without a service it must be whole, such "
            "as 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
            Exit.USAGE,
        ) from None


async def meaning(client: Client, word: str) -> Meant:
    """What the word names; the id of a command that made an execution names that.

    Raises:
        CliError: there is no such thing, or more than one.
    """
    if is_job_name(word):
        return await job_called(client, word)
    try:
        id_ = canonical_id(word)
    except ValueError:
        return await _beginning(client, word)
    found = await _by_id(client, id_)
    if found is None:
        raise CliError(f"there is no execution or command {id_}", Exit.NOT_FOUND)
    return found


async def execution_meant(client: Client, word: str) -> Execution:
    """The execution that the word names; of a job the newest.

    Raises:
        CliError: there is none.
    """
    meant = await meaning(client, word)
    match meant:
        case Execution():
            return meant
        case Job(job_id=job_id):
            newest = (await client.executions(job=job_id, limit=1)).items
            if newest:
                return newest[0]
            raise CliError(
                f"{job_id} has not been started yet, as far as records are kept; "
                f"start it: jobbus start {job_id}",
                Exit.NOT_FOUND,
            )
        case Command():
            raise CliError(
                f"the {command_word(meant)} {short_id(meant.command_id)} made no execution; see: "
                f"jobbus command {meant.command_id}",
                Exit.NOT_FOUND,
            )


async def job_called(client: Client, word: str) -> Job:
    """The job; a job that is gone from the catalog counts while there are executions of it.

    Raises:
        CliError: there is none of that name; it says which was meant.
    """
    if not _JOB.fullmatch(word):
        raise await no_job(client, word)
    try:
        return await client.job(word)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
    if (await client.executions(job=word, limit=1)).items:
        return Job(job_id=word)
    raise await no_job(client, word)


@asynccontextmanager
async def job_expected(client: Client, word: str) -> AsyncIterator[None]:
    """A refusal in the block because there is no such job says which was meant."""
    try:
        yield
    except ApiProblem as problem:
        if problem.code != "unknown_job" and not (problem.status == 404 and is_job_name(word)):
            raise
        raise await no_job(client, word) from problem


async def no_job(client: Client, word: str) -> CliError:
    """The error for a name that no job has."""
    known = [job.job_id for job in (await client.jobs()).items]
    return CliError(f"there is no job {quoted(word)}{meant_jobs(word, known)}", Exit.NOT_FOUND)


def meant_jobs(word: str, known: Sequence[str]) -> str:
    """The end of the sentence about a job that is not there: those that may be meant."""
    plain = word.replace("\\", "/").casefold()
    by_name = {id_: id_.casefold() for id_ in known}
    same = [id_ for id_, name in by_name.items() if plain in (name, name.rpartition("/")[2])]
    near = same or _near(plain, by_name.values(), known) or _near_name(plain, known)
    if near:
        *others, last = map(quoted, near[:_NEAR_MAX])
        return f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
    if not known:
        return "; there are no jobs (that you may see): jobbus jobs"
    return "; a job's id is App/Job, and jobbus jobs lists them"


async def for_each(words: Iterable[str], act: Callable[[str], Awaitable[int]]) -> int:
    """`act` was called for each word; an error of a word is said, and the others go on.

    The exit code is the first that is not 0.
    """
    words = tuple(dict.fromkeys(words))
    if len(words) == 1:
        return await act(words[0])
    code = 0
    for word in words:
        try:
            ended = await act(word)
            code = code or ended
        except Unreachable:
            raise
        except (CliError, JobbusError) as error:
            say(f"jobbus: {error}")
            code = code or exit_of(error)
    return code


def listed(executions: Sequence[Execution]) -> str:
    """Some executions in a sentence, e.g. `01a22610-8e0f T/Talk running`."""
    more = len(executions) - _SHOWN_MAX
    return _enumerated(executions) + (f" and {more} more" if more > 0 else "")


def _enumerated(executions: Sequence[Execution]) -> str:
    """The first few, each in some words: why one failed may be as long as a screen."""
    shown = short_ids(execution.execution_id for execution in executions)
    return ", ".join(
        f"{shown[each.execution_id]} {each.job_id} {plain_ending(each).partition(': ')[0]}"
        for each in executions[:_SHOWN_MAX]
    )


async def _by_id(client: Client, id_: str) -> Execution | Command | None:
    try:
        return await client.execution(id_)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
    try:
        command = await client.command(id_)
    except ApiProblem as problem:
        if problem.status not in (404, 410):
            raise
        if problem.status == 410:
            raise CliError(str(problem), Exit.NOT_FOUND) from problem
        return None
    return await _made_by(client, command)


async def _made_by(client: Client, command: Command) -> Execution | Command:
    if command.execution_id is None:
        return command
    try:
        return await client.execution(command.execution_id)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
        return command  # the execution was deleted since


async def _beginning(client: Client, word: str) -> Meant:
    """What has an id that begins so; a word that is no beginning may be half a job's name."""
    if _BEGINNING.fullmatch(word):
        executions = (await client.executions(id=word, limit=_SHOWN_MAX + 1)).items
        if len(executions) == 1:
            return executions[0]
        if executions:
            raise _several(word, _enumerated(executions), len(executions))
        commands = (await client.commands(id=word, limit=_SHOWN_MAX + 1)).items
        if len(commands) == 1:
            return await _made_by(client, commands[0])
        if commands:
            ids = ", ".join(command.command_id for command in commands[:_SHOWN_MAX])
            raise _several(word, ids, len(commands))
    raise await _nothing(client, word)


def _several(word: str, ids: str, found: int) -> CliError:
    """Only the first few were asked for, so how many more there are is not known."""
    more = " and more" if found > _SHOWN_MAX else ""
    return CliError(
        f"{word} is the beginning of several ids: {ids}{more}; write more of it", Exit.USAGE
    )


async def _nothing(client: Client, word: str) -> CliError:
    known = [job.job_id for job in (await client.jobs()).items]
    hint = meant_jobs(word, known)
    if "did you mean" in hint:
        return CliError(f"there is no job {quoted(word)}{hint}", Exit.NOT_FOUND)
    if _BEGINNING.fullmatch(word):
        return CliError(
            f"there is no execution or command {word}; jobbus ps -a lists executions",
            Exit.NOT_FOUND,
        )
    return CliError(
        f"{quoted(word)} is no job (App/Job), and no id of an execution or a command, nor the "
        f"first {BEGINNING_MIN} or more characters of one",
        Exit.USAGE,
    )


def _near(plain: str, names: Iterable[str], known: Sequence[str]) -> list[str]:
    folded = {id_.casefold(): id_ for id_ in known}
    return [folded[name] for name in get_close_matches(plain[:200], names, n=1, cutoff=0.75)]


def _near_name(plain: str, known: Sequence[str]) -> list[str]:
    """Those whose part behind the slash is near: people leave out the app."""
    folded: dict[str, list[str]] = {}
    for id_ in known:
        folded.setdefault(id_.casefold().rpartition("/")[2], []).append(id_)
    near = get_close_matches(plain.rpartition("/")[2][:200], folded, n=1, cutoff=0.7)
    return folded[near[0]] if near else []
