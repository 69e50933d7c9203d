"""Every route of the API in one table: what it takes and what it answers. No IO.

The document is generated from it, and a test holds it against the routes that are served.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from bus.commands import Command
from bus.events import EVENT_TYPES
from bus.model import CommandStatus, ExecutionStatus
from transports.http.access.tokens import NewToken
from transports.http.api import schemas as told

JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
TEXT = "text/plain"

Schema = dict[str, Any]
Types = tuple[tuple[str, Any], ...]
"""Media types with what they carry: a type of ours, or None for text."""


class Access(Enum):
    """Who is answered at all; what they may see is the business of the job's `[roles]`."""

    PUBLIC = "anybody"
    KNOWN = "whoever brings a credential"
    ADMIN = "the role admin"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    name: str
    about: str
    place: str = "query"
    schema: Schema = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, kw_only=True)
class Operation:
    """`refuses` are the statuses of its problem answers."""

    method: str
    path: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    body: Types = ()
    body_required: bool = True
    answers: dict[int, Types]
    refuses: frozenset[int]
    access: Access = Access.KNOWN


PUBLIC = frozenset({400, 421, 431, 503})
READ = PUBLIC | {401, 403, 429}
WRITE = READ | {408, 413, 415, 422}
PUBLISH = WRITE | {404, 409, 503, 507}
STREAM = READ | {406, 503}

_UUID: Schema = {"type": "string", "format": "uuid"}
_PART: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
_OFFSET: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_TIME: Schema = {"type": "string", "format": "date-time"}
_WORDS: Schema = {"type": "string", "minLength": 1}


def _many(of: Schema) -> Schema:
    return {"type": "array", "items": of, "maxItems": 32}


