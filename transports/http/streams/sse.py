"""Server-Sent Events as bytes, exactly: LF only, `id event data` in that order. No IO, no clock.

Source: WHATWG HTML §9.2. There is exactly one blank line after each event and none elsewhere:
clients in the wild take a stray one for an empty event.
"""

CONTENT_TYPE = "text/event-stream"
ID_MAX = 40
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_EVENT_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz_")
_BROWSERS_OWN = ("open", "error", "message")


def opening(retry_ms: int) -> bytes:
    """The first bytes of a stream. No blank line: they join the first event's block."""
    if not 0 <= retry_ms <= 600_000:
        raise ValueError(f"retry must be 0 to 600000 ms, not {retry_ms}")
    return b"retry: %d\n:ok\n" % retry_ms


def event(kind: str, data: bytes, *, id: str | None = None) -> bytes:
    """One event. `data` is compact JSON, so it is one line.

    Raises:
        ValueError: an id or a kind of other characters than the contract's, or a line end in the
            data. A line end let through would let the author of the text forge fields and events.
    """
    if not kind or not _EVENT_CHARACTERS.issuperset(kind) or kind in _BROWSERS_OWN:
        raise ValueError(f"not an event name: {kind!r}")
    if b"\n" in data or b"\r" in data or b"\0" in data:
        raise ValueError("the data must be one line")
    head = b"" if id is None else b"id: %s\n" % _checked(id)
    return b"%sevent: %s\ndata: %s\n\n" % (head, kind.encode(), data)


def _checked(id: str) -> bytes:
    """The id as bytes. An empty one would clear the browser's memory of the last one."""
    if not 1 <= len(id) <= ID_MAX or not _ID_CHARACTERS.issuperset(id):
        raise ValueError(f"not an event id: {id!r}")
    return id.encode()
