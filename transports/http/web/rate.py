"""How often something may happen: token buckets by key, in bounded memory. Pure: time is handed in.

A bucket holds `burst` and fills with `per_s`; each event takes one out.
"""

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec

T = TypeVar("T")

KEYS_MAX = 10_000


class Pace(msgspec.Struct, frozen=True):
    per_s: float
    burst: float


class Limiter:
    """Buckets by key. Of too many keys, the one unused for the longest time is forgotten: a client
    that uses this to begin with a full bucket is held by a bucket that all share."""

    def __init__(self, pace: Pace, *, keys_max: int = KEYS_MAX) -> None:
        assert pace.per_s > 0, pace
        assert pace.burst >= 1, pace
        self._pace = pace
        self._keys_max = keys_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def go_by(self, pace: Pace) -> None:
        """From now on buckets hold and fill like that; what is in them stays."""
        self._pace = pace

    def wait_s(self, key: str, now_s: float) -> float:
        """Seconds until the next event of `key` is in order; 0 if it is now."""
        return max(0.0, (1.0 - self._level(key, now_s)) / self._pace.per_s)

    def count(self, key: str, now_s: float) -> None:
        """The event happened."""
        self._buckets[key] = (self._level(key, now_s) - 1.0, now_s)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._keys_max:
            self._buckets.popitem(last=False)

    def take(self, key: str, now_s: float) -> float:
        """0 and the event is counted; or the seconds to wait, and it is not."""
        wait_s = self.wait_s(key, now_s)
        if wait_s == 0.0:
            self.count(key, now_s)
        return wait_s

    def _level(self, key: str, now_s: float) -> float:
        level, at_s = self._buckets.get(key, (self._pace.burst, now_s))
        filled = level + max(0.0, now_s - at_s) * self._pace.per_s
        return max(0.0, min(self._pace.burst, filled))


class Attempts:
    """Proofs that proved nothing: how many one peer may send, and all together."""

    def __init__(self, per_peer: Pace, in_all: Pace) -> None:
        self._per_peer = Limiter(per_peer)
        self._in_all = Limiter(in_all, keys_max=1)

    def wait_s(self, peer: str, now_s: float) -> float:
        """Seconds until one more of the peer is answered as such; 0 if it is now."""
        return max(self._per_peer.wait_s(peer_key(peer), now_s), self._in_all.wait_s("all", now_s))

    def failed(self, peer: str, now_s: float) -> None:
        self._per_peer.count(peer_key(peer), now_s)
        self._in_all.count("all", now_s)


class Places:
    """How many of something there may be at one time, in all and for each key.

    `_taken` and `_in_all` count the blocks of `one_for` that are running.
    """

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._taken: Counter[str] = Counter()
        self._in_all = 0

    def go_by(self, most: int, most_each: int) -> None:
        """From now on there may be so many; those that are more than that stay."""
        self._most, self._most_each = most, most_each

    @contextmanager
    def one_for(self, key: str) -> Iterator[bool]:
        """Inside the block one place is taken, if there was one."""
        if self._in_all >= self._most or self._taken[key] >= self._most_each:
            yield False
            return
        self._in_all += 1
        self._taken[key] += 1
        try:
            yield True
        finally:
            self._in_all -= 1
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]


def first_of_the_many(held: Iterable[T], owner: Callable[[T], str]) -> T:
    """The first of the owner who holds the most: filling a table costs only its filler places."""
    items = list(held)
    counts = Counter(map(owner, items))
    most = max(counts.values())
    return next(item for item in items if counts[owner(item)] == most)


def peer_key(peer: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 that one IPv6 customer has."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
