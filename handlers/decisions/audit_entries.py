"""From events to entries of the audit: one for each command and for each act of the service itself.

Pure: no IO, no clock. Ends of programs are no acts, and neither is what follows from a command:
that stands in the command's own entry.
"""

import msgspec

from bus.audit import AUTOMATIC, COMMAND, REFUSED, AuditEntry, cut, stamp
from bus.clock import rfc3339
from bus.commands import job_of, kind_of
from bus.envelope import Envelope
from bus.errors import BusError
from bus.events import (
    CommandAccepted,
    CommandEnded,
    ExecutionDeleted,
    ExecutionEnded,
    ExecutionProgress,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStarted,
    ExecutionStopping,
    ExecutionUnknown,
    JobChanged,
    JobDefined,
    JobGaveUp,
    JobInvalid,
    JobRemoved,
    Published,
    SystemForgotten,
    SystemMaintenance,
    type_of,
)
from bus.jobs import Job
from bus.model import CommandRecord, Execution, ExecutionStatus, Reason
from handlers.decisions.table import JobTable

ADOPT = "system:adopt"
CATALOG = "system:catalog"
LIMITS = "system:limits"
RETENTION = "system:retention"
RESTART = "policy:restart"

_LIMITS = frozenset({Reason.RUN_TIMEOUT, Reason.START_TIMEOUT, Reason.WATCHDOG})


class _Live(msgspec.Struct):
    """As much of an execution as entries tell. `limited`: the stop by a limit was told."""

    job_id: str
    command_id: str
    status: str
    limited: bool = False


class _Pending(msgspec.Struct, frozen=True):
    """A command that has not ended, and the state of its execution when it came."""

    accepted: CommandAccepted
    target: str | None
    before: str | None


