"""What can go wrong for a client of the API, and which of it is worth another try. No IO."""

import msgspec

from jobbus.client.records import Command

TEMPORARY_STATUSES = frozenset({408, 425, 429})
"""Refusals that pass by themselves; so does everything from 500 on."""


class FieldFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault in what was sent: where, as a JSON pointer, and what would be right."""

    pointer: str = ""
    detail: str = ""


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    """`application/problem+json` (RFC 9457) as the service writes it."""

    type: str = ""
    title: str = ""
    status: int = 0
    detail: str = ""
    code: str = ""
    errors: tuple[FieldFault, ...] = ()


class JobbusError(Exception):
    """The root of what the client raises; `code` is a stable word."""

    code: str = "error"


class BadAddress(JobbusError):
    """The address of the service, or the file of its certificate, cannot be used."""

    code = "bad_address"


class BadToken(JobbusError):
    """The token is not one word of visible ASCII characters."""

    code = "bad_token"


class NotOpen(JobbusError):
    """The client was used outside of its `async with` block."""

    code = "not_open"


class BadFrame(JobbusError):
    """The service sent something that is not in the contract."""

    code = "bad_frame"


class ApiProblem(JobbusError):
    """The service refused. `slug` is the stable word, `code` the same with underscores."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        errors: tuple[FieldFault, ...] = (),
        *,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.slug = slug
        self.code = slug.replace("-", "_")
        self.title = title
        self.detail = detail or title
        self.errors = errors
        self.retry_after_s = retry_after_s


class Unreachable(JobbusError):
    """No answer, or the connection broke: the service may be down, or starting again."""

    code = "unreachable"


class CommandFailed(JobbusError):
    """A command ended without reaching its aim; `command` is its record."""

    code = "command_failed"

    def __init__(self, command: Command) -> None:
        what = f"{command.command} {command.job_id or ''}".strip()
        super().__init__(command.error or f"{what} ended {command.status}")
        self.command = command


class WaitTimeout(JobbusError):
    """What was waited for did not happen in time; it may still happen."""

    code = "wait_timeout"


def problem_of(status: int, phrase: str, raw: bytes, retry_after: str | None = None) -> ApiProblem:
    """The answer as an error; one that is no problem+json (a proxy's page) keeps its status."""
    try:
        body = msgspec.json.decode(raw, type=ProblemBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = ProblemBody(detail=f"the server answered {status} {phrase}".rstrip())
    return ApiProblem(
        status,
        body.type.rpartition("/")[2] or "unknown",
        body.title or phrase,
        body.detail,
        body.errors,
        retry_after_s=_seconds(retry_after),
    )


def is_temporary(error: JobbusError) -> bool:
    """Whether the same request may work later."""
    match error:
        case Unreachable():
            return True
        case ApiProblem(slug="maintenance" | "bad-answer"):
            # A person ends a maintenance; and what is not jobbus does not become it.
            return False
        case ApiProblem(status=status):
            return status >= 500 or status in TEMPORARY_STATUSES
        case _:
            return False


def _seconds(retry_after: str | None) -> float:
    """`Retry-After` in seconds, at most five minutes; the form with a date is taken as none."""
    text = (retry_after or "").strip()
    return min(float(text[:6]), 300.0) if text.isascii() and text.isdigit() else 0.0
