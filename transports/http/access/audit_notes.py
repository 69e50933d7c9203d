"""What requests leave in the audit beside their commands: sign-ins, tokens, what was forbidden."""

from aiohttp import web

from bus.audit import ANONYMOUS, AuditTrail
from bus.model import Principal
from transports.http.access.caller import known_principal, peer_of
from transports.http.access.tickets import PARAMETER
from transports.http.web.middleware import template_of
from transports.http.web.problems import Problem, code_of

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_NOTED = frozenset({"forbidden", "origin-refused", "proxy-refused"})


def note_refusal(
    audit: AuditTrail | None, request: web.Request, problem: Problem, *, is_proof: bool = False
) -> None:
    """Notes a request that was turned away; refused commands have entries of their own.

    `is_proof`: it carried something that should have proven who asks.
    """
    if audit is None:
        return
    principal = known_principal(request)
    is_proof = is_proof or "Authorization" in request.headers or PARAMETER in request.query
    bad_proof = is_proof and principal is None and problem.status in (401, 429)
    if problem.slug not in _NOTED and not bad_proof:
        return
    audit.note(
        principal or anonymous(),
        f"{request.method if request.method in _METHODS else 'other'} {template_of(request)}",
        error_code=code_of(problem.slug),
        peer=peer_of(request),
    )


def note(
    audit: AuditTrail | None, principal: Principal, action: str, error_code: str = "", **detail: str
) -> None:
    """As the port, where there may be none."""
    if audit is not None:
        audit.note(principal, action, error_code=error_code, **detail)


def anonymous() -> Principal:
    return Principal(user_id=ANONYMOUS, via="http")
