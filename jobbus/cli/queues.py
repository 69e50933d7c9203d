"""`queue`: hold the queue of a job or of a group, and let it go on; `groups`: shared slots."""

import time
from typing import Annotated

from cyclopts import App, Parameter

from jobbus.cli.answers import AT_ONCE, Json, Reply, ordered
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.show import show_json, show_table
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.values import coming_moment
from jobbus.cli.words import pause_word
from jobbus.client.client import Client
from jobbus.client.command_records import PauseQueue, ResumeQueue

app = App(name="queue", help="Hold the queue of a job or of a group, and let it go on.")

Group = Annotated[
    str | None, Parameter(help="The group, in the place of a job", show_default=False)
]


@app.command
async def pause(
    job: Annotated[str | None, Parameter(show_default=False)] = None,
    /,
    *,
    group: Group = None,
    reason: Annotated[str, Parameter(help="Why, for those who meet it", show_default=False)] = "",
    until: Annotated[
        str | None,
        Parameter(
            help="When it goes on by itself: +2h, 18:00, 2026-11-30 18:00", show_default=False
        ),
    ] = None,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Start nothing more of a job, or nothing that needs a slot of a group. What runs goes on, and
    what is asked for meanwhile waits.

    Parameters
    ----------
    job
        The job's id, App/Job.
    """
    moment = coming_moment("--until", until, time.time()) if until is not None else None
    _check(job, group)
    request = PauseQueue(job_id=job, group=group, reason=reason, until=moment)
    what = job or f"group {group}"
    flag = f"--group {group}" if group else job
    return await ordered(
        request, reply, target, f"{what} is paused; it goes on with: jobbus queue resume {flag}"
    )


@app.command
async def resume(
    job: Annotated[str | None, Parameter(show_default=False)] = None,
    /,
    *,
    group: Group = None,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Let the queue of a job or of a group go on.

    Parameters
    ----------
    job
        The job's id, App/Job.
    """
    _check(job, group)
    request = ResumeQueue(job_id=job, group=group)
    return await ordered(request, reply, target, f"{job or f'group {group}'} goes on")


async def groups(*, as_json: Json = False, target: Target = HERE) -> int:
    """List the groups of slots: how many executions may run, run and wait."""
    async with Client(*service_at(target)) as client:
        page = await client.groups()
    if as_json:
        show_json(page)
        return Exit.OK
    show_table(
        ("GROUP", "SLOTS", "RUNNING", "WAITING", "STATE"),
        (
            (
                each.name,
                str(each.max_running),
                str(each.running),
                str(each.waiting),
                pause_word(each.paused) or ("" if each.defined else "not in jobbus.toml any more"),
            )
            for each in page.items
        ),
    )
    return Exit.OK


def _check(job: str | None, group: str | None) -> None:
    if (job is None) is (group is None):
        raise CliError("name a job, or a group with --group", Exit.USAGE)
