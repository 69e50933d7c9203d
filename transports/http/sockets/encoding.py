"""What we send over a WebSocket, as bytes: whole, unmasked text frames (RFC 6455 §5.2). No IO.

Whole frames can be joined into one write, and shared by all sockets with equal subscriptions.
"""

import re
from collections.abc import Mapping

import msgspec

from bus.feed import Frame
from transports.http.sockets.requests import NAMED
from transports.http.streams.encodings import Position
from transports.http.web.problems import Problem, problem_body

SUBPROTOCOL = "jobbus.v1"

_ID = re.compile(r"[a-z0-9-]{1,40}\Z")
_FIN_TEXT = 0x81


def text_frame(payload: bytes) -> bytes:
    """`payload` (UTF-8) as one unmasked frame (RFC 6455 §5.2)."""
    size = len(payload)
    if size < 126:
        return b"%c%c%s" % (_FIN_TEXT, size, payload)
    if size < 65_536:
        return b"%c\x7e%s%s" % (_FIN_TEXT, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%s%s" % (_FIN_TEXT, size.to_bytes(8, "big"), payload)


def server_frame(op: str, **members: object) -> bytes:
    """One of our frames that belongs to no subscription's stream."""
    return text_frame(msgspec.json.encode({"op": op, **members}))


def problem_frame(problem: Problem, request_id: str, about: Mapping[str, str]) -> bytes:
    """What was wrong; `about` is the `sub` or `ref` of the frame that asked."""
    return server_frame("problem", **about, data=msgspec.Raw(problem_body(problem, request_id)))


class SocketEncoding:
    """The frames of one subscription. Equal for equal names, so that sockets can share bytes."""

    __slots__ = ("_members", "sub")

    name = "websocket"
    content_type = "application/json"

    def __init__(self, sub: str) -> None:
        assert NAMED.match(sub), sub
        self.sub = sub
        self._members = b'"sub":"%s",' % sub.encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SocketEncoding) and other.sub == self.sub

    def __hash__(self) -> int:
        return hash(self.sub)

    def opening(self, retry_ms: int) -> bytes:
        return b""

    def frame(self, kind: str, data: bytes, *, id: str | None = None) -> bytes:
        assert id is None or _ID.match(id), id
        where = b"" if id is None else b'"id":"%s",' % id.encode()
        return text_frame(
            b'{"op":"%s",%s%s"data":%s}' % (kind.encode(), self._members, where, data)
        )

    def hello(self, data: bytes, *, resumed: bool) -> bytes:
        said = b"true" if resumed else b"false"
        subscribed = b'{"op":"subscribed",%s"resumed":%s}' % (self._members, said)
        return text_frame(subscribed) + self.frame("hello", data)

    def change(self, frame: Frame, position: Position) -> bytes:
        return self.frame("change", frame.data, id=position(frame.seq))