class AuditFold:
    """Follows the events from a table on; holds live executions and commands that wait.

    Events up to `told_until` only change what is held: their entries are there already.
    """

    def __init__(self, *, told_until: int = 0) -> None:
        self._told_until = told_until
        self._live: dict[str, _Live] = {}
        self._ended: dict[str, str] = {}
        self._pending: dict[str, _Pending] = {}
        self._revisions: dict[str, str] = {}
        self._table: JobTable | None = None

    def begin(self, table: JobTable) -> None:
        """The next event is the first that `table` has not taken in."""
        self._table = table
        self._live = {e.id: _live(e) for e in table.live_executions()}
        self._revisions = {job.id: _revision(job) for job in table.jobs()}
        for command in table.unfinished_commands():
            self._pending[command.id] = _Pending(_accepted(command), command.execution_id, None)

    def tell_everything(self) -> None:
        """The replay is over: what comes now is new, even if a new journal counts from 1 again."""
        self._told_until = 0

    def take(self, published: Published) -> AuditEntry | None:
        """The entry that this event makes, if it makes one. The table may be ahead of it."""
        is_told = published.seq <= self._told_until
        event = published.event
        if is_told and isinstance(event, CommandEnded):
            # Most of what a start replays; making these would be most of its time.
            self._pending.pop(event.command_id, None)
            return None
        entry = self._entry(published)
        return None if is_told else entry

    def _entry(self, published: Published) -> AuditEntry | None:
        event = published.event
        match event:
            case ExecutionProgress():
                return None
            case CommandAccepted():
                self._accept(event)
                return None
            case CommandEnded():
                return self._end_command(published, event)
            case ExecutionQueued():
                self._live[event.execution_id] = _Live(event.job_id, event.command_id, "Queued")
                if event.replaces is not None:
                    self._replace(event.command_id, event.replaces)
                return self._queued(published, event) if event.cause else None
            case ExecutionStarted():
                self._become(event.execution_id, ExecutionStatus.STARTING)
                return None
            case ExecutionRunning():
                self._become(event.execution_id, ExecutionStatus.RUNNING)
                return None
            case ExecutionStopping():
                return self._stopping(published, event)
            case ExecutionUnknown():
                before = self._become(event.execution_id, ExecutionStatus.UNKNOWN)
                return self._of_execution(published, event.execution_id, ADOPT, "settle", before)
            case ExecutionEnded():
                return self._ended_execution(published, event)
            case ExecutionDeleted():
                self._ended[event.execution_id] = "deleted"
                return None
            case JobDefined() | JobChanged() | JobInvalid() | JobRemoved() | JobGaveUp():
                return self._job(published, event)
            case SystemForgotten():
                gone = {"executions": len(event.executions), "commands": len(event.commands)}
                detail = {name: str(number) for name, number in gone.items() if number}
                return _automatic(published, RETENTION, "forget", detail=detail) if detail else None
            case SystemMaintenance():
                state = "on" if event.on else "off"
                return _automatic(
                    published,
                    event.by,
                    f"maintenance.{state}",
                    cause=cut(event.reason) or None,
                    before="off" if event.on else "on",
                    after=state,
                )

    # -- commands

    def _accept(self, event: CommandAccepted) -> None:
        target = event.execution_id or (event.waits_for[0] if event.waits_for else None)
        before = self._state(target) if target is not None else None
        self._pending[event.command_id] = _Pending(event, target, before)

    def _replace(self, command_id: str, execution_id: str) -> None:
        """What a restart acts on is the execution that it replaces."""
        pending = self._pending.get(command_id)
        if pending is not None and pending.before is None:
            before = self._state(execution_id)
            self._pending[command_id] = msgspec.structs.replace(pending, before=before)

    def _end_command(self, published: Published, event: CommandEnded) -> AuditEntry | None:
        pending = self._pending.pop(event.command_id, None)
        if pending is None:
            return None  # it ended twice in the eyes of a torn journal
        accepted = pending.accepted
        execution_id = event.execution_id or pending.target
        refused = not accepted.attempted
        return AuditEntry(
            seq=published.seq,
            at=rfc3339(published.at_ms),
            kind=REFUSED if refused else COMMAND,
            actor=cut(accepted.user_id),
            roles=accepted.roles,
            via=accepted.via,
            action=cut(accepted.kind),
            job=cut(accepted.job_id) if accepted.job_id else None,
            execution=execution_id,
            command=event.command_id,
            submitted_at=stamp(accepted.submitted_ms),
            processed_at=rfc3339(published.at_ms),
            status=event.status.value,
            outcome=event.outcome.value if event.outcome else None,
            error_code=event.error_code,
            before=None if refused else pending.before,
            after=self._state(execution_id) if execution_id and not refused else None,
        )

    # -- executions

    def _queued(self, published: Published, event: ExecutionQueued) -> AuditEntry:
        detail = {"previous": event.previous} if event.previous else {}
        return _automatic(
            published,
            event.cause,
            "start",
            job=event.job_id,
            execution=event.execution_id,
            command=event.command_id,
            cause=event.cause,
            before=self._state(event.previous) if event.previous else None,
            after="Queued",
            detail=detail | {"attempt": str(event.attempt)},
        )

    def _stopping(self, published: Published, event: ExecutionStopping) -> AuditEntry | None:
        before = self._become(event.execution_id, ExecutionStatus.STOPPING)
        if event.stop.command_id is not None:
            return None  # the command's own entry tells it
        self._live[event.execution_id].limited = event.stop.reason in _LIMITS
        return self._of_execution(
            published, event.execution_id, event.stop.by, "stop", before, event.stop.reason
        )

    def _ended_execution(self, published: Published, event: ExecutionEnded) -> AuditEntry | None:
        execution_id = event.execution_id
        before = self._become(execution_id, event.status)
        entry = None
        if event.status is ExecutionStatus.LOST:
            entry = self._of_execution(
                published, execution_id, ADOPT, "settle", before, event.reason
            )
        elif event.reason in _LIMITS and not self._live[execution_id].limited:
            # It struck and the program was gone before anybody heard of it.
            entry = self._of_execution(
                published, execution_id, LIMITS, "stop", before, event.reason
            )
        del self._live[execution_id]
        self._ended[execution_id] = event.status.value
        if len(self._ended) > _ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        return entry

    def _of_execution(
        self,
        published: Published,
        execution_id: str,
        actor: str,
        action: str,
        before: str | None,
        cause: str | None = None,
    ) -> AuditEntry:
        live = self._live[execution_id]
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

    def _become(self, execution_id: str, status: ExecutionStatus) -> str | None:
        """The state before; the execution is in the new one."""
        live = self._live.get(execution_id)
        if live is None:
            live = self._live[execution_id] = _Live("", "", "")
        before, live.status = live.status, status.value
        return before or None

    def _state(self, execution_id: str) -> str | None:
        live = self._live.get(execution_id)
        if live is not None:
            return live.status
        ended = self._ended.get(execution_id)
        if ended is not None or self._table is None:
            return ended
        found = self._table.execution(execution_id)
        # The table may be ahead: what is live there and not here does not exist yet.
        return found.status.value if found is not None and found.is_final else None

    # -- jobs

    def _job(
        self,
        published: Published,
        event: JobDefined | JobChanged | JobInvalid | JobRemoved | JobGaveUp,
    ) -> AuditEntry:
        before = self._revisions.get(event.job_id)
        if isinstance(event, JobDefined | JobChanged):
            self._revisions[event.job_id] = event.revision
        elif isinstance(event, JobRemoved):
            self._revisions.pop(event.job_id, None)
        after = self._revisions.get(event.job_id)
        gave_up = isinstance(event, JobGaveUp)
        return _automatic(
            published,
            RESTART if gave_up else CATALOG,
            "give_up" if gave_up else type_of(event),
            job=event.job_id,
            before=before or None,
            after=after or None,
            cause=cut(event.fault.reason) if isinstance(event, JobInvalid) else None,
        )


