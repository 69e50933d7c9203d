"""How many bytes peers may make the gateway hold, in all and each. Pure bookkeeping, no IO.

A bound on each connection is none on their sum: thousands of honest-looking bodies that never end
fill the memory. So every byte that waits for more, or for a peer to take it, is counted here.
"""

from collections import Counter

RECEIVE_MAX = 16 * 1024
"""Bytes taken from the kernel at once. asyncio's 256 KiB would be held for each connection whose
request was not looked at yet."""

FLOOR = RECEIVE_MAX + 4 * 1024
"""Bytes of one connection that are never refused, whatever others hold: a stop fits, and a sign-in,
and all that is taken in before it is known who asks. The number of connections bounds their sum."""

LINE_WEIGHT = 128
"""What a line of a head takes beside its bytes, once it is read: short ones are the dearest."""


class Budget:
    """Bytes above the floor that all connections of one kind hold together.

    `_held` is their sum and `_by_owner` what each owner holds of it; only `Lease` changes them.
    """

    def __init__(self, total: int, share: int, floor: int = FLOOR) -> None:
        assert 0 < share <= total, (share, total)
        self._total = total
        self._share = share
        self.floor = floor
        self._held = 0
        self._by_owner: Counter[str] = Counter()
        self.refused = 0
        """How often something was refused because of this budget."""

    @property
    def held(self) -> int:
        return self._held

    def has_room(self, owner: str, size: int) -> bool:
        """Whether the owner may hold `size` bytes more above the floor."""
        return (
            self._held + size <= self._total and self._by_owner[owner] + size <= self._share
        ) or size <= 0

    def move(self, owner: str, size: int) -> None:
        """The owner holds `size` bytes more, or fewer if it is negative."""
        self._held += size
        self._by_owner[owner] += size
        if not self._by_owner[owner]:
            del self._by_owner[owner]


class Lease:
    """What one connection holds, on the account of `owner` in a budget."""

    __slots__ = ("_budget", "_owner", "size")

    def __init__(self, budget: Budget, owner: str) -> None:
        self._budget = budget
        self._owner = owner
        self.size = 0

    def has_room(self, more: int) -> bool:
        """Whether `more` bytes would be granted now."""
        return self._budget.has_room(self._owner, self._above(self.size + more) - self._above())

    def grow(self, more: int) -> bool:
        """The connection holds `more` bytes, or False and nothing has changed."""
        if not self.has_room(more):
            self._budget.refused += 1
            return False
        self.set_size(self.size + more)
        return True

    def set_size(self, size: int) -> None:
        """The connection holds `size` bytes from now on."""
        above = self._above(size) - self._above()
        self.size = size
        if above:
            self._budget.move(self._owner, above)

    def move_to(self, budget: Budget, owner: str) -> bool:
        """What is held counts for another owner; False if there is no room, and nothing changed."""
        if budget is self._budget and owner == self._owner:
            return True
        if not budget.has_room(owner, max(0, self.size - budget.floor)):
            budget.refused += 1
            return False
        size = self.size
        self.set_size(0)
        self._budget, self._owner = budget, owner
        self.set_size(size)
        return True

    def _above(self, size: int | None = None) -> int:
        return max(0, (self.size if size is None else size) - self._budget.floor)


class Memory:
    """The two budgets of a gateway: connections on which somebody has shown who they are count for
    that principal, all others for the address that they come from."""

    def __init__(self, *, proven: int, unproven: int) -> None:
        self.proven = Budget(proven, proven // 4)
        self.unproven = Budget(unproven, unproven // 4)
