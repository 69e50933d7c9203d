"""`audit`: who did what, read once."""

import time
from typing import Annotated

from cyclopts import Parameter

from bus.clock import rfc3339
from jobbus.cli.list import check_job, checked_limit
from jobbus.cli.show import Json, show_json, show_table
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.values import moment_s
from jobbus.cli.words import local_time
from jobbus.client.client import Client
from jobbus.client.records import AuditEntry, AuditPage

_PAGE_MAX = 500

Word = Annotated[str | None, Parameter(show_default=False)]


async def audit(
    *,
    actor: Word = None,
    job: Word = None,
    action: Word = None,
    since: Word = None,
    until: Word = None,
    limit: int = 50,
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """Show who did what, newest first: commands, refused attempts, sign-ins, acts of the service.

    Parameters
    ----------
    actor
        Only what this user did, or e.g. system:limits, policy:retry.
    job
        Only what was done to this job, App/Job.
    action
        Only this act, e.g. start, stop, token.create.
    since
        From this time on: 10m, 2h, 1d (ago), or e.g. 2026-01-26T18:00:00Z.
    until
        Before this time, written alike.
    limit
        How many at most, 1 to 10000.
    """
    now_s = time.time()
    begin = _moment("--since", since, now_s)
    end = _moment("--until", until, now_s)
    found: list[AuditEntry] = []
    cursor: str | None = None
    most = checked_limit(limit)
    async with Client(*service_at(target)) as client:
        while True:
            page = await client.audit.page(
                actor=actor,
                job=job,
                action=action,
                since=begin,
                until=end,
                limit=min(most - len(found), _PAGE_MAX),
                cursor=cursor,
            )
            found.extend(page.items)
            cursor = page.next
            if cursor is None or len(found) >= most:
                break
        if not found and job is not None:
            await check_job(client, job)
    if as_json:
        show_json(AuditPage(items=tuple(found), next=cursor))
    else:
        show_table(_TITLES, map(_row, found))
    return 0


_TITLES = ("TIME", "ACTOR", "VIA", "ACTION", "JOB", "STATES", "RESULT", "CAUSE")


def _row(entry: AuditEntry) -> tuple[str, ...]:
    result = " ".join(filter(None, (entry.status, entry.outcome, entry.error_code)))
    return (
        local_time(entry.at),
        entry.actor,
        entry.via,
        entry.action,
        entry.job or "",
        " > ".join(filter(None, (entry.before, entry.after))),
        f"{result} ({entry.count} times)" if entry.count > 1 else result,
        entry.cause or " ".join(f"{name}={text}" for name, text in entry.detail.items()),
    )


def _moment(flag: str, text: str | None, now_s: float) -> str | None:
    """The time as the API takes it."""
    return rfc3339(int(moment_s(flag, text, now_s) * 1000)) if text is not None else None
