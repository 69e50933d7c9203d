"""The calls that are one request and one answer each: commands, and what there is.

Every command gets its id here, so that a request repeated after a broken connection can never make
a second one.
"""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

import msgspec

from jobbus.client.command_records import (
    BackfillSchedule,
    CancelCommand,
    CommandRequest,
    DeleteExecution,
    GetStatus,
    PauseQueue,
    PauseSchedule,
    RestartJob,
    ResumeQueue,
    ResumeSchedule,
    RetryExecution,
    RunSchedule,
    StartJob,
    StopJob,
    Value,
    encode_body,
    new_command_id,
    word_of,
)
from jobbus.client.frames import OutputPage
from jobbus.client.http import Http, Query, decode, id_in_path, query_of
from jobbus.client.records import (
    Agenda,
    AppPage,
    ArtifactList,
    ClockState,
    Command,
    CommandPage,
    Execution,
    ExecutionPage,
    GroupPage,
    Job,
    JobPage,
)

WAIT_S_MAX = 30
"""What the service waits at most in one request (`Prefer: wait`)."""

_MAINTENANCE = "/api/v1/system/maintenance"
_CLOCK = "/api/v1/system/clock"
_JSON = {"Content-Type": "application/json"}
_T = TypeVar("_T")


class _Clock(msgspec.Struct, frozen=True, kw_only=True):
    clock: ClockState


class _Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    maintenance: dict[str, str] | None = None


