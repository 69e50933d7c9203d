"""`status`, `jobs`, `ps`, `command`, `commands`: what there is, read once."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
from cyclopts import Parameter

from bus.model import FINAL_EXECUTION, ExecutionStatus
from jobbus.cli.commands import AT_ONCE, Json, Reply, job_or_execution
from jobbus.cli.exits import exit_of_command
from jobbus.cli.show import (
    attempt_word,
    ending_word,
    local_time,
    progress_word,
    show_command,
    show_json,
    show_pairs,
    show_table,
)
from jobbus.cli.target import HERE, Target, service_at
from jobbus.client.client import Client
from jobbus.client.records import CommandPage, Execution, ExecutionPage, Job, JobPage, Variable

LIVE = tuple(status.value for status in ExecutionStatus if status not in FINAL_EXECUTION)
_PAGE_MAX = 500
_LIMIT_MAX = 10_000
_ENDING_WIDTH = 60
"""Room for how an execution ended in a list; `jobbus status` has all of it."""

_Page = TypeVar("_Page", ExecutionPage, CommandPage)

Limit = Annotated[int, Parameter(help="How many at most, 1 to 10000")]


class JobStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job with its newest executions; `status JOB --json`."""

    job: Job
    executions: tuple[Execution, ...]


async def status(what: str, /, *, as_json: Json = False, target: Target = HERE) -> int:
    """Show a job with its newest executions, or one execution.

    Parameters
    ----------
    what
        A job's id, App/Job, or an execution's.
    """
    job_id, execution_id = job_or_execution(what)
    async with Client(*service_at(target)) as client:
        if execution_id is not None:
            execution = await client.execution(execution_id)
            show_json(execution) if as_json else _show_execution(execution)
            return 0
        assert job_id is not None
        job = await client.job(job_id)
        newest = await client.executions(job=job_id, limit=5)
    if as_json:
        show_json(JobStatus(job=job, executions=newest.items))
    else:
        _show_job(job, newest.items)
    return 0


async def jobs(*, as_json: Json = False, target: Target = HERE) -> int:
    """List the jobs that you may view."""
    async with Client(*service_at(target)) as client:
        page = await client.jobs()
    if as_json:
        show_json(JobPage(items=page.items, as_of=page.as_of))
        return 0
    show_table(
        ("JOB", "STATE", "VARIABLES", "DESCRIPTION"),
        (
            (job.job_id, _state(job), " ".join(job.variables), _fault(job) or job.description)
            for job in page.items
        ),
    )
    return 0


async def ps(
    *,
    all_: Annotated[
        bool, Parameter(name=("--all", "-a"), negative=(), help="Those that have ended too")
    ] = False,
    job: Annotated[str | None, Parameter(help="Only of this job", show_default=False)] = None,
    limit: Limit = 100,
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """List the executions that have not ended; with -a all, newest first."""
    async with Client(*service_at(target)) as client:

        async def executions(count: int, cursor: str | None) -> ExecutionPage:
            status = () if all_ else LIVE
            return await client.executions(job=job, status=status, limit=count, cursor=cursor)

        page = await _up_to(limit, executions)
    if as_json:
        show_json(page)
        return 0
    show_table(
        ("EXECUTION", "JOB", "STATUS", "PROGRESS", "STARTED", "USER"),
        (
            (
                one.execution_id,
                one.job_id,
                ending_word(one, _ENDING_WIDTH),
                progress_word(one),
                local_time(one.start_time),
                one.user_id,
            )
            for one in page.items
        ),
    )
    return 0


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
        The id that start, stop or restart printed.
    """
    async with Client(*service_at(target)) as client:
        if reply.wait:
            answer = await client.wait_command(command_id, timeout_s=reply.timeout)
        else:
            answer = await client.command(command_id)
    show_command(answer, as_json=reply.as_json)
    return exit_of_command(answer)


async def commands(*, limit: Limit = 50, as_json: Json = False, target: Target = HERE) -> int:
    """List commands, newest first."""
    async with Client(*service_at(target)) as client:

        async def newest(count: int, cursor: str | None) -> CommandPage:
            return await client.commands(limit=count, cursor=cursor)

        page = await _up_to(limit, newest)
    if as_json:
        show_json(page)
        return 0
    show_table(
        ("ID", "COMMAND", "JOB", "STATUS", "SUBMITTED", "USER", "ERROR"),
        (
            (
                one.command_id,
                one.command,
                one.job_id or "",
                " ".join(filter(None, (one.status, one.outcome))),
                local_time(one.submitted_at),
                one.user_id or "",
                one.error_code or "",
            )
            for one in page.items
        ),
    )
    return 0


async def _up_to(limit: int, page_of: Callable[[int, str | None], Awaitable[_Page]]) -> _Page:
    """Up to `limit` items over as many pages as it takes; the position is that of the first: what
    changed since is told from there."""
    most = min(max(limit, 1), _LIMIT_MAX)
    page = await page_of(min(most, _PAGE_MAX), None)
    while page.next is not None and len(page.items) < most:
        more = await page_of(min(most - len(page.items), _PAGE_MAX), page.next)
        page = msgspec.structs.replace(page, items=page.items + more.items, next=more.next)
    return page


def _show_execution(execution: Execution) -> None:
    show_pairs(
        (
            ("execution", execution.execution_id),
            ("job", execution.job_id),
            ("status", ending_word(execution)),
            ("progress", progress_word(execution)),
            ("note", execution.progress.note if execution.progress else ""),
            ("user", execution.user_id),
            ("attempt", attempt_word(execution).removeprefix("attempt ")),
            ("queued", local_time(execution.queued_at)),
            ("started", local_time(execution.start_time)),
            ("ended", local_time(execution.end_time)),
            ("pid", str(execution.pid or "")),
            ("error", execution.error or ""),
            ("survivors", " ".join(map(str, execution.survivors))),
            ("variables", msgspec.json.encode(execution.variables).decode()),
            ("command", execution.command_id),
        )
    )


def _show_job(job: Job, newest: tuple[Execution, ...]) -> None:
    pairs = [
        ("job", job.job_id),
        ("description", job.description),
        ("state", _state(job)),
        ("fault", _fault(job)),
    ]
    if job.gave_up_at is not None:
        why = "restarted too often; a start by a person is needed: jobbus start"
        pairs.append(("", f"{why} {job.job_id}"))
    pairs += [(f"  {name}", _declaration(spec)) for name, spec in job.variables.items()]
    show_pairs(pairs)
    if newest:
        print()
        show_table(
            ("EXECUTION", "STATUS", "PROGRESS", "STARTED"),
            (
                (
                    e.execution_id,
                    ending_word(e, _ENDING_WIDTH),
                    progress_word(e),
                    local_time(e.start_time),
                )
                for e in newest
            ),
        )


def _state(job: Job) -> str:
    if job.fault is not None:
        return "last good version" if job.revision else "faulty"
    if job.gave_up_at is not None:
        return f"gave up {local_time(job.gave_up_at)}"
    return "disabled" if job.disabled else "ok"


def _fault(job: Job) -> str:
    """Where and why the definition is faulty; empty for one that is not."""
    return f"{job.fault.file}:{job.fault.line}: {job.fault.reason}" if job.fault else ""


def _declaration(spec: Variable) -> str:
    words = [spec.type, "required" if spec.required else f"default {spec.default!r}"]
    if spec.min is not None or spec.max is not None:
        words.append(f"{spec.min if spec.min is not None else ''}..{spec.max or ''}")
    words += [f"one of {', '.join(spec.choices)}"] if spec.choices else []
    return "; ".join(filter(None, (*words, spec.description)))
