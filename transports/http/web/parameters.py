"""Types of single values in queries, bodies and answers, and parameters that operations share."""

from typing import Annotated, Any

from msgspec import Meta

from transports.http.web.operation import Parameter

Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
JobId = Annotated[str, Meta(examples=["App/Job"])]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Word = Annotated[str, Meta(min_length=1)]
Words = Annotated[tuple[Word, ...], Meta(max_length=32)]
Uuids = Annotated[tuple[Uuid, ...], Meta(max_length=32)]
PageSize = Annotated[int, Meta(ge=1, le=500)]
_Beginning = Annotated[str, Meta(pattern="^[0-9a-fA-F-]{4,36}$")]
_Key = Annotated[str, Meta(pattern="^[!#-~]{1,255}$")]


def id_of(what: str, type_: Any = Uuid) -> Parameter:
    """The id in the path."""
    return Parameter(name="id", about=f"The id of the {what}.", place="path", type=type_)


def several(type_: Any) -> Any:
    """A parameter that may be given up to 32 times."""
    return Annotated[tuple[type_, ...], Meta(max_length=32)]


BEGINNING = Parameter(
    name="id", about="The beginning of an id, from 4 characters on.", type=_Beginning
)
JOB = Parameter(name="job", about="Jobs, `App/Job`; any will do.", type=Words)
USER = Parameter(name="user", about="Users; any will do.", type=Words)
LIMIT = Parameter(name="limit", about="Items a page; 50.", type=PageSize)
CURSOR = Parameter(name="cursor", about="`next` of an earlier page.")
TAIL = Parameter(
    name="tail", about="Begin with the last lines.", type=Annotated[int, Meta(ge=0, le=10_000)]
)
FROM = Parameter(name="from", about="The first byte of output.", type=Offset)

WAIT = Parameter(
    name="Prefer", about="`wait=N`: wait up to N (≤ 30) seconds for the end.", place="header"
)
KEY = Parameter(
    name="Idempotency-Key",
    about="A repeat with the same key is the same command.",
    place="header",
    type=_Key,
)
IF_NONE_MATCH = Parameter(name="If-None-Match", about="The ETag you hold.", place="header")
LONG_POLL = (
    IF_NONE_MATCH,
    Parameter(
        name="Prefer",
        about="`wait=N` with `If-None-Match`: answer once it differs, at the latest after N s.",
        place="header",
    ),
)
POSITION = (
    Parameter(
        name="last_event_id",
        about="The id of the last frame you have; `lastEventId`, as polyfills add it, wins.",
    ),
    Parameter(name="Last-Event-ID", about="The same; wins over the query.", place="header"),
    Parameter(name="ticket", about="A ticket for exactly this stream."),
)
