"""Commands, executions and jobs as the service sends them. No IO.

Each field but the identifying ones has a default, so that a client and a service of different
versions understand each other: fields that a service adds are passed over.
"""

from typing import Any

import msgspec

from jobbus.client.command_records import Scalar, Value

FINAL_COMMAND = frozenset({"Completed", "Failed", "Rejected", "Expired", "Cancelled"})
FINAL_EXECUTION = frozenset(
    {"Succeeded", "Failed", "Stopped", "TimedOut", "Cancelled", "Skipped", "Lost"}
)
"""The states that are never left."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far a program says it is; `percent` is 0 to 100.

    `note` says what the program wrote first that was not understood; `reloading` that it reads its
    configuration again.
    """

    percent: float | None = None
    message: str = ""
    data: dict[str, Any] | None = None
    note: str = ""
    reloading: bool = False


class Stop(msgspec.Struct, frozen=True, kw_only=True, rename={"grace_s": "graceS"}):
    """The order to stop: `reason` is a word of the contract, `by` a user or a part of the service.

    `at` is an RFC 3339 time, `grace_s` are the seconds between the stop signal and KILL.
    """

    reason: str
    by: str = ""
    at: str = ""
    grace_s: float = 0.0
    kill: bool = False


class Usage(msgspec.Struct, frozen=True, kw_only=True, rename={
    "cpu_s": "cpuS", "memory_bytes_max": "memoryBytesMax", "oom_kills": "oomKills",
}):  # fmt: skip
    """What the processes of an execution used: processor time, the peak of memory, and how many of
    them the kernel killed for want of it."""

    cpu_s: float = 0.0
    memory_bytes_max: int = 0
    oom_kills: int = 0


