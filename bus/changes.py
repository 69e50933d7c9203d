"""An event and the record it changed become one frame of the feed: a CloudEvents 1.0 object.

Encoded once, for all readers. No IO. Source of the envelope: CloudEvents 1.0, JSON format.
"""

from typing import Protocol

import msgspec

from bus.clock import rfc3339
from bus.events import (
    COMMAND_EVENTS,
    EXECUTION_EVENTS,
    GROUP_EVENTS,
    ExecutionDeleted,
    JobRemoved,
    Published,
    ScheduleBegun,
    ScheduleDecided,
    SchedulePaused,
    ScheduleResumed,
    SystemClock,
    SystemForgotten,
    SystemMaintenance,
    type_of,
)
from bus.feed import Frame
from bus.job_definition import Job
from bus.model import CommandRecord, Execution
from bus.views import (
    CommandView,
    DecisionView,
    ExecutionView,
    GroupView,
    HeldView,
    JobView,
    command_view,
    decision_view,
    execution_view,
    held_view,
    job_view,
)

SILENT_KINDS = frozenset({"status"})
"""Commands that only read: they are journaled but make no event."""


class RemovedView(msgspec.Struct, frozen=True, rename="camel"):
    job_id: str
    version: int


class DeletedView(msgspec.Struct, frozen=True, rename="camel"):
    execution_id: str
    version: int


class MaintenanceView(msgspec.Struct, frozen=True, rename="camel"):
    maintenance: bool
    reason: str
    by: str
    version: int


class ClockView(msgspec.Struct, frozen=True, rename="camel"):
    doubted: bool
    shows: str
    by: str
    version: int


class RemovedGroupView(msgspec.Struct, frozen=True):
    name: str
    version: int


View = (
    ClockView
    | DecisionView
    | HeldView
    | GroupView
    | RemovedGroupView
    | MaintenanceView
    | ExecutionView
    | CommandView
    | JobView
    | RemovedView
    | DeletedView
)


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The envelope; `job`, `execution`, `user`, `traceparent` and `version` are extensions."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    data: View
    job: str | None = None
    execution: str | None = None
    user: str | None = None
    traceparent: str | None = None
    version: int | None = None


_encode = msgspec.json.Encoder().encode


class Records(Protocol):
    """The table as far as a frame needs it."""

    def execution(self, execution_id: str) -> Execution | None: ...

    def command(self, command_id: str) -> CommandRecord | None: ...

    def job(self, job_id: str) -> Job | None: ...

    def waiting_for(self, execution: Execution, now_ms: int) -> str: ...

    def group_view(self, name: str) -> GroupView | None: ...


class ChangeEncoder:
    """Makes the frames of one instance and one epoch."""

    def __init__(self, instance: str, epoch: str) -> None:
        self._source = f"/jobbus/{instance}"
        self._epoch = epoch

    def frame(self, published: Published, table: Records) -> Frame | None:
        """The frame for an event that `table` has just taken in; None for silent commands."""
        event = published.event
        if isinstance(event, ExecutionDeleted):
            return self._frame(
                published,
                f"executions/{event.execution_id}",
                DeletedView(event.execution_id, published.seq),
                job=event.job_id,
                execution=event.execution_id,
                user=event.user_id,
            )
        if isinstance(event, EXECUTION_EVENTS):
            execution = table.execution(event.execution_id)
            assert execution is not None
            waiting = table.waiting_for(execution, published.at_ms)
            return self._of_execution(published, execution, execution_view(execution, waiting))
        if isinstance(event, COMMAND_EVENTS):
            command = table.command(event.command_id)
            assert command is not None
            return None if command.kind in SILENT_KINDS else self._of_command(published, command)
        if isinstance(event, SystemForgotten | ScheduleBegun):
            return None  # nothing has happened to what was forgotten, or by what will count
        if isinstance(event, ScheduleDecided):
            view = decision_view(event, published.seq)
            subject = f"jobs/{event.job_id}"
            return self._frame(
                published, subject, view, job=event.job_id, execution=event.execution_id
            )
        if isinstance(event, SchedulePaused | ScheduleResumed):
            held = held_view(event, published.at_ms, published.seq)
            return self._frame(published, f"jobs/{event.job_id}", held, job=event.job_id)
        if isinstance(event, SystemClock):
            clock = ClockView(event.doubted, rfc3339(event.shown_ms), event.by, published.seq)
            return self._frame(published, "system", clock, job=None)
        if isinstance(event, SystemMaintenance):
            maintenance = MaintenanceView(event.on, event.reason, event.by, published.seq)
            return self._frame(published, "system", maintenance, job=None)
        if isinstance(event, GROUP_EVENTS):
            shown = table.group_view(event.name) or RemovedGroupView(event.name, published.seq)
            return self._frame(published, f"groups/{event.name}", shown, job=None)
        job = table.job(event.job_id)
        return self._of_job(published, event.job_id, job)

    def _of_execution(
        self, published: Published, execution: Execution, view: ExecutionView
    ) -> Frame:
        return self._frame(
            published,
            f"executions/{execution.id}",
            view,
            job=execution.job_id,
            execution=execution.id,
            user=execution.user_id,
            traceparent=execution.traceparent,
        )

    def _of_command(self, published: Published, command: CommandRecord) -> Frame:
        return self._frame(
            published,
            f"commands/{command.id}",
            command_view(command),
            job=command.job_id,
            execution=command.execution_id,
            user=command.user_id,
            traceparent=command.traceparent,
        )

    def _of_job(self, published: Published, job_id: str, job: Job | None) -> Frame:
        removed = job is None or isinstance(published.event, JobRemoved)
        view = RemovedView(job_id, published.seq) if job is None or removed else job_view(job)
        return self._frame(published, f"jobs/{job_id}", view, job=job_id)

    def _frame(
        self,
        published: Published,
        subject: str,
        data: View,
        *,
        job: str | None,
        execution: str | None = None,
        user: str | None = None,
        traceparent: str | None = None,
    ) -> Frame:
        type_ = type_of(published.event)
        event = CloudEvent(
            specversion="1.0",
            id=f"{self._epoch}-{published.seq}",
            source=self._source,
            type=type_,
            subject=subject,
            time=rfc3339(published.at_ms),
            datacontenttype="application/json",
            data=data,
            job=job,
            execution=execution,
            user=user,
            traceparent=traceparent,
            version=published.seq,
        )
        return Frame(
            seq=published.seq,
            type=type_,
            data=_encode(event),
            job_id=job,
            execution_id=execution,
            user_id=user,
        )
