"""The Python client of the API: typed calls, waiting, and streams that resume by themselves."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType

from jobbus.client.audit import AuditCalls
from jobbus.client.calls import Calls
from jobbus.client.command_records import Value
from jobbus.client.errors import ApiProblem, CommandFailed, Unreachable, WaitTimeout, is_temporary
from jobbus.client.frames import Change, Frame, Output, Snapshot, output_after
from jobbus.client.http import TRIES, Http, Query, id_in_path, query_of
from jobbus.client.records import Command, DeletedExecution, Execution, Record
from jobbus.client.stream import ResumingStream, RetryListener, StreamTiming
from jobbus.client.token_records import TokenCalls

_UNSEEN_S = 10.0
"""How long a command that was accepted may be unknown: it is handled right after, not before."""
_LOST_S_MAX = 60.0
"""How long a service that was there may be away while a command is waited for."""

_POLL_S = 0.05
_POLL_S_MAX = 1.0

_RETRY = "policy:retry"
_FOLLOWERS_MAX = 100
"""Executions of a job that may have come since the end of the one whose retry is looked for."""


class Client(Calls):
    """Talks to one service; use it as `async with Client(url, token) as client`.

    All methods raise `ApiProblem` when the service refuses and `Unreachable` without an answer.
    With `certificate` exactly that one is trusted, under whatever name the service is reached.

    Raises:
        BadAddress: `base_url` is not like `http://127.0.0.1:8765`.
        BadToken: `token` is not one word of visible ASCII characters.
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
        super().__init__(Http(base_url, token, backoff_s=timing.backoff_s, certificate=certificate))
        self.tokens = TokenCalls(self._http)
        self.audit = AuditCalls(self._http)
        self._timing = timing
        self._on_retry = on_retry

    @property
    def base_url(self) -> str:
        """The service's address, without a trailing slash."""
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

    # Following

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
        """State, progress and output of one execution until it has ended and all was sent.

        Every byte comes once, over however many connections. Iterate it under `aclosing`.
        """
        sent_to = start

        def query() -> Query:
            if sent_to is not None:
                return {"from": str(sent_to)}
            return query_of(tail=str(tail) if tail is not None else None)

        path = f"/api/v1/executions/{id_in_path(execution_id)}/stream"
        async with aclosing(self._stream(path, query, "")) as frames:
            async for frame in frames:
                if isinstance(frame, Output):
                    rest = output_after(frame, sent_to or 0)
                    sent_to = max(frame.end, sent_to or 0)
                    if rest is not None:
                        yield rest
                else:
                    yield frame

    # Waiting

    async def wait_command(self, command_id: str, *, timeout_s: float | None = None) -> Command:
        """The command when it has ended; a service that was there may be away for a moment.

        Raises:
            WaitTimeout: it did not within `timeout_s`.
        """
        return await self._wait(command_id, timeout_s, until_execution=False)

    async def wait_execution_id(
        self, command_id: str, *, timeout_s: float | None = None
    ) -> Command:
        """The command when it has made an execution, or has ended without one.

        Raises:
            WaitTimeout: neither came within `timeout_s` seconds.
        """
        return await self._wait(command_id, timeout_s, until_execution=True)

    async def wait_execution(
        self, execution_id: str, *, timeout_s: float | None = None
    ) -> Execution:
        """The execution when it has ended and its output is complete.

        Once the first request was answered, a service that goes away is waited for.

        Raises:
            WaitTimeout: it has not ended within `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ended(execution_id)
        except TimeoutError as exc:
            assert timeout_s is not None
            raise WaitTimeout(
                f"execution {execution_id} has not ended within {timeout_s:g} s"
            ) from exc

    async def run(
        self,
        job_id: str,
        variables: Mapping[str, Value] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Execution:
        """The job has been started and has ended; `status`, `ending` and `exit_code` say how.

        Retries that its definition orders are waited for, too: the last execution is returned. A
        `timeout_s` that passes ends the waiting, not the job.

        Raises:
            CommandFailed: the start led to no execution; its `command` says why.
            WaitTimeout: the job has not ended within `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._run(job_id, variables)
        except TimeoutError as exc:
            assert timeout_s is not None
            raise WaitTimeout(f"{job_id} has not ended within {timeout_s:g} s; it goes on") from exc

    async def retry_of(self, execution: Execution) -> Execution | None:
        """The execution that the job's retries put after this one, once it has ended."""
        if execution.attempt >= execution.attempts:
            return None
        page = await self.executions(job=execution.job_id, limit=_FOLLOWERS_MAX)
        return next((each for each in page.items if _retries(each, execution)), None)

    # Inside

    async def _run(self, job_id: str, variables: Mapping[str, Value] | None) -> Execution:
        accepted = await self.start(job_id, variables)
        command = await self.wait_execution_id(accepted.command_id)
        if command.execution_id is None:
            raise CommandFailed(command)
        execution = await self._ended(command.execution_id)
        while (retry := await self.retry_of(execution)) is not None:
            execution = await self._ended(retry.execution_id)
        return execution

    async def _ended(self, execution_id: str) -> Execution:
        """By the feed, since everybody who may see an execution may read its changes there."""
        found = await self.execution(execution_id)
        if found.has_ended:
            return found
        async with aclosing(self.events(execution=[found.execution_id])) as frames:
            async for frame in frames:
                if any(map(_is_over, _records_of(frame))):
                    break
        return await self.execution(execution_id)

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
    ) -> Command:
        id_in_path(command_id)
        loop = asyncio.get_running_loop()
        begun_s = answered_s = there_s = loop.time()
        pause_s = _POLL_S
        while True:
            answer = None
            try:
                answer = await self._seen(command_id, loop.time() - there_s)
                answered_s = loop.time()
            except (ApiProblem, Unreachable) as trouble:
                # A command outlives its service: one that was here may just be starting again.
                is_new = not self._http.was_answered
                if is_new or not is_temporary(trouble) or loop.time() - answered_s >= _LOST_S_MAX:
                    raise
                there_s = loop.time()
            if answer is not None and (
                answer.has_ended or (until_execution and answer.execution_id)
            ):
                return answer
            if timeout_s is not None and loop.time() - begun_s >= timeout_s:
                raise WaitTimeout(f"command {command_id} has not ended within {timeout_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _POLL_S_MAX)

    async def _seen(self, command_id: str, waited_s: float) -> Command | None:
        """The command as it stands; None while it is accepted and not yet on record."""
        try:
            return await self.command(command_id)
        except ApiProblem as problem:
            if problem.status != 404 or waited_s > _UNSEEN_S:
                raise
            return None


def _records_of(frame: Frame) -> tuple[Record, ...]:
    match frame:
        case Snapshot(records=records):
            return records
        case Change(record=record) if record is not None:
            return (record,)
        case _:
            return ()


def _is_over(record: Record) -> bool:
    """Whether nothing more will happen to the execution that the record is about."""
    match record:
        case Execution():
            return record.has_ended
        case _:
            return isinstance(record, DeletedExecution)


def _retries(later: Execution, earlier: Execution) -> bool:
    return later.previous == earlier.execution_id and later.cause == _RETRY
