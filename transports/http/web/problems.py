"""Every answer that says no: one table from reasons to statuses, one body format (RFC 9457)."""

import http
from typing import Any

import msgspec
from aiohttp import web

from bus.errors import (
    BusError,
    ErrorCode,
    IdInUse,
    NoSpace,
    Refused,
    StorageFailed,
    TransportBusy,
)
from bus.wording import quoted

PROBLEM_TYPE = "application/problem+json"

STATUS_OF_REFUSAL: dict[ErrorCode, int] = {
    ErrorCode.UNKNOWN_JOB: 404,
    ErrorCode.UNKNOWN_EXECUTION: 404,
    ErrorCode.UNKNOWN_COMMAND: 404,
    ErrorCode.UNKNOWN_GROUP: 404,
    ErrorCode.NOT_PERMITTED: 403,
    ErrorCode.ALREADY_RUNNING: 409,
    ErrorCode.ALREADY_ENDED: 409,
    ErrorCode.NOT_ENDED: 409,
    ErrorCode.QUEUE_FULL: 409,
    ErrorCode.START_LIMIT: 409,
    ErrorCode.DISABLED: 409,
    ErrorCode.EXECUTION_REQUIRED: 409,
    ErrorCode.EXPIRED: 409,
    ErrorCode.CANCELLED: 409,
    ErrorCode.SUPERSEDED: 409,
    ErrorCode.POISON: 409,
    ErrorCode.CHAIN_TOO_LONG: 409,
    ErrorCode.MALFORMED: 422,
    ErrorCode.INVALID_JOB: 422,
    ErrorCode.BAD_VARIABLES: 422,
    ErrorCode.SECRET_BY_VALUE: 422,
    ErrorCode.TOO_MANY_COMMANDS: 429,
    ErrorCode.MAINTENANCE: 503,
}
"""What a refusal of the owner is over HTTP."""

_RETRY_AFTER_S = {429: "60", 503: "5"}
"""Refusals that pass by themselves, and when to ask again."""

TITLES: dict[str, str] = {
    "malformed": "The request cannot be read",
    "unknown-parameter": "A query parameter is unknown",
    "bad-parameter": "A query parameter has a wrong value",
    "unauthenticated": "You must sign in or bring a valid token",
    "forbidden": "Your roles do not allow this",
    "not-permitted": "Your roles do not allow this",
    "not-found": "There is no such thing, or none that you may see",
    "method-not-allowed": "The path exists, the method does not",
    "not-acceptable": "None of the accepted types can be served",
    "conflict": "The state does not allow this now",
    "forgotten": "It ended longer ago than such things are kept",
    "cursor-gone": "The position is no longer held",
    "output-expired": "This part of the output was dropped",
    "too-large": "The body is too large",
    "too-slow": "The body came too slowly",
    "upgrade-required": "This path is a WebSocket",
    "unknown-subprotocol": "None of the offered subprotocols is served here",
    "unsupported-type": "The body must be JSON",
    "artifact-gone": "The file is not what it was",
    "range-not-satisfiable": "The range lies outside of what there is",
    "host-refused": "This name is not served here",
    "origin-refused": "This page may not do that",
    "proxy-refused": "This peer is not a proxy that is trusted",
    "validation": "The body does not say what it must",
    "idempotency-mismatch": "The key or id stands for another command",
    "id-in-use": "The command id is taken",
    "too-many-streams": "Too many open streams",
    "too-many-requests": "Too much at a time",
    "overloaded": "Too much is held for those who send or read slowly",
    "transport-busy": "Nothing can be accepted now",
    "no-space": "There is no room on the disk",
    "storage-failed": "What was asked could not be made durable",
    "draining": "The service is shutting down",
    "not-ready": "The service is not ready",
    "internal": "Something broke on our side",
}
"""The slugs of the gateway's own problems; refusals add theirs from `ErrorCode`."""

_CODES = frozenset(code.value for code in ErrorCode)


class ErrorItem(msgspec.Struct, frozen=True):
    """One fault in a body: where, as a JSON pointer, and what would be right."""

    pointer: str
    detail: str


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457. `code` is the machine word, `instance` the id that joins the answer to the log."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: tuple[ErrorItem, ...] = ()