def _choice(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _id(of: str) -> Parameter:
    return Parameter(name="id", about=f"The id of the {of}.", place="path", schema=_UUID)


_JOB_FILTER = Parameter(name="job", about="Jobs, `App/Job`; any will do.", schema=_many(_WORDS))
_USER_FILTER = Parameter(name="user", about="Users; any will do.", schema=_many(_WORDS))
_BEGINNING = Parameter(
    name="id",
    about="How the id begins.",
    schema={"type": "string", "pattern": "^[0-9A-Fa-f-]{4,36}$"},
)
_LIMIT = Parameter(name="limit", about="Items a page; 50.", schema=_whole(1, 500))
_CURSOR = Parameter(name="cursor", about="`next` of an earlier page.")
_WAIT = Parameter(
    name="Prefer", about="`wait=N`: wait up to N (≤ 30) seconds for the end.", place="header"
)
_KEY = Parameter(
    name="Idempotency-Key",
    about="A repeat with the same key is the same command.",
    place="header",
    schema={"type": "string", "pattern": "^[!#-~]{1,255}$"},
)
_IF_NONE_MATCH = Parameter(name="If-None-Match", about="The ETag you hold.", place="header")
_LONG_POLL = (
    _IF_NONE_MATCH,
    Parameter(
        name="Prefer",
        about="`wait=N` with `If-None-Match`: answer once it differs, at the latest after N s.",
        place="header",
    ),
)
_AFTER = (
    Parameter(name="last_event_id", about="The id of the last frame you have."),
    Parameter(name="lastEventId", about="The same, as polyfills of EventSource add it; wins."),
    Parameter(name="Last-Event-ID", about="The same; wins over the query.", place="header"),
    Parameter(name="ticket", about="A ticket for exactly this stream."),
)
_FILTERS = (
    _JOB_FILTER,
    Parameter(name="execution", about="Executions; any will do.", schema=_many(_UUID)),
    _USER_FILTER,
    Parameter(
        name="type",
        about="Types of changes, or a family such as `execution.*`.",
        schema=_many(
            _choice(*EVENT_TYPES, *sorted({f"{t.partition('.')[0]}.*" for t in EVENT_TYPES}))
        ),
    ),
)
_NOTHING: Types = ((JSON, told.Nothing),)
_TAKEN: dict[int, Types] = {200: ((JSON, told.CommandTold),), 202: ((JSON, told.Accepted),)}
_ORIGIN: dict[int, Types] = {200: ((JSON, told.OriginAnswer),)}


def _listing(name: str, path: str, page: Any, statuses: tuple[str, ...]) -> Operation:
    about = "States; any will do."
    status = Parameter(name="status", about=about, schema=_many(_choice(*statuses)))
    return Operation(
        method="GET",
        path=path,
        summary=f"The {name} that you may see, newest first",
        parameters=(_BEGINNING, _JOB_FILTER, _USER_FILTER, status, _LIMIT, _CURSOR, _IF_NONE_MATCH),
        answers={200: ((JSON, page),), 304: ()},
        refuses=READ,
    )


def _command_on(path: str, method: str, summary: str, body: Types, of: str) -> Operation:
    return Operation(
        method=method,
        path=path,
        summary=summary,
        parameters=(_id(of), _WAIT, _KEY),
        body=body,
        body_required=False,
        answers=_TAKEN,
        refuses=PUBLISH | ({410} if of == "command" else set()),
    )


def _origin(verb: str) -> Operation:
    return Operation(
        method="POST",
        path=f"/api/v1/jobs/{verb}",
        summary=f"The PowerShell module's call: {verb}",
        parameters=(_KEY,),
        body=((JSON, told.OriginCall),),
        answers=_ORIGIN,
        refuses=PUBLISH,
    )


COMMANDS = (
    Operation(
        method="POST",
        path="/api/v1/commands",
        summary="Publish a command, or with NDJSON up to 1000; accepted means durable",
        parameters=(_WAIT, _KEY),
        body=((JSON, Command), (NDJSON, None)),
        answers={
            200: ((JSON, told.CommandTold), (NDJSON, None)),
            202: ((JSON, told.Accepted),),
        },
        refuses=PUBLISH,
    ),
    _listing("commands", "/api/v1/commands", told.CommandsPage, tuple(CommandStatus)),
    Operation(
        method="GET",
        path="/api/v1/commands/{id}",
        summary="One command, as it stands or as it ended",
        parameters=(_id("command"), *_LONG_POLL),
        answers={200: ((JSON, told.CommandTold),), 304: ()},
        refuses=READ | {404, 410},
    ),
    _command_on(
        "/api/v1/commands/{id}/cancel",
        "POST",
        "Take back a command whose execution still waits",
        _NOTHING,
        "command",
    ),
    *(_origin(verb) for verb in ("start", "stop", "restart", "status")),
)

JOBS = (
    Operation(
        method="GET",
        path="/api/v1/jobs",
        summary="The jobs that you may view, and what you may do with each",
        parameters=_LONG_POLL,
        answers={200: ((JSON, told.JobsPage),), 304: ()},
        refuses=READ,
    ),
    Operation(
        method="GET",
        path="/api/v1/jobs/{app}/{job}",
        summary="One job, what you may do with it and why not, its last executions",
        parameters=(
            Parameter(name="app", about="The app.", place="path", schema=_PART),
            Parameter(name="job", about="The job in it.", place="path", schema=_PART),
            *_LONG_POLL,
        ),
        answers={200: ((JSON, told.JobTold),), 304: ()},
        refuses=READ | {404},
    ),
)

EXECUTIONS = (
    _listing("executions", "/api/v1/executions", told.ExecutionsPage, tuple(ExecutionStatus)),
    Operation(
        method="GET",
        path="/api/v1/executions/{id}",
        summary="One execution",
        parameters=(_id("execution"), *_LONG_POLL),
        answers={200: ((JSON, told.ExecutionTold),), 304: ()},
        refuses=READ | {404},
    ),
    _command_on(
        "/api/v1/executions/{id}/stop", "POST", "Stop it", ((JSON, told.StopOrder),), "execution"
    ),
    _command_on(
        "/api/v1/executions/{id}/retry",
        "POST",
        "Start the job of an ended one again, with its variables",
        _NOTHING,
        "execution",
    ),
    _command_on("/api/v1/executions/{id}", "DELETE", "Forget an ended one", _NOTHING, "execution"),
    Operation(
        method="GET",
        path="/api/v1/executions/{id}/output",
        summary="A range of what it printed, by bytes or by lines",
        parameters=(
            _id("execution"),
            Parameter(name="from", about="The first byte; this, tail or line.", schema=_OFFSET),
            Parameter(name="tail", about="The last lines.", schema=_whole(0, 10_000)),
            Parameter(name="line", about="The first line.", schema=_whole(1, 2**63 - 1)),
            Parameter(name="limit", about="Bytes, or hits.", schema=_whole(1, 1024 * 1024)),
            Parameter(name="stream", about="One of the two.", schema=_choice("out", "err")),
            Parameter(
                name="grep",
                about="Only lines that hold this text; limit is up to 1000 then.",
                schema={"type": "string", "minLength": 1, "maxLength": 1000},
            ),
            Parameter(
                name="format",
                about="Wins over `Accept`; text.",
                schema=_choice("text", "json", "ndjson"),
            ),
            Parameter(name="Range", about="One range of bytes, for text.", place="header"),
        ),
        answers={
            200: ((TEXT, None), (JSON, told.OutputTold), (NDJSON, None)),
            206: ((TEXT, None),),
        },
        refuses=READ | {404, 406, 410, 416},
    ),
    Operation(
        method="GET",
        path="/api/v1/executions/{id}/stream",
        summary="State, progress and output of one execution until its end",
        parameters=(
            _id("execution"),
            Parameter(name="from", about="The first byte of output.", schema=_OFFSET),
            Parameter(name="tail", about="Begin with the last lines.", schema=_whole(0, 10_000)),
            Parameter(
                name="follow",
                about="`latest`: skip ahead when too far behind.",
                schema=_choice("all", "latest"),
            ),
            *_AFTER,
        ),
        answers={200: ((SSE, None), (NDJSON, None)), 204: ()},
        refuses=STREAM | {404},
    ),
)

STREAMS = (
    Operation(
        method="GET",
        path="/api/v1/events",
        summary="All changes that you may see: a stream, or a page of JSON",
        parameters=(
            *_FILTERS,
            Parameter(
                name="start",
                about="Where to begin without a position; pages know no snapshot.",
                schema=_choice("snapshot", "now", "earliest"),
            ),
            Parameter(name="limit", about="Items a page; pages only.", schema=_whole(1, 500)),
            *_AFTER,
        ),
        answers={200: ((SSE, None), (NDJSON, None), (JSON, told.EventsPage))},
        refuses=STREAM | {410},
    ),
    Operation(
        method="GET",
        path="/api/v1/ws",
        summary="A WebSocket, subprotocol `jobbus.v1`: subscribe and publish",
        parameters=(Parameter(name="ticket", about="A ticket for the socket."),),
        answers={101: ()},
        refuses=READ | {426, 503},
    ),
)

ACCESS = (
    Operation(
        method="POST",
        path="/api/v1/session",
        summary="Sign in: a token or a one-time code becomes a cookie",
        body=((JSON, told.SignIn),),
        answers={204: ()},
        refuses=WRITE | {503, 507},
        access=Access.PUBLIC,
    ),
    Operation(
        method="GET",
        path="/api/v1/session",
        summary="Who you are",
        answers={200: ((JSON, told.SessionTold),)},
        refuses=READ,
    ),
    Operation(
        method="DELETE",
        path="/api/v1/session",
        summary="Sign out",
        answers={204: ()},
        refuses=READ | {409, 503, 507},
    ),
    Operation(
        method="POST",
        path="/api/v1/session/code",
        summary="A code that signs another browser in as you, once",
        body=_NOTHING,
        body_required=False,
        answers={201: ((JSON, told.CodeTold),)},
        refuses=WRITE | {409},
    ),
    Operation(
        method="POST",
        path="/api/v1/tickets",
        summary="A ticket for one stream, for half a minute",
        body=((JSON, told.TicketRequest),),
        answers={201: ((JSON, told.TicketTold),)},
        refuses=WRITE,
    ),
    Operation(
        method="GET",
        path="/api/v1/tokens",
        summary="All tokens, without what would let somebody use them",
        answers={200: ((JSON, told.TokensTold),)},
        refuses=READ,
        access=Access.ADMIN,
    ),
    Operation(
        method="POST",
        path="/api/v1/tokens",
        summary="Make a token; it is told this once",
        body=((JSON, told.TokenRequest),),
        answers={201: ((JSON, NewToken),)},
        refuses=WRITE | {409, 503, 507},
        access=Access.ADMIN,
    ),
    Operation(
        method="DELETE",
        path="/api/v1/tokens/{id}",
        summary="Revoke a token; its sessions and streams end at once",
        parameters=(
            Parameter(
                name="id",
                about="The id of the token.",
                place="path",
                schema={"type": "string", "pattern": "^[a-z0-9]{1,32}$"},
            ),
        ),
        answers={204: ()},
        refuses=READ | {404, 409, 503, 507},
        access=Access.ADMIN,
    ),
    Operation(
        method="POST",
        path="/api/v1/tokens/admin/rotate",
        summary="`admin.token` holds a new token; no answer carries it",
        body=_NOTHING,
        body_required=False,
        answers={204: ()},
        refuses=WRITE | {503, 507},
        access=Access.ADMIN,
    ),
)

SYSTEM = (
    Operation(
        method="GET",
        path="/api/v1/openapi.json",
        summary="This document",
        answers={200: ((JSON, dict[str, Any]),), 304: ()},
        refuses=READ,
    ),
    Operation(
        method="GET",
        path="/api/v1/system",
        summary="The state of the service",
        answers={200: ((JSON, dict[str, Any]),)},
        refuses=READ,
        access=Access.ADMIN,
    ),
    Operation(
        method="GET",
        path="/api/v1/audit",
        summary="Who did what: a page, newest first, or as NDJSON all of it in order",
        parameters=(
            Parameter(name="actor", about="Users; any will do.", schema=_many(_WORDS)),
            _JOB_FILTER,
            Parameter(name="action", about="Actions; any will do.", schema=_many(_WORDS)),
            Parameter(name="since", about="From this time on.", schema=_TIME),
            Parameter(name="until", about="Before this time.", schema=_TIME),
            _LIMIT,
            _CURSOR,
        ),
        answers={200: ((JSON, told.AuditTold), (NDJSON, None))},
        refuses=READ | {404, 406},
        access=Access.ADMIN,
    ),
    Operation(
        method="POST",
        path="/api/v1/system/maintenance",
        summary="From now on nothing is started, or all is as usual again",
        body=((JSON, told.MaintenanceRequest),),
        answers={200: ((JSON, told.MaintenanceTold),)},
        refuses=WRITE | {404},
        access=Access.ADMIN,
    ),
    Operation(
        method="GET",
        path="/metrics",
        summary="Numbers for Prometheus; the role metrics will do",
        answers={200: ((TEXT, None),)},
        refuses=READ,
        access=Access.ADMIN,
    ),
    Operation(
        method="GET",
        path="/livez",
        summary="The service answers",
        answers={200: ((TEXT, None),)},
        refuses=PUBLIC,
        access=Access.PUBLIC,
    ),
    Operation(
        method="GET",
        path="/readyz",
        summary="The service takes commands",
        answers={200: ((TEXT, None),)},
        refuses=PUBLIC | {503},
        access=Access.PUBLIC,
    ),
    Operation(
        method="GET",
        path="/version",
        summary="What is installed",
        answers={200: ((JSON, told.VersionTold),)},
        refuses=PUBLIC,
        access=Access.PUBLIC,
    ),
    Operation(
        method="GET",
        path="/problems/{slug}",
        summary="What a problem's type means",
        parameters=(
            Parameter(
                name="slug",
                about="The end of the type.",
                place="path",
                schema={"type": "string", "pattern": "^[a-z]+(-[a-z]+)*$", "maxLength": 64},
            ),
        ),
        answers={200: ((TEXT, None),)},
        refuses=PUBLIC | {404},
        access=Access.PUBLIC,
    ),
)

OPERATIONS = (*COMMANDS, *JOBS, *EXECUTIONS, *STREAMS, *ACCESS, *SYSTEM)
