"""Middleware: who asks is found, the page they ask from is allowed, and they keep to their pace."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from transports.http.access.auth import Gate
from transports.http.web.middleware import template_of
from transports.http.web.protocol import prove

SIGN_IN = ("POST", "/api/v1/session")
"""Served without a credential, since it is how to get one."""

SOCKET = "/api/v1/ws"
"""Who brings no credential here proves itself by the first frame."""


def admission(gate: Gate, public: frozenset[str]) -> Middleware:
    """Every route needs an identity unless its path template is in `public`."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        template = template_of(request)
        # A path or method that does not exist says so to everybody; nothing hides there.
        missing = request.match_info.http_exception is not None
        if not (missing or template in public or (request.method, template) == SIGN_IN):
            known = gate.identify_if_any if template == SOCKET else gate.identify
            identity = known(request, template)
            gate.check_origin(request, template, identity)
            if identity is not None:
                prove(request, identity.principal.user_id)
                gate.check_pace(request, identity)
        return await handler(request)

    return middleware
