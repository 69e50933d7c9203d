"""A small backend behind a real gateway on a real socket: table, door and outputs in memory.

The feed, the publisher and the encoder of changes are the real ones.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bus.access import RoleDefaults
from bus.audit import AuditTrail
from bus.changes import ChangeEncoder
from bus.clock import Clock, SystemClock
from bus.commands import kind_of
from bus.envelope import Envelope
from bus.errors import BusError
from bus.events import (
    AnyEvent,
    CommandAccepted,
    CommandEnded,
    ExecutionDeleted,
    ExecutionEnded,
    ExecutionProgress,
    ExecutionQueued,
    ExecutionRunning,
    JobChanged,
    Published,
)
from bus.feed import Batch, Feed, FellBehind, Frame, Predicate
from bus.groups import Group
from bus.job_definition import Job, JobSpec, RolesSpec
from bus.layout import DataLayout
from bus.model import (
    CommandRecord,
    CommandStatus,
    Execution,
    ExecutionStatus,
    ForgottenCommand,
    Maintenance,
    Outcome,
    Principal,
    Progress,
    Reason,
)
from bus.ports import ChangeListener, OutputChunk, OutputHits, OutputLine, OutputPage
from bus.publisher import Publisher
from bus.views import GroupView
from handlers.output.artifact_store import ArtifactStore
from handlers.output.lines import Rest, decode, split
from transports.http.access.session_store import SavedSessions
from transports.http.access.token_records import Grant, TokenBook
from transports.http.access.token_store import TokenStore
from transports.http.app import Gateway
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings

EPOCH = "abc123"
ADMIN = "jb_admin_secret"
ALICE = "jb_alice_secret"
VIEWER = "jb_viewer_secret"
ROLELESS = "jb_roleless_secret"


class BackendTable:
    """Implements `bus.ports.TableReader` over dicts in the order of insertion."""

    def __init__(self) -> None:
        self.by_job: dict[str, Job] = {}
        self.by_execution: dict[str, Execution] = {}
        self.by_command: dict[str, CommandRecord] = {}
        self.by_forgotten: dict[str, ForgottenCommand] = {}
        self.maintenance: Maintenance | None = None

    def job(self, job_id: str) -> Job | None:
        return self.by_job.get(job_id)

    def jobs(self) -> Iterable[Job]:
        return [self.by_job[key] for key in sorted(self.by_job)]

    def names_of(self, job_id: str) -> tuple[str, ...]:
        return (job_id,)

    def roles(self, job_id: str) -> RolesSpec | None:
        job = self.by_job.get(job_id)
        return job.spec.roles if job is not None and job.spec is not None else None

    def execution(self, execution_id: str) -> Execution | None:
        return self.by_execution.get(execution_id)

    def executions(self) -> Iterable[Execution]:
        return reversed(list(self.by_execution.values()))

    def executions_of(self, job_id: str) -> Iterable[Execution]:
        return [e for e in self.executions() if e.job_id == job_id]

    def live_executions(self) -> Iterable[Execution]:
        return [e for e in self.by_execution.values() if not e.is_final]

    def waiting_for(self, execution: Execution, now_ms: int) -> str:
        return ""

    def groups(self) -> Iterable[Group]:
        return ()

    def group_view(self, name: str) -> GroupView | None:
        return None

    def command(self, command_id: str) -> CommandRecord | None:
        return self.by_command.get(command_id)

    def forgotten(self, command_id: str) -> ForgottenCommand | None:
        return self.by_forgotten.get(command_id)

    def commands(self) -> Iterable[CommandRecord]:
        return reversed(list(self.by_command.values()))


class BackendOutput:
    """Implements `bus.ports.OutputLineReader` over byte strings, all of it on stdout; `dropped` are
    ranges that are gone."""

    def __init__(self) -> None:
        self.is_live: Callable[[str], bool] = lambda _: True
        self.pages_read = 0
        self.bytes: dict[str, bytearray] = {}
        self.dropped: dict[str, tuple[int, int]] = {}
        self.largest_read = 0
        self._grown = asyncio.Condition()

    async def append(self, execution_id: str, data: bytes) -> None:
        self.bytes.setdefault(execution_id, bytearray()).extend(data)
        async with self._grown:
            self._grown.notify_all()

    async def size(self, execution_id: str) -> int:
        return len(self.bytes.get(execution_id, b""))

    async def read(self, execution_id: str, start: int, limit: int) -> OutputChunk:
        self.largest_read = max(self.largest_read, limit)
        gap = None
        stop = start + limit
        if execution_id in self.dropped:
            low, high = self.dropped[execution_id]
            if low <= start < high:
                gap, start, stop = (start, high), high, high + limit
            elif start < low:
                stop = min(stop, low)
        data = bytes(self.bytes.get(execution_id, b"")[start:stop])
        return OutputChunk(start=start, end=start + len(data), data=data, gap=gap)

    async def pieces(
        self, execution_id: str, start: int, end: int, size: int
    ) -> AsyncGenerator[OutputChunk, None]:
        while start < end:
            chunk = await self.read(execution_id, start, min(size, end - start))
            if not chunk.data:
                return
            yield chunk
            start = chunk.end

    async def offset_of_tail(self, execution_id: str, lines: int) -> int:
        data = bytes(self.bytes.get(execution_id, b""))
        kept = data.splitlines(keepends=True)[-lines:] if lines else []
        return len(data) - sum(len(line) for line in kept)

    async def offset_of_line(self, execution_id: str, number: int) -> int:
        lines = bytes(self.bytes.get(execution_id, b"")).splitlines(keepends=True)
        return sum(len(line) for line in lines[: number - 1])

    async def page(
        self, execution_id: str, start: int, limit_bytes: int, *, stream: str | None = None
    ) -> OutputPage:
        self.pages_read += 1
        is_live = self.is_live(execution_id)
        chunk = await self.read(execution_id, start, max(limit_bytes, 64 * 1024))
        end = await self.size(execution_id)
        rest = Rest.CUT if chunk.end < end else Rest.OPEN if is_live else Rest.FINAL
        if execution_id in self.dropped and chunk.end == self.dropped[execution_id][0]:
            rest = Rest.FINAL
        sent = bytes(self.bytes.get(execution_id, b""))[: chunk.start]
        pieces = split(
            chunk.data,
            chunk.start,
            sent.count(b"\n") + 1,
            continued=bool(sent) and not sent.endswith((b"\n", b"\r")),
            rest=rest,
        )
        lines: list[OutputLine] = []
        for piece in pieces:
            lines.append(
                OutputLine(
                    number=piece.number,
                    at=piece.at,
                    end=piece.end,
                    text=decode(piece.text, is_open=piece.is_open),
                    partial=piece.is_open,
                    continued=piece.continued,
                    more=piece.more,
                )
            )
            if piece.end - chunk.start >= limit_bytes:
                break
        reached = lines[-1].end if lines else chunk.end
        partial = [line.at for line in lines if line.partial]
        return OutputPage(
            lines=tuple(line for line in lines if stream in (None, line.stream)),
            next=partial[0] if partial else reached,
            end=end,
            gap=chunk.gap,
        )

    async def search(
        self,
        execution_id: str,
        needle: str,
        limit: int,
        *,
        start: int = 0,
        stream: str | None = None,
        time_s: float | None = None,
    ) -> OutputHits:
        page = await self.page(execution_id, start, 2**40, stream=stream)
        found = [line for line in page.lines if needle in line.text]
        stop = found[limit].at if len(found) > limit else page.end
        return OutputHits(lines=tuple(found[:limit]), next=stop, end=page.end)

    async def growth(self, execution_id: str) -> AsyncIterator[None]:
        while True:
            seen = len(self.bytes.get(execution_id, b""))
            yield
            async with self._grown:
                if len(self.bytes.get(execution_id, b"")) == seen:
                    await self._grown.wait()


class BackendTokens(TokenStore):
    """The real store, in memory; beside it all in `principals`, by their whole token."""

    def __init__(self, clock: Clock, principals: dict[str, Principal]) -> None:
        super().__init__(clock, TokenBook())
        self._principals = principals

    def check(self, token: str) -> Grant | None:
        return self.grant(token) or super().check(token)

    def grant(self, token_id: str) -> Grant | None:
        principal = self._principals.get(token_id)
        if principal is None:
            return super().grant(token_id)
        return Grant(principal=principal, token_id=token_id, seal="backend")


class BackendHistory:
    """Implements `bus.feed.History`: all frames since `floor`."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.floor = 0
        self.asked = 0
        self.is_found = asyncio.Event()
        """Cleared, the journal takes its time to answer where it begins."""
        self.is_found.set()
        self.is_sought = asyncio.Event()
        """Set once somebody has asked where it begins."""

    async def oldest(self) -> int:
        self.is_sought.set()
        await self.is_found.wait()
        return self.floor

    async def after(
        self, seq: int, until: int, limit: int, size_max: int, wanted: Predicate
    ) -> Batch:
        self.asked += 1
        if seq < self.floor:
            raise FellBehind
        frames = [f for f in self.frames if seq < f.seq <= until and wanted(f)]
        if len(frames) > limit:
            return Batch(frames[:limit], frames[limit - 1].seq)
        return Batch(frames, until)


