"""Facts, past tense: what the owner decided and what happened. No IO, no clock.

Each event is journaled before any reader sees it, but for `ExecutionProgress`, which is
latest-value. Tags, fields and their meaning never change; new fields have defaults (golden files
guard it).
"""

from typing import Final

import msgspec

from bus.health import HealthStatus
from bus.job_definition import DefinitionFault, JobSpec
from bus.model import (
    NO_RESULT,
    Caused,
    CommandStatus,
    ExecutionStatus,
    Outcome,
    Progress,
    Reason,
    StopRequest,
    Usage,
    Value,
)
from bus.schedules import Verdict, Why


class CommandAccepted(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="command.accepted"
):
    """The command is on record under its id; `execution_id` is the execution it made, if any.

    `attempted` is false for a command that is refused in the same decision. A stop of a whole job
    overtakes the job's starts that were accepted before `supersedes_ns`.
    """

    command_id: str
    kind: str
    user_id: str
    submitted_ms: int
    body_hash: str
    job_id: str | None = None
    roles: tuple[str, ...] = ()
    via: str = "system"
    variables: dict[str, Value] | None = None
    submitted_text: str | None = None
    id_text: str | None = None
    execution_id: str | None = None
    waits_for: tuple[str, ...] = ()
    merged: bool = False
    attempted: bool = True
    supersedes_ns: int = 0
    traceparent: str | None = None


class CommandEnded(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="command.ended"
):
    """The command reached its final status."""

    command_id: str
    status: CommandStatus
    outcome: Outcome | None = None
    error_code: str | None = None
    error: str | None = None
    execution_id: str | None = None
    result: msgspec.Raw = NO_RESULT


class ExecutionQueued(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.queued"
):
    """An execution exists and waits for a slot.

    `first` puts it ahead of the job's queue; it may start only when `replaces` has ended and not
    before `not_before_ms`. `cause` names the policy that made it, if no person did; `attempts`
    is how many starts in all its definition allows, if it is retried at all. `caused_by` is the
    execution whose end set it going, as the last of `hops`; `scheduled_at` is the instant of the
    schedule that made it (RFC 3339, with the offset of its zone).
    """

    execution_id: str
    job_id: str
    command_id: str
    user_id: str
    revision: str
    variables: dict[str, Value] = {}
    attempt: int = 1
    previous: str | None = None
    first: bool = False
    replaces: str | None = None
    not_before_ms: int | None = None
    cause: str = ""
    expires_ms: int | None = None
    traceparent: str | None = None
    attempts: int = 0
    caused_by: str | None = None
    hops: int = 0
    scheduled_at: str | None = None


class ExecutionStarted(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.started"
):
    """The execution took a slot: from here on it may run (`Starting`).

    With a `revision` it runs by that definition, with these `variables`, and not by the one that
    was in force when it was queued. `groups` are those of which it holds a slot from here on, until
    it has ended.
    """

    execution_id: str
    revision: str = ""
    variables: dict[str, Value] | None = None
    groups: tuple[str, ...] = ()


class ExecutionRunning(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.running"
):
    """The program runs (and is ready, where the job declares readiness)."""

    execution_id: str
    started_ms: int
    pid: int | None = None


class ExecutionProgress(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.progress"
):
    """The latest progress of the job. Never journaled."""

    execution_id: str
    progress: Progress


class ExecutionHealth(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.health"
):
    """From now on the running program counts as well, or as not well; `message` says why."""

    execution_id: str
    status: HealthStatus
    message: str = ""


class ExecutionStopping(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.stopping"
):
    """The end of the execution was ordered: by a user, a limit or a policy."""

    execution_id: str
    stop: StopRequest


class ExecutionUnknown(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.unknown"
):
    """The shim cannot be asked while the tree lives; the slot stays taken."""

    execution_id: str


class ExecutionEnded(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.ended"
):
    """Final. The output is complete up to `output_end`; `result` is what the program left, and
    `result_note` why nothing was taken."""

    execution_id: str
    status: ExecutionStatus
    reason: Reason
    ended_ms: int
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    contained: bool | None = None
    survivors: tuple[int, ...] = ()
    containment: str = ""
    output_end: int | None = None
    progress: Progress | None = None
    usage: Usage | None = None
    core_dumped: bool = False
    result: msgspec.Raw = NO_RESULT
    result_note: str = ""
    artifacts: int = 0
    artifact_bytes: int = 0
    artifacts_note: str = ""


class ExecutionCaused(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.caused"
):
    """The end of the execution, which stands before it, has set another start going, or was to."""

    execution_id: str
    by: str
    caused: Caused


class ExecutionDeleted(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="execution.deleted"
):
    """The execution is forgotten: its record, its files and its output."""

    execution_id: str
    job_id: str
    user_id: str


class JobGaveUp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="job.gave_up"):
    """More automatic restarts than the definition allows: a person must start it again."""

    job_id: str
    restarts: int
    window_s: float


class JobCleared(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="job.cleared"):
    """A person started the job: its automatic restarts are counted from zero again."""

    job_id: str


class JobDefined(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="job.defined"):
    """A job appeared in the catalog."""

    job_id: str
    revision: str
    spec: JobSpec


class JobChanged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="job.changed"):
    """A new version of the definition is in force; running executions keep theirs."""

    job_id: str
    revision: str
    spec: JobSpec


class JobInvalid(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="job.invalid"):
    """The file on disk is faulty; the last good version, if any, stays in force."""

    job_id: str
    fault: DefinitionFault


class JobRemoved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="job.removed"):
    """The definition is gone; live executions go on."""

    job_id: str


