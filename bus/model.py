"""What executions and commands are: frozen records and closed sets of words. No IO, no clock.

Times are integers: milliseconds since 1970 UTC (`…_ms`). Durations are seconds (`…_s`).
"""

from enum import StrEnum
from typing import Any

import msgspec

from bus.health import Health


class ExecutionStatus(StrEnum):
    """Where an execution stands. The last seven are final and never left."""

    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    UNKNOWN = "Unknown"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"
    TIMED_OUT = "TimedOut"
    CANCELLED = "Cancelled"
    SKIPPED = "Skipped"
    LOST = "Lost"


FINAL_EXECUTION = frozenset(
    {
        ExecutionStatus.SUCCEEDED,
        ExecutionStatus.FAILED,
        ExecutionStatus.STOPPED,
        ExecutionStatus.TIMED_OUT,
        ExecutionStatus.CANCELLED,
        ExecutionStatus.SKIPPED,
        ExecutionStatus.LOST,
    }
)
"""The final states."""

HOLDS_SLOT = frozenset(
    {
        ExecutionStatus.STARTING,
        ExecutionStatus.RUNNING,
        ExecutionStatus.STOPPING,
        ExecutionStatus.UNKNOWN,
    }
)
"""The states that take one of the job's `max_running` slots."""


class Reason(StrEnum):
    """Why an execution ended as it did."""

    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    OOM = "oom"
    SPAWN_ERROR = "spawn_error"
    NOT_READY = "not_ready"
    WATCHDOG = "watchdog"
    UNHEALTHY = "unhealthy"
    STOP_INCOMPLETE = "stop_incomplete"
    USER = "user"
    POLICY = "policy"
    REPLACED = "replaced"
    SHUTDOWN = "shutdown"
    RUN_TIMEOUT = "run_timeout"
    START_TIMEOUT = "start_timeout"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    OVERLAP = "overlap"
    MISSED = "missed"
    DISABLED = "disabled"
    HOST_RESTART = "host_restart"
    NO_EXIT_RECORD = "no_exit_record"
    NODE_LOST = "node_lost"


class CommandStatus(StrEnum):
    """Where a command stands. All but the first two are final."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    REJECTED = "Rejected"
    EXPIRED = "Expired"
    CANCELLED = "Cancelled"


FINAL_COMMAND = frozenset(CommandStatus) - {CommandStatus.PENDING, CommandStatus.RUNNING}


class Outcome(StrEnum):
    """What a completed command did."""

    DONE = "done"
    NOOP = "noop"
    MERGED = "merged"


class SecretRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret by name; its value is looked up when the job is spawned and never travels."""

    secret: str


Value = str | int | float | bool | SecretRef | None
"""What a variable may hold on its way in."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts. Set by the transport, never taken from a payload.

    `via` says how they came in: `http`, `directory`, `cli` or `system`.
    """

    user_id: str
    roles: tuple[str, ...] = ()
    via: str = "system"


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The latest progress that a job reported; `percent` is 0 to 100.

    `note` says what the job wrote first that was not understood; `reloading` that it reads its
    configuration again.
    """

    percent: float | None = None
    message: str = ""
    data: dict[str, Any] | None = None
    note: str = ""
    reloading: bool = False


class StopRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An order to end an execution, as the shim gets it. `grace_s` counts from `at_ms`."""

    reason: Reason
    by: str
    at_ms: int
    grace_s: float
    kill: bool = False
    command_id: str | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the processes of an execution used, as far as the system counts it.

    `memory_bytes_max` is the peak of all of them together where a control group counts memory, else
    that of the largest process. `oom_kills` are those that the kernel killed for want of memory.
    """

    cpu_s: float = 0.0
    memory_bytes_max: int = 0
    oom_kills: int = 0


class ExitRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an execution ended, as far as the operating system reports it.

    One of code and signal is set unless the program never ran. `result` is the JSON object that the
    program left; `result_note` says why none was taken.

    `cause` is what made it end, if not the program itself: `user`, `run_timeout`, `watchdog` …
    `contained` is false when members of the tree outlived the KILL; `survivors` are their pids.
    `containment` names the level that was used: `cgroup`, `subreaper`, `session` or `marker`.
    """

    ended_ms: int
    exit_code: int | None = None
    signal: int | None = None
    cause: Reason | None = None
    error: str | None = None
    contained: bool = True
    survivors: tuple[int, ...] = ()
    containment: str = ""
    output_end: int = 0
    started_ms: int | None = None
    pid: int | None = None
    cpu_s: float = 0.0
    memory_bytes_max: int = 0
    progress: Progress | None = None
    ready_ms: int | None = None
    core_dumped: bool = False
    oom_kills: int = 0
    result: dict[str, Any] | None = None
    result_note: str = ""
    artifacts: int = 0
    artifact_bytes: int = 0
    artifacts_note: str = ""


