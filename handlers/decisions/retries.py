"""What follows an end by itself: a retry, an automatic restart, or giving up. Pure.

Retries are for work that failed and count starts; the restart policy is for services that are to
be up and counts restarts in a window. Both wait longer from time to time, so that a job that cannot
run does not keep the machine busy.
"""

from bus.envelope import SCHEDULED
from bus.errors import Refused
from bus.events import ExecutionEnded, ExecutionQueued, ExecutionStarted, JobGaveUp
from bus.health import HealthAction
from bus.job_definition import Job, JobSpec, RestartPolicy, RetrySpec
from bus.model import Execution, ExecutionStatus, Reason, Value
from handlers.catalog.variables import resolve_variables
from handlers.decisions.command_events import attempts_of
from handlers.decisions.decision import Context
from handlers.decisions.readable_table import ReadableTable

RETRY = "policy:retry"
RESTART = "policy:restart"

_PERSONS = frozenset({Reason.USER, Reason.REPLACED, Reason.SHUTDOWN})
_FAILURES = frozenset({ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT, ExecutionStatus.LOST})
_STEADY_MS = 60_000
"""After a run of that length the delays begin with the shortest again."""


def follow_up(
    table: ReadableTable, execution: Execution, final: ExecutionEnded, context: Context
) -> ExecutionQueued | JobGaveUp | None:
    """What the definition in force orders after this end; None if it orders nothing.

    Nothing is repeated with variables that this definition does not take: a person must start it.
    """
    job = table.job(table.name_now(execution.job_id))
    spec = job.spec if job is not None else None
    if job is None or spec is None or spec.disabled or _person_ended_it(table, execution, final):
        return None
    if any(e.replaces == execution.id for e in table.queued(job.id)):
        return None  # its replacement starts anyway
    variables = _fitting(spec, execution.variables)
    is_retried = final.status in spec.retry.on and execution.attempt < spec.retry.attempts
    if is_retried and variables is not None:
        delay_s = delay_of(spec.retry, execution.attempt, context)
        return _queued(execution, job, variables, delay_s, RETRY, context)
    if not _wants_restart(spec, final):
        return None
    since_ms = context.now_ms - int(spec.restart.limit_window_s * 1000)
    # A time in the future is of before the clock was set back: how long ago is unknown.
    recent = [at_ms for at_ms in job.restarts_ms if since_ms < at_ms <= context.now_ms]
    if variables is None or len(recent) >= spec.restart.limit:
        return JobGaveUp(job_id=job.id, restarts=len(recent), window_s=spec.restart.limit_window_s)
    ran_ms = context.now_ms - (execution.start_ms or context.now_ms)
    step = 1 if ran_ms >= _STEADY_MS else len(recent) + 1
    delay_s = delay_of(spec.retry, step, context)
    return _queued(execution, job, variables, delay_s, RESTART, context)


def is_still_ordered(execution: Execution, spec: JobSpec) -> bool:
    """Whether a new definition keeps a waiting execution; one that a person asked for stays."""
    match execution.cause:
        case "":
            return True
        case "policy:retry":
            return not spec.disabled and execution.attempt <= spec.retry.attempts
        case cause if cause.startswith(SCHEDULED):
            return not spec.disabled
        case _:
            return not spec.disabled and (
                spec.restart.policy is not RestartPolicy.NO or _heals(spec)
            )


def start_of(
    table: ReadableTable, execution: Execution, job: Job | None = None
) -> ExecutionStarted:
    """The start of a waiting execution; `job` is the entry of the catalog about to be in force.

    What waited for a moment runs by the definition in force when that has come: the older one may
    be what made it fail, and its folder may be gone. That of a job that was renamed is gone.
    """
    job = job or table.job(table.name_now(execution.job_id))
    spec = job.spec if job is not None else None
    own = spec or table.spec_of(execution)
    groups = own.groups if own is not None else ()
    was_renamed = job is not None and job.id != execution.job_id
    renews = execution.not_before_ms is not None or was_renamed
    variables = _fitting(spec, execution.variables) if renews and spec else None
    if job is None or job.revision == execution.revision or variables is None:
        return ExecutionStarted(execution_id=execution.id, groups=groups)
    return ExecutionStarted(
        execution_id=execution.id, revision=job.revision, variables=variables, groups=groups
    )


def delay_of(retry: RetrySpec, step: int, context: Context) -> float:
    """Seconds before the `step`-th repetition (1-based), jitter included."""
    exponent = min(step - 1, 64)
    delay_s = min(retry.delay_s * retry.backoff**exponent, retry.delay_s_max)
    return delay_s * (1 + retry.jitter * context.random())


def _person_ended_it(table: ReadableTable, execution: Execution, final: ExecutionEnded) -> bool:
    """Also a person whose stop came when a limit, or its health, was ending it already."""
    ordered = execution.stop is not None and execution.stop.reason in _PERSONS
    waits = any(command.kind == "stop" for command in table.commands_waiting_for(execution.id))
    return ordered or waits or final.status is ExecutionStatus.CANCELLED


def _heals(spec: JobSpec) -> bool:
    """Whether what is not well is started again, whatever `[restart]` says of other ends."""
    return spec.health is not None and spec.health.action is HealthAction.RESTART


def _wants_restart(spec: JobSpec, final: ExecutionEnded) -> bool:
    if final.reason is Reason.UNHEALTHY and _heals(spec):
        return True
    match spec.restart.policy:
        case RestartPolicy.NO:
            return False
        case RestartPolicy.ON_FAILURE:
            return final.status in _FAILURES
        case RestartPolicy.ALWAYS:
            return True


def _fitting(spec: JobSpec, variables: dict[str, Value]) -> dict[str, Value] | None:
    """The variables as the definition takes them; None if it does not."""
    try:
        return resolve_variables(
            spec, {name: value for name, value in variables.items() if name in spec.variables}
        )
    except Refused:
        return None


def _queued(
    execution: Execution,
    job: Job,
    variables: dict[str, Value],
    delay_s: float,
    cause: str,
    context: Context,
) -> ExecutionQueued:
    return ExecutionQueued(
        execution_id=context.new_id(),
        job_id=job.id,
        command_id=execution.command_id,
        user_id=execution.user_id,
        revision=job.revision,
        variables=variables,
        attempt=execution.attempt + 1,
        previous=execution.id,
        first=True,
        not_before_ms=context.now_ms + int(delay_s * 1000),
        cause=cause,
        traceparent=execution.traceparent,
        attempts=attempts_of(job),
        caused_by=execution.caused_by,
        hops=execution.hops,
        scheduled_at=execution.scheduled_at,
    )
