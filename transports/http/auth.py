"""Who is asking: the one place where a request gets its principal."""

from aiohttp import web

from bus.access import ADMIN
from bus.model import Principal
from transports.http.problems import Problem
from transports.http.settings import GatewayPorts

_PRINCIPAL = web.RequestKey("principal", Principal)
_CREDENTIAL = web.RequestKey("credential", str)
_TOKEN_MAX = 512
REALM = 'Bearer realm="jobbus"'


def authenticate(request: web.Request, ports: GatewayPorts) -> Principal:
    """The principal of the request's credential, remembered on the request.

    Raises:
        Problem: 401; it names no reason that would help to guess.
    """
    token = _bearer_token(request)
    principal = ports.authenticate(token)
    if principal is None:
        raise Problem(
            401,
            "unauthenticated",
            "the bearer token is unknown, expired or revoked",
            headers={"WWW-Authenticate": f'{REALM}, error="invalid_token"'},
        )
    request[_PRINCIPAL] = principal
    request[_CREDENTIAL] = token
    return principal


def principal_of(request: web.Request) -> Principal:
    """Whom `authenticate` found; asking on a public path is a defect."""
    return request[_PRINCIPAL]


def known_principal(request: web.BaseRequest) -> Principal | None:
    """The principal if the request got as far as having one; for the access log."""
    return request.get(_PRINCIPAL)


def credential_of(request: web.Request) -> str:
    """What the principal can be looked up by again while a stream is open."""
    return request[_CREDENTIAL]


def need_admin(principal: Principal) -> None:
    if ADMIN not in principal.roles:
        raise Problem(403, "forbidden", "this needs the role admin")


def _bearer_token(request: web.Request) -> str:
    headers = request.headers.getall("Authorization", [])
    if not headers:
        raise Problem(
            401,
            "unauthenticated",
            "send the header Authorization: Bearer <token>",
            headers={"WWW-Authenticate": REALM},
        )
    scheme, _, token = headers[0].strip().partition(" ")
    token = token.strip()
    usable = token.isascii() and token.isprintable() and 0 < len(token) <= _TOKEN_MAX
    if len(headers) > 1 or scheme.lower() != "bearer" or not usable or " " in token:
        raise Problem(
            401,
            "unauthenticated",
            "the header must be one Authorization: Bearer <token>",
            headers={"WWW-Authenticate": f'{REALM}, error="invalid_request"'},
        )
    return token
