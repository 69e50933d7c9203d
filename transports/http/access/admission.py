"""Middleware: each request is answered for the audience that its operation names.

It finds who asks, whether the page they ask from may, whether they keep to their pace and whether
they have the role.
"""

from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bus.access import ADMIN, METRICS
from transports.http.access.auth import Gate
from transports.http.access.identity import Identity
from transports.http.web.leases import prove
from transports.http.web.middleware import template_of
from transports.http.web.operation import Audience, Operation
from transports.http.web.problems import Problem
from transports.http.web.query import expect_query

Route = tuple[str, str]
"""A method and a path template."""


def admission(gate: Gate, operations: Mapping[Route, Operation]) -> Middleware:
    """`operations` has all that may be served: what is in no entry of it is never answered."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        # A path or method that does not exist says so to everybody; nothing hides there.
        if request.match_info.http_exception is None:
            method = "GET" if request.method == "HEAD" else request.method
            operation = operations[method, template_of(request)]
            expect_query(request, operation.query_names)
            _admit(gate, request, operation)
        return await handler(request)

    return middleware


def _admit(gate: Gate, request: web.Request, operation: Operation) -> None:
    """Raises the problem of a request that may not reach its operation."""
    match operation.audience:
        case Audience.PUBLIC:
            return
        case Audience.SIGNING_IN:
            gate.check_origin(request, operation, None)
        case Audience.CONNECTING:
            _check(gate, request, operation, gate.identify_if_any(request, operation))
        case Audience.PRINCIPAL | Audience.METRICS | Audience.ADMIN:
            _check(gate, request, operation, gate.identify(request, operation))


def _check(
    gate: Gate, request: web.Request, operation: Operation, identity: Identity | None
) -> None:
    gate.check_origin(request, operation, identity)
    if identity is None:
        return
    prove(request, identity.principal.user_id)
    gate.check_pace(request, identity)
    check_role(operation.audience, identity.principal.roles)


def check_role(audience: Audience, roles: tuple[str, ...]) -> None:
    """Raises 403 if the audience needs a role that is not among `roles`."""
    if audience is Audience.ADMIN and ADMIN not in roles:
        raise Problem(403, "forbidden", "this needs the role admin")
    if audience is Audience.METRICS and {ADMIN, METRICS}.isdisjoint(roles):
        raise Problem(403, "forbidden", f"this needs a token with the role {METRICS} or admin")
