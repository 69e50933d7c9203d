"""The Python client of the API: typed calls, and streams that resume by themselves.

Every command gets its id here, so that asking again after a broken connection can never make a
second one.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import msgspec

from bus.commands import (
    CancelCommand,
    Command,
    DeleteExecution,
    GetStatus,
    RestartJob,
    RetryExecution,
    StartJob,
    StopJob,
    job_of,
    kind_of,
)
from bus.commands import encoder as command_encoder
from bus.envelope import new_uuid
from bus.model import FINAL_COMMAND, FINAL_EXECUTION, Value
from bus.views import ExecutionView, JobView
from jobbus.client.audit import AuditCalls
from jobbus.client.errors import (
    ApiProblem,
    Unreachable,
    WaitTimeout,
    is_temporary,
)
from jobbus.client.frames import Frame, Output, output_after
from jobbus.client.http import TRIES, Http, Query, decode, id_in_path, query_of
from jobbus.client.records import CommandAnswer, CommandPage, ExecutionPage, JobPage
from jobbus.client.stream import ResumingStream, RetryListener, StreamTiming
from jobbus.client.tokens import TokenCalls

WAIT_S_MAX = 30
"""What the service waits at most in one request (`Prefer: wait`)."""

_UNSEEN_S = 10.0
"""How long a command that was accepted may be unknown: it is handled right after, not before."""
_LOST_S_MAX = 60.0
"""How long a service that was there may be away while a command is waited for."""

_POLL_S = 0.05
_POLL_S_MAX = 1.0

_T = TypeVar("_T")


class Client:
    """Talks to one service; use it as `async with Client(url, token) as client`.

    All methods raise `ApiProblem` when the service says no and `Unreachable` when nobody answers.
    With `certificate` exactly that one is trusted, whatever name it is for.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        certificate: Path | None = None,
        *,
        timing: StreamTiming = StreamTiming(),  # noqa: B008 - frozen
        on_retry: RetryListener | None = None,
    ) -> None:
        self._http = Http(base_url, token, backoff_s=timing.backoff_s, certificate=certificate)
        self.tokens = TokenCalls(self._http)
        self.audit = AuditCalls(self._http)
        self._timing = timing
        self._on_retry = on_retry

    @property
    def base_url(self) -> str:
        return self._http.base_url

    async def __aenter__(self) -> "Client":
        self._http.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    # Commands

    async def start(
        self, job_id: str, variables: Mapping[str, Value] | None = None, *, wait_s: int = 0
    ) -> CommandAnswer:
        """A start is accepted; with `wait_s`, told as it stands when it ended or the time is up."""
        return await self.publish(
            StartJob(job_id=job_id, variables=dict(variables or {})), wait_s=wait_s
        )

    async def stop(
        self,
        job_id: str | None = None,
        *,
        execution_id: str | None = None,
        grace_s: float | None = None,
        kill: bool = False,
        wait_s: int = 0,
    ) -> CommandAnswer:
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
    ) -> CommandAnswer:
        """A restart is accepted; without `variables` the old ones are kept."""
        command = RestartJob(
            job_id=job_id,
            execution_id=execution_id,
            variables=dict(variables) if variables is not None else None,
            grace_s=grace_s,
            kill=kill,
        )
        return await self.publish(command, wait_s=wait_s)

    async def status(self, job_id: str) -> CommandAnswer:
        """The ended status command; its `result` holds the job's entry."""
        return await self.publish(GetStatus(job_id=job_id), wait_s=WAIT_S_MAX)

    async def cancel(self, command_id: str, *, wait_s: int = 0) -> CommandAnswer:
        """The cancelling of a waiting command is accepted."""
        return await self.publish(CancelCommand(target_id=command_id), wait_s=wait_s)

    async def retry(self, execution_id: str, *, wait_s: int = 0) -> CommandAnswer:
        """An ended execution's job is started again with the same variables."""
        return await self.publish(RetryExecution(execution_id=execution_id), wait_s=wait_s)

    async def delete(self, execution_id: str, *, wait_s: int = 0) -> CommandAnswer:
        """An ended execution and its output are forgotten."""
        return await self.publish(DeleteExecution(execution_id=execution_id), wait_s=wait_s)

    async def publish(
        self, command: Command, *, command_id: str | None = None, wait_s: int = 0
    ) -> CommandAnswer:
        """The command is durable at the service. Safe to repeat with the same `command_id`."""
        chosen = command_id or new_uuid(time.time_ns() // 1_000_000)
        fields = msgspec.json.decode(command_encoder.encode(command), type=dict[str, msgspec.Raw])
        body = msgspec.json.encode({"commandId": chosen, **fields})
        headers = {"Content-Type": "application/json"}
        if wait_s > 0:
            headers["Prefer"] = f"wait={min(wait_s, WAIT_S_MAX)}"
        raw = await self._http.repeated("POST", "/api/v1/commands", body=body, headers=headers)
        answer = decode(raw, CommandAnswer)
        if answer.command:
            return answer
        return msgspec.structs.replace(answer, command=kind_of(command), job_id=job_of(command))

    # What there is

    async def command(self, command_id: str) -> CommandAnswer:
        return await self._get(f"/api/v1/commands/{id_in_path(command_id)}", CommandAnswer)

    async def commands(self, *, limit: int = 50, cursor: str | None = None) -> CommandPage:
        """Remembered commands, newest first."""
        return await self._get(
            "/api/v1/commands", CommandPage, query_of(limit=str(limit), cursor=cursor)
        )

    async def jobs(self) -> JobPage:
        """All jobs that the caller may view."""
        return await self._get("/api/v1/jobs", JobPage)

    async def job(self, job_id: str) -> JobView:
        return await self._get(f"/api/v1/jobs/{quote(job_id, safe='/')}", JobView)

    async def executions(
        self,
        *,
        job: str | None = None,
        user: str | None = None,
        status: Sequence[str] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> ExecutionPage:
        """Executions that match, newest first; any of the given states."""
        query = query_of(job=job, user=user, status=status, limit=str(limit), cursor=cursor)
        return await self._get("/api/v1/executions", ExecutionPage, query)

    async def execution(self, execution_id: str) -> ExecutionView:
        return await self._get(f"/api/v1/executions/{id_in_path(execution_id)}", ExecutionView)

    async def output(
        self, execution_id: str, *, start: int = 0, tail: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """What the execution printed so far, in pieces; a broken connection is taken up again."""
        position: int | None = start if tail is None else None
        failures = 0
        while True:
            at = query_of(
                **{"from": str(position)} if position is not None else {"tail": str(tail)}
            )
            pieces = self._http.pieces(f"/api/v1/executions/{id_in_path(execution_id)}/output", at)
            try:
                async with aclosing(pieces):
                    async for begins, data in pieces:
                        position, failures = begins + len(data), 0
                        yield data
            except Unreachable:
                failures += 1
                if failures == TRIES:
                    raise
                await asyncio.sleep(self._timing.backoff_s * 2**failures)
            else:
                return

    # Waiting and following

    async def wait_command(
        self, command_id: str, *, timeout_s: float | None = None
    ) -> CommandAnswer:
        """The command when it has ended; a service that was there may be away for a moment.

        Raises:
            WaitTimeout: it did not within `timeout_s`.
        """
        return await self._wait(command_id, timeout_s, until_execution=False)

    async def wait_execution_id(
        self, command_id: str, *, timeout_s: float | None = None
    ) -> CommandAnswer:
        """The command when it has made an execution, or has ended without one."""
        return await self._wait(command_id, timeout_s, until_execution=True)

    def events(
        self,
        *,
        job: Sequence[str] = (),
        execution: Sequence[str] = (),
        user: Sequence[str] = (),
        type: Sequence[str] = (),
        start: str = "snapshot",
        last_event_id: str = "",
    ) -> AsyncGenerator[Frame, None]:
        """The frames of the feed, for ever; lost connections are taken up after the last id.

        Iterate it under `contextlib.aclosing`, or the connection lives until it is collected.
        """
        query = query_of(job=job, execution=execution, user=user, type=type, start=start)
        return self._stream("/api/v1/events", lambda: query, last_event_id)

    async def follow(
        self, execution_id: str, *, tail: int | None = None, start: int | None = None
    ) -> AsyncGenerator[Frame, None]:
        """State, progress and output of one execution until it has ended and all was told.

        Every byte comes once, over however many connections. Iterate it under `aclosing`.
        """
        told_to = start

        def query() -> Query:
            if told_to is not None:
                return {"from": str(told_to)}
            return query_of(tail=str(tail) if tail is not None else None)

        path = f"/api/v1/executions/{id_in_path(execution_id)}/stream"
        async with aclosing(self._stream(path, query, "")) as frames:
            async for frame in frames:
                if isinstance(frame, Output):
                    news = output_after(frame, told_to or 0)
                    told_to = max(frame.end, told_to or 0)
                    if news is not None:
                        yield news
                else:
                    yield frame

    # Inside

    def _stream(
        self, path: str, query: Callable[[], Query], last_event_id: str
    ) -> AsyncGenerator[Frame, None]:
        return ResumingStream(
            self._http.session,
            self.base_url + path,
            query,
            timing=self._timing,
            on_retry=self._on_retry,
            last_event_id=last_event_id,
        ).frames()

    async def _wait(
        self, command_id: str, timeout_s: float | None, *, until_execution: bool
    ) -> CommandAnswer:
        id_in_path(command_id)
        loop = asyncio.get_running_loop()
        begun_s = heard_s = there_s = loop.time()
        pause_s = _POLL_S
        while True:
            answer = None
            try:
                answer = await self._seen(command_id, loop.time() - there_s)
                heard_s = loop.time()
            except (ApiProblem, Unreachable) as trouble:
                # A command outlives its service: one that was here may just be starting again.
                is_new = not self._http.was_answered
                if is_new or not is_temporary(trouble) or loop.time() - heard_s >= _LOST_S_MAX:
                    raise
                there_s = loop.time()
            if answer is not None and (
                answer.status in FINAL_COMMAND or (until_execution and answer.execution_id)
            ):
                return answer
            if timeout_s is not None and loop.time() - begun_s >= timeout_s:
                raise WaitTimeout(f"command {command_id} has not ended within {timeout_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _POLL_S_MAX)

    async def _seen(self, command_id: str, waited_s: float) -> CommandAnswer | None:
        """The command as it stands; None while it is accepted and not yet on record."""
        try:
            return await self.command(command_id)
        except ApiProblem as problem:
            if problem.status != 404 or waited_s > _UNSEEN_S:
                raise
            return None

    async def _get(self, path: str, kind: type[_T], query: Query | None = None) -> _T:
        return decode(await self._http.repeated("GET", path, query=query), kind)


def is_ended(execution: ExecutionView) -> bool:
    """Whether the execution is in a final state."""
    return execution.status in FINAL_EXECUTION
