"""What an event makes of one record: of a command, of an execution, of a job. No IO, no clock.

Which records there are, and the ways to them, are the table's. The other way round, from a record
to the events that lead to it, is `handlers.journal.repair.facts`.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from bus.events import (
    CommandAccepted,
    CommandEnded,
    ExecutionCaused,
    ExecutionEnded,
    ExecutionHealth,
    ExecutionProgress,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStarted,
    ExecutionStopping,
    GroupDefined,
    GroupEvent,
    GroupPaused,
    GroupRemoved,
    GroupResumed,
    JobPaused,
)
from bus.groups import STARTS_MAX, Group, JobQueue, Pause
from bus.health import Health
from bus.job_definition import Job, JobSpec
from bus.lifecycle import command_may_follow, may_follow
from bus.model import CommandRecord, CommandStatus, Execution, ExecutionStatus
from handlers.decisions.retries import RESTART

Change = (
    ExecutionRunning | ExecutionProgress | ExecutionHealth | ExecutionStopping | ExecutionCaused
)
"""What happens to one execution and changes nothing but its record."""


def accepted(event: CommandAccepted, seq: int) -> CommandRecord:
    return CommandRecord(
        id=event.command_id,
        kind=event.kind,
        user_id=event.user_id,
        submitted_ms=event.submitted_ms,
        body_hash=event.body_hash,
        status=CommandStatus.RUNNING if event.attempted else CommandStatus.PENDING,
        job_id=event.job_id,
        roles=event.roles,
        via=event.via,
        variables=event.variables,
        submitted_text=event.submitted_text,
        id_text=event.id_text,
        waits_for=event.waits_for,
        merged=event.merged,
        execution_id=event.execution_id,
        traceparent=event.traceparent,
        version=seq,
    )


def answered(before: CommandRecord, event: CommandEnded, seq: int, at_ms: int) -> CommandRecord:
    assert command_may_follow(before.status, event.status), (before.status, event.status)
    return replace(
        before,
        status=event.status,
        outcome=event.outcome,
        error_code=event.error_code,
        error=event.error,
        execution_id=event.execution_id or before.execution_id,
        result=event.result,
        processed_ms=at_ms,
        version=seq,
    )


def awaited(command: CommandRecord) -> Sequence[str]:
    """The executions a command waits for: those it ends, or else the one it makes run."""
    if command.waits_for:
        return command.waits_for
    return (command.execution_id,) if command.execution_id else ()


def queued(event: ExecutionQueued, seq: int, at_ms: int, arrival_ms: int) -> Execution:
    return Execution(
        id=event.execution_id,
        job_id=event.job_id,
        command_id=event.command_id,
        user_id=event.user_id,
        status=ExecutionStatus.QUEUED,
        revision=event.revision,
        queued_ms=at_ms,
        variables=event.variables,
        attempt=event.attempt,
        previous=event.previous,
        replaces=event.replaces,
        not_before_ms=event.not_before_ms,
        cause=event.cause,
        attempts=event.attempts,
        expires_ms=event.expires_ms,
        traceparent=event.traceparent,
        caused_by=event.caused_by,
        hops=event.hops,
        scheduled_at=event.scheduled_at,
        version=seq,
        arrival_ms=arrival_ms,
    )


def moved(before: Execution, after: ExecutionStatus, seq: int) -> Execution:
    assert may_follow(before.status, after), (before.id, before.status, after)
    return replace(before, status=after, version=seq)


def started(before: Execution, event: ExecutionStarted, seq: int) -> Execution:
    after = replace(moved(before, ExecutionStatus.STARTING, seq), groups=event.groups)
    if not event.revision:
        return after
    variables = after.variables if event.variables is None else event.variables
    return replace(after, revision=event.revision, variables=variables)


def changed(before: Execution, event: Change, seq: int, at_ms: int) -> Execution:
    """The execution after something that takes it out of no list of the table."""
    match event:
        case ExecutionRunning():
            after = moved(before, ExecutionStatus.RUNNING, seq)
            return replace(after, pid=event.pid, start_ms=event.started_ms)
        case ExecutionProgress():
            return replace(before, progress=event.progress, version=seq)
        case ExecutionHealth():
            health = Health(status=event.status, since_ms=at_ms, message=event.message)
            return replace(before, health=health, version=seq)
        case ExecutionStopping():
            # An order may come again, sharper, while the first one is followed.
            if before.status is not ExecutionStatus.STOPPING:
                before = moved(before, ExecutionStatus.STOPPING, seq)
            return replace(before, stop=event.stop, version=seq)
        case ExecutionCaused():
            return replace(before, caused=(*before.caused, event.caused), version=seq)


def ended(before: Execution, event: ExecutionEnded, seq: int) -> Execution:
    return replace(
        moved(before, event.status, seq),
        reason=event.reason,
        end_ms=event.ended_ms,
        exit_code=event.exit_code,
        signal=event.signal,
        error=event.error,
        contained=event.contained,
        survivors=event.survivors,
        containment=event.containment,
        output_end=event.output_end,
        progress=event.progress or before.progress,
        usage=event.usage,
        core_dumped=event.core_dumped,
        result=event.result.copy(),  # not a part of the line that it was read from
        result_note=event.result_note,
        artifacts=event.artifacts,
        artifact_bytes=event.artifact_bytes,
        artifacts_note=event.artifacts_note,
    )


def with_start(job: Job, event: ExecutionQueued, at_ms: int) -> Job:
    """Automatic restarts are remembered as far as their limit goes; a person's start clears."""
    if job.spec is None:
        return job
    if event.cause == RESTART:
        newest = (*job.restarts_ms, at_ms)[-job.spec.restart.limit :]
        return replace(job, restarts_ms=newest)
    if not event.cause and (job.restarts_ms or job.gave_up_ms is not None):
        return replace(job, restarts_ms=(), gave_up_ms=None)
    return job


def with_program_start(job: Job, spec: JobSpec, at_ms: int) -> Job:
    """Starts are remembered as far as `start_limit` counts them."""
    limit = spec.start_limit
    newest = (*job.queue.starts_ms, at_ms)[-limit.count :] if limit is not None else ()
    if newest == job.queue.starts_ms:
        return job
    return replace(job, queue=replace(job.queue, starts_ms=newest))


def joined_queue(own: JobQueue, left: JobQueue) -> JobQueue:
    """The queue of a job that had another name, under which `left` is known."""
    starts_ms = tuple(sorted((*left.starts_ms, *own.starts_ms)))[-STARTS_MAX:]
    return JobQueue(paused=own.paused or left.paused, starts_ms=starts_ms)


def pause(event: JobPaused | GroupPaused, at_ms: int) -> Pause:
    return Pause(reason=event.reason, by=event.by, since_ms=at_ms, until_ms=event.until_ms)


def group(before: Group, event: GroupEvent, seq: int, at_ms: int) -> Group:
    match event:
        case GroupDefined(max_running=most):
            return replace(before, max_running=most, is_defined=True, version=seq)
        case GroupRemoved():
            return replace(before, is_defined=False, version=seq)
        case GroupPaused():
            return replace(before, paused=pause(event, at_ms), version=seq)
        case GroupResumed():
            return replace(before, paused=None, version=seq)
