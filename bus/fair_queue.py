"""A queue in which owners take turns, however many items each of them has put in. No IO."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out for each owner; between owners one item a turn.

    `_waiting` holds the items of each owner that has any; the first owner is the next to have a
    turn, and goes behind all others then.
    """

    __slots__ = ("_size", "_waiting")

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, owner: str, item: T) -> None:
        """The item waits behind all others of its owner."""
        self._waiting.setdefault(owner, deque()).append(item)
        self._size += 1

    def put_back(self, owner: str, item: T) -> None:
        """The item is the next to be taken."""
        self._waiting.setdefault(owner, deque()).appendleft(item)
        self._waiting.move_to_end(owner, last=False)
        self._size += 1

    def take(self) -> T:
        """The next item, which does not wait any more; there must be one."""
        owner, items = next(iter(self._waiting.items()))
        item = items.popleft()
        self._size -= 1
        if items:
            self._waiting.move_to_end(owner)
        else:
            del self._waiting[owner]
        return item

    def heads(self) -> Iterator[T]:
        """The oldest item of each owner."""
        return (items[0] for items in self._waiting.values())