class Backend:
    """Table, feed and door; `refuse_with` is what the check says to the next commands."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.table = BackendTable()
        self.feed = Feed(EPOCH, 0, self.clock)
        self.history = BackendHistory()
        self.listeners: list[ChangeListener] = []
        self.output = BackendOutput()
        self.refuse_with: BusError | None = None
        self.break_transport_with: BusError | None = None
        self.published: list[Envelope] = []
        self.decide_at_once = True
        self.handle_at_once = True
        self.not_ready: str | None = None
        self.principals = {
            ADMIN: Principal(user_id="root", roles=("admin",), via="http"),
            ALICE: Principal(user_id="alice", roles=("operator",), via="http"),
            VIEWER: Principal(user_id="vera", roles=("viewer",), via="http"),
            ROLELESS: Principal(user_id="sam", roles=("outsider",), via="http"),
        }
        self.tokens: TokenStore = BackendTokens(self.clock, self.principals)
        self.sessions_file: Path | None = None
        self.audit: AuditTrail | None = None
        self._encoder = ChangeEncoder("test", EPOCH)
        self._waiting: dict[str, asyncio.Future[CommandRecord]] = {}

    # the ports

    def check(self, envelope: Envelope) -> None:
        if self.refuse_with is not None:
            raise self.refuse_with

    async def publish(self, envelope: Envelope) -> None:
        """The transport: in this backend a command is handled as soon as it is durable."""
        if self.break_transport_with is not None:
            raise self.break_transport_with
        self.published.append(envelope)
        if not self.decide_at_once:
            return
        self.accept(envelope)
        if self.handle_at_once:
            self.end_command(envelope.id)

    def holds(self, command_id: str) -> bool:
        """The transport: what was published stays here until it has ended."""
        record = self.table.command(command_id)
        if record is not None:
            return not record.is_final
        return any(envelope.id == command_id for envelope in self.published)

    async def command_ended(self, command_id: str) -> CommandRecord:
        record = self.table.command(command_id)
        if record is not None and record.is_final:
            return record
        future = self._waiting.setdefault(command_id, asyncio.get_running_loop().create_future())
        return await asyncio.shield(future)

    def ports(self) -> GatewayPorts:
        self.output.is_live = self._is_live
        return GatewayPorts(
            table=self.table,
            publisher=Publisher(self, self, self.table),  # type: ignore[arg-type]  # it only publishes
            waiter=self,
            feed=self.feed,
            history=self.history,
            output=self.output,
            artifacts=ArtifactStore(DataLayout(Path("/nowhere"))),
            clock=self.clock,
            instance="test",
            secret=b"s" * 32,
            roles=RoleDefaults(),
            tokens=self.tokens,
            system=lambda: {"queue": {"waiting": 0}},
            ready=lambda: self.not_ready,
            sessions=SavedSessions.read(self.sessions_file)
            if self.sessions_file
            else SavedSessions(),
            audit=self.audit,
        )

    def _is_live(self, execution_id: str) -> bool:
        execution = self.table.execution(execution_id)
        return execution is not None and not execution.is_final

    # what happens in it

    def define(self, job_id: str, **spec: Any) -> Job:
        job = Job(
            id=job_id,
            spec=JobSpec(command=("true",), **spec),
            revision="r1",
            version=self.feed.head + 1,
        )
        self.table.by_job[job_id] = job
        assert job.spec is not None
        self._tell(JobChanged(job_id=job_id, revision="r1", spec=job.spec))
        return job

    def queue(self, job_id: str, user_id: str = "alice", execution_id: str | None = None) -> str:
        """A queued execution; returns its id."""
        seq = self.feed.head + 1
        execution = Execution(
            id=execution_id or str(uuid.uuid4()),
            job_id=job_id,
            command_id=str(uuid.uuid4()),
            user_id=user_id,
            status=ExecutionStatus.QUEUED,
            revision="r1",
            queued_ms=self.clock.now_ms(),
            version=seq,
        )
        self.table.by_execution[execution.id] = execution
        self._tell(
            ExecutionQueued(
                execution_id=execution.id,
                job_id=job_id,
                command_id=execution.command_id,
                user_id=user_id,
                revision="r1",
            )
        )
        return execution.id

    def run(self, execution_id: str) -> None:
        now_ms = self.clock.now_ms()
        self._change(execution_id, status=ExecutionStatus.RUNNING, start_ms=now_ms, pid=7)
        self._tell(ExecutionRunning(execution_id=execution_id, pid=7, started_ms=now_ms))

    def progress(self, execution_id: str, percent: float, message: str = "") -> None:
        progress = Progress(percent=percent, message=message)
        self._change(execution_id, progress=progress)
        self._tell(ExecutionProgress(execution_id=execution_id, progress=progress))

    def end(self, execution_id: str) -> None:
        now_ms = self.clock.now_ms()
        end = len(self.output.bytes.get(execution_id, b""))
        self._change(
            execution_id,
            status=ExecutionStatus.SUCCEEDED,
            reason=Reason.EXIT_CODE,
            exit_code=0,
            end_ms=now_ms,
            output_end=end,
        )
        self._tell(
            ExecutionEnded(
                execution_id=execution_id,
                status=ExecutionStatus.SUCCEEDED,
                reason=Reason.EXIT_CODE,
                ended_ms=now_ms,
                exit_code=0,
                output_end=end,
            )
        )

    def delete(self, execution_id: str) -> None:
        old = self.table.by_execution.pop(execution_id)
        self._tell(ExecutionDeleted(execution_id=old.id, job_id=old.job_id, user_id=old.user_id))

    def accept(self, envelope: Envelope) -> None:
        command = envelope.command
        record = CommandRecord(
            id=envelope.id,
            kind=kind_of(command),
            user_id=envelope.principal.user_id,
            submitted_ms=envelope.submitted_ms,
            body_hash=envelope.body_hash,
            status=CommandStatus.RUNNING,
            job_id=getattr(command, "job_id", None),
            version=self.feed.head + 1,
        )
        self.table.by_command[envelope.id] = record
        self._tell(
            CommandAccepted(
                command_id=record.id,
                kind=record.kind,
                user_id=record.user_id,
                submitted_ms=record.submitted_ms,
                body_hash=record.body_hash,
                job_id=record.job_id,
            )
        )

    def fail(self, execution_id: str, error: str) -> None:
        """It could not be started, for a reason that holds words of others."""
        now_ms = self.clock.now_ms()
        status, reason = ExecutionStatus.FAILED, Reason.SPAWN_ERROR
        self._change(execution_id, status=status, reason=reason, error=error, end_ms=now_ms)
        self._tell(
            ExecutionEnded(
                execution_id=execution_id,
                status=status,
                reason=reason,
                error=error,
                ended_ms=now_ms,
            )
        )

    def end_command(self, command_id: str) -> None:
        record = msgspec.structs.replace(
            self.table.by_command[command_id],
            status=CommandStatus.COMPLETED,
            outcome=Outcome.DONE,
            processed_ms=self.clock.now_ms(),
            result=msgspec.Raw(b'{"status":"Idle"}'),
            version=self.feed.head + 1,
        )
        self.table.by_command[command_id] = record
        self._tell(
            CommandEnded(
                command_id=command_id, status=CommandStatus.COMPLETED, outcome=Outcome.DONE
            )
        )
        future = self._waiting.pop(command_id, None)
        if future is not None and not future.done():
            future.set_result(record)

    def _change(self, execution_id: str, **fields: Any) -> None:
        self.table.by_execution[execution_id] = msgspec.structs.replace(
            self.table.by_execution[execution_id], version=self.feed.head + 1, **fields
        )

    def _tell(self, event: AnyEvent) -> None:
        seq = self.feed.head + 1
        published = Published(seq, self.clock.now_ms(), event)
        frame = self._encoder.frame(published, self.table)
        frames = [frame] if frame is not None else []
        self.history.frames += frames
        self.feed.publish(frames, seq)
        for listener in self.listeners:
            listener([published])


@asynccontextmanager
async def serving(
    backend: Backend, settings: GatewaySettings | None = None
) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """The backend's gateway on a free port, and a session without a credential."""
    gateway = Gateway(backend.ports(), settings or GatewaySettings(version="test"))
    url = await gateway.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(base_url=url) as session:
            yield url, session
    finally:
        await gateway.aclose()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
