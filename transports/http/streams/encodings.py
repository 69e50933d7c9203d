"""The frames of a stream in the two forms it can take: SSE and NDJSON. No IO, no clock."""

import re
from collections.abc import Callable
from typing import Protocol

from bus.feed import Frame
from transports.http.streams import sse

_POSITION = re.compile(r"[a-z0-9-]{1,40}\Z")

Position = Callable[[int], str]
"""How a feed writes one of its numbers."""


class Encoding(Protocol):
    """How a stream spells its frames. `name` distinguishes encodings where bytes are shared."""

    name: str
    content_type: str

    def opening(self, retry_ms: int) -> bytes:
        """What comes before the first frame."""
        ...

    def frame(self, kind: str, data: bytes, *, id: str | None = None) -> bytes: ...

    def hello(self, data: bytes, *, resumed: bool) -> bytes:
        """The first frame."""
        ...

    def change(self, frame: Frame, position: Position) -> bytes:
        """A frame of the feed; the same bytes for every reader with an equal encoding."""
        ...


class SseEncoding:
    name = "sse"
    content_type = sse.CONTENT_TYPE

    def opening(self, retry_ms: int) -> bytes:
        return sse.opening(retry_ms)

    def frame(self, kind: str, data: bytes, *, id: str | None = None) -> bytes:
        return sse.event(kind, data, id=id)

    def hello(self, data: bytes, *, resumed: bool) -> bytes:
        return self.frame("hello", data)

    def change(self, frame: Frame, position: Position) -> bytes:
        return sse.event("change", frame.data, id=position(frame.seq))


class NdjsonEncoding:
    name = "ndjson"
    content_type = "application/x-ndjson"

    def opening(self, retry_ms: int) -> bytes:
        return b""

    def frame(self, kind: str, data: bytes, *, id: str | None = None) -> bytes:
        assert id is None or _POSITION.match(id), id
        where = b"" if id is None else b'"id":"%s",' % id.encode()
        return b'{"op":"%s",%s"data":%s}\n' % (kind.encode(), where, data)

    def hello(self, data: bytes, *, resumed: bool) -> bytes:
        return self.frame("hello", data)

    def change(self, frame: Frame, position: Position) -> bytes:
        return self.frame("change", frame.data, id=position(frame.seq))


SSE = SseEncoding()
NDJSON = NdjsonEncoding()
