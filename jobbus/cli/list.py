"""`ps`, `commands`: executions and commands as tables."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, TypeVar

import msgspec
from cyclopts import Parameter

from bus.endings import duration
from bus.wording import did_you_mean, quoted
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.naming import LIVE, no_job
from jobbus.cli.show import (
    STYLES,
    Cell,
    Cells,
    Json,
    draws_blocks,
    on_terminal,
    show_json,
    show_table,
    table_lines,
    terminal_console,
)
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.words import (
    age_word,
    bar,
    ending_word,
    is_unhealthy,
    local_time,
    median_s,
    percent_word,
    progress_word,
    short_ids,
    state_word,
    time_word,
    waiting_word,
    why_word,
)
from jobbus.client.client import Client
from jobbus.client.records import (
    FINAL_EXECUTION,
    CommandPage,
    Execution,
    ExecutionPage,
)

STATES = (*LIVE, *sorted(FINAL_EXECUTION))
"""All states of an execution."""

PAGE_MAX = 500
_LIMIT_MAX = 10_000
_BAR = 10
_WATCH_S = 1.0

_Page = TypeVar("_Page", ExecutionPage, CommandPage)

Limit = Annotated[int, Parameter(help="How many at most, 1 to 10000")]
Wide = Annotated[
    bool, Parameter(negative=(), help="Whole ids and texts, as on a pipe, however wide")
]


async def ps(
    *,
    all_: Annotated[
        bool, Parameter(name=("--all", "-a"), negative=(), help="Those that have ended too")
    ] = False,
    job: Annotated[str | None, Parameter(help="Only of this job", show_default=False)] = None,
    status: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="Only in this state, e.g. running, failed; may be repeated"),
    ] = (),
    limit: Limit = 100,
    wide: Wide = False,
    watch: Annotated[
        bool, Parameter(negative=(), help="Go on and show changes in place, until Ctrl-C")
    ] = False,
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """List the executions that have not ended; with -a all, newest first."""
    states = tuple(map(_state_called, status)) or (() if all_ else LIVE)
    if watch and (as_json or not on_terminal()):
        raise CliError(
            "--watch draws on a terminal; for programs: jobbus events --json", Exit.USAGE
        )
    async with Client(*service_at(target)) as client:

        async def look() -> ExecutionPage:
            async def executions(count: int, cursor: str | None) -> ExecutionPage:
                return await client.executions(job=job, status=states, limit=count, cursor=cursor)

            return await _up_to(limit, executions)

        page = await look()
        if not page.items and job is not None:
            await check_job(client, job)
        if as_json:
            show_json(page)
            return 0
        if watch:
            await _watch(client, look)
            return 0
        if wide or not on_terminal():
            show_table(_WIDE_TITLES, map(_wide_cells, page.items), wide=True)
        else:
            show_table(_TITLES, _rows(page.items, await _usual(client, page.items)))
    return 0


async def commands(*, limit: Limit = 50, as_json: Json = False, target: Target = HERE) -> int:
    """List commands, newest first."""
    async with Client(*service_at(target)) as client:

        async def newest(count: int, cursor: str | None) -> CommandPage:
            return await client.commands(limit=count, cursor=cursor)

        page = await _up_to(limit, newest)
    if as_json:
        show_json(page)
        return 0
    narrow = on_terminal()
    shown = short_ids(each.command_id for each in page.items)
    now_s = time.time()
    show_table(
        ("ID", "COMMAND", "JOB", "STATUS", "SUBMITTED", "USER", "ERROR"),
        (
            (
                Cell(shown[each.command_id] if narrow else each.command_id, "bold"),
                each.command,
                each.job_id or "",
                " ".join(filter(None, (each.status, each.outcome))),
                age_word(each.submitted_at, now_s) if narrow else local_time(each.submitted_at),
                each.user_id or "",
                each.error_code or "",
            )
            for each in page.items
        ),
    )
    return 0


async def _up_to(limit: int, page_of: Callable[[int, str | None], Awaitable[_Page]]) -> _Page:
    """A page with the first `limit` records, read in as many pages as the service needs.

    Its position is that of the first: where a follower takes over, nothing may be missed.
    """
    most = checked_limit(limit)
    page = await page_of(min(most, PAGE_MAX), None)
    while page.next is not None and len(page.items) < most:
        more = await page_of(min(most - len(page.items), PAGE_MAX), page.next)
        page = msgspec.structs.replace(page, items=page.items + more.items, next=more.next)
    return page


def checked_limit(limit: int) -> int:
    """The limit, if it is one.

    Raises:
        CliError: it is not.
    """
    if not 1 <= limit <= _LIMIT_MAX:
        raise CliError(f"--limit must be from 1 to {_LIMIT_MAX}, not {limit}", Exit.USAGE)
    return limit


def _state_called(word: str) -> str:
    """The state of that name, in any case and with or without a blank.

    Raises:
        CliError: there is none.
    """
    known = {state.casefold(): state for state in STATES}
    plain = "".join(c for c in word.casefold() if c not in " -_")
    if plain in known:
        return known[plain]
    hint = did_you_mean(plain, sorted(known)) or ""
    raise CliError(f"there is no state {quoted(word)}{hint}", Exit.USAGE)


async def check_job(client: Client, word: str) -> None:
    """Raises CliError if there is no such job: an empty table would hide a slip."""
    known = {each.job_id for each in (await client.jobs()).items}
    if word not in known and not (await client.executions(job=word, limit=1)).items:
        raise await no_job(client, word)


async def _usual(client: Client, executions: Sequence[Execution]) -> Mapping[str, float]:
    """How long the jobs of what runs usually take, in seconds."""
    if not any(each.status == "Running" for each in executions):
        return {}
    medians = ((job.job_id, median_s(job.last_executions)) for job in (await client.jobs()).items)
    return {job_id: seconds for job_id, seconds in medians if seconds is not None}


_TITLES = ("ID", "JOB", "STATE", "TIME", "PROGRESS")
_WIDE_TITLES = ("EXECUTION", "JOB", "STATUS", "TIME", "PROGRESS", "STARTED", "USER")


def _rows(executions: Sequence[Execution], usual: Mapping[str, float]) -> list[Cells]:
    shown = short_ids(each.execution_id for each in executions)
    now_s = time.time()
    return [
        (
            Cell(shown[each.execution_id], "bold"),
            each.job_id,
            Cell(state_word(each), STYLES.get(each.status, "")),
            time_word(each, now_s),
            _about(each, usual.get(each.job_id), now_s),
        )
        for each in executions
    ]


def _about(execution: Execution, usual_s: float | None, now_s: float) -> str:
    """How far it is, why it ended so, or what it waits for."""
    if execution.has_ended:
        return why_word(execution)
    if waiting := waiting_word(execution, now_s):
        return waiting
    if is_unhealthy(execution):
        return execution.health.message if execution.health is not None else ""
    progress = execution.progress
    words = [progress.message] if progress is not None and progress.message else []
    if not words and usual_s is not None:
        words = [f"usually {duration(usual_s)}"]
    if progress is not None and progress.percent is not None:
        drawn = bar(progress.percent, _BAR, blocks=draws_blocks())
        words = [drawn, percent_word(progress).rjust(5), *words]
    return " ".join(words)


def _wide_cells(execution: Execution) -> Cells:
    now_s = time.time()
    return (
        execution.execution_id,
        execution.job_id,
        ending_word(execution, now_s),
        time_word(execution, now_s),
        progress_word(execution),
        local_time(execution.start_time),
        execution.user_id,
    )


async def _watch(client: Client, look: Callable[[], Awaitable[ExecutionPage]]) -> None:
    """The list is drawn in place, until Ctrl-C; what it showed last stays on the screen."""
    from rich.console import Group
    from rich.live import Live

    page = await look()
    usual = await _usual(client, page.items)
    with Live(console=terminal_console(), auto_refresh=False) as live:
        while True:
            lines = table_lines(_TITLES, _rows(page.items, usual))
            room = max(2, live.console.height - 1)
            live.update(Group(*lines[:room]), refresh=True)
            await asyncio.sleep(_WATCH_S)
            page = await look()
