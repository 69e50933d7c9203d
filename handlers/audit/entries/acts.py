"""The entries of what the service does by itself. No IO, no clock.

Ends of programs are no acts, and neither is what follows from a command: that stands in the
command's own entry.
"""

import msgspec

from bus.audit import AUTOMATIC, AuditEntry, cut
from bus.clock import rfc3339
from bus.envelope import SCHEDULED
from bus.events import (
    ExecutionCaused,
    ExecutionEnded,
    ExecutionQueued,
    ExecutionStopping,
    ExecutionUnknown,
    GroupDefined,
    GroupPaused,
    GroupRemoved,
    GroupResumed,
    JobEvent,
    JobGaveUp,
    JobInvalid,
    JobPaused,
    JobResumed,
    Published,
    ScheduleDecided,
    SystemClock,
    SystemForgotten,
    SystemMaintenance,
    type_of,
)
from bus.model import ExecutionStatus
from bus.schedules import Verdict
from handlers.audit.entries.states import LIMITS, Live
from handlers.decisions.retries import RESTART

_ADOPT = "system:adopt"
_CATALOG = "system:catalog"
_CLOCK_ACTOR = "system:clock"
_LIMITS = "system:limits"
_RETENTION = "system:retention"
_SETTINGS = "system:settings"


def queued(published: Published, event: ExecutionQueued, previous: str | None) -> AuditEntry | None:
    """A policy starts again what was in the state `previous`."""
    if not event.cause or event.cause.startswith(SCHEDULED):
        return None  # the command's own entry says it
    detail = {"previous": event.previous} if event.previous else {}
    return _automatic(
        published,
        event.cause,
        "start",
        job=event.job_id,
        execution=event.execution_id,
        command=event.command_id,
        cause=event.cause,
        before=previous,
        after="Queued",
        detail=detail | {"attempt": str(event.attempt)},
    )


def stopping(
    published: Published, event: ExecutionStopping, live: Live, before: str | None
) -> AuditEntry | None:
    if event.stop.command_id is not None:
        return None  # the command's own entry says it
    stop = event.stop
    return _of_execution(published, event.execution_id, live, stop.by, "stop", before, stop.reason)


def unknown(
    published: Published, event: ExecutionUnknown, live: Live, before: str | None
) -> AuditEntry:
    return _of_execution(published, event.execution_id, live, _ADOPT, "settle", before)


def ended(
    published: Published,
    event: ExecutionEnded,
    live: Live,
    before: str | None,
    ending: dict[str, str],
) -> AuditEntry | None:
    if event.status is ExecutionStatus.LOST:
        actor, action = _ADOPT, "settle"
    elif event.reason in LIMITS and not live.limited:
        # The program was gone before the stop by the limit was reported.
        actor, action = _LIMITS, "stop"
    else:
        return None
    entry = _of_execution(published, event.execution_id, live, actor, action, before, event.reason)
    return msgspec.structs.replace(entry, detail=ending)


def of_service(
    published: Published,
    event: ExecutionCaused | SystemForgotten | SystemMaintenance | SystemClock | ScheduleDecided,
) -> AuditEntry | None:
    match event:
        case ExecutionCaused():
            return _caused(published, event)
        case SystemForgotten():
            return _forgotten(published, event)
        case SystemMaintenance():
            return _maintenance(published, event)
        case SystemClock():
            return _clock(published, event)
        case ScheduleDecided():
            return _scheduled(published, event)


def _caused(published: Published, event: ExecutionCaused) -> AuditEntry:
    """An end has set another start going; the entry of its command says what became of it."""
    started = event.caused.execution_id
    entry = _automatic(
        published,
        event.by,
        "chain",
        job=event.caused.job_id,
        execution=event.execution_id,
        command=event.caused.command_id,
        detail={"started": started} if started else {},
    )
    return msgspec.structs.replace(entry, error_code=event.caused.error_code)


