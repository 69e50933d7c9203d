"""What a job is: its definition as `job.toml` gives it, its place in the catalog. No IO, no clock.

Durations are seconds (`…_s`); the defaults are those of the contract.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from bus.groups import JobQueue, StartLimitSpec
from bus.health import HealthSpec
from bus.model import ExecutionStatus, Value
from bus.schedules import ScheduleSpec
from bus.sizes import parse_size

UMASK = "0?[0-7]{3}"
"""How a umask is written: three or four octal digits in a text."""


class Overlap(StrEnum):
    """What a start does when the job's slots are full."""

    REJECT = "reject"
    QUEUE = "queue"
    REPLACE = "replace"
    SKIP = "skip"


class VariableType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    SECRET = "secret"  # noqa: S105 - a word of the contract


class VariableSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One `[variables.NAME]` of a definition."""

    type: VariableType = VariableType.STRING
    default: str | int | float | bool | None = None
    required: bool = False
    min: int | float | None = None
    max: int | float | None = None
    max_length: int = 4096
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    description: str = ""
    allow_dash: bool = False


class RolesSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may do what with a job; `None` takes the configured default."""

    view: tuple[str, ...] | None = None
    start: tuple[str, ...] | None = None
    stop: tuple[str, ...] | None = None
    restart: tuple[str, ...] | None = None
    output: tuple[str, ...] | None = None


class RetrySpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often and when a failed execution is started again; `attempts` counts all starts."""

    attempts: int = 1
    delay_s: float = 1.0
    backoff: float = 2.0
    delay_s_max: float = 60.0
    jitter: float = 0.25
    on: tuple[ExecutionStatus, ...] = (ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT)


class RestartPolicy(StrEnum):
    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class RestartSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether a job that ended is kept up; more than `limit` restarts in the window give up."""

    policy: RestartPolicy = RestartPolicy.NO
    limit: int = 10
    limit_window_s: float = 600.0


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    max_bytes: int = 268_435_456


class ArtifactsSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much one execution may leave in files for others."""

    max_files: int = 1000
    max_bytes: int = 1 << 30


class KeepSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of ended executions is kept; `None` takes the configured default."""

    executions: int | None = None
    days: float | None = None


class AfterSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One `[[after]]`: what is started when this job ended in one of the named states.

    In `variables`, `{{Name}}` stands for a variable of this job, `{{result.key}}` for a part of
    its result.
    """

    start: str
    on: tuple[ExecutionStatus, ...] = (ExecutionStatus.SUCCEEDED,)
    variables: dict[str, Value] = {}


class LimitsSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of the operating system for one execution. `memory_bytes` is an older spelling of
    `memory`; `nice` and `oom_score_adj` may stand at the top as well."""

    memory: str | int | None = None
    memory_bytes: int | None = None
    cpu_s: int | None = None
    cpu_weight: int | None = None
    pids: int | None = None
    open_files: int | None = None
    nice: int | None = None
    oom_score_adj: int | None = None


class StopTarget(StrEnum):
    MAIN = "main"
    GROUP = "group"


