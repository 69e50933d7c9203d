"""How many connections may be open, and which of them goes when one more comes.

Without a bound, whoever opens connections and says nothing takes all descriptors: then no journal,
queue file or program can be opened either. Pure bookkeeping: what it ends, it ends by `drop`.
"""

from collections.abc import Iterator
from typing import Protocol

DEFAULT_MAX = 3_000
AT_ONCE = 128
"""New connections that one turn of the event loop may take in: its backlog."""


class Connection(Protocol):
    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        ...

    def drop(self) -> None:
        """Ends it at once; `Connections.remove` follows."""
        ...


class Connections:
    """All open connections. On one that is proven somebody has shown who they are."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._unproven: dict[Connection, None] = {}
        self._proven: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._unproven) + len(self._proven)

    def __iter__(self) -> Iterator[Connection]:
        return iter((*self._unproven, *self._proven))

    def add(self, new: Connection) -> None:
        """It is open; if that is one too many, another one goes, or this one.

        First the oldest on which nobody has shown who they are, then the oldest on which nothing is
        asked: its other side opens another one when it needs it.
        """
        goes = self._who_goes(new) if len(self) >= self._most else None
        self._unproven[new] = None
        if goes is not None:
            self.remove(goes)
            goes.drop()

    def shed(self, most: int) -> None:
        """Up to `most` go, those first that would go for a newcomer; none on which one is asked."""
        idle = [one for one in self._proven if one.is_idle]
        for one in [*self._unproven, *idle][:most]:
            self.remove(one)
            one.drop()

    def prove(self, one: Connection) -> None:
        if self._unproven.pop(one, self) is None:
            self._proven[one] = None

    def remove(self, one: Connection) -> None:
        self._unproven.pop(one, None)
        self._proven.pop(one, None)

    def _who_goes(self, new: Connection) -> Connection:
        for one in self._unproven:
            return one
        return next((one for one in self._proven if one.is_idle), new)


def connections_max(descriptors: int, streams: int) -> int:
    """How many fit: enough for all streams and their pages; a quarter of the process's descriptors
    stays free for everything else, and so many as are taken in before any is let go of."""
    return max(16, min(2 * streams + 1_000, descriptors * 3 // 4 - AT_ONCE))
