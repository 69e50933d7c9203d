"""Pages of other origins: none may read anything, except those that the settings name one by one.

Credentials of browsers never cross: such a page brings a bearer token or a ticket of its own.
"""

from collections.abc import Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict

_API = "/api/"
_METHODS = "GET, HEAD, POST, DELETE"
_REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Prefer, Range, "
    "traceparent, Cache-Control, X-Requested-With"
)
_ANSWER_HEADERS = (
    "Content-Range, ETag, Idempotency-Replayed, Link, Location, Output-Complete, "
    "Output-First-Line, Output-From, Output-To, Preference-Applied, Retry-After, X-Request-Id"
)
_MAX_AGE_S = "600"


def preflights(origins: Callable[[], Collection[str]]) -> Middleware:
    """Answers what browsers ask before a request from one of `origins`."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not (asks and request.headers.get("Origin") in origins() and _is_api(request)):
            return await handler(request)
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": _REQUEST_HEADERS,
                "Access-Control-Max-Age": _MAX_AGE_S,
            },
        )

    return middleware


def allow_origin(
    request: web.BaseRequest, headers: CIMultiDict[str], origins: Collection[str]
) -> None:
    """The answer's headers say which page may read it: the one that asked, if it is named."""
    if not origins or not _is_api(request):
        return
    headers.add("Vary", "Origin")
    origin = request.headers.get("Origin")
    if origin is not None and origin in origins:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _ANSWER_HEADERS


def _is_api(request: web.BaseRequest) -> bool:
    return request.path.startswith(_API)
