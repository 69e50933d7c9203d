"""Server-Sent Events read from bytes: a pure, incremental parser (WHATWG HTML §9.2.6). No IO."""

import re
from collections.abc import Iterator

import msgspec

from jobbus.client.errors import JobbusError

EVENT_SIZE_MAX = 32 * 1024 * 1024
"""Bytes of one event; a snapshot of 100 records with large variables stays below."""

_RETRY_MS_MAX = 3_600_000
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event; `id` is the last one seen in the stream, so it may be older than the event."""

    event: str = "message"
    data: str = ""
    id: str = ""


class EventTooLarge(JobbusError):
    """The stream holds an event larger than a client may be made to keep."""

    code = "event_too_large"


class SseParser:
    """Takes the bytes of one stream as they come and gives the events that are whole.

    `last_event_id` is what a reconnect has to send; `retry_ms` what the server asked to wait before
    it. What stands after the last blank line when the stream ends is no event and is never given.
    """

    def __init__(self, *, last_event_id: str = "", size_max: int = EVENT_SIZE_MAX) -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._size_max = size_max
        self._line = bytearray()  # the line whose end has not come yet
        self._after_cr = False  # the last byte was CR: an LF now belongs to that line end
        self._at_start = True
        self._id = last_event_id
        self._event = ""
        self._data: list[str] = []
        self._data_size = 0

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes, in order.

        Raises:
            EventTooLarge: an event is larger than `size_max`; the stream is of no use any more.
        """
        events = []
        for line in self._lines(chunk):
            if line:
                self._take(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that end in `chunk`, without their ends.

        Split before decoding: no byte of CR or LF is ever part of a longer UTF-8 sequence, and a
        broken one is replaced within its line.
        """
        start = 1 if self._after_cr and chunk[:1] == b"\n" else 0
        if chunk:
            self._after_cr = chunk[-1:] == b"\r"
        for match in _LINE_END.finditer(chunk, start):
            self._keep(chunk[start : match.start()])
            start = match.end()
            line, self._line = bytes(self._line), bytearray()
            if self._at_start:
                self._at_start = False
                line = line.removeprefix(_BOM)
            yield line
        self._keep(chunk[start:])

    def _keep(self, piece: bytes) -> None:
        if len(self._line) + len(piece) + self._data_size > self._size_max:
            raise EventTooLarge(f"an event of the stream is larger than {self._size_max} bytes")
        self._line += piece

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        match name:
            case b"data":
                self._data.append(text)
                self._data_size += len(value) + 1
            case b"event":
                self._event = text
            case b"id" if "\0" not in text:
                self._id = text
            case b"retry" if text.isascii() and text.isdigit():
                digits = text.lstrip("0")[:12] or "0"
                self.retry_ms = min(int(digits), _RETRY_MS_MAX)
            case _:
                pass  # comments have an empty name; unknown fields are ignored by the standard

    def _dispatch(self) -> SseEvent | None:
        """The event that the blank line ends; None if it has no data. The id counts either way."""
        self.last_event_id = self._id
        lines, self._data, self._data_size = self._data, [], 0
        name, self._event = self._event, ""
        if not lines:
            return None
        return SseEvent(event=name or "message", data="\n".join(lines), id=self._id)
