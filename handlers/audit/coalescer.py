"""Makes one entry of many equal refusals within a minute. No IO, no clock."""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from bus.audit import AuditEntry

WINDOW_S = 60.0
KEYS_MAX = 10_000
"""Refusals that are told apart at a time; beyond, the oldest window ends early."""

_Key = tuple[str, str, str | None, str | None, str | None]


class _Window(msgspec.Struct):
    """The last of those that came after the first, and how many they are."""

    until_s: float
    last: AuditEntry | None = None
    count: int = 0


class Coalescer:
    """The first of its kind is told at once, those that follow together when the minute is over."""

    def __init__(self) -> None:
        self._windows: OrderedDict[_Key, _Window] = OrderedDict()
        self._early: list[AuditEntry] = []

    def __len__(self) -> int:
        return len(self._windows)

    def is_first(self, entry: AuditEntry, now_s: float) -> bool:
        """Whether the entry is to be told now; if not, it is counted."""
        # Those who prove nothing are told apart by where they come from.
        peer = entry.detail.get("peer")
        key = (entry.actor, entry.action, entry.job, entry.error_code, peer)
        window = self._windows.get(key)
        if window is not None and now_s < window.until_s:
            window.last = entry
            window.count += 1
            return False
        if window is not None:
            del self._windows[key]
            self._early.extend(_told(window))
        self._windows[key] = _Window(now_s + WINDOW_S)
        if len(self._windows) > KEYS_MAX:
            _, oldest = self._windows.popitem(last=False)
            self._early.extend(_told(oldest))
        return True

    def due(self, now_s: float | None) -> Iterator[AuditEntry]:
        """The entries of windows that are over; of all, with None, whose minutes then go on."""
        early, self._early = self._early, []
        yield from early
        for key, window in list(self._windows.items()):
            if now_s is not None and now_s < window.until_s:
                break  # they begin in order
            yield from _told(window)
            if now_s is None:
                window.last, window.count = None, 0
            else:
                del self._windows[key]


def _told(window: _Window) -> Iterator[AuditEntry]:
    if window.last is not None:
        yield msgspec.structs.replace(window.last, count=window.count)