class Problem(Exception):
    """Answers the request with this; raised anywhere below the middleware.

    `slug` becomes the `type`, `code` the machine word (the slug with underscores unless given).
    """

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        errors: tuple[ErrorItem, ...] = (),
        headers: dict[str, str] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.extra = extra or {}


def problem_body(problem: Problem, request_id: str) -> bytes:
    """The problem as RFC 9457 JSON."""
    body: dict[str, Any] = {
        "type": type_of(problem.slug),
        "title": title_of(problem.slug, problem.status),
        "status": problem.status,
        "detail": problem.detail,
        "instance": request_id,
        "code": code_of(problem.slug),
    }
    if problem.errors:
        body["errors"] = problem.errors
    return msgspec.json.encode(body | problem.extra)


def type_of(slug: str) -> str:
    """What names the problem for good: where it is explained."""
    return f"/problems/{slug}"


def code_of(slug: str) -> str:
    """The same as a machine word."""
    return slug.replace("-", "_")


def problem_response(problem: Problem, request_id: str) -> web.Response:
    return web.Response(
        status=problem.status,
        body=problem_body(problem, request_id),
        content_type=PROBLEM_TYPE,
        headers=problem.headers,
    )


def title_of(slug: str, status: int) -> str:
    """The sentence of a slug; one of a refusal gets its words, an unknown one the HTTP phrase."""
    if slug in TITLES:
        return TITLES[slug]
    if slug.replace("-", "_") in _CODES:
        return slug.replace("-", " ").capitalize()
    return http.HTTPStatus(status).phrase


def is_known_slug(slug: str) -> bool:
    return slug in TITLES or code_of(slug) in _CODES


def known_slugs() -> list[str]:
    """Those of all problems that any answer may carry."""
    return sorted(TITLES.keys() | {code.replace("_", "-") for code in _CODES})


def not_found(what: str) -> Problem:
    """404 in the same words whether the thing does not exist or may not be seen."""
    return Problem(404, "not-found", f"there is no {what}")


def invalid(pointer: str, detail: str) -> Problem:
    """422 for one place in the body."""
    return Problem(
        422,
        "validation",
        f"{pointer or 'the body'}: {detail}",
        errors=(ErrorItem(pointer, detail),),
    )


def bad_parameter(name: str, detail: str) -> Problem:
    return Problem(400, "bad-parameter", f"{name}: {detail}")


def from_bus_error(error: BusError, key: str | None = None) -> Problem:
    """What a refusal or a failure of the bus means over HTTP; `key` is the idempotency key that
    the command came with."""
    match error:
        case Refused():
            return _from_refusal(error)
        case IdInUse(same_principal=True) if key is not None:
            detail = f"the key {quoted(key)} was sent with another command before; take a new one"
            return Problem(422, "idempotency-mismatch", detail)
        case IdInUse(same_principal=True):
            return Problem(422, "idempotency-mismatch", str(error))
        case IdInUse():
            return Problem(409, "id-in-use", "this command id is taken; choose another")
        case NoSpace():
            return Problem(507, "no-space", str(error), headers=_retry_after(error))
        case TransportBusy():
            return Problem(503, "transport-busy", str(error), headers=_retry_after(error))
        case StorageFailed():
            return Problem(
                503,
                "storage-failed",
                "whether the command was kept is unknown; ask again with the same id or key",
                headers={"Retry-After": "1"},
            )
        case _:
            raise error


def not_kept(what: str, error: NoSpace | StorageFailed) -> Problem:
    """What a change of tokens or sessions comes to that the disk did not take."""
    status, slug = (507, "no-space") if isinstance(error, NoSpace) else (503, "storage-failed")
    return Problem(status, slug, f"{what}: {error}", headers={"Retry-After": "5"})


def _from_refusal(refusal: Refused) -> Problem:
    code = ErrorCode(refusal.code)
    status = STATUS_OF_REFUSAL.get(code, 409)
    errors = (ErrorItem(refusal.pointer, refusal.message),) if refusal.pointer else ()
    headers = {"Retry-After": _RETRY_AFTER_S[status]} if status in _RETRY_AFTER_S else {}
    return Problem(
        status, code.value.replace("_", "-"), refusal.message, errors=errors, headers=headers
    )


def _retry_after(error: TransportBusy) -> dict[str, str]:
    return {"Retry-After": str(max(1, round(error.retry_after_s)))}
