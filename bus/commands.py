"""Requests, imperative: what people may ask for, and what the parts report to the owner. No IO.

The union `Command` is what travels: over HTTP (camelCase, tag `command`), in queue files, between
machines. The union `Report` never leaves the process: what happens outside (a process exits, a file
changes) re-enters as a report, so that there is one path to the job table.
"""

import hashlib
from typing import Annotated, Any

import msgspec

from bus.health import HealthStatus
from bus.job_definition import DefinitionFault, JobSpec
from bus.model import ExitRecord, Progress, StopRequest, Value
from bus.schedules import Bar, BarredInstants, Instants

GRACE_S_MAX = 86_400.0
"""The longest grace that may be asked for."""

REASON_MAX = 500
"""Characters of a reason that somebody gives."""

Moment = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""A moment as `bus.clock.canonical_moment` writes it; every way in turns what it was sent into
that."""


class StartJob(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="start",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Start the job once: at once, or not before a moment that lies ahead."""

    job_id: str
    variables: dict[str, Value] = {}
    not_before: Moment | None = None


class StopJob(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="stop",
    tag_field="command",
    rename={"job_id": "jobId", "execution_id": "executionId", "grace_s": "graceS"},
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Stop one execution, or without `execution_id` all of the job's.

    `grace_s` shortens or lengthens the job's own grace; `kill` skips it.
    """

    job_id: str | None = None
    execution_id: str | None = None
    grace_s: float | None = None
    kill: bool = False


class RestartJob(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="restart",
    tag_field="command",
    rename={"job_id": "jobId", "execution_id": "executionId", "grace_s": "graceS"},
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Stop what runs and start it again, as one command. `variables` of None keeps the old ones."""

    job_id: str | None = None
    execution_id: str | None = None
    variables: dict[str, Value] | None = None
    grace_s: float | None = None
    kill: bool = False


class GetStatus(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="status",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Answer with the job's entry; changes nothing and takes no slot."""

    job_id: str


class CancelCommand(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="cancel",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Take back a command whose execution has not started."""

    target_id: str


class RetryExecution(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="retry",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Start the job of an ended execution again with the same variables."""

    execution_id: str
    not_before: Moment | None = None


class DeleteExecution(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="delete",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Forget an ended execution and remove its output."""

    execution_id: str


class PauseSchedule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="schedule.pause",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Start nothing by a schedule of a job, or without `schedule` by any of them.

    Its instants are skipped meanwhile. With `until` it goes on by itself at that time.
    """

    job_id: str
    schedule: str | None = None
    reason: str = ""
    until: Moment | None = None


class ResumeSchedule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="schedule.resume",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Let a schedule of a job go on, or without `schedule` all of them."""

    job_id: str
    schedule: str | None = None


class RunSchedule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="schedule.run",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Start the job now, with the variables of a schedule; `schedule` if it has several."""

    job_id: str
    schedule: str | None = None


class BackfillSchedule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="schedule.backfill",
    tag_field="command",
    rename={"job_id": "jobId", "begin": "from", "end": "to"},
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Start the job for each instant of a schedule in a span for which it was not started, in
    order, 100 at a time; with `preview` only say how many that are."""

    job_id: str
    schedule: str | None = None
    begin: Moment
    end: Moment
    preview: bool = False


class PauseQueue(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="queue.pause",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Start nothing more that waits in the queue of a job, or that needs a slot of a group.

    What runs goes on; what is asked for meanwhile waits. With `until` the queue goes on by itself
    at that time.
    """

    job_id: str | None = None
    group: str | None = None
    reason: str = ""
    until: Moment | None = None


class ResumeQueue(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag="queue.resume",
    tag_field="command",
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Let the queue of a job or of a group go on."""

    job_id: str | None = None
    group: str | None = None


Command = (
    StartJob
    | StopJob
    | RestartJob
    | GetStatus
    | CancelCommand
    | RetryExecution
    | DeleteExecution
    | PauseSchedule
    | ResumeSchedule
    | RunSchedule
    | BackfillSchedule
    | PauseQueue
    | ResumeQueue
)
"""Everything that may be published."""


class ReportRunning(msgspec.Struct, frozen=True, kw_only=True, tag="report_running"):
    """The shim has started the job's program (and it is ready, if the job declares readiness)."""

    execution_id: str
    pid: int
    started_ms: int


class ReportProgress(msgspec.Struct, frozen=True, kw_only=True, tag="report_progress"):
    """The job reported its progress."""

    execution_id: str
    progress: Progress


class ReportHealth(msgspec.Struct, frozen=True, kw_only=True, tag="report_health"):
    """The last checks of the running program came to this; `message` is what the last one said."""

    execution_id: str
    status: HealthStatus
    message: str = ""


class ReportStopping(msgspec.Struct, frozen=True, kw_only=True, tag="report_stopping"):
    """The shim began to stop the tree by itself, because of a time limit or the watchdog."""

    execution_id: str
    stop: StopRequest


class ReportEnded(msgspec.Struct, frozen=True, kw_only=True, tag="report_ended"):
    """The tree is gone (or given up on) and the output is complete."""

    execution_id: str
    exit: ExitRecord


class ReportSpawnFailed(msgspec.Struct, frozen=True, kw_only=True, tag="report_spawn_failed"):
    """The job's program never ran; `error` is a sentence for people."""

    execution_id: str
    error: str


class ReportUnknown(msgspec.Struct, frozen=True, kw_only=True, tag="report_unknown"):
    """The shim is dead without an exit record while its tree lives."""

    execution_id: str


class ReportLost(msgspec.Struct, frozen=True, kw_only=True, tag="report_lost"):
    """Nothing is left that shows how the execution ended; `reason` is a `Reason` word.

    `elsewhere`: it belongs to the directory that this one is a copy of, and may still run there.
    """

    execution_id: str
    reason: str
    elsewhere: bool = False


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalog read for one job: a spec with its revision, or a fault."""

    job_id: str
    spec: JobSpec | None = None
    revision: str = ""
    fault: DefinitionFault | None = None


class ApplyCatalog(msgspec.Struct, frozen=True, kw_only=True, tag="apply_catalog"):
    """The whole catalog as it is on disk now; what is missing here was removed."""

    definitions: tuple[Definition, ...]


class PassTime(msgspec.Struct, frozen=True, kw_only=True, tag="pass_time"):
    """A deadline may have come: expiries, delayed starts."""


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """What retention found to be more than what is kept; see `bus.events.SystemForgotten`."""

    executions: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    ids_dropped: int = 0
    horizon_ms: int = 0
    horizon_at_most_ms: int | None = None
    turned: bool = False


class SetMaintenance(msgspec.Struct, frozen=True, kw_only=True, tag="set_maintenance"):
    """Nothing is to be started from now on (`on`), or all goes on as usual."""

    on: bool
    by: str
    reason: str = ""


class ReportScheduleDue(msgspec.Struct, frozen=True, kw_only=True, tag="report_schedule_due"):
    """The instant `at_ms` of a schedule has come; without `start` it passed too long ago.

    `skipped` and `merged` are earlier ones: those that are not made up for, and those for which
    this one stands. With `queue` the start waits for its turn, whatever the job does in an overlap.
    `bar` keeps it from starting then, `barred` are earlier instants that started nothing for such a
    reason. `boot` is the boot that has begun, for schedules that go by these.
    """

    job_id: str
    schedule: str
    mark: str
    at_ms: int
    start: bool = True
    queue: bool = False
    skipped: Instants | None = None
    merged: Instants | None = None
    boot: str = ""
    bar: Bar | None = None
    barred: tuple[BarredInstants, ...] = ()


class ReportClock(msgspec.Struct, frozen=True, kw_only=True, tag="report_clock"):
    """The wall clock is not believed, or is again; `by` is the person who says so, if one does.

    `believed_ms` is the last time that was believed.
    """

    doubted: bool
    believed_ms: int | None = None
    by: str = ""


class SetGroups(msgspec.Struct, frozen=True, kw_only=True, tag="set_groups"):
    """The groups with their limits as the settings name them now; others were removed."""

    limits: dict[str, int]


Report = (
    ReportRunning
    | ReportProgress
    | ReportHealth
    | ReportStopping
    | ReportEnded
    | ReportSpawnFailed
    | ReportUnknown
    | ReportLost
    | ApplyCatalog
    | PassTime
    | Forget
    | SetMaintenance
    | ReportScheduleDue
    | ReportClock
    | SetGroups
)
"""What only the parts of the service itself send to the owner."""

AnyCommand = Command | Report

_URGENT = (StopJob, CancelCommand)

NEEDED_WHEN_FULL = (StopJob, CancelCommand, DeleteExecution)
"""Commands that end what fills the disk, or make room: they are accepted when it is full."""

encoder = msgspec.json.Encoder(order="deterministic")
command_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)


def kind_of(command: AnyCommand) -> str:
    """The wire word of a command, e.g. `start`; of a report, its name in logs."""
    tag = type(command).__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def is_urgent(command: AnyCommand) -> bool:
    """Whether the command goes ahead of waiting starts; reports do too."""
    return isinstance(command, _URGENT)


def is_urgent_kind(word: object) -> bool:
    """The same for the wire word of a command, in any case, before it is a command."""
    return isinstance(word, str) and word.lower() in _URGENT_KINDS


_URGENT_KINDS = frozenset(kind.__struct_config__.tag for kind in _URGENT)


def job_of(command: AnyCommand) -> str | None:
    """The job a command names, if it names one."""
    match command:
        case StartJob() | GetStatus() | StopJob() | RestartJob() | PauseQueue() | ResumeQueue():
            return command.job_id
        case PauseSchedule() | ResumeSchedule() | RunSchedule() | BackfillSchedule():
            return command.job_id
        case _:
            return None


def variables_of(command: AnyCommand) -> dict[str, Value] | None:
    """The variables a command brings; None if it brings none of its own."""
    return command.variables if isinstance(command, StartJob | RestartJob) else None


def body_hash(command: Command, extra: Any = None) -> str:
    """32 hex digits that are equal exactly for commands that ask for the same.

    `extra` is what belongs to the request and not to the command, e.g. its expiry.
    """
    body = encoder.encode((command, extra))
    return hashlib.blake2b(body, digest_size=16).hexdigest()
