"""What all streams were told, counted as their frames are made. No IO, no clock."""

from transports.http.streams.encodings import Encoding
from transports.http.web.tallies import Histogram, Tally


class Told:
    """The counts of one gateway."""

    def __init__(self) -> None:
        self.frames = Tally("stream_frames", "Frames told.", ("transport", "kind"))
        self.resets = Tally("stream_resets", "Readers that had to start anew.", ("reason",))
        self.lags = Histogram(
            "stream_lag_frames",
            "How far behind the head, in numbers of the feed, a reader was when it was written to.",
            (),
            (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000),
        )
        self.bytes = 0

    def frame(self, encoding: Encoding, kind: str, data: bytes, *, id: str | None = None) -> bytes:
        """One frame for one reader."""
        frame = encoding.frame(kind, data, id=id)
        self._count(encoding, kind, 1, len(frame))
        return frame

    def hello(self, encoding: Encoding, data: bytes, *, resumed: bool) -> bytes:
        """The first frame for one reader."""
        frame = encoding.hello(data, resumed=resumed)
        self._count(encoding, "hello", 1, len(frame))
        return frame

    def reset(self, encoding: Encoding, reason: str, data: bytes) -> bytes:
        """The frame that tells one reader to start anew."""
        self.resets.add(reason)
        return self.frame(encoding, "reset", data)

    def changes(
        self, encoding: Encoding, count: int, size: int, *, behind: int, readers: int = 1
    ) -> None:
        """`readers`, so far `behind`, were written `count` changes each, of `size` bytes in all."""
        self._count(encoding, "change", count * readers, size * readers)
        self.lags.add(behind, times=readers)

    def _count(self, encoding: Encoding, kind: str, frames: int, size: int) -> None:
        self.frames.add(encoding.name, kind, times=frames)
        self.bytes += size
