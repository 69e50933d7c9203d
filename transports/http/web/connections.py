"""How many connections may be open, and which of them is closed when another comes.

Without a bound, a client that opens connections and sends nothing takes all descriptors: then no
journal, queue file or program can be opened either. Pure bookkeeping: it closes by `drop`.
"""

from collections.abc import Iterator
from itertools import chain
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
    """All open connections, the oldest first: `_proven` are those on which a credential was
    accepted, `_unproven` all others. The protocol of each connection adds, proves and removes it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._unproven: dict[Connection, None] = {}
        self._proven: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._unproven) + len(self._proven)

    def __iter__(self) -> Iterator[Connection]:
        return iter((*self._unproven, *self._proven))

    def add(self, new: Connection) -> None:
        """The connection is open. Over the limit, another is closed, or else this one.

        First the oldest without a credential, then the oldest on which no request is under way: its
        other side opens another when it needs it.
        """
        goes = self._who_goes(new) if len(self) >= self._most else None
        self._unproven[new] = None
        if goes is not None:
            self.remove(goes)
            goes.drop()

    def shed(self, most: int) -> None:
        """Closes up to `most`, in the same order; none on which a request is under way."""
        idle = [each for each in self._proven if each.is_idle]
        for connection in [*self._unproven, *idle][:most]:
            self.remove(connection)
            connection.drop()

    def prove(self, connection: Connection) -> None:
        if self._unproven.pop(connection, self) is None:
            self._proven[connection] = None

    def remove(self, connection: Connection) -> None:
        self._unproven.pop(connection, None)
        self._proven.pop(connection, None)

    def _who_goes(self, new: Connection) -> Connection:
        idle = (each for each in self._proven if each.is_idle)
        return next(chain(self._unproven, idle), new)


def connections_max(descriptors: int, streams: int) -> int:
    """How many fit: enough for all streams and their pages; a quarter of the process's descriptors
    stays free for everything else, and so many as are taken in before any is let go of."""
    return max(16, min(2 * streams + 1_000, descriptors * 3 // 4 - AT_ONCE))
