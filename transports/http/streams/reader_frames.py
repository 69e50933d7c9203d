"""Frames for one reader each: encoded as the reader takes them, and counted. No IO, no clock."""

from transports.http.streams.encodings import Encoding
from transports.http.streams.metrics import StreamMetrics


class Framing:
    """One for all streams of a gateway; it holds nothing but the counts that it adds to."""

    def __init__(self, metrics: StreamMetrics) -> None:
        self.metrics = metrics

    def frame(self, encoding: Encoding, kind: str, data: bytes, *, id: str | None = None) -> bytes:
        frame = encoding.frame(kind, data, id=id)
        self.metrics.sent(encoding.name, kind, len(frame))
        return frame

    def hello(self, encoding: Encoding, data: bytes, *, resumed: bool) -> bytes:
        """The first frame."""
        frame = encoding.hello(data, resumed=resumed)
        self.metrics.sent(encoding.name, "hello", len(frame))
        return frame

    def reset(self, encoding: Encoding, reason: str, data: bytes) -> bytes:
        """The frame after which the reader begins again."""
        self.metrics.resets.add(reason)
        return self.frame(encoding, "reset", data)
