"""Bodies and answers of the API that no other module has a record of, for its document. No IO.

What is decoded by hand (for better answers to mistakes) or put together from a record and links is
written down here once as a type.
"""

from typing import Annotated, Any, Literal

import msgspec

from bus.audit import AuditEntry
from bus.model import Value
from bus.views import CommandView, ExecutionView, FaultView, VariableView
from transports.http.access.tokens import TokenView
from transports.http.output.lines import LineView
from transports.http.web.problems import ErrorItem

Links = dict[str, str]
Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
Uuid = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]
JobId = Annotated[str, msgspec.Meta(examples=["App/Job"])]
GraceS = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457. `code` is the machine word, `instance` the id that joins the answer to the log."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: tuple[ErrorItem, ...] = ()


class Accepted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The command is durable and will be handled."""

    command_id: Uuid
    status: Literal["Pending"]
    links: Links


class CommandTold(CommandView, frozen=True, kw_only=True, rename="camel"):
    """A command with its links."""

    links: Links


class ExecutionTold(ExecutionView, frozen=True, kw_only=True, rename="camel"):
    """An execution with its links."""

    links: Links


class GrantTold(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the caller may, and if not, why not."""

    allowed: bool
    why: str | None


class JobTold(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job with what the caller may do with it and its last executions."""

    job_id: JobId
    name: str
    description: str
    tags: tuple[str, ...]
    revision: str
    disabled: bool
    overlap: str
    max_running: int
    timeout_s: float = msgspec.field(name="timeoutS")
    stop_grace_s: float = msgspec.field(name="stopGraceS")
    variables: dict[str, VariableView]
    fault: FaultView | None
    version: int
    attempts: int
    restart: str
    gave_up_at: Time | None
    may: dict[str, GrantTold]
    last_executions: tuple[ExecutionView, ...]
    links: Links


class CommandsPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[CommandTold, ...]
    next: str | None
    as_of: str


class ExecutionsPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[ExecutionTold, ...]
    next: str | None
    as_of: str


class JobsPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[JobTold, ...]
    next: str | None
    as_of: str


class EventTold(msgspec.Struct, frozen=True, kw_only=True):
    """A change: a CloudEvent 1.0; `data` is the record as it was then."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: Time
    datacontenttype: str
    data: dict[str, Any]
    job: str | None = None
    execution: Uuid | None = None
    user: str | None = None
    traceparent: str | None = None
    version: int = 0


class EventsPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    items: tuple[EventTold, ...]
    next: str
    as_of: str


class OriginCall(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The call of the PowerShell module; other fields are ignored, names are taken in any case."""

    job_id: JobId | None = None
    execution_id: Uuid | None = None
    variables: dict[str, Value] | None = None


class OriginAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    success: Literal[True]
    command_id: Uuid
    message: str
    status: Any = None


class StopOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    grace_s: GraceS | None = msgspec.field(name="graceS", default=None)
    kill: bool = False


class Nothing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An empty object, or no body at all."""


class OutputTold(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A piece of an output. `to` is where to read on, `end` where the output ends now."""

    execution_id: Uuid
    start: int = msgspec.field(name="from")
    to: int
    end: int
    lines: tuple[LineView, ...]
    complete: bool = False
    gap: dict[str, Any] | None = None
    text: str = ""


class SignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the two."""

    token: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    code: Annotated[str, msgspec.Meta(max_length=512)] | None = None


class SessionTold(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    user: str
    roles: tuple[str, ...]
    by: str
    expires_at: Time | None
    instance: str


class CodeTold(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    code: str
    path: str
    expires_at: Time


class TicketRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The path and query of the one stream that the ticket is for."""

    path: Annotated[str, msgspec.Meta(max_length=4096, examples=["/api/v1/events?job=App/Job"])]


class TicketTold(msgspec.Struct, frozen=True, kw_only=True):
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


class TokensTold(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[TokenView, ...]


class AuditTold(msgspec.Struct, frozen=True, kw_only=True):
    """Entries, newest first; `next` is the cursor of the older ones."""

    items: tuple[AuditEntry, ...]
    next: str | None


class MaintenanceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    on: bool
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class MaintenanceTold(msgspec.Struct, frozen=True, kw_only=True):
    maintenance: dict[str, str] | None


class VersionTold(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    api: str
