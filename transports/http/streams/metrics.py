"""What is sent to all streams, in numbers. No bytes, no IO, no clock."""

from transports.http.web.tallies import Histogram, Tally


class StreamMetrics:
    """The counts of one gateway: those who send frames add to them, `/metrics` reads them.

    `frames` and `bytes` grow by each frame that is made for a reader, `resets` by each reader that
    must begin again, `lags` by each write to a reader that was behind the head.
    """

    def __init__(self) -> None:
        self.frames = Tally("stream_frames", "Frames sent.", ("transport", "kind"))
        self.resets = Tally("stream_resets", "Readers that had to begin again.", ("reason",))
        self.lags = Histogram(
            "stream_lag_frames",
            "How far behind the head, in numbers of the feed, a reader was when it was written to.",
            (),
            (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000),
        )
        self.bytes = 0

    def sent(self, transport: str, kind: str, size: int, *, frames: int = 1) -> None:
        """`frames` of one kind, of `size` bytes in all."""
        self.frames.add(transport, kind, times=frames)
        self.bytes += size

    def changes(
        self, transport: str, count: int, size: int, *, behind: int, readers: int = 1
    ) -> None:
        """`readers`, so far `behind`, were written `count` changes each, of `size` bytes in all."""
        self.sent(transport, "change", size * readers, frames=count * readers)
        self.lags.add(behind, times=readers)
