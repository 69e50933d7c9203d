"""Makes one entry of many equal refusals within a minute. No IO, no clock.

Clients without a credential, and accounts that drop files, choose much of what makes their refusals
different: addresses, paths, names of jobs. They get few entries, and one an hour for all the rest.
"""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from bus.audit import ANONYMOUS, AuditEntry

WINDOW_S = 60.0
KEYS_MAX = 10_000
"""Kinds of refusals that are counted at a time; beyond, the oldest window ends early."""

FEW_BURST = 100.0
FEW_PER_S = 1 / 60
"""Entries of an actor who can choose what makes them different. About 400 KB a day."""

REST_S = 3600.0
OUTSIDE = "uid:"
"""How the names of accounts begin that are not the service's own."""

REST = "(and others)"
"""The action of the entry for all that had none of its own."""

_Key = tuple[str, str, str | None, str | None, str | None]


class _Window(msgspec.Struct):
    """The last of those that came after the first, and how many they are."""

    until_s: float
    last: AuditEntry | None = None
    count: int = 0


class Coalescer:
    """The first of its kind is written at once, those that follow together after the minute.

    `_windows` counts refusals of a kind, `_rest` those of actors without an entry left; `_few` has
    how many each of these actors has left. `_early` are entries of windows that ended early. Only
    `is_first` and `due` write these.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[_Key, _Window] = OrderedDict()
        self._early: list[AuditEntry] = []
        self._few: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._rest: dict[tuple[str, str | None], _Window] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def is_first(self, entry: AuditEntry, now_s: float) -> bool:
        """Whether the entry is to be written now; if not, it is counted."""
        # Clients without a credential differ by where they come from.
        peer = entry.detail.get("peer")
        key = (entry.actor, entry.action, entry.job, entry.error_code, peer)
        window = self._windows.get(key)
        if window is not None and now_s < window.until_s:
            window.last = entry
            window.count += 1
            return False
        if window is not None:
            del self._windows[key]
            self._early.extend(_counted(window))
        if _chooses(entry.actor) and not self._is_one_of_few(entry.actor, now_s):
            self._count_rest(entry, now_s)
            return False
        self._windows[key] = _Window(now_s + WINDOW_S)
        if len(self._windows) > KEYS_MAX:
            _, oldest = self._windows.popitem(last=False)
            self._early.extend(_counted(oldest))
        return True

    def _is_one_of_few(self, actor: str, now_s: float) -> bool:
        """Whether the actor has an entry left; then it is taken."""
        level, at_s = self._few.pop(actor, (FEW_BURST, now_s))
        level = min(FEW_BURST, level + (now_s - at_s) * FEW_PER_S)
        has_one = level >= 1.0
        self._few[actor] = (level - has_one, now_s)
        if len(self._few) > KEYS_MAX:
            self._few.popitem(last=False)
        return has_one

    def _count_rest(self, entry: AuditEntry, now_s: float) -> None:
        window = self._rest.setdefault((entry.actor, entry.error_code), _Window(now_s + REST_S))
        window.last = msgspec.structs.replace(entry, action=REST, job=None)
        window.count += 1

    def due(self, now_s: float | None) -> Iterator[AuditEntry]:
        """The entries of windows that are over; of all, with None, whose minutes then go on."""
        early, self._early = self._early, []
        yield from early
        for kind, rest in list(self._rest.items()):
            if now_s is None or now_s >= rest.until_s:
                yield from _counted(rest)
                del self._rest[kind]
        for key, window in list(self._windows.items()):
            if now_s is not None and now_s < window.until_s:
                break  # they begin in order
            yield from _counted(window)
            if now_s is None:
                window.last, window.count = None, 0
            else:
                del self._windows[key]


def _chooses(actor: str) -> bool:
    return actor == ANONYMOUS or actor.startswith(OUTSIDE)


def _counted(window: _Window) -> Iterator[AuditEntry]:
    if window.last is not None:
        yield msgspec.structs.replace(window.last, count=window.count)
