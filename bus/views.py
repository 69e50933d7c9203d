"""Records as the outside sees them: camelCase, RFC 3339 times, nothing internal. No IO, no clock.

One shape serves the HTTP answers, the snapshot and the `data` of each change, so that a reader can
fold changes into what it has read.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from bus.apps import App
from bus.clock import rfc3339
from bus.endings import ending
from bus.events import ScheduleDecided, SchedulePaused, ScheduleResumed
from bus.groups import Group, Pause, StartLimitSpec
from bus.health import Health
from bus.job_definition import DefinitionFault, Job, RestartPolicy, VariableSpec, fault_of
from bus.model import (
    Caused,
    CommandRecord,
    Execution,
    ExecutionStatus,
    Progress,
    StopRequest,
    Usage,
    Value,
)


class ProgressView(msgspec.Struct, frozen=True, rename="camel"):
    percent: float | None
    message: str
    data: dict[str, Any] | None
    note: str = ""
    reloading: bool = False


class StopView(msgspec.Struct, frozen=True, rename={"grace_s": "graceS"}):
    reason: str
    by: str
    at: str
    grace_s: float
    kill: bool


class UsageView(msgspec.Struct, frozen=True, rename={
    "cpu_s": "cpuS", "memory_bytes_max": "memoryBytesMax", "oom_kills": "oomKills",
}):  # fmt: skip
    """What the processes of an execution used: processor time, the peak of memory, and how many of
    them the kernel killed for want of it."""

    cpu_s: float
    memory_bytes_max: int
    oom_kills: int


HIDDEN_REASON = "those who may view the other job find the reason at the command"


class CausedView(msgspec.Struct, frozen=True, rename="camel"):
    """The start of another job that an end set going; with an `errorCode` it was refused.

    `jobId` is empty if not everybody who may view the first job may view the other one: its name
    and the reason then stand at the command alone.
    """

    job_id: str
    command_id: str
    execution_id: str | None
    error_code: str | None
    error: str | None


class HealthView(msgspec.Struct, frozen=True, rename="camel"):
    """`healthy` or `unhealthy` by the last checks, since when, and what the one said that made it
    so."""

    status: str
    since: str
    message: str


class ExecutionView(msgspec.Struct, frozen=True, rename="camel"):
    """One execution. `outputEnd` is set once it is final and the output complete to there.

    `attempts` is how many starts in all its definition allows (0: it is not retried); `cause` is
    `policy:retry` or `policy:restart` if no person made it, and `schedule:` with its name for a
    schedule, whose instant is `scheduledAt`; `notBefore` is when the delay ends that it waits for,
    or the moment it was asked for, as long as it is `Queued`. `ending` says how it
    ended in words, see `bus.endings`; `waitingFor` says what it waits for, as it was when this was
    written. `health` is null where none is checked, or not known yet. `groups` are those of which
    it holds or held a slot.

    `result` is the JSON object that the program left in the file that `JOBBUS_RESULT` names;
    `resultNote` says why it was not taken. `causedBy` is the execution whose end set this one
    going, `caused` what its own end did. `artifacts` counts the files that it left, of
    `artifactBytes` together; `artifactsNote` says what of them was not kept. `usage` is set once it
    has ended after a run; `coreDumped` says that the system wrote an image of the program's memory.
    """

    execution_id: str
    job_id: str
    command_id: str
    user_id: str
    status: str
    reason: str | None
    attempt: int
    previous: str | None
    variables: dict[str, Value]
    queued_at: str
    start_time: str | None
    end_time: str | None
    pid: int | None
    progress: ProgressView | None
    exit_code: int | None
    signal: int | None
    error: str | None
    contained: bool | None
    survivors: tuple[int, ...]
    containment: str
    stop: StopView | None
    output_end: int | None
    revision: str
    version: int
    attempts: int = 0
    cause: str = ""
    not_before: str | None = None
    ending: str = ""
    waiting_for: str = ""
    usage: UsageView | None = None
    core_dumped: bool = False
    result: msgspec.Raw | None = None
    result_note: str = ""
    artifacts: int = 0
    artifact_bytes: int = 0
    artifacts_note: str = ""
    caused_by: str | None = None
    caused: tuple[CausedView, ...] = ()
    scheduled_at: str | None = None
    health: HealthView | None = None
    groups: tuple[str, ...] = ()


class CommandView(msgspec.Struct, frozen=True, rename="camel"):
    command_id: str
    status: str
    outcome: str | None
    error_code: str | None
    error: str | None
    command: str
    job_id: str | None
    user_id: str
    submitted_at: str
    processed_at: str | None
    execution_id: str | None
    result: msgspec.Raw | None
    version: int


class VariableView(msgspec.Struct, frozen=True, rename="camel"):
    type: str
    required: bool
    default: str | int | float | bool | None
    min: int | float | None
    max: int | float | None
    max_length: int | None
    pattern: str | None
    choices: tuple[str, ...]
    description: str


class PauseView(msgspec.Struct, frozen=True):
    """A queue or a schedule that is held: why, by whom, since when, and until when if that was
    said."""

    reason: str
    by: str
    since: str
    until: str | None


class GroupView(msgspec.Struct, frozen=True, rename="camel"):
    """Slots that jobs share. `running` hold one, `waiting` need one; a group that is not
    `defined` any more keeps its last limit while it is used."""

    name: str
    max_running: int
    running: int
    waiting: int
    paused: PauseView | None
    defined: bool
    version: int


class MistakeView(msgspec.Struct, frozen=True, rename="camel"):
    file: str
    line: int
    reason: str
    key: str = ""


class FaultView(MistakeView, frozen=True, rename="camel"):
    """What is wrong first, with `more` that is."""

    more: tuple[MistakeView, ...] = ()


class StartLimitView(msgspec.Struct, frozen=True, rename={"within_s": "withinS"}):
    count: int
    within_s: float


class JobView(msgspec.Struct, frozen=True, rename={
    "job_id": "jobId", "max_running": "maxRunning", "timeout_s": "timeoutS",
    "stop_grace_s": "stopGraceS", "gave_up_at": "gaveUpAt", "start_limit": "startLimit",
}):  # fmt: skip
    """One job of the catalog; with `fault` and a revision, the last good version is in force.

    `attempts` counts the starts in all that `[retry]` allows, `restart` is the policy of
    `[restart]`, and `gaveUpAt` is when its limit was reached: then a person must start it.
    `origins` are the keys that a `defaults.toml` gave, each with its file and line. `paused` is set
    while its queue is held.
    """

    job_id: str
    name: str
    description: str
    tags: tuple[str, ...]
    revision: str
    disabled: bool
    overlap: str
    max_running: int
    timeout_s: float
    stop_grace_s: float
    variables: dict[str, VariableView]
    fault: FaultView | None
    version: int
    attempts: int = 1
    restart: str = "no"
    gave_up_at: str | None = None
    origins: dict[str, str] = {}
    groups: tuple[str, ...] = ()
    priority: int = 0
    start_limit: StartLimitView | None = None
    paused: PauseView | None = None


class AppView(msgspec.Struct, frozen=True, rename="camel"):
    """One app with what its `app.toml` says, and what is wrong with that; `jobs` may be viewed."""

    app_id: str
    name: str
    version: str
    description: str
    fault: FaultView | None
    jobs: tuple[str, ...]


class ComingView(msgspec.Struct, frozen=True):
    """An instant that is to come; `note` says what the clocks of its zone do, if anything."""

    at: str
    note: str


class LastDecisionView(msgspec.Struct, frozen=True, rename="camel"):
    """What was decided last of a schedule."""

    scheduled_at: str
    verdict: str
    why: str | None
    execution_id: str | None


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One schedule of a job, with its next instants in its zone.

    `why` says why nothing is started for now, if nothing is; `paused` who holds it.
    """

    name: str
    rule: str
    zone: str
    missed: str
    next: tuple[ComingView, ...]
    last: LastDecisionView | None
    why: str | None
    paused: PauseView | None = None