class Caused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the end of an execution set going: the start of another job, or why there was none.

    `execution_id` is the one that was started, or ran already. `is_hidden`: not everybody who may
    view the first job may view the other one, so its name and the reason are not shown here.
    """

    job_id: str
    command_id: str
    execution_id: str | None = None
    error_code: str | None = None
    error: str | None = None
    is_hidden: bool = False


NO_RESULT = msgspec.Raw(b"null")
"""No `Raw | None`: msgspec encodes that, and can decode nothing but null from it."""


class Execution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One process start and what became of it; `version` is the number of its last change.

    `attempts` is how many starts in all its definition allows, if it is retried at all. `result` is
    the JSON object that the program left; `result_note` says why none was taken. `caused_by` is
    the execution whose end set this one going, as the last of `hops`. `health` is None where it is
    not checked, or not known yet. `arrival_ms` is when it came by a clock that only queues go by,
    see `handlers.decisions.table`; `groups` are those of which it took a slot with its start. There
    are
    many of these and none can be part of a cycle: the collector need not look at them.
    """

    id: str
    job_id: str
    command_id: str
    user_id: str
    status: ExecutionStatus
    revision: str
    queued_ms: int
    variables: dict[str, Value] = {}
    attempt: int = 1
    previous: str | None = None
    replaces: str | None = None
    not_before_ms: int | None = None
    cause: str = ""
    start_ms: int | None = None
    end_ms: int | None = None
    pid: int | None = None
    progress: Progress | None = None
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    contained: bool | None = None
    survivors: tuple[int, ...] = ()
    containment: str = ""
    output_end: int | None = None
    stop: StopRequest | None = None
    expires_ms: int | None = None
    traceparent: str | None = None
    attempts: int = 0
    usage: Usage | None = None
    core_dumped: bool = False
    result: msgspec.Raw = NO_RESULT
    result_note: str = ""
    artifacts: int = 0
    artifact_bytes: int = 0
    artifacts_note: str = ""
    caused_by: str | None = None
    hops: int = 0
    caused: tuple[Caused, ...] = ()
    scheduled_at: str | None = None
    version: int = 0
    health: Health | None = None
    arrival_ms: int = 0
    groups: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_EXECUTION


class CommandRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is remembered of a command.

    `waits_for` are the executions whose end it waits for; `merged` says that others had ordered it.
    """

    id: str
    kind: str
    user_id: str
    submitted_ms: int
    body_hash: str
    status: CommandStatus
    job_id: str | None = None
    roles: tuple[str, ...] = ()
    via: str = "system"
    variables: dict[str, Value] | None = None
    submitted_text: str | None = None
    id_text: str | None = None
    waits_for: tuple[str, ...] = ()
    merged: bool = False
    execution_id: str | None = None
    outcome: Outcome | None = None
    error_code: str | None = None
    error: str | None = None
    result: msgspec.Raw = NO_RESULT
    processed_ms: int | None = None
    traceparent: str | None = None
    version: int = 0

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_COMMAND


class ForgottenCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of an ended command that is not kept any more: enough to know a repeat."""

    id: str
    body_hash: str
    user_id: str


class Maintenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Nothing is started while this holds; stops and everything else go on."""

    reason: str
    by: str
    since_ms: int
