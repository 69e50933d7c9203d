"""Headers of requests that more than one operation reads. No IO."""

import re

from aiohttp import web

from bus.envelope import trace_context
from transports.http.web.problems import Problem

_KEY = re.compile(r'"?([\x21\x23-\x7e]{1,255})"?\Z')
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


def idempotency_key(request: web.Request) -> str | None:
    """The header's key, with or without the quotes of a structured field.

    Raises:
        Problem: 400; the key is not 1 to 255 visible ASCII characters.
    """
    text = request.headers.get("Idempotency-Key")
    if text is None:
        return None
    return checked_key(text)


def checked_key(text: str) -> str:
    """The key without its quotes; raises as `idempotency_key` does."""
    match = _KEY.match(text.strip())
    if match is None:
        raise Problem(400, "malformed", "Idempotency-Key must be 1 to 255 visible ASCII characters")
    return match[1]


def preferred_wait_s(request: web.Request, most_s: float) -> int | None:
    """N of `Prefer: wait=N` (RFC 7240 §4.3), clipped; what cannot be read is ignored (§2)."""
    if "Prefer" not in request.headers:
        return None
    match = _WAIT.search(", ".join(request.headers.getall("Prefer", [])))
    return min(int(match[1]), int(most_s)) if match else None


def traceparent_of(request: web.Request) -> str | None:
    """The caller's W3C trace context, if it is well-formed; else none, as the standard asks."""
    return trace_context(request.headers.get("traceparent", ""))
