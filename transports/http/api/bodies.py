"""Bodies and answers of the API that no other module has a record of, for its document. No IO.

What is decoded by hand (for better answers to mistakes) or put together from a record and links is
written down here once as a type.
"""

from typing import Annotated, Any, Literal

import msgspec

from bus.audit import AuditEntry
from bus.job_definition import Overlap, RestartPolicy, VariableType
from bus.model import CommandStatus, ExecutionStatus, Outcome, Reason, Value
from bus.views import (
    AppView,
    CommandView,
    ExecutionView,
    FaultView,
    GroupView,
    PauseView,
    PlannedView,
    ScheduleView,
    StartLimitView,
    StopView,
    VariableView,
)
from transports.http.access.token_records import TokenView
from transports.http.web.operation import JSON, Types
from transports.http.web.parameters import JobId, Time, Uuid

Links = dict[str, str]
GraceS = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Accepted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The command is durable and will be handled."""

    command_id: Uuid
    status: Literal["Pending"]
    links: Links


class StopRecord(StopView, frozen=True, kw_only=True, rename={"grace_s": "graceS"}):
    """How the end of an execution was ordered."""

    reason: Reason
    at: Time


class Command(CommandView, frozen=True, kw_only=True, rename="camel"):
    """A command as it stands, with its links."""

    command_id: Uuid
    status: CommandStatus
    outcome: Outcome | None
    submitted_at: Time
    processed_at: Time | None
    execution_id: Uuid | None

    links: Links


class ExecutionRecord(ExecutionView, frozen=True, kw_only=True, rename="camel"):
    """An execution as it stands."""

    execution_id: Uuid
    job_id: JobId
    command_id: Uuid
    status: ExecutionStatus
    reason: Reason | None
    queued_at: Time
    start_time: Time | None
    end_time: Time | None
    stop: StopRecord | None
    not_before: Time | None = None
    scheduled_at: Time | None = None


class Execution(ExecutionRecord, frozen=True, kw_only=True, rename="camel"):
    """An execution with its links."""

    links: Links


class VariableRecord(VariableView, frozen=True, kw_only=True, rename="camel"):
    """A variable that the job declares."""

    type: VariableType


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the caller may, and if not, why not."""

    allowed: bool
    why: str | None


class Job(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job with what the caller may do with it and its last executions."""

    job_id: JobId
    name: str
    description: str
    tags: tuple[str, ...]
    revision: str
    disabled: bool
    overlap: Overlap
    max_running: int
    timeout_s: float = msgspec.field(name="timeoutS")
    stop_grace_s: float = msgspec.field(name="stopGraceS")
    variables: dict[str, VariableRecord]
    fault: FaultView | None
    version: int
    attempts: int
    restart: RestartPolicy
    gave_up_at: Time | None
    origins: dict[str, str]
    groups: tuple[str, ...]
    priority: int
    start_limit: StartLimitView | None
    paused: PauseView | None
    app_name: str
    may: dict[str, Permission]
    next_at: Time | None
    last_executions: tuple[ExecutionRecord, ...]
    links: Links


class JobDetails(Job, frozen=True, kw_only=True, rename="camel"):
    """A job with its schedules, too."""

    schedules: tuple[ScheduleView, ...]


class Agenda(msgspec.Struct, frozen=True, kw_only=True):
    """What runs by itself `until` a moment, earliest first; with `more` there is more than that."""

    items: tuple[PlannedView, ...]
    until: Time
    more: bool


class App(AppView, frozen=True, kw_only=True, rename="camel"):
    """An app, with what its `app.toml` says."""

    jobs: tuple[JobId, ...]


class AppPage(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[App, ...]


class CommandPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[Command, ...]
    next: str | None
    as_of: str


class ExecutionPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[Execution, ...]
    next: str | None
    as_of: str


class GroupPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[GroupView, ...]
    next: str | None
    as_of: str


class JobPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[Job, ...]
    next: str | None
    as_of: str


class JobCall(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The call of the PowerShell module; other fields are ignored, names are taken in any case."""

    job_id: JobId | None = None
    execution_id: Uuid | None = None
    variables: dict[str, Value] | None = None


class JobCallAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    success: Literal[True]
    command_id: Uuid
    message: str
    status: Any = None


class StopOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    grace_s: GraceS | None = msgspec.field(name="graceS", default=None)
    kill: bool = False


class RetryOptions(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """With `notBefore` the job is started then."""

    not_before: Time | None = None


class Empty(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An empty object, or no body at all."""


class SignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the two."""

    token: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    code: Annotated[str, msgspec.Meta(max_length=512)] | None = None


class Session(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    user: str
    roles: tuple[str, ...]
    by: str
    expires_at: Time | None
    instance: str


class SignInCode(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    code: str
    path: str
    expires_at: Time


class TicketRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The path and query of the one stream that the ticket is for."""

    path: Annotated[str, msgspec.Meta(max_length=4096, examples=["/api/v1/events?job=App/Job"])]


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    ticket: str
    expires_in_s: int = msgspec.field(name="expiresInS")
    expires_at: Time = msgspec.field(name="expiresAt")


class TokenRequest(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """`expiresAt` of null means never; without it the token lasts 90 days."""

    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    roles: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=32)]
    expires_at: Time | None = None
    name: Annotated[str, msgspec.Meta(max_length=100)] = ""


class TokenPage(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[TokenView, ...]


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Entries, newest first; `next` is the cursor of the older ones."""

    items: tuple[AuditEntry, ...]
    next: str | None


class MaintenanceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    on: bool
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    maintenance: dict[str, str] | None


class ClockRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    believed: Literal[True]


class ClockRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """While it is not believed: what it showed when that began, and the last time before."""

    believed: bool
    shown: Time | None = None
    last_believed: Time | None = None


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    clock: ClockRecord


class Version(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    api: str


PUBLISHED: dict[int, Types] = {200: ((JSON, Command),), 202: ((JSON, Accepted),)}
"""What answers a request that publishes a command: as it ended, if that was waited for."""
