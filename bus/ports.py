"""What handlers and transports ask of each other: small protocols, no implementation.

handlers/ and transports/ never import each other; `jobbus.service.app` hands each side what is
named here.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Protocol

import msgspec

from bus.access import RoleDefaults
from bus.commands import Report
from bus.envelope import Envelope
from bus.errors import BusError
from bus.events import Published
from bus.groups import Group
from bus.job_definition import Job, JobSpec, RolesSpec
from bus.model import CommandRecord, Execution, ForgottenCommand, Maintenance
from bus.retention_settings import RetentionSettings
from bus.secret_sources import SecretSource
from bus.views import GroupView, PlannedView, ScheduleView


class TableReader(Protocol):
    """The published job table: only what is durable, never half of a decision.

    All answers are frozen records; reading takes no lock and never waits.
    """

    @property
    def maintenance(self) -> Maintenance | None:
        """Set while nothing is started."""
        ...

    def job(self, job_id: str) -> Job | None: ...

    def jobs(self) -> Iterable[Job]:
        """All jobs of the catalog, by id."""
        ...

    def names_of(self, job_id: str) -> tuple[str, ...]:
        """The name of a job, and those that it had before: its history is under all of them."""
        ...

    def roles(self, job_id: str) -> RolesSpec | None:
        """The `[roles]` in force for the job; of one that is gone, the last it had. None if it
        never had any."""
        ...

    def execution(self, execution_id: str) -> Execution | None: ...

    def executions(self) -> Iterable[Execution]:
        """All kept executions, newest first."""
        ...

    def executions_of(self, job_id: str) -> Iterable[Execution]:
        """The job's kept executions, newest first, also those under names that it had before."""
        ...

    def live_executions(self) -> Iterable[Execution]:
        """Those that are not final, oldest first."""
        ...

    def waiting_for(self, execution: Execution, now_ms: int) -> str:
        """What a queued execution waits for, as a sentence; empty if it does not wait."""
        ...

    def groups(self) -> Iterable[Group]:
        """The groups of slots, by name."""
        ...

    def group_view(self, name: str) -> GroupView | None:
        """A group with how many hold a slot of it and how many wait for one."""
        ...

    def command(self, command_id: str) -> CommandRecord | None: ...

    def forgotten(self, command_id: str) -> ForgottenCommand | None:
        """What is left of a command that is not kept any more; None if the id is free."""
        ...

    def commands(self) -> Iterable[CommandRecord]:
        """All remembered commands, newest first."""
        ...


class Checker(Protocol):
    """The owner's pure check, asked before anything is written."""

    def check(self, envelope: Envelope) -> None:
        """The command would be attempted now.

        Raises:
            Refused: it would not, and why.
        """
        ...


class CommandWaiter(Protocol):
    async def command_ended(self, command_id: str) -> CommandRecord:
        """Waits until the command is final; the caller sets the time limit."""
        ...


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a publisher gets back; `replayed` says that the id was known and this is a repeat."""

    command_id: str
    replayed: bool = False


class CommandPublisher(Protocol):
    """How the gateway publishes: checked early, deduplicated, durable on return."""

    async def publish(self, envelope: Envelope) -> Receipt:
        """The command is durable and will be handled.

        Raises:
            Refused: the owner's check says no; nothing was written.
            IdInUse: the id belongs to a command with another body or of another principal.
            TransportBusy, StorageFailed: see `bus.transport.Transport.publish`.
        """
        ...

    async def publish_many(self, envelopes: Sequence[Envelope]) -> Sequence[Receipt | BusError]:
        """`publish` of each, in this order and made durable together.

        What `publish` would raise stands in the place of the receipt.
        """
        ...

    def undecided(self, command_id: str) -> Envelope | None:
        """The command that came in here under this id and is in no table yet."""
        ...


class OutputLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of output. `at` and `end` are byte offsets; `number` is 1-based.

    `stream` is `out` or `err`. `partial` marks an open line that a later one with the same number
    replaces; `time_ms` is when the line's first byte was read. `more` says that the line goes on in
    a further piece.
    """

    number: int
    at: int
    end: int
    text: str
    stream: str = "out"
    time_ms: int | None = None
    partial: bool = False
    continued: bool = False
    more: bool = False


class OutputChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes `start` to `end` of an output. `gap` is set when bytes before `start` were dropped."""

    start: int
    end: int
    data: bytes
    gap: tuple[int, int] | None = None


class OutputReader(Protocol):
    """The output of executions, as logical byte offsets from 0.

    All methods take ids that the caller has checked to exist. What is read is bounded by `limit`.
    """

    async def size(self, execution_id: str) -> int:
        """The offset after the last byte that can be read now; 0 if there is no output."""
        ...

    async def read(self, execution_id: str, start: int, limit: int) -> OutputChunk:
        """Up to `limit` bytes from `start` on; empty at the end."""
        ...

    def pieces(
        self, execution_id: str, start: int, end: int, size: int
    ) -> AsyncGenerator[OutputChunk, None]:
        """`read` again and again from `start` to `end`, in pieces of about `size` bytes, for those
        who take all of it: files are kept open in between. Ends early where nothing can be read.

        A reader that leaves before the end closes it.
        """
        ...

    async def offset_of_tail(self, execution_id: str, lines: int) -> int:
        """Where the last `lines` lines begin."""
        ...

    def growth(self, execution_id: str) -> AsyncIterator[None]:
        """Yields at once and then whenever there may be more to read (also at least every few
        seconds, since a hint may get lost)."""
        ...


class OutputPage(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of an output. `next` is where to read on; `end` where the output ends now.

    The bytes of `gap` were dropped and would have stood before the first line.
    """

    lines: tuple[OutputLine, ...]
    next: int
    end: int
    gap: tuple[int, int] | None = None


class OutputHits(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that were found. The search goes on at `next`; it is over where that is `end`."""

    lines: tuple[OutputLine, ...]
    next: int
    end: int


class OutputLineReader(OutputReader, Protocol):
    """The same output as lines for people.

    Bytes that are no UTF-8 become U+FFFD. Of a line that was redrawn by CR only the last state
    counts. A line over 16 KiB comes in pieces: a `continued` one follows those with its number, any
    other replaces them. An execution's last line counts as whole once it is no longer live.
    """

    async def page(
        self, execution_id: str, start: int, limit_bytes: int, *, stream: str | None = None
    ) -> OutputPage:
        """The lines in about `limit_bytes` from `start` on; `stream` picks `out` or `err`."""
        ...

    async def offset_of_line(self, execution_id: str, number: int) -> int:
        """Where line `number` (from 1) begins; the end if there is none, an offset in the gap if
        it was dropped."""
        ...

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
        """The first `limit` lines from that at `start` on that hold `needle` literally, each once;
        the search takes about `time_s` at most."""
        ...


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an execution has left. `path` is its name below the folder of the artifacts, in
    percent-encoding, as in an address; by size and time it is known again."""

    path: str
    size: int
    mtime_ns: int


class ArtifactReader(Protocol):
    """The files that executions have left, as they were listed at the end."""

    async def listed(self, execution_id: str) -> tuple[Artifact, ...]:
        """By path; none before the end."""
        ...

    def pieces(
        self, execution_id: str, artifact: Artifact, start: int, end: int, size: int
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a file from `start` to `end`, so many at a time.

        Raises:
            ArtifactGone: it is not what was listed any more.
        """
        ...

    def zipped(
        self, execution_id: str, artifacts: Sequence[Artifact], size: int
    ) -> AsyncGenerator[bytes, None]:
        """All of these in one archive, which is made while it is read.

        Raises:
            ArtifactGone: one of them is not what was listed any more.
        """
        ...


class OutputNotice(Protocol):
    """Where the supervisor reports that an execution's output has grown."""

    def grown(self, execution_id: str) -> None: ...


class ChangeListener(Protocol):
    """Called, synchronously and cheaply, with each batch of events right after it was published."""

    def __call__(self, batch: Sequence[Published]) -> None: ...


class Supervisor(Protocol):
    """Does what the owner decided; what becomes of it comes back as reports."""

    def spawn(self, execution: Execution, spec: JobSpec | None) -> None:
        """Start the job's program under a shim, at most once for this execution. Never waits.

        Without its definition, which a damaged journal may have lost, the start fails.
        """
        ...

    def stop(self, execution: Execution) -> None:
        """Make the shim follow `execution.stop`; called again when the order gets sharper."""
        ...


class ReportSink(Protocol):
    """Where parts of the service put what they saw; never waits, never refuses."""

    def __call__(self, report: Report) -> None: ...


class ScheduleReader(Protocol):
    """When jobs are started by themselves, as far as it is known."""

    def next_ms(self, job_id: str) -> int | None:
        """When the job is started next; None if it is not."""
        ...

    def views(self, job: Job) -> tuple[ScheduleView, ...]:
        """The schedules of the job, each with its next instants."""
        ...

    async def planned(self, jobs: Sequence[Job], until_ms: int, most: int) -> list[PlannedView]:
        """The first `most` instants of the jobs' schedules up to a moment, earliest first."""
        ...


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that decisions depend on; `secrets` are those configured, by name, and
    `mapped_roles` the words of a host that count as roles of ours; `boot` is the boot of the
    machine on which the service runs."""

    roles: RoleDefaults = RoleDefaults()
    mapped_roles: frozenset[str] = frozenset()
    keeping: RetentionSettings = RetentionSettings()
    queue_max: int = 100
    secrets: dict[str, SecretSource] = {}
    boot: str = ""

    def secrets_for(self, job_id: str) -> frozenset[str]:
        """The names of those that the job may be given."""
        return frozenset(name for name, source in self.secrets.items() if source.is_for(job_id))
