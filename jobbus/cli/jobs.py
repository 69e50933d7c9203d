"""`jobs`: the catalog as a table: what runs, how the last executions ended, faults."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from bus.endings import duration
from jobbus.cli.list import PAGE_MAX, Wide
from jobbus.cli.show import (
    STYLES,
    Cell,
    Cells,
    Json,
    draws_blocks,
    on_terminal,
    say,
    show_json,
    show_table,
)
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.words import (
    age_word,
    fault_word,
    local_time,
    median_s,
    plain_ending,
    state_word,
    time_word,
    until_word,
)
from jobbus.client.client import Client
from jobbus.client.records import Execution, Job, JobPage

_AT_ONCE = 8
"""Requests at once, where each job needs its own."""
_HISTORY = 10
_KNOWN_OF_JOB = 5
"""Executions that come with each job; a job with fewer has no more."""


async def jobs(*, as_json: Json = False, wide: Wide = False, target: Target = HERE) -> int:
    """List the jobs that you may view: what runs, how the last ones ended, faults.

    MEDIAN is how long those that succeeded usually took; LAST 10 is how the last ones ended, the
    newest on the right: a block succeeded, ✗ failed, ■ was stopped, · did not run.
    """
    async with Client(*service_at(target)) as client:
        page = await client.jobs()
        if as_json:
            show_json(JobPage(items=page.items, as_of=page.as_of))
            return 0
        history = await _histories(client, page.items)
    now_s = time.time()
    if on_terminal() and not wide:
        show_table(
            ("JOB", "STATE", "LAST", "MEDIAN", "LAST 10"),
            (_job_cells(job, history[job.job_id], now_s) for job in page.items),
        )
        for app, name in sorted({_app_of(job) for job in page.items if job.app_name}):
            say(f"{app} is {name}")
        return 0
    show_table(
        ("JOB", "STATE", "LAST", "LAST RUN", "MEDIAN", "NEXT", "APP", "VARIABLES", "DESCRIPTION"),
        (_wide_job_cells(job, history[job.job_id]) for job in page.items),
        wide=True,
    )
    return 0


def _app_of(job: Job) -> tuple[str, str]:
    return job.job_id.partition("/")[0], job.app_name


async def apps(*, as_json: Json = False, target: Target = HERE) -> int:
    """List the apps with jobs that you may view: what their app.toml says, and faults of it."""
    async with Client(*service_at(target)) as client:
        page = await client.apps()
    if as_json:
        show_json(page)
        return 0
    show_table(
        ("APP", "NAME", "VERSION", "JOBS", "DESCRIPTION"),
        (
            (
                Cell(app.app_id, "bold"),
                app.name if app.name != app.app_id else "",
                app.version,
                str(len(app.jobs)),
                Cell(fault_word(app), "red") if app.fault else app.description,
            )
            for app in page.items
        ),
    )
    return 0


async def _histories(client: Client, jobs: Sequence[Job]) -> Mapping[str, Sequence[Execution]]:
    """The newest executions of each job: most come with one page, the others by their own."""
    found: dict[str, list[Execution]] = {job.job_id: [] for job in jobs}
    page = await client.executions(limit=PAGE_MAX)
    for execution in page.items:
        found.setdefault(execution.job_id, []).append(execution)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def fill(job: Job) -> None:
        async with gate:
            own = await client.executions(job=job.job_id, limit=2 * _HISTORY)
        found[job.job_id] = list(own.items)

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            known = found[job.job_id]
            if len(known) >= _HISTORY or page.next is None:
                continue
            if len(job.last_executions) < _KNOWN_OF_JOB:
                found[job.job_id] = list(job.last_executions)
            else:
                group.create_task(fill(job), name=f"history {job.job_id}")
    return found


def _job_cells(job: Job, history: Sequence[Execution], now_s: float) -> Cells:
    name = Cell(job.job_id, "bold")
    state, style = _state(job, history)
    if job.fault is not None and not job.revision:
        return (name, Cell(state, style), fault_word(job))
    live = [each for each in history if not each.has_ended]
    ended = [each for each in history if each.has_ended]
    usual_s = median_s(ended)
    if job.fault is not None:
        last = Cell(f"last good version in use; {fault_word(job)}", "red")
        return (name, Cell(state, style), last)
    if not history and job.description and job.next_at is None:
        return (name, Cell(state, style), Cell(job.description, "dim"))
    return (
        name,
        Cell(state, style),
        time_word(live[-1], now_s) if live else _last_and_next(job, ended, now_s),
        duration(usual_s) if usual_s is not None else "",
        _marks(ended),
    )


def _last_and_next(job: Job, ended: Sequence[Execution], now_s: float) -> str:
    """When the last one ended, and when the next begins by itself."""
    last = age_word(ended[0].end_time, now_s) if ended else ""
    coming = until_word(job.next_at, now_s)
    return ", ".join(filter(None, (last, f"next {coming}" if coming else "")))


def _wide_job_cells(job: Job, history: Sequence[Execution]) -> Cells:
    ended = [each for each in history if each.has_ended]
    usual_s = median_s(ended)
    return (
        job.job_id,
        _state(job, history)[0],
        plain_ending(ended[0]) if ended else "",
        local_time(ended[0].end_time) if ended else "",
        duration(usual_s) if usual_s is not None else "",
        local_time(job.next_at),
        job.app_name,
        " ".join(job.variables),
        fault_word(job) or job.description,
    )


def _state(job: Job, history: Sequence[Execution]) -> tuple[str, str]:
    """What the job does, else how it stands, with the style of that."""
    live = [each for each in history if not each.has_ended]
    if live:
        first = next((each for each in live if each.status == "Running"), live[-1])
        count = f" ({len(live)})" if len(live) > 1 else ""
        return f"{state_word(first)}{count}", STYLES.get(first.status, "")
    if job.fault is not None:
        return "broken", "red"
    if job.gave_up_at is not None:
        return "gave up", "red"
    if job.paused is not None:
        return "paused", "yellow"
    if job.disabled:
        return "disabled", "dim"
    ended = next((each for each in history if each.status not in ("Cancelled", "Skipped")), None)
    if ended is None or ended.status == "Succeeded":
        return "ok", "green"
    return state_word(ended), STYLES.get(ended.status, "")


_MARKS = {"Succeeded": "▇", "Stopped": "■", "Cancelled": "·", "Skipped": "·"}
_PLAIN_MARKS = {"Succeeded": "+", "Stopped": "s", "Cancelled": "-", "Skipped": "-"}


def _marks(ended: Sequence[Execution]) -> str:
    """How the last ones ended, the newest on the right."""
    marks, other = (_MARKS, "✗") if draws_blocks() else (_PLAIN_MARKS, "x")
    newest = ended[:_HISTORY]
    return "".join(marks.get(each.status, other) for each in reversed(newest)).rjust(_HISTORY)
