"""`schedule`: what runs by itself and when; held, let go on, run now, made up for."""

import shlex
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from jobbus.cli.answers import (
    AT_ONCE,
    Json,
    Reply,
    left_in_directory,
    ordered,
    published,
    refusal_word,
    show_answer,
)
from jobbus.cli.exits import CliError, Exit, exit_of_command
from jobbus.cli.naming import job_called, job_expected
from jobbus.cli.show import Cell, say, show_json, show_line, show_table
from jobbus.cli.target import HERE, Target, client_of, locate, service_at
from jobbus.cli.values import coming_moment, end_of_span
from jobbus.cli.words import local_time, short_id
from jobbus.client.calls import WAIT_S_MAX
from jobbus.client.client import Client
from jobbus.client.command_records import (
    BackfillSchedule,
    PauseSchedule,
    ResumeSchedule,
    RunSchedule,
)
from jobbus.client.records import Job, Planned, Schedule

app = App(name="schedule", help="What runs by itself and when; pause, run and make up for it.")

HOURS_MAX = 366 * 24


@app.default
async def list_(
    *,
    hours: Annotated[int, Parameter(help="How far to look ahead")] = 24,
    job: Annotated[
        tuple[str, ...], Parameter(negative=(), help="Only these jobs; may be repeated")
    ] = (),
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """List what runs by itself in the next hours, of all jobs."""
    if not 1 <= hours <= HOURS_MAX:
        raise CliError(f"--hours must be from 1 to {HOURS_MAX}", Exit.USAGE)
    async with Client(*service_at(target)) as client:
        agenda = await client.schedule(hours=hours, job=job)
    if as_json:
        show_json(agenda)
        return 0
    show_table(("AT", "JOB", "SCHEDULE", "NOTE"), map(_planned, agenda.items))
    if agenda.more:
        say("there is more; give --job, or fewer --hours")
    return 0


app.command(list_, name="list")


@app.command(name="next")
async def next_(
    job: tuple[str, ...],
    /,
    *,
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """Show the schedules of jobs with their next ten instants, in their own zones.

    Parameters
    ----------
    job
        Jobs (App/Job).
    """
    async with Client(*service_at(target)) as client:
        found = [await client.job((await job_called(client, each)).job_id) for each in job]
    if as_json:
        show_json(
            {"items": [{"jobId": each.job_id, "schedules": each.schedules} for each in found]}
        )
        return 0
    for each in found:
        _show_job(each)
    return 0


Name = Annotated[str | None, Parameter(show_default=False)]


@app.command
async def pause(
    job: str,
    name: Name = None,
    /,
    *,
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
    """Start nothing by a schedule of a job, or by any of them; what falls into it is skipped.

    Parameters
    ----------
    job
        The job's id, App/Job.
    name
        The schedule, as `schedule next` shows it; without it all of the job's.
    """
    moment = coming_moment("--until", until, time.time()) if until is not None else None
    request = PauseSchedule(job_id=job, schedule=name, reason=reason, until=moment)
    what = f"schedule {name} of {job}" if name else f"the schedules of {job}"
    resume = shlex.join(("jobbus", "schedule", "resume", job, *((name,) if name else ())))
    return await ordered(request, reply, target, f"paused: {what}; {resume}")


@app.command
async def resume(
    job: str,
    name: Name = None,
    /,
    *,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Let a schedule of a job go on, or all of them, beginning with the next instant.

    Parameters
    ----------
    job
        The job's id, App/Job.
    name
        The schedule; without it all of the job's.
    """
    request = ResumeSchedule(job_id=job, schedule=name)
    return await ordered(request, reply, target, f"goes on: {name or 'the schedules'} of {job}")


@app.command
async def run(
    job: str,
    name: Name = None,
    /,
    *,
    reply: Reply = AT_ONCE,
    target: Target = HERE,
) -> int:
    """Start a job now, with the variables of a schedule; prints the execution's id.

    Parameters
    ----------
    job
        The job's id, App/Job.
    name
        The schedule, if the job has several.
    """
    reply.check()
    place = locate(target)
    request = RunSchedule(job_id=job, schedule=name)
    if place.url is None:
        return await left_in_directory(place, request, reply)
    async with client_of(place) as client:
        async with job_expected(client, job):
            answer = await published(client, request, reply)
        return await show_answer(client, answer, reply)


@app.command
async def backfill(
    job: str,
    name: Name = None,
    /,
    *,
    from_: Annotated[str, Parameter(name="--from", help="The first day, or day and time")],
    to: Annotated[str, Parameter(name="--to", help="The last one, which is in the span, too")],
    yes: Annotated[bool, Parameter(negative=(), help="Start them; without it they are counted")] = (
        False
    ),
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """Start a job for each instant of a schedule in a span for which it was not started.

    In their order, 100 at a time. What was started before is left out, so that it can be repeated.

    Parameters
    ----------
    job
        The job's id, App/Job.
    name
        The schedule, if the job has several.
    """
    request = BackfillSchedule(
        job_id=job,
        schedule=name,
        begin=end_of_span("--from", from_, is_last=False),
        end=end_of_span("--to", to, is_last=True),
        preview=not yes,
    )
    async with Client(*service_at(target)) as client, job_expected(client, job):
        answer = await client.publish(request, wait_s=WAIT_S_MAX)
    if as_json:
        show_json(answer)
    elif answer.status == "Completed":
        _show_backfill(msgspec.json.decode(answer.result, type=_Backfilled), started=yes)
    else:
        say(f"jobbus: {refusal_word(answer)}")
    return exit_of_command(answer)


class _Backfilled(msgspec.Struct, frozen=True):
    """What a backfill comes to, as far as it is shown."""

    instants: int = 0
    started: int = 0
    known: int = 0
    barred: int = 0
    left: int = 0
    first: str | None = None
    last: str | None = None


def _show_backfill(found: _Backfilled, *, started: bool) -> None:
    verb = "started" if started else "would be started"
    span = f", from {found.first} to {found.last}" if found.first and found.last else ""
    show_line(f"{found.started} {verb}{span}")
    show_line(
        f"of {found.instants} instants {found.known} were started before, {found.barred} are kept "
        "from it by calendars"
    )
    if found.left:
        say(f"{found.left} are left: do it again when these have run")
    if found.started and not started:
        say("nothing was started yet; repeat it with --yes")


def _planned(item: Planned) -> Sequence[str | Cell]:
    what = item.schedule if item.schedule is not None else short_id(item.execution_id or "")
    return (
        Cell(local_time(item.at), "" if item.starts else "dim"),
        Cell(item.job_id, "bold" if item.starts else "dim"),
        what,
        item.note,
    )


def _show_job(job: Job) -> None:
    if not job.schedules:
        show_line(Cell(job.job_id, "bold"), "has no schedule")
    for schedule in job.schedules:
        show_line(Cell(job.job_id, "bold"), schedule.name, f"({schedule.rule}, {schedule.zone})")
        if schedule.why is not None:
            show_line("  starts nothing now:", Cell(schedule.why, "red"))
        if (last := _last(schedule)) is not None:
            show_line("  last:", last)
        for coming in schedule.next:
            show_line(f"  {coming.at}", *([coming.note] if coming.note else ()))
        if not schedule.next:
            by_boot = schedule.rule.endswith("@reboot")
            show_line("  due when the machine has booted" if by_boot else "  no instant is to come")


def _last(schedule: Schedule) -> str | None:
    last = schedule.last
    if last is None:
        return None
    why = f" ({last.why})" if last.why else ""
    return f"{local_time(last.scheduled_at)} {last.verdict}{why}"
