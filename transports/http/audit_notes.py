"""What requests leave in the audit beside their commands: sign-ins, tokens, what was forbidden."""

from aiohttp import web

from bus.audit import AuditTrail
from bus.model import Principal
from transports.http.auth import known_principal
from transports.http.middleware import template_of
from transports.http.problems import Problem

NOBODY = "anonymous"
"""The actor of what comes without a proof of who it is; `peer` says from where."""

_TOLD = frozenset({"forbidden", "origin-refused", "proxy-refused"})


def note_refusal(audit: AuditTrail | None, request: web.Request, problem: Problem) -> None:
    """Tells the audit of a request that was turned away; refused commands tell of themselves."""
    if audit is None:
        return
    principal = known_principal(request)
    bad_proof = problem.status == 401 and "Authorization" in request.headers
    if problem.slug not in _TOLD and not bad_proof:
        return
    audit.note(
        principal or nobody(),
        f"{request.method} {template_of(request)}",
        error_code=problem.slug.replace("-", "_"),
        peer=request.remote or "",
    )


def note(
    audit: AuditTrail | None, principal: Principal, action: str, error_code: str = "", **detail: str
) -> None:
    """As the port, where there may be none."""
    if audit is not None:
        audit.note(principal, action, error_code=error_code, **detail)


def nobody() -> Principal:
    return Principal(user_id=NOBODY, via="http")
