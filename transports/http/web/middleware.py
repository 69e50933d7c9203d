"""What every request goes through: its id, the Host check, problems, headers."""

import os
import re
from collections.abc import Awaitable, Callable, Collection
from functools import lru_cache

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import istr

from transports.http.web.cors import allow_origin
from transports.http.web.probes import is_probe
from transports.http.web.problems import Problem, problem_response

ResponseSignal = Callable[[web.Request, web.StreamResponse], Awaitable[None]]

_ID = web.RequestKey("request_id", str)
_CONTINUED = web.RequestKey("continued", bool)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?\Z")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_SLUGS = {
    400: "malformed",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-type",
    417: "malformed",
}
HEADERS = {
    istr("X-Content-Type-Options"): "nosniff",
    istr("Referrer-Policy"): "no-referrer",
    istr("Cross-Origin-Resource-Policy"): "same-origin",
    istr("Cross-Origin-Opener-Policy"): "same-origin",
    istr("Cache-Control"): "no-store",
    istr("Content-Security-Policy"): "default-src 'none'; frame-ancestors 'none'",
}
"""What every answer carries unless its handler said something else."""

_SERVER, _REQUEST_ID = istr("Server"), istr("X-Request-Id")
log = structlog.get_logger("jobbus.http")


def request_id_of(request: web.BaseRequest) -> str:
    """The id that joins an answer to the log; made at the first asking."""
    known = request.get(_ID)
    if known is None:
        known = request[_ID] = os.urandom(16).hex()
    return known


def problems(refused: Callable[[web.Request, Problem], None]) -> Middleware:
    """The outermost: what goes wrong below becomes an answer; `refused` is given the problem."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request_id_of(request)
        try:
            return await handler(request)
        except Problem as problem:
            refused(request, problem)
            return problem_response(problem, request_id)
        except web.HTTPException as exc:
            return problem_response(_from_http(request, exc), request_id)
        except ConnectionError:
            raise
        except Exception:
            log.exception("request failed", request_id=request_id, path=request.path)
            internal = Problem(500, "internal", f"see the log of the service for {request_id}")
            if request.writer.output_size > 0:
                # The head is out: a second answer would be read as part of the first.
                raise
            return problem_response(internal, request_id)

    return middleware


def host_check(allowed: Callable[[], frozenset[str]]) -> Middleware:
    """Serves only names of this service, so that no page reaches it by rebinding a name."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        # `request.host` is the header, or what a trusted proxy says that it was.
        if is_probe(request):
            return await handler(request)
        single = len(request.headers.getall("Host", [])) == 1
        if not single or _name_in(request.host) not in allowed():
            raise Problem(
                421, "host-refused", "the Host header names none of the hosts served here"
            )
        return await handler(request)

    return middleware


@lru_cache(64)
def _name_in(host: str) -> str:
    """The name without its port, as it is compared; of what is no such header an empty one."""
    match = _HOST.match(host)
    return match[1].lower().rstrip(".") if match is not None else ""


async def check_expectation(request: web.Request) -> web.StreamResponse | None:
    """Refuses any expectation but `100-continue`, which `follow_expectation` follows."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        return None
    problem = Problem(417, "malformed", "the only expectation served is 100-continue")
    return problem_response(problem, request_id_of(request))


async def follow_expectation(request: web.Request) -> None:
    """A client that waits for it is asked for the body (RFC 9110 §10.1.1): only where it is read,
    so that who is refused has not sent it in vain."""
    if not _expects(request):
        return
    request[_CONTINUED] = True
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # Not part of the answer: its head must not look as if it had gone out.
    request.writer.output_size = 0


def _expects(request: web.BaseRequest) -> bool:
    """Whether the client waits with the body until it is asked for it."""
    return "Expect" in request.headers and request.version >= (1, 1) and _CONTINUED not in request


def headers_for(origins: Callable[[], Collection[str]]) -> ResponseSignal:
    """A signal before each answer's head goes out; `origins` may read what the API answers."""

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers[_SERVER] = "jobbus"  # not which library in which version
        headers[_REQUEST_ID] = request_id_of(request)
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        if _expects(request) and not request.content.is_eof():
            response.force_close()  # whether its body still comes cannot be known
        allow_origin(request, headers, origins())

    return add_headers


def template_of(request: web.BaseRequest) -> str:
    """The route's path with its placeholders, e.g. `/api/v1/executions/{id}`; `-` if none fits."""
    # By the field: aiohttp's property asserts that the request was routed, and one that could not
    # even be read as HTTP never was.
    match = getattr(request, "_match_info", None)
    resource = match.route.resource if match is not None else None
    return resource.canonical if resource is not None else "-"


def allowed_hosts(bound: str, configured: tuple[str, ...]) -> frozenset[str]:
    """Loopback, the address listened on and what the settings add, all in lower case."""
    own = f"[{bound}]" if ":" in bound else bound
    return frozenset(name.lower() for name in (*_LOOPBACK, own, *configured))


def _from_http(request: web.Request, exc: web.HTTPException) -> Problem:
    slug = _SLUGS.get(exc.status, "internal" if exc.status >= 500 else "malformed")
    headers: dict[str, str] = {}
    match exc:
        case web.HTTPMethodNotAllowed():
            headers["Allow"] = ", ".join(sorted(exc.allowed_methods))
            detail = f"{request.method} is not served here; allowed: {headers['Allow']}"
        case web.HTTPRequestEntityTooLarge():
            detail = exc.text or "the body is too large"
        case web.HTTPNotFound():
            slash = len(request.path) > 1 and request.path.endswith("/")
            detail = "there is no such path" + ("; leave out the slash at its end" if slash else "")
        case _:
            detail = exc.reason
    return Problem(exc.status, slug, detail, headers=headers)