class Calls:
    """The half of `Client` that neither waits nor follows."""

    def __init__(self, http: Http) -> None:
        self._http = http

    # Commands

    async def start(
        self,
        job_id: str,
        variables: Mapping[str, Value] | None = None,
        *,
        not_before: datetime | None = None,
        wait_s: int = 0,
    ) -> Command:
        """A start is accepted, durably; with `not_before` it is queued until then.

        With `wait_s` (seconds, at most 30) the answer is the command as it is when it has ended or
        the time has passed.

        Raises:
            ValueError: `not_before` has no zone.
        """
        command = StartJob(
            job_id=job_id, variables=dict(variables or {}), not_before=_moment(not_before)
        )
        return await self.publish(command, wait_s=wait_s)

    async def stop(
        self,
        job_id: str | None = None,
        *,
        execution_id: str | None = None,
        grace_s: float | None = None,
        kill: bool = False,
        wait_s: int = 0,
    ) -> Command:
        """A stop is accepted, of one execution or of all of the job's."""
        command = StopJob(job_id=job_id, execution_id=execution_id, grace_s=grace_s, kill=kill)
        return await self.publish(command, wait_s=wait_s)

    async def restart(
        self,
        job_id: str | None = None,
        *,
        execution_id: str | None = None,
        variables: Mapping[str, Value] | None = None,
        grace_s: float | None = None,
        kill: bool = False,
        wait_s: int = 0,
    ) -> Command:
        """A restart is accepted; without `variables` the old ones are kept."""
        command = RestartJob(
            job_id=job_id,
            execution_id=execution_id,
            variables=dict(variables) if variables is not None else None,
            grace_s=grace_s,
            kill=kill,
        )
        return await self.publish(command, wait_s=wait_s)

    async def status(self, job_id: str) -> Command:
        """The ended status command; its `result` holds the job's entry."""
        return await self.publish(GetStatus(job_id=job_id), wait_s=WAIT_S_MAX)

    async def cancel(self, command_id: str, *, wait_s: int = 0) -> Command:
        """The cancelling of a waiting command is accepted."""
        return await self.publish(CancelCommand(target_id=command_id), wait_s=wait_s)

    async def retry(
        self, execution_id: str, *, not_before: datetime | None = None, wait_s: int = 0
    ) -> Command:
        """An ended execution's job is started again with the same variables; see `start`."""
        command = RetryExecution(execution_id=execution_id, not_before=_moment(not_before))
        return await self.publish(command, wait_s=wait_s)

    async def delete(self, execution_id: str, *, wait_s: int = 0) -> Command:
        """An ended execution and its output are forgotten."""
        return await self.publish(DeleteExecution(execution_id=execution_id), wait_s=wait_s)

    async def pause_schedule(
        self,
        job_id: str,
        schedule: str | None = None,
        *,
        reason: str = "",
        until: datetime | None = None,
        wait_s: int = 0,
    ) -> Command:
        """A pause of one schedule of the job, or of all of them, is accepted."""
        command = PauseSchedule(
            job_id=job_id, schedule=schedule, reason=reason, until=_moment(until)
        )
        return await self.publish(command, wait_s=wait_s)

    async def resume_schedule(
        self, job_id: str, schedule: str | None = None, *, wait_s: int = 0
    ) -> Command:
        """The end of a pause is accepted."""
        return await self.publish(ResumeSchedule(job_id=job_id, schedule=schedule), wait_s=wait_s)

    async def run_schedule(
        self, job_id: str, schedule: str | None = None, *, wait_s: int = 0
    ) -> Command:
        """A start now, with the variables of the schedule, is accepted."""
        return await self.publish(RunSchedule(job_id=job_id, schedule=schedule), wait_s=wait_s)

    async def backfill_schedule(
        self,
        job_id: str,
        schedule: str | None = None,
        *,
        begin: datetime,
        end: datetime,
        preview: bool = False,
    ) -> Command:
        """The ended backfill; its `result` says how many instants there are and were started."""
        command = BackfillSchedule(
            job_id=job_id,
            schedule=schedule,
            begin=_moment(begin) or "",
            end=_moment(end) or "",
            preview=preview,
        )
        return await self.publish(command, wait_s=WAIT_S_MAX)

    async def pause_queue(
        self,
        job_id: str | None = None,
        *,
        group: str | None = None,
        reason: str = "",
        until: str | None = None,
        wait_s: int = 0,
    ) -> Command:
        """A pause of the queue of a job or of a group is accepted.

        `until` is an RFC 3339 time with its zone at which the queue goes on by itself.
        """
        command = PauseQueue(job_id=job_id, group=group, reason=reason, until=until)
        return await self.publish(command, wait_s=wait_s)

    async def resume_queue(
        self, job_id: str | None = None, *, group: str | None = None, wait_s: int = 0
    ) -> Command:
        """The end of a pause is accepted."""
        return await self.publish(ResumeQueue(job_id=job_id, group=group), wait_s=wait_s)

    async def publish(
        self, command: CommandRequest, *, command_id: str | None = None, wait_s: int = 0
    ) -> Command:
        """The command is durable at the service. Safe to repeat with the same `command_id`."""
        body = encode_body(command, command_id or new_command_id(time.time_ns() // 1_000_000))
        headers = dict(_JSON)
        if wait_s > 0:
            headers["Prefer"] = f"wait={min(wait_s, WAIT_S_MAX)}"
        raw = await self._http.repeated("POST", "/api/v1/commands", body=body, headers=headers)
        answer = decode(raw, Command)
        if answer.command:
            return answer
        job_id = getattr(command, "job_id", None)
        return msgspec.structs.replace(answer, command=word_of(command), job_id=job_id)

    # What there is

    async def command(self, command_id: str) -> Command:
        """The command with this id, as it is now."""
        return await self._get(f"/api/v1/commands/{id_in_path(command_id)}", Command)

    async def commands(
        self, *, id: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> CommandPage:
        """Commands that are kept, newest first; with `id` those whose id begins so."""
        query = query_of(id=id, limit=str(limit), cursor=cursor)
        return await self._get("/api/v1/commands", CommandPage, query)

    async def jobs(self) -> JobPage:
        """All jobs that the caller may view."""
        return await self._get("/api/v1/jobs", JobPage)

    async def apps(self) -> AppPage:
        """The apps with jobs that the caller may view, and what they say of themselves."""
        return await self._get("/api/v1/apps", AppPage)

    async def groups(self) -> GroupPage:
        """The groups of slots of the jobs that the caller may view; operators see all."""
        return await self._get("/api/v1/groups", GroupPage)

    async def job(self, job_id: str) -> Job:
        """One job of the catalog; `job_id` is `App/Job`."""
        return await self._get(f"/api/v1/jobs/{quote(job_id, safe='/')}", Job)

    async def schedule(
        self, *, hours: int = 24, job: Sequence[str] = (), limit: int = 200
    ) -> Agenda:
        """What runs by itself in the next hours: of all jobs that the caller may view, or these."""
        query = query_of(hours=str(hours), job=job, limit=str(limit))
        return await self._get("/api/v1/schedule", Agenda, query)

    async def executions(
        self,
        *,
        id: str | None = None,
        job: str | None = None,
        user: str | None = None,
        status: Sequence[str] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> ExecutionPage:
        """Executions that match, newest first.

        Any of the given states; with `id` those whose id begins so.
        """
        query = query_of(id=id, job=job, user=user, status=status, limit=str(limit), cursor=cursor)
        return await self._get("/api/v1/executions", ExecutionPage, query)

    async def execution(self, execution_id: str) -> Execution:
        """The execution with this id, as it is now."""
        return await self._get(f"/api/v1/executions/{id_in_path(execution_id)}", Execution)

    async def output_lines(
        self,
        execution_id: str,
        *,
        start: int = 0,
        tail: int | None = None,
        stream: str | None = None,
    ) -> OutputPage:
        """Some lines of what the execution printed, from the byte `start` or the last `tail` on.

        `stream` is `out` or `err` for the lines of that one. Read on at the page's `next`.
        """
        where = {"from": str(start)} if tail is None else {"tail": str(tail)}
        query = query_of(format="json", stream=stream, **where)
        path = f"/api/v1/executions/{id_in_path(execution_id)}/output"
        return await self._get(path, OutputPage, query)

    async def artifacts(self, execution_id: str) -> ArtifactList:
        """The files that the execution left; none before its end."""
        path = f"/api/v1/executions/{id_in_path(execution_id)}/artifacts"
        return await self._get(path, ArtifactList)

    async def artifact(self, execution_id: str, path: str) -> AsyncGenerator[bytes, None]:
        """The bytes of one of these files, piece by piece; `path` is that of the list."""
        place = f"/api/v1/executions/{id_in_path(execution_id)}/artifacts/{path}"
        async with aclosing(self._http.pieces(place, {})) as pieces:
            async for _, data in pieces:
                yield data

    async def artifact_archive(self, execution_id: str) -> AsyncGenerator[bytes, None]:
        """All of them in one zip, piece by piece, which is made meanwhile."""
        place = f"/api/v1/executions/{id_in_path(execution_id)}/artifacts.zip"
        async with aclosing(self._http.pieces(place, {})) as pieces:
            async for _, data in pieces:
                yield data

    async def maintenance(self) -> dict[str, str] | None:
        """The maintenance in force (`by`, `reason`), or None. Needs the role `admin`."""
        return (await self._get("/api/v1/system", _Maintenance)).maintenance

    async def set_maintenance(self, on: bool, reason: str = "") -> dict[str, str] | None:
        """While `on`, no execution starts. The maintenance in force (`by`, `reason`), or None.

        Needs the role `admin`.
        """
        body = msgspec.json.encode({"on": on, "reason": reason} if on else {"on": False})
        raw = await self._http.repeated("POST", _MAINTENANCE, body=body, headers=_JSON)
        return decode(raw, _Maintenance).maintenance

    async def clock(self) -> ClockState:
        """Whether the service believes its wall clock. Needs the role `admin`."""
        return (await self._get("/api/v1/system", _Clock)).clock

    async def believe_clock(self) -> ClockState:
        """The service's wall clock is right: schedules go on. Needs the role `admin`."""
        body = msgspec.json.encode({"believed": True})
        raw = await self._http.repeated("POST", _CLOCK, body=body, headers=_JSON)
        return decode(raw, _Clock).clock

    async def _get(self, path: str, kind: type[_T], query: Query | None = None) -> _T:
        return decode(await self._http.repeated("GET", path, query=query), kind)


def _moment(at: datetime | None) -> str | None:
    if at is None:
        return None
    if at.tzinfo is None:
        raise ValueError(f"{at} has no zone; for a time of this machine use .astimezone()")
    return at.isoformat()
