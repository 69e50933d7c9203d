"""What pauses and resumes queues of jobs and groups, and what other limits of groups lead to.

A pause ends nothing and refuses nothing: what is asked for waits. A restart of what runs takes its
place all the same, for it brings no more work than there was. Pure: no IO, no clock, no entropy.
"""

from collections.abc import Iterator

from bus.access import ADMIN
from bus.clock import from_rfc3339
from bus.commands import REASON_MAX, PauseQueue, ResumeQueue, SetGroups
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.events import (
    AnyEvent,
    GroupDefined,
    GroupPaused,
    GroupRemoved,
    GroupResumed,
    JobPaused,
    JobResumed,
)
from bus.groups import Group, Pause
from bus.model import Outcome
from bus.wording import did_you_mean, quoted
from handlers.decisions.command_events import accepted_as, completed, noop
from handlers.decisions.decision import NOTHING, Context, Decision, joined
from handlers.decisions.permissions import may_start, may_stop, visible_job
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.slots import Soon, next_to_start, starts

TIME_PASSED = "system:time"
"""Who ends a pause whose time has passed."""

_OPERATOR = "operator"
"""The role that may pause groups, beside `admin`: a group belongs to several jobs."""


def pause(
    table: ReadableTable, envelope: Envelope, command: PauseQueue, context: Context
) -> Decision:
    until_ms = _until_ms(command, context)
    if len(command.reason) > REASON_MAX:
        raise Refused(
            ErrorCode.MALFORMED,
            f"the reason is longer than {REASON_MAX} characters",
            pointer="/reason",
        )
    by, before = envelope.principal.user_id, _paused(table, envelope, command, context)
    new = (command.reason, by, until_ms)
    if before is not None and (before.reason, before.by, before.until_ms) == new:
        return noop(envelope, command.job_id, None)
    event: AnyEvent
    if command.job_id is not None:
        event = JobPaused(job_id=command.job_id, by=by, reason=command.reason, until_ms=until_ms)
    else:
        assert command.group is not None
        event = GroupPaused(name=command.group, by=by, reason=command.reason, until_ms=until_ms)
    accepted = accepted_as(envelope, command.job_id)
    return Decision((accepted, event, completed(envelope.id, Outcome.DONE)))


def resume(
    table: ReadableTable, envelope: Envelope, command: ResumeQueue, context: Context
) -> Decision:
    if _paused(table, envelope, command, context) is None:
        return noop(envelope, command.job_id, None)
    by = envelope.principal.user_id
    event: AnyEvent
    if command.job_id is not None:
        event = JobResumed(job_id=command.job_id, by=by)
    else:
        assert command.group is not None
        event = GroupResumed(name=command.group, by=by)
    accepted = accepted_as(envelope, command.job_id)
    over = Decision((accepted, event, completed(envelope.id, Outcome.DONE)))
    jobs = [command.job_id] if command.job_id is not None else []
    groups = [command.group] if command.group is not None else []
    followers = next_to_start(
        table,
        jobs,
        context.now_ms,
        groups=groups,
        soon=Soon(resumed_jobs=jobs, resumed_groups=groups),
        is_low=context.is_low,
    )
    return joined([over, starts(table, followers)])


def set_groups(table: ReadableTable, report: SetGroups, context: Context) -> Decision:
    """The limits are those of the settings. A group that they name no more keeps its last one, for
    those who use it."""
    events: list[AnyEvent] = []
    for name, most in report.limits.items():
        group = table.group(name)
        if group is None or (group.max_running, group.is_defined) != (most, True):
            events.append(GroupDefined(name=name, max_running=most))
    gone = (group for group in table.groups() if group.name not in report.limits)
    events += (
        GroupRemoved(name=group.name)
        for group in gone
        if group.is_defined or not table.is_used(group.name)
    )
    if not events:
        return NOTHING
    changed = [event.name for event in events if isinstance(event, GroupDefined)]
    followers = next_to_start(
        table,
        (),
        context.now_ms,
        groups=changed,
        soon=Soon(limits=report.limits),
        is_low=context.is_low,
    )
    return joined([Decision(tuple(events)), starts(table, followers)])


def expired_pauses(table: ReadableTable, now_ms: int) -> Iterator[JobResumed | GroupResumed]:
    """The ends of pauses whose time has passed."""
    for job_id in table.paused_jobs():
        if _is_over(table.queue_of(job_id).paused, now_ms):
            yield JobResumed(job_id=job_id, by=TIME_PASSED)
    for group in table.groups():
        if _is_over(group.paused, now_ms):
            yield GroupResumed(name=group.name, by=TIME_PASSED)


def ends_of_pauses(table: ReadableTable) -> Iterator[int]:
    """When pauses end by themselves."""
    pauses = [table.queue_of(job_id).paused for job_id in table.paused_jobs()]
    pauses += [group.paused for group in table.groups()]
    yield from (p.until_ms for p in pauses if p is not None and p.until_ms is not None)


def _is_over(paused: Pause | None, now_ms: int) -> bool:
    return paused is not None and paused.until_ms is not None and paused.until_ms <= now_ms


def _paused(
    table: ReadableTable,
    envelope: Envelope,
    command: PauseQueue | ResumeQueue,
    context: Context,
) -> Pause | None:
    """How the queue is held now.

    Raises:
        Refused: there is no such queue, or the principal may not change it.
    """
    if command.job_id is not None and command.group is None:
        job = visible_job(table, envelope, command.job_id, context)
        is_pause = isinstance(command, PauseQueue)
        may = may_stop if is_pause else may_start
        if not may(table, envelope, job.id, context):
            verb, right = ("pause", "stop") if is_pause else ("resume", "start")
            raise Refused(
                ErrorCode.NOT_PERMITTED,
                f"you may not {verb} {job.id}: that takes the right `{right}`, and none of your "
                "roles gives it",
            )
        return job.queue.paused
    if command.group is not None and command.job_id is None:
        return _group(table, envelope, command.group).paused
    raise Refused(
        ErrorCode.MALFORMED, "name a job as `jobId` or a group as `group`", pointer="/jobId"
    )


def _group(table: ReadableTable, envelope: Envelope, name: str) -> Group:
    principal = envelope.principal
    if not {ADMIN, _OPERATOR}.intersection(principal.roles) and principal.via != "system":
        raise Refused(
            ErrorCode.NOT_PERMITTED,
            "you may not pause or resume groups: that takes the role operator or admin",
        )
    group = table.group(name)
    if group is None:
        known = [each.name for each in table.groups()]
        raise Refused(
            ErrorCode.UNKNOWN_GROUP,
            f"there is no group {quoted(name)} in jobbus.toml{did_you_mean(name, known)}",
            pointer="/group",
        )
    return group


def _until_ms(command: PauseQueue, context: Context) -> int | None:
    if command.until is None:
        return None
    until_ms = from_rfc3339(command.until)
    if until_ms <= context.now_ms:
        raise Refused(ErrorCode.MALFORMED, "until must lie ahead", pointer="/until")
    return until_ms
