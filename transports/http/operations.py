"""All operations of the gateway, in the order of its document; each entry stands below its handler.

What is in no entry here has no route and is never answered.
"""

from collections.abc import Iterable, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler as BoundHandler

from transports.http.api import (
    audit,
    commands,
    executions,
    groups,
    jobs,
    metrics,
    origin,
    schedule,
    sessions,
    system,
    tokens,
)
from transports.http.console import routes as console
from transports.http.output import artifacts, follow
from transports.http.output import routes as output
from transports.http.sockets import routes as sockets
from transports.http.streams import events
from transports.http.web.middleware import check_expectation
from transports.http.web.operation import Operation

OPERATIONS: tuple[Operation, ...] = (
    *commands.OPERATIONS,
    *origin.OPERATIONS,
    *jobs.OPERATIONS,
    *schedule.OPERATIONS,
    *executions.OPERATIONS,
    *groups.OPERATIONS,
    *output.OPERATIONS,
    *artifacts.OPERATIONS,
    *follow.OPERATIONS,
    *events.OPERATIONS,
    *sockets.OPERATIONS,
    *sessions.OPERATIONS,
    *tokens.OPERATIONS,
    *audit.OPERATIONS,
    *system.OPERATIONS,
    *metrics.OPERATIONS,
    *console.OPERATIONS,
)

STREAMS = frozenset(operation.path for operation in OPERATIONS if operation.stays_open)
"""The path templates of what stays open; only they take a ticket."""


def by_route(operations: Iterable[Operation]) -> Mapping[tuple[str, str], Operation]:
    """The operations by method and path template; each route has one entry."""
    found: dict[tuple[str, str], Operation] = {}
    for operation in operations:
        assert found.setdefault((operation.method, operation.path), operation) is operation
    return found


def routes_of(operations: Iterable[Operation], parts: Iterable[object]) -> list[web.RouteDef]:
    """A route for each operation; its handler is a method of one of the `parts`."""
    by_class = {type(part): part for part in parts}
    return [_route(operation, by_class) for operation in operations]


def _route(operation: Operation, parts: Mapping[type, object]) -> web.RouteDef:
    # aiohttp's own answer to `Expect` comes before any middleware; a GET brings its HEAD along,
    # but a WebSocket has none.
    kwargs: dict[str, object] = {"expect_handler": check_expectation}
    if operation.method == "GET":
        kwargs["allow_head"] = 101 not in operation.answers
    handler = _bound(operation, parts)
    return web.RouteDef(operation.method, operation.pattern, handler, kwargs)


def _bound(operation: Operation, parts: Mapping[type, object]) -> BoundHandler:
    name = operation.handler.__name__
    owners = [part for kind, part in parts.items() if vars(kind).get(name) is operation.handler]
    assert len(owners) == 1, f"{operation.id}: no part has this handler"
    bound: BoundHandler = getattr(owners[0], name)
    return bound
