"""What an operation of the API is: where it is reached, by whom, what it takes and answers. No IO.

Routes, the check of who may call, the query parameters that are known and the document all derive
from these entries: a new endpoint is one entry and one function.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from aiohttp import web

JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
TEXT = "text/plain"

Types = tuple[tuple[str, Any], ...]
"""Media types with what they carry: a type of ours, or None for text."""

Handler = Callable[..., Awaitable[web.StreamResponse]]
"""A method of one of the route classes, not bound yet: it takes the part itself and the request."""


class Audience(Enum):
    """Who is answered at all; what a principal may see is decided by the job's `[roles]`."""

    PUBLIC = "anybody"
    SIGNING_IN = "anybody whose body proves who they are"
    CONNECTING = "any principal, proven by the request or by the first frame"
    PRINCIPAL = "any principal"
    METRICS = "the role metrics or admin"
    ADMIN = "the role admin"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """`type` is what a JSON schema is made of; a tuple may be given several times."""

    name: str
    about: str
    type: Any = str
    place: str = "query"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One entry of the table; `id` is a verb and a noun, as clients that are generated name it.

    `refuses` are the statuses of its problem answers. `stays_open`: its answer is a stream, which
    may be opened with a ticket and lasts as long as its reader likes. `any_query`: unknown query
    parameters are ignored. `goes_deep`: the last part of its path may hold slashes. Those that are
    not `documented` are for browsers.
    """

    method: str
    path: str
    id: str
    handler: Handler
    summary: str = ""
    audience: Audience = Audience.PRINCIPAL
    parameters: tuple[Parameter, ...] = ()
    body: Types = ()
    body_required: bool = True
    answers: dict[int, Types]
    refuses: frozenset[int] = frozenset()
    stays_open: bool = False
    any_query: bool = False
    goes_deep: bool = False
    documented: bool = True

    @property
    def pattern(self) -> str:
        """The path as the router takes it."""
        return f"{self.path[:-1]}:(?s:.+)}}" if self.goes_deep else self.path

    @cached_property
    def query_names(self) -> tuple[str, ...]:
        """The names that its query may hold."""
        return tuple(each.name for each in self.parameters if each.place == "query")


PUBLIC = frozenset({400, 421, 431, 503})
READ = PUBLIC | {401, 403, 429}
WRITE = READ | {408, 413, 415, 422}
PUBLISH = WRITE | {404, 409, 503, 507}
STREAM = READ | {406, 503}
"""Statuses of problems that operations of one kind may answer with."""
