"""What aiohttp's WebSocket reader lets pass and should not: frames without a mask, messages in
endless pieces, and more of them at a time than there is room for. No IO.
"""

from collections.abc import Callable
from typing import Protocol

PIECES_MAX = 1_024
"""Frames of one message. Empty ones never reach a limit on size."""

_CONTROL = 0x08
_FIN = _MASKED = 0x80
_UNREADABLE = b"\x41\x80\x00\x00\x00\x00"
"""A frame that every reader refuses with 1002, which is what the faulty one must get."""


class FrameReader(Protocol):
    """The part of aiohttp's reader that a connection uses."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]: ...

    def feed_eof(self) -> None: ...


class FrameCheck:
    """Stands before a reader and looks at the heads of frames (RFC 6455 §5.2, §5.1).

    A head is passed on once it is whole and in order; what follows a faulty one never is. `holds`
    is asked with the bytes of a message that is not whole; after a False nothing is passed on.
    """

    __slots__ = (
        "_head",
        "_holds",
        "_is_over",
        "_is_partial",
        "_payload_left",
        "_pieces",
        "_reader",
        "_size",
    )

    def __init__(
        self, reader: FrameReader, holds: Callable[[int], bool] = lambda size: True
    ) -> None:
        self._reader = reader
        self._holds = holds
        self._size = 0
        self._is_partial = False
        self._head = b""
        self._payload_left = 0
        self._pieces = 0
        self._is_over = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if self._is_over:
            return False, b""
        self._size += len(data)
        data = self._head + data
        at = min(self._payload_left, len(data))
        self._payload_left -= at
        while len(data) - at >= 2:
            head_end = at + _head_size(data[at + 1])
            if not data[at + 1] & _MASKED or (head_end <= len(data) and self._is_endless(data[at])):
                self._is_over = True
                return self._reader.feed_data(data[:at] + _UNREADABLE)
            if head_end > len(data):
                break
            end = head_end + _payload_size(data, at)
            at = min(end, len(data))
            self._payload_left = end - at
        self._head = data[at:]
        if not self._is_partial and not self._payload_left:
            self._size = len(self._head)
        if not self._holds(self._size):
            self._is_over = True
            return False, b""
        return self._reader.feed_data(data[:at]) if at else (False, b"")

    def feed_eof(self) -> None:
        self._reader.feed_eof()

    def _is_endless(self, first_byte: int) -> bool:
        """Counts a frame; whether its message has too many."""
        if first_byte & _CONTROL:
            return False  # may stand between the pieces of a message
        self._is_partial = not first_byte & _FIN
        self._pieces = 0 if first_byte & _FIN else self._pieces + 1
        return self._pieces >= PIECES_MAX


def _head_size(second_byte: int) -> int:
    """Two bytes, a longer length where there is one, and the mask."""
    return 6 + {126: 2, 127: 8}.get(second_byte & 0x7F, 0)


def _payload_size(data: bytes, at: int) -> int:
    short = data[at + 1] & 0x7F
    longer = {126: 2, 127: 8}.get(short)
    return short if longer is None else int.from_bytes(data[at + 2 : at + 2 + longer], "big")