class PlannedView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something that is due by itself: an instant of a schedule, or a delayed start that waits.

    Unless it `starts`, `note` says why not.
    """

    job_id: str
    schedule: str | None
    at: str
    starts: bool
    note: str = ""
    execution_id: str | None = None


class HeldView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A schedule was paused, or (`paused` is null) goes on."""

    job_id: str
    schedule: str
    by: str
    paused: PauseView | None
    version: int


def held_view(event: SchedulePaused | ScheduleResumed, at_ms: int, version: int) -> HeldView:
    paused = None
    if isinstance(event, SchedulePaused):
        paused = PauseView(event.reason, event.by, rfc3339(at_ms), _time(event.until_ms))
    return HeldView(
        job_id=event.job_id,
        schedule=event.schedule,
        by=event.by,
        paused=paused,
        version=version,
    )


class DecisionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of an instant of a schedule, or of `count` instants in a row from `firstAt` on.

    With `more` there were more than were counted.
    """

    job_id: str
    schedule: str
    scheduled_at: str
    verdict: str
    why: str | None
    command_id: str | None
    execution_id: str | None
    error: str | None
    first_at: str | None
    count: int
    more: bool
    version: int


def decision_view(event: ScheduleDecided, version: int) -> DecisionView:
    return DecisionView(
        job_id=event.job_id,
        schedule=event.schedule,
        scheduled_at=rfc3339(event.instant_ms),
        verdict=event.verdict.value,
        why=event.why.value if event.why is not None else None,
        command_id=event.command_id,
        execution_id=event.execution_id,
        error=event.error,
        first_at=_time(event.first_ms),
        count=event.count,
        more=event.more,
        version=version,
    )


def execution_view(execution: Execution, waiting_for: str) -> ExecutionView:
    """What the outside may know of an execution (who may see it is another question).

    `waiting_for` is the table's sentence for it.
    """
    return ExecutionView(
        execution_id=execution.id,
        job_id=execution.job_id,
        command_id=execution.command_id,
        user_id=execution.user_id,
        status=execution.status.value,
        reason=execution.reason.value if execution.reason else None,
        attempt=execution.attempt,
        previous=execution.previous,
        variables=execution.variables,
        queued_at=rfc3339(execution.queued_ms),
        start_time=_time(execution.start_ms),
        end_time=_time(execution.end_ms),
        pid=execution.pid,
        progress=progress_view(execution.progress),
        exit_code=execution.exit_code,
        signal=execution.signal,
        error=execution.error,
        contained=execution.contained,
        survivors=execution.survivors,
        containment=execution.containment,
        stop=_stop_view(execution.stop),
        output_end=execution.output_end,
        revision=execution.revision,
        version=execution.version,
        attempts=execution.attempts,
        cause=execution.cause,
        not_before=_time(waits_until_ms(execution)),
        ending=ending(execution),
        waiting_for=waiting_for,
        usage=_usage_view(execution.usage),
        core_dumped=execution.core_dumped,
        result=execution.result,
        result_note=execution.result_note,
        artifacts=execution.artifacts,
        artifact_bytes=execution.artifact_bytes,
        artifacts_note=execution.artifacts_note,
        caused_by=execution.caused_by,
        caused=tuple(map(_caused_view, execution.caused)),
        scheduled_at=execution.scheduled_at,
        health=_health_view(execution.health),
        groups=execution.groups,
    )


def command_view(command: CommandRecord) -> CommandView:
    return CommandView(
        command_id=command.id,
        status=command.status.value,
        outcome=command.outcome.value if command.outcome else None,
        error_code=command.error_code,
        error=command.error,
        command=command.kind,
        job_id=command.job_id,
        user_id=command.user_id,
        submitted_at=rfc3339(command.submitted_ms),
        processed_at=_time(command.processed_ms),
        execution_id=command.execution_id,
        result=command.result,
        version=command.version,
    )


def job_view(job: Job) -> JobView:
    spec = job.spec
    return JobView(
        job_id=job.id,
        name=(spec.name if spec else "") or job.id,
        description=spec.description if spec else "",
        tags=spec.tags if spec else (),
        revision=job.revision,
        disabled=spec.disabled if spec else False,
        overlap=spec.overlap.value if spec else "",
        max_running=spec.max_running if spec else 0,
        timeout_s=spec.timeout_s if spec else 0,
        stop_grace_s=spec.stop_grace_s if spec else 0,
        variables={n: _variable_view(v) for n, v in spec.variables.items()} if spec else {},
        fault=_fault_view(job.fault),
        version=job.version,
        attempts=spec.retry.attempts if spec else 1,
        restart=spec.restart.policy.value if spec else RestartPolicy.NO.value,
        gave_up_at=_time(job.gave_up_ms),
        origins=spec.origins if spec else {},
        groups=spec.groups if spec else (),
        priority=spec.priority if spec else 0,
        start_limit=_start_limit_view(spec.start_limit) if spec else None,
        paused=_pause_view(job.queue.paused),
    )


def group_view(group: Group, running: int, waiting: int) -> GroupView:
    return GroupView(
        name=group.name,
        max_running=group.max_running,
        running=running,
        waiting=waiting,
        paused=_pause_view(group.paused),
        defined=group.is_defined,
        version=group.version,
    )


def app_view(app: App, jobs: Iterable[str]) -> AppView:
    spec = app.spec
    return AppView(
        app_id=app.id,
        name=spec.name or app.id,
        version=spec.version,
        description=spec.description,
        fault=_fault_view(fault_of(app.mistakes) if app.mistakes else None),
        jobs=tuple(jobs),
    )


def progress_view(progress: Progress | None) -> ProgressView | None:
    if progress is None:
        return None
    return ProgressView(
        progress.percent, progress.message, progress.data, progress.note, progress.reloading
    )


def waits_until_ms(execution: Execution) -> int | None:
    """When the delay ends that the execution waits for; None if it waits for none."""
    return execution.not_before_ms if execution.status is ExecutionStatus.QUEUED else None


def _usage_view(usage: Usage | None) -> UsageView | None:
    if usage is None:
        return None
    return UsageView(usage.cpu_s, usage.memory_bytes_max, usage.oom_kills)


def _variable_view(spec: VariableSpec) -> VariableView:
    return VariableView(
        type=spec.type.value,
        required=spec.required,
        default=spec.default,
        min=spec.min,
        max=spec.max,
        max_length=spec.max_length if spec.type.value == "string" else None,
        pattern=spec.pattern,
        choices=spec.choices,
        description=spec.description,
    )


def _start_limit_view(limit: StartLimitSpec | None) -> StartLimitView | None:
    return StartLimitView(limit.count, limit.within_s) if limit is not None else None


def _pause_view(held: Pause | None) -> PauseView | None:
    if held is None:
        return None
    return PauseView(held.reason, held.by, rfc3339(held.since_ms), _time(held.until_ms))


def _fault_view(fault: DefinitionFault | None) -> FaultView | None:
    if fault is None:
        return None
    more = (MistakeView(each.file, each.line, each.reason, each.key) for each in fault.more)
    return FaultView(fault.file, fault.line, fault.reason, fault.key, tuple(more))


def _health_view(health: Health | None) -> HealthView | None:
    if health is None:
        return None
    return HealthView(health.status.value, rfc3339(health.since_ms), health.message)


def _stop_view(stop: StopRequest | None) -> StopView | None:
    if stop is None:
        return None
    return StopView(stop.reason.value, stop.by, rfc3339(stop.at_ms), stop.grace_s, stop.kill)


def _caused_view(caused: Caused) -> CausedView:
    job_id, error = caused.job_id, caused.error
    if caused.is_hidden:
        job_id, error = "", error and HIDDEN_REASON
    return CausedView(job_id, caused.command_id, caused.execution_id, caused.error_code, error)


def _time(at_ms: int | None) -> str | None:
    return rfc3339(at_ms) if at_ms is not None else None