def job(published: Published, event: JobEvent, before: str | None, after: str | None) -> AuditEntry:
    """The catalog changed, or a policy gave up; the states are revisions."""
    gave_up = isinstance(event, JobGaveUp)
    return _automatic(
        published,
        RESTART if gave_up else _CATALOG,
        "give_up" if gave_up else type_of(event),
        job=event.job_id,
        before=before,
        after=after,
        cause=cut(event.fault.reason) if isinstance(event, JobInvalid) else None,
    )


def _forgotten(published: Published, event: SystemForgotten) -> AuditEntry | None:
    gone = {
        "executions": len(event.executions),
        "commands": len(event.commands) + len(event.traceless),
    }
    detail = {name: str(number) for name, number in gone.items() if number}
    return _automatic(published, _RETENTION, "forget", detail=detail) if detail else None


def _maintenance(published: Published, event: SystemMaintenance) -> AuditEntry:
    state = "on" if event.on else "off"
    return _automatic(
        published,
        event.by,
        f"maintenance.{state}",
        cause=cut(event.reason) or None,
        before="off" if event.on else "on",
        after=state,
    )


def _scheduled(published: Published, event: ScheduleDecided) -> AuditEntry | None:
    """What a schedule has not started; the starts have entries of their commands."""
    if event.verdict is Verdict.STARTED:
        return None
    detail = {"instant": rfc3339(event.instant_ms)}
    if event.first_ms is not None:
        count = f"{event.count} or more" if event.more else str(event.count)
        detail |= {"first": rfc3339(event.first_ms), "count": count}
    return _automatic(
        published,
        f"{SCHEDULED}{event.schedule}",
        f"schedule.{event.verdict}",
        job=event.job_id,
        execution=event.execution_id,
        command=event.command_id,
        cause=str(event.why) if event.why is not None else None,
        detail=detail,
    )


def _clock(published: Published, event: SystemClock) -> AuditEntry:
    state = "doubted" if event.doubted else "believed"
    return _automatic(published, event.by or _CLOCK_ACTOR, f"clock.{state}", after=state)


def resumed(published: Published, event: JobResumed | GroupResumed) -> AuditEntry:
    """The time of a pause has passed."""
    job = event.job_id if isinstance(event, JobResumed) else None
    detail = about_queue(event)
    return _automatic(published, event.by, "queue.resume", job=job, detail=detail)


def about_queue(event: JobPaused | JobResumed | GroupPaused | GroupResumed) -> dict[str, str]:
    """What the entry of a pause or its end says beside the job."""
    found = {"group": event.name} if isinstance(event, GroupPaused | GroupResumed) else {}
    if isinstance(event, JobPaused | GroupPaused):
        found |= {"reason": cut(event.reason)} if event.reason else {}
        found |= {"until": rfc3339(event.until_ms)} if event.until_ms is not None else {}
    return found


def group(published: Published, event: GroupDefined | GroupRemoved) -> AuditEntry:
    """The settings name another limit, or the group no more."""
    detail = {"group": event.name}
    if isinstance(event, GroupDefined):
        detail["maxRunning"] = str(event.max_running)
    return _automatic(published, _SETTINGS, type_of(event), detail=detail)


def _of_execution(
    published: Published,
    execution_id: str,
    live: Live,
    actor: str,
    action: str,
    before: str | None,
    cause: str | None = None,
) -> AuditEntry:
    return _automatic(
        published,
        actor,
        action,
        job=live.job_id,
        execution=execution_id,
        command=live.command_id,
        cause=str(cause) if cause is not None else None,
        before=before,
        after=live.status,
    )


def _automatic(
    published: Published,
    actor: str,
    action: str,
    *,
    job: str | None = None,
    execution: str | None = None,
    command: str | None = None,
    cause: str | None = None,
    before: str | None = None,
    after: str | None = None,
    detail: dict[str, str] | None = None,
) -> AuditEntry:
    return AuditEntry(
        seq=published.seq,
        at=rfc3339(published.at_ms),
        kind=AUTOMATIC,
        actor=cut(actor),
        action=action,
        via="system",
        job=job,
        execution=execution,
        command=command,
        cause=cause,
        before=before,
        after=after,
        detail=detail or {},
    )