class JobPaused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="job.paused"):
    """From now on nothing that waits in the job's queue is started, if need be until `until_ms`."""

    job_id: str
    by: str
    reason: str = ""
    until_ms: int | None = None


class JobResumed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="job.resumed"):
    """The job's queue goes on; `by` is `system:time` if the time of the pause has passed."""

    job_id: str
    by: str


class GroupDefined(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="group.defined"
):
    """The group exists, or has another limit from now on. What runs goes on, whatever the limit."""

    name: str
    max_running: int


class GroupRemoved(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="group.removed"
):
    """The settings do not name the group any more; its last limit holds while jobs use it."""

    name: str


class GroupPaused(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="group.paused"
):
    """From now on nothing that needs a slot of the group is started, see `JobPaused`."""

    name: str
    by: str
    reason: str = ""
    until_ms: int | None = None


class GroupResumed(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="group.resumed"
):
    """The group's slots are given out again, see `JobResumed`."""

    name: str
    by: str


class SystemForgotten(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="system.forgotten"
):
    """What is older or more than what is kept is gone: records of executions and of commands.

    Of `commands` the ids stay remembered; of the `traceless`, which had no effect, nothing does. Of
    the ids the first `ids_dropped` ever are gone; a command submitted at `horizon_ms` or before may
    have been one of them. 0 leaves both alone. `horizon_at_most_ms` lowers a horizon that a wrong
    clock has left. `turned` says that a part of the days for which ids are kept has passed.
    """

    executions: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    ids_dropped: int = 0
    horizon_ms: int = 0
    traceless: tuple[str, ...] = ()
    horizon_at_most_ms: int | None = None
    turned: bool = False


class SystemMaintenance(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="system.maintenance"
):
    """From now on nothing is started, or (`on` is false) all is as usual again."""

    on: bool
    by: str
    reason: str = ""


class ScheduleBegun(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="schedule.begun"
):
    """From now on the instants later than `from_ms` are decided, and none before.

    None: from the moment on at which the clock is believed again. `boot` is the boot of the machine
    that has begun before. What is known of the schedule under the job's former name, if it has one,
    is known under this one from now on, and no more under that.
    """

    job_id: str
    schedule: str
    mark: str
    from_ms: int | None = None
    boot: str = ""
    formerly: str | None = None


class ScheduleDecided(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="schedule.decided"
):
    """What becomes of one instant, or of `count` instants from `first_ms` to `instant_ms`.

    A start has the command and the execution it made; what is coalesced has those into which.
    `error` is a sentence for people where the start was refused; there may be `more` instants than
    were counted. `boot` is set where the instant is the first start on another boot.
    """

    job_id: str
    schedule: str
    instant_ms: int
    verdict: Verdict
    why: Why | None = None
    command_id: str | None = None
    execution_id: str | None = None
    error: str | None = None
    first_ms: int | None = None
    count: int = 1
    more: bool = False
    boot: str = ""


class SchedulePaused(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="schedule.paused"
):
    """From now on the schedule starts nothing, if need be until `until_ms`."""

    job_id: str
    schedule: str
    by: str
    reason: str = ""
    until_ms: int | None = None


class ScheduleResumed(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="schedule.resumed"
):
    """The schedule starts its job again, beginning with the next instant."""

    job_id: str
    schedule: str
    by: str


class SystemClock(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="system.clock"
):
    """The wall clock is not believed from now on, or (`doubted` is false) it is again.

    `shown_ms` is what it shows, `believed_ms` the last time that was believed. `by` is the person
    who says that it is right, if one does.
    """

    doubted: bool
    shown_ms: int
    believed_ms: int | None = None
    by: str = ""


AnyEvent = (
    CommandAccepted
    | CommandEnded
    | ExecutionQueued
    | ExecutionStarted
    | ExecutionRunning
    | ExecutionProgress
    | ExecutionHealth
    | ExecutionStopping
    | ExecutionUnknown
    | ExecutionEnded
    | ExecutionCaused
    | ExecutionDeleted
    | JobGaveUp
    | JobCleared
    | JobDefined
    | JobChanged
    | JobInvalid
    | JobRemoved
    | JobPaused
    | JobResumed
    | GroupDefined
    | GroupRemoved
    | GroupPaused
    | GroupResumed
    | SystemForgotten
    | SystemMaintenance
    | ScheduleBegun
    | ScheduleDecided
    | SchedulePaused
    | ScheduleResumed
    | SystemClock
)

JobEvent = (
    JobGaveUp
    | JobCleared
    | JobDefined
    | JobChanged
    | JobInvalid
    | JobRemoved
    | JobPaused
    | JobResumed
)
GroupEvent = GroupDefined | GroupRemoved | GroupPaused | GroupResumed

EXECUTION_EVENTS: Final = (
    ExecutionQueued,
    ExecutionStarted,
    ExecutionRunning,
    ExecutionProgress,
    ExecutionHealth,
    ExecutionStopping,
    ExecutionUnknown,
    ExecutionEnded,
    ExecutionCaused,
)
COMMAND_EVENTS: Final = (CommandAccepted, CommandEnded)
GROUP_EVENTS: Final = (GroupDefined, GroupRemoved, GroupPaused, GroupResumed)


EVENT_TYPES: Final = tuple(str(kind.__struct_config__.tag) for kind in AnyEvent.__args__)
"""Every type that an event can have."""


def type_of(event: AnyEvent) -> str:
    """The event's type as it stands in the journal and in the feed, e.g. `execution.ended`."""
    tag = type(event).__struct_config__.tag
    assert isinstance(tag, str)
    return tag


class Published(msgspec.Struct, frozen=True):
    """An event with its number in the feed and the time of the decision (ms since 1970)."""

    seq: int
    at_ms: int
    event: AnyEvent