def entry_of_refusal(envelope: Envelope, error: BusError, at_ms: int) -> AuditEntry:
    """What was refused before it was written anywhere."""
    job_id = job_of(envelope.command)
    return AuditEntry(
        at=rfc3339(at_ms),
        kind=REFUSED,
        actor=cut(envelope.principal.user_id),
        roles=envelope.principal.roles,
        via=envelope.principal.via,
        action=kind_of(envelope.command),
        job=cut(job_id) if job_id else None,
        execution=_text(envelope, "execution_id"),
        command=envelope.id,
        submitted_at=stamp(envelope.submitted_ms),
        status="Rejected",
        error_code=error.code,
    )


def entry_of_file(record: CommandRecord, at_ms: int) -> AuditEntry:
    """A queue file that was answered where it was found."""
    return AuditEntry(
        at=rfc3339(at_ms),
        kind=REFUSED,
        actor=cut(record.user_id),
        roles=tuple(cut(role) for role in record.roles[:16]),
        via=record.via,
        action=cut(record.kind) or "unknown",
        job=cut(record.job_id) if record.job_id else None,
        command=record.id,
        submitted_at=stamp(record.submitted_ms),
        processed_at=stamp(record.processed_ms),
        status=record.status.value,
        error_code=record.error_code,
    )


_ENDED_MAX = 1000
"""Ends that are remembered for commands that end right after them."""


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


def _text(envelope: Envelope, name: str) -> str | None:
    value = getattr(envelope.command, name, None)
    return cut(value) if isinstance(value, str) else None


def _live(execution: Execution) -> _Live:
    limited = execution.stop is not None and execution.stop.reason in _LIMITS
    return _Live(execution.job_id, execution.command_id, execution.status.value, limited)


def _revision(job: Job) -> str:
    return job.revision


def _accepted(command: CommandRecord) -> CommandAccepted:
    return CommandAccepted(
        command_id=command.id,
        kind=command.kind,
        user_id=command.user_id,
        submitted_ms=command.submitted_ms,
        body_hash="",
        job_id=command.job_id,
        roles=command.roles,
        via=command.via,
        execution_id=command.execution_id,
        waits_for=command.waits_for,
    )