class Leftover(StrEnum):
    """What becomes of children that outlive the main process."""

    STOP = "stop"
    WAIT = "wait"


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as its `job.toml` defines it; the defaults are those of the contract.

    `directory` is the absolute path of the job's folder and `origins` are the keys that a
    `defaults.toml` gave, with file and line; both are put in by the catalog.
    """

    command: tuple[str, ...]
    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    cwd: str = "."
    env: dict[str, str] = {}
    env_file: str | None = None
    stdin: str = "null"
    max_running: int = 1
    overlap: Overlap = Overlap.REJECT
    timeout_s: float = 0.0
    start_timeout_s: float = 90.0
    ready: str = "spawn"
    watchdog_s: float = 0.0
    stop_signal: str = "TERM"
    stop_to: StopTarget = StopTarget.MAIN
    stop_grace_s: float = 10.0
    leftover: Leftover = Leftover.STOP
    success_codes: tuple[int, ...] = (0,)
    formerly: tuple[str, ...] = ()
    disabled: bool = False
    variables: dict[str, VariableSpec] = {}
    roles: RolesSpec = RolesSpec()
    retry: RetrySpec = RetrySpec()
    restart: RestartSpec = RestartSpec()
    schedule: tuple[ScheduleSpec, ...] = ()
    output: OutputSpec = OutputSpec()
    artifacts: ArtifactsSpec = ArtifactsSpec()
    keep: KeepSpec = KeepSpec()
    health: HealthSpec | None = None
    after: tuple[AfterSpec, ...] = ()
    user: str | int | None = None
    group: str | int | None = None
    nice: int | None = None
    oom_score_adj: int | None = None
    limits: LimitsSpec = LimitsSpec()
    umask: str | None = None
    directory: str = ""
    origins: dict[str, str] = {}
    groups: tuple[str, ...] = ()
    priority: int = 0
    start_limit: StartLimitSpec | None = None

    @property
    def memory_limit(self) -> int | None:
        """In bytes; of a definition that was checked."""
        limits = self.limits
        return limits.memory_bytes if limits.memory is None else parse_size(limits.memory)

    @property
    def niceness(self) -> int | None:
        return self.limits.nice if self.nice is None else self.nice

    @property
    def oom_adjustment(self) -> int | None:
        return self.limits.oom_score_adj if self.oom_score_adj is None else self.oom_score_adj

    @property
    def names_account(self) -> bool:
        """Whether its programs run as an account that the definition names."""
        return self.user is not None or self.group is not None


class Mistake(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong with a definition; the fields are those of `DefinitionFault`."""

    file: str
    line: int
    reason: str
    key: str = ""

    def __str__(self) -> str:
        """For people; what lies in the wrong place has no line."""
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.reason}"


class DefinitionFault(Mistake, frozen=True, kw_only=True, omit_defaults=True):
    """Why a definition is not in force: the file (`job.toml`, or a `defaults.toml` that counts for
    it), the line (1-based, 0 if unknown), the reason, the key. `more` is what else is wrong.
    """

    more: tuple[Mistake, ...] = ()

    def __str__(self) -> str:
        count = len(self.more)
        return super().__str__() + (f" (and {count} more)" if count else "")

    @property
    def all(self) -> tuple[Mistake, ...]:
        """Everything that is wrong, each by itself."""
        first = Mistake(file=self.file, line=self.line, reason=self.reason, key=self.key)
        return (first, *self.more)


def fault_of(mistakes: Sequence[Mistake], count_max: int | None = None) -> DefinitionFault:
    """One or more mistakes as one fault; what goes beyond `count_max` is counted in the last."""
    first, *rest = mistakes
    if count_max is not None and len(mistakes) > count_max:
        rest = rest[: count_max - 2]
        left = len(mistakes) - 1 - len(rest)
        rest.append(
            Mistake(
                file=first.file,
                line=0,
                reason=f"has {left} more mistakes; jobbus check lists them",
            )
        )
    return DefinitionFault(
        file=first.file, line=first.line, reason=first.reason, key=first.key, more=tuple(rest)
    )


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the catalog. With `fault` and a `spec`, the last good version is in force.

    `restarts_ms` are the newest automatic restarts; `gave_up_ms` is when their limit was reached.
    """

    id: str
    spec: JobSpec | None
    revision: str = ""
    fault: DefinitionFault | None = None
    restarts_ms: tuple[int, ...] = ()
    gave_up_ms: int | None = None
    version: int = 0
    queue: JobQueue = JobQueue()


def plain_id(job_id: str) -> str:
    """Equal for spellings of an id that mean one job: Windows separates by a backslash, and takes
    no notice of case."""
    return job_id.strip().replace("\\", "/").strip("/").casefold()
