"""What the connection of a request counts: the bytes that are held, and lines of the log."""

from time import monotonic

from aiohttp import web

from transports.http.web.memory_budget import Lease
from transports.http.web.protocol import ProblemProtocol


def prove(request: web.Request, user_id: str) -> None:
    """The sender of the request has shown that it is this user.

    Raises:
        Problem: 503; they hold too much memory.
    """
    if isinstance(request.protocol, ProblemProtocol):
        request.protocol.prove(user_id)


def may_say(request: web.BaseRequest) -> dict[str, int] | None:
    """Fields for a log line about a client without a credential; None if it is left out."""
    if not isinstance(request.protocol, ProblemProtocol):
        return {}
    return request.protocol.quiet.may_say(monotonic())


def lease_of(request: web.Request) -> Lease:
    """On which the bytes of the request count."""
    assert isinstance(request.protocol, ProblemProtocol)
    return request.protocol.lease


def read_on(request: web.Request) -> None:
    """The body is wanted, with or without a credential."""
    assert isinstance(request.protocol, ProblemProtocol)
    request.protocol.read_on()


def let_go(request: web.Request) -> None:
    """What the request held is not needed any more, though its answer may take a while."""
    lease_of(request).set_size(0)