class Caused(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The start of another job that an end set going; with an `error_code` it was refused.

    `job_id` is empty if not everybody who may view the first job may view the other one.
    """

    job_id: str
    command_id: str = ""
    execution_id: str | None = None
    error_code: str | None = None
    error: str | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether a running program is well by its last checks: `status` is `healthy` or `unhealthy`.

    `since` is an RFC 3339 time, `message` what the check said that made it so.
    """

    status: str
    since: str = ""
    message: str = ""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an execution left: `name` as people read it, `path` as it is asked for."""

    name: str
    path: str
    size: int = 0
    modified: str = ""


class ArtifactList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The files that an execution left, by path."""

    items: tuple[Artifact, ...] = ()
    note: str = ""


class Execution(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One process start of a job. Times are RFC 3339 in UTC.

    `output_end` (bytes) is set once it has ended and its output is complete to there. `ending` says
    in words how it ended, e.g. `failed: exit code 3`. `attempts` is how many starts in all its job
    allows (0: it is not retried), `cause` is `policy:retry` or `policy:restart` if no person
    started it, `not_before` is the end of the delay, or the moment, that it waits for,
    `waiting_for` a sentence that says what it waits for, as it was when the service wrote this;
    `health` is None where none is checked, or not known yet. `links` are the paths of what can be
    read or done; a record of a stream has none.

    `result` is the JSON object that the program left, `result_note` why it was not taken.
    `caused_by` is the execution whose end set this one going, `caused` what its own end did.
    `artifacts` counts the files that it left, of `artifact_bytes` together; `artifacts_note` says
    what of them was not kept.
    `usage` is set once it has ended after a run, `core_dumped` if an image of its memory was
    written.
    """

    execution_id: str
    job_id: str
    status: str
    command_id: str = ""
    user_id: str = ""
    reason: str | None = None
    attempt: int = 1
    previous: str | None = None
    variables: dict[str, Value] = {}
    queued_at: str = ""
    start_time: str | None = None
    end_time: str | None = None
    pid: int | None = None
    progress: Progress | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    contained: bool | None = None
    survivors: tuple[int, ...] = ()
    containment: str = ""
    stop: Stop | None = None
    output_end: int | None = None
    revision: str = ""
    scheduled_at: str | None = None
    version: int = 0
    attempts: int = 0
    cause: str = ""
    not_before: str | None = None
    ending: str = ""
    waiting_for: str = ""
    usage: Usage | None = None
    core_dumped: bool = False
    groups: tuple[str, ...] = ()
    result: dict[str, Any] | None = None
    result_note: str = ""
    artifacts: int = 0
    artifact_bytes: int = 0
    artifacts_note: str = ""
    caused_by: str | None = None
    caused: tuple[Caused, ...] = ()
    health: Health | None = None
    links: dict[str, str] = {}

    @property
    def has_ended(self) -> bool:
        """Whether the execution is in a final state."""
        return self.status in FINAL_EXECUTION


class Command(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A command; right after publishing only its id, its status and its links are known.

    `result` is JSON: what a `status` command answers, for instance.
    """

    command_id: str
    status: str
    outcome: str | None = None
    error_code: str | None = None
    error: str | None = None
    command: str = ""
    job_id: str | None = None
    user_id: str | None = None
    submitted_at: str | None = None
    processed_at: str | None = None
    execution_id: str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    version: int = 0
    links: dict[str, str] = {}

    @property
    def has_ended(self) -> bool:
        """Whether the command is in a final state."""
        return self.status in FINAL_COMMAND


class Variable(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a start of the job may be given under one name."""

    type: str = "string"
    required: bool = False
    default: Scalar | None = None
    min: int | float | None = None
    max: int | float | None = None
    max_length: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    description: str = ""


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a definition: in which file and line, at which key."""

    file: str = ""
    line: int = 0
    reason: str = ""
    key: str = ""


class Fault(Mistake, frozen=True, kw_only=True):
    """What is wrong with a definition first, and what `more` is."""

    more: tuple[Mistake, ...] = ()


_JOB_NAMES = {
    "job_id": "jobId",
    "max_running": "maxRunning",
    "timeout_s": "timeoutS",
    "stop_grace_s": "stopGraceS",
    "gave_up_at": "gaveUpAt",
    "start_limit": "startLimit",
    "app_name": "appName",
    "last_executions": "lastExecutions",
    "next_at": "nextAt",
}


class Coming(msgspec.Struct, frozen=True, kw_only=True):
    """An instant of a schedule that is to come; `note` says what the clocks of its zone do."""

    at: str
    note: str = ""


class LastDecision(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was decided last of a schedule: `started`, `skipped` or `coalesced`, and why."""

    scheduled_at: str
    verdict: str
    why: str | None = None
    execution_id: str | None = None


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A queue or a schedule that is held; `since` and `until` are RFC 3339 times."""

    reason: str = ""
    by: str = ""
    since: str = ""
    until: str | None = None


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule of a job; `why` says why it starts nothing for now, if it does not, `paused` who
    holds it."""

    name: str
    rule: str = ""
    zone: str = ""
    missed: str = ""
    next: tuple[Coming, ...] = ()
    last: LastDecision | None = None
    why: str | None = None
    paused: Pause | None = None


class Planned(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something that is due by itself: an instant of a schedule, or a delayed start that waits.

    Unless it `starts`, `note` says why not.
    """

    job_id: str
    at: str
    schedule: str | None = None
    starts: bool = True
    note: str = ""
    execution_id: str | None = None


class Agenda(msgspec.Struct, frozen=True, kw_only=True):
    """What runs by itself `until` a moment, earliest first; with `more` there is more than that."""

    items: tuple[Planned, ...]
    until: str = ""
    more: bool = False


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the caller may do something with a job, and if not, why not."""

    allowed: bool = False
    why: str | None = None


class StartLimit(msgspec.Struct, frozen=True, kw_only=True, rename={"within_s": "withinS"}):
    """At most `count` starts within `within_s` seconds."""

    count: int = 0
    within_s: float = 0.0


class Group(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Slots that jobs share: `running` executions hold one, `waiting` ones need one.

    One that is not `defined` any more keeps its last limit while it is used.
    """

    name: str
    max_running: int = 0
    running: int = 0
    waiting: int = 0
    paused: Pause | None = None
    defined: bool = True
    version: int = 0


class RemovedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group that the settings do not name any more."""

    name: str
    version: int = 0


class GroupPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Groups by name; `as_of` is a position to follow from."""

    items: tuple[Group, ...]
    next: str | None = None
    as_of: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True, rename=_JOB_NAMES):
    """One job of the catalog; with `fault` and a revision, the last good version is in force.

    `attempts` counts the starts in all that its retries allow, `restart` is its policy after an
    end, and `gave_up_at` is when the limit of restarts was reached: then a person must start it.
    `origins` are the keys that a `defaults.toml` gave, with file and line. `may`, `next_at` (when a
    schedule starts it next), `app_name` (with its version, from `app.toml`), `last_executions` and
    `links` are for the caller; a record of a stream has none. `schedules` come with one job that
    is asked for.
    """

    job_id: str
    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    revision: str = ""
    disabled: bool = False
    overlap: str = ""
    max_running: int = 0
    timeout_s: float = 0.0
    stop_grace_s: float = 0.0
    variables: dict[str, Variable] = {}
    fault: Fault | None = None
    version: int = 0
    attempts: int = 1
    restart: str = "no"
    gave_up_at: str | None = None
    origins: dict[str, str] = {}
    groups: tuple[str, ...] = ()
    priority: int = 0
    start_limit: StartLimit | None = None
    paused: Pause | None = None
    app_name: str = ""
    may: dict[str, Permission] = {}
    next_at: str | None = None
    schedules: tuple[Schedule, ...] = ()
    last_executions: tuple[Execution, ...] = ()
    links: dict[str, str] = {}


class ScheduleDecision(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of an instant of a schedule: `started`, `skipped` or `coalesced`, and why.

    With `first_at` it is about `count` instants in a row, or more than were counted.
    """

    job_id: str
    schedule: str
    scheduled_at: str
    verdict: str
    why: str | None = None
    command_id: str | None = None
    execution_id: str | None = None
    error: str | None = None
    first_at: str | None = None
    count: int = 1
    more: bool = False
    version: int = 0


class ClockState(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Whether the service believes its wall clock; if not, what it showed when that began."""

    believed: bool
    shown: str | None = None
    last_believed: str | None = None


class RemovedJob(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job that is no longer in the catalog."""

    job_id: str
    version: int = 0


class DeletedExecution(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An execution that was deleted."""

    execution_id: str
    version: int = 0


Record = Execution | Command | Job | RemovedJob | DeletedExecution | Group | RemovedGroup
"""What a change or a snapshot is about. Apply it if its `version` is higher than what you hold."""


class ExecutionPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Executions, newest first; `next` is the cursor of the rest, `as_of` a position to follow."""

    items: tuple[Execution, ...]
    next: str | None = None
    as_of: str = ""


class CommandPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Commands, newest first; `next` and `as_of` as above."""

    items: tuple[Command, ...]
    next: str | None = None
    as_of: str = ""


class JobPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Jobs by name; `next` and `as_of` as above."""

    items: tuple[Job, ...]
    next: str | None = None
    as_of: str = ""


class App(msgspec.Struct, frozen=True, kw_only=True, rename={"app_id": "appId"}):
    """One app: what its `app.toml` says, what is wrong there, and the jobs that you may view."""

    app_id: str
    name: str = ""
    version: str = ""
    description: str = ""
    fault: Fault | None = None
    jobs: tuple[str, ...] = ()


class AppPage(msgspec.Struct, frozen=True, kw_only=True):
    """Apps by name."""

    items: tuple[App, ...]


class NewToken(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A token just made: `token` is in this answer only, the service keeps a hash.

    `notes` are sentences on roles that may be a slip.
    """

    token: str
    id: str
    user_id: str = ""
    roles: tuple[str, ...] = ()
    expires_at: str | None = None
    notes: tuple[str, ...] = ()


class Token(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A token without what would let somebody use it."""

    id: str
    user_id: str = ""
    roles: tuple[str, ...] = ()
    name: str = ""
    created_at: str = ""
    created_by: str = ""
    expires_at: str | None = None
    last_used_at: str | None = None
    expired: bool = False


class SignInCode(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A code that signs one browser in, once; `path` is that of the page which takes it."""

    code: str
    path: str
    expires_at: str = ""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One act: who did what, when, and what it changed. Fields without a value are left out."""

    n: int = 0
    seq: int = 0
    at: str = ""
    kind: str = ""
    actor: str = ""
    action: str = ""
    roles: tuple[str, ...] = ()
    via: str = ""
    job: str | None = None
    execution: str | None = None
    command: str | None = None
    submitted_at: str | None = None
    processed_at: str | None = None
    status: str | None = None
    outcome: str | None = None
    error_code: str | None = None
    cause: str | None = None
    before: str | None = None
    after: str | None = None
    detail: dict[str, str] = {}
    count: int = 1


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Entries, newest first; `next` is the cursor of the rest."""

    items: tuple[AuditEntry, ...]
    next: str | None = None
