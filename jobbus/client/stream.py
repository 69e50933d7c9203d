"""One stream over many connections: it reconnects by itself and goes on after the last id."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import aiohttp

from jobbus.client.errors import (
    ApiProblem,
    JobbusError,
    Unreachable,
    is_temporary,
    problem_of,
)
from jobbus.client.frames import End, Frame, Hello, ProblemFrame, decode_frame
from jobbus.client.http import CONNECT_TIMEOUT_S, Query, pairs_of, why_unreachable
from jobbus.client.sse import SseParser

PROBLEM_SIZE_MAX = 1024 * 1024
_RETRY_S_DEFAULT = 1.0

RetryListener = Callable[[str, float], None]
"""Called with why a connection was lost, and the seconds until the next one is tried."""


@dataclass(frozen=True, kw_only=True)
class StreamTiming:
    """How long a stream waits for what; the defaults are those of the contract.

    `silence` is the number of missed heartbeats after which a connection counts as dead.
    `give_up_s` bounds how long a lost stream is tried again; None is for ever. Unless `patient`,
    a first connection that fails is an error at once.
    """

    backoff_s: float = 0.5
    backoff_s_max: float = 30.0
    heartbeat_s: float = 15.0
    silence: float = 2.5
    give_up_s: float | None = None
    patient: bool = True


class Backoff:
    """How long to wait before the next connection: doubling, with full jitter, at most 30 s."""

    def __init__(self, timing: StreamTiming, uniform: Callable[[float, float], float]) -> None:
        self._timing = timing
        self._uniform = uniform
        self._failures = 0
        self.retry_s: float | None = None

    def worked(self) -> None:
        """A frame arrived: the next trouble is a new one."""
        self._failures = 0

    def pause_s(self, at_least_s: float = 0.0) -> float:
        """The wait before the next try; after a stream that worked it is what the server said."""
        failures, self._failures = self._failures, self._failures + 1
        if failures == 0 and self.retry_s is not None:
            return max(self.retry_s, at_least_s)
        # Beyond 2**16 the limit holds anyway; a larger power would overflow one day.
        longest = min(self._timing.backoff_s_max, self._timing.backoff_s * 2 ** min(failures, 16))
        return max(self._uniform(0.0, longest), at_least_s)


class ResumingStream:
    """Follows one address of the service. Iterate `frames` once.

    `query` is asked for each connection: what it says counts when the service cannot resume.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        path: str,
        query: Callable[[], Query],
        *,
        timing: StreamTiming,
        on_retry: RetryListener | None = None,
        last_event_id: str = "",
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._session = session
        self._path = path
        self._query = query
        self._timing = timing
        self._on_retry = on_retry
        self._cursor = last_event_id
        self._backoff = Backoff(timing, uniform)
        self._heartbeat_s = timing.heartbeat_s
        self._finished = False
        self._worked = False
        self._broken = False

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """All frames in order, over as many connections as it takes, until the stream is over.

        Raises:
            ApiProblem: the service refuses for good (401, 403, 404, …).
            Unreachable: the first connection failed and the timing is not patient, or it stayed
                lost for longer than `give_up_s`.
        """
        clock = asyncio.get_running_loop()
        lost_at_s: float | None = None
        while True:
            try:
                async with aclosing(self._connection()) as connection:
                    async for frame in connection:
                        lost_at_s = None
                        yield frame
                if self._finished:
                    return
                trouble: JobbusError = Unreachable("the service closed the stream")
            except JobbusError as exc:
                trouble = exc
            now_s = clock.time()
            lost_at_s = now_s if lost_at_s is None else lost_at_s
            if not self._worth_another_try(trouble, now_s - lost_at_s):
                raise trouble
            pause_s = self._backoff.pause_s(getattr(trouble, "retry_after_s", 0.0))
            if self._on_retry is not None:
                self._on_retry(str(trouble), pause_s)
            await asyncio.sleep(pause_s)

    def _worth_another_try(self, trouble: JobbusError, lost_s: float) -> bool:
        if self._broken or not is_temporary(trouble):
            return False
        if not (self._worked or self._timing.patient):
            return False
        return self._timing.give_up_s is None or lost_s < self._timing.give_up_s

    async def _connection(self) -> AsyncGenerator[Frame, None]:
        """The frames of one connection."""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self._cursor:
            headers["Last-Event-ID"] = self._cursor
        try:
            async with self._session.get(
                self._path,
                params=pairs_of(self._query()),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                allow_redirects=False,
            ) as response:
                try:
                    await self._check(response)
                    async with aclosing(self._decoded(response)) as frames:
                        async for frame in frames:
                            yield frame
                finally:
                    _hang_up(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Unreachable(f"the connection failed: {why_unreachable(exc)}") from exc

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 204:
            self._finished = True
        elif response.status != 200:
            async with asyncio.timeout(10.0):
                raw = await response.content.read(PROBLEM_SIZE_MAX)
            raise problem_of(
                response.status, response.reason or "", raw, response.headers.get("Retry-After")
            )
        elif response.content_type != "text/event-stream":
            raise ApiProblem(
                response.status,
                "not-acceptable",
                "This is no event stream",
                f"the server answered with {response.content_type}; is this the URL of jobbus?",
            )

    async def _decoded(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Frame, None]:
        parser = SseParser(last_event_id=self._cursor)
        while chunk := await self._chunk(response):
            for event in parser.feed(chunk):
                frame = decode_frame(event)
                self._note(frame)
                self._cursor = event.id
                if frame is not None:
                    yield frame
            self._cursor = parser.last_event_id
            if parser.retry_ms is not None:
                self._backoff.retry_s = parser.retry_ms / 1000

    async def _chunk(self, response: aiohttp.ClientResponse) -> bytes:
        """The next bytes; empty at the end. A server that is alive says something in time."""
        longest_s = self._timing.silence * self._heartbeat_s
        try:
            async with asyncio.timeout(longest_s):
                return await response.content.readany()
        except TimeoutError as exc:
            raise Unreachable(f"the service sent nothing for {longest_s:.0f} s") from exc

    def _note(self, frame: Frame | None) -> None:
        """Takes what a frame means for the connection itself."""
        self._worked = True
        self._backoff.worked()
        match frame:
            case Hello(heartbeat_s=heartbeat_s) if heartbeat_s > 0:
                self._heartbeat_s = heartbeat_s
            case End(reason="terminal"):
                self._finished = True
            case End(retry_ms=int() as retry_ms):
                self._backoff.retry_s = max(0, retry_ms) / 1000
            case ProblemFrame(problem=problem):
                self._broken = True  # the service said so itself: another request gets the same
                slug = problem.type.rpartition("/")[2]
                raise ApiProblem(
                    problem.status, slug, problem.title, problem.detail, problem.errors
                )
            case _:
                pass


def _hang_up(response: aiohttp.ClientResponse) -> None:
    """The connection is gone at once: TLS would say goodbye for longer than its loop may live."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
