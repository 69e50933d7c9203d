"""`schedule`: what runs by itself, and when."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter

from jobbus.cli.answers import Json
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.naming import job_called
from jobbus.cli.show import Cell, say, show_json, show_line, show_table
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.words import local_time, short_id
from jobbus.client.client import Client
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
            show_line(f"  {coming.at}", coming.note)
        if not schedule.next:
            show_line("  no instant is to come")


def _last(schedule: Schedule) -> str | None:
    last = schedule.last
    if last is None:
        return None
    why = f" ({last.why})" if last.why else ""
    return f"{local_time(last.scheduled_at)} {last.verdict}{why}"
