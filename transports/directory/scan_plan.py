"""What scans of the queue remember of files that are no command yet, and what is due. Pure.

No IO and no clock: marks and times are handed in.
"""

import heapq
import threading
from enum import Enum, auto

import msgspec

from transports.directory.command_format import SUFFIX
from transports.directory.disk import Mark
from transports.directory.settings import DirectorySettings

UNREADY_MAX = 5_000
"""Files that are no command are remembered up to here. Of more, those that could still become a
command go to Rejects at once (they come back when they are whole), others are passed over."""
GIVEN_UP_MAX = 256
"""So many go to Rejects after one scan: commands between them do not wait long."""
AGAIN_S_MAX = 3600.0


class GivenUp(msgspec.Struct, frozen=True):
    """A file that will not become a command, with its mark at that time, and why."""

    name: str
    mark: Mark
    reason: str


class Step(Enum):
    """What to do with a file that was no command when it was last read."""

    READ = auto()
    WAIT = auto()
    GIVE_UP = auto()


class Unready(msgspec.Struct):
    """A file that is no command so far, and what is wrong.

    `due_s`: when it is examined again at the latest. `rests`: not before, whatever happens around
    it. `pause_s`: how long it was left alone last. `listing`: the last one in which it stood.
    """

    mark: Mark
    reason: str
    due_s: float
    rests: bool = False
    pause_s: float = 0.0
    listing: int = 0


class ScanPlan:
    """Which names a scan examines, and what becomes of files that are no command yet.

    `_unready` has these files by name; `note`, `postpone` and `forget` write it, `end_listing`
    drops what is not there any more. `_due` is a heap of when each is due; it may name some that
    are gone or were postponed, and is made again when it has grown far beyond `_unready`.
    `_listing` numbers the listings. `_after`: up to this name all were examined, if the last scan
    did not come to the end; only `next_of` writes it.

    The scan's thread writes it, and threads that read single files note in it what is no command:
    what touches `_unready` and `_due` together takes `_turn`.
    """

    def __init__(self, settings: DirectorySettings) -> None:
        self._settings = settings
        self._unready: dict[str, Unready] = {}
        self._due: list[tuple[float, str]] = []
        self._listing = 0
        self._after = ""
        self._turn = threading.Lock()

    @property
    def is_full(self) -> bool:
        """Whether no further file is remembered."""
        return len(self._unready) >= UNREADY_MAX

    def due_in_s(self, now_s: float) -> float | None:
        """How soon a file that is no command so far has to be examined again; None: there is
        none."""
        with self._turn:
            return self._due[0][0] - now_s if self._due else None

    def get(self, name: str) -> Unready | None:
        return self._unready.get(name)

    def begin_listing(self) -> None:
        self._listing += 1

    def listed(self, name: str) -> Unready | None:
        """The file of this name is still there; what is known of it."""
        unready = self._unready.get(name)
        if unready is not None:
            unready.listing = self._listing
        return unready

    def end_listing(self) -> None:
        """What did not stand in the listing is forgotten."""
        with self._turn:
            gone = [name for name, each in self._unready.items() if each.listing != self._listing]
            for name in gone:
                del self._unready[name]
            if len(self._due) > 2 * len(self._unready) + UNREADY_MAX:
                self._due = [(each.due_s, name) for name, each in self._unready.items()]
                heapq.heapify(self._due)

    def next_of(self, names: list[str], limit: int | None) -> tuple[list[str], bool]:
        """At most `limit` names in order, from where the last scan ended: what stays hides nothing
        behind it. And whether names are left for the next scan."""
        if limit is None:
            return sorted(names), False
        rest = [name for name in names if name > self._after] or names
        more = len(rest) > limit
        chosen = heapq.nsmallest(limit, rest)
        self._after = chosen[-1] if more else ""
        return chosen, more

    def note(self, name: str, mark: Mark, reason: str, now_s: float) -> None:
        """The file is no command so far; it is examined again when it has stood still for long
        enough."""
        could_become_one = name.endswith(SUFFIX)
        patience_s = self._settings.settle_s if could_become_one else self._settings.stray_s
        due_s = now_s + patience_s
        rests = not could_become_one
        with self._turn:
            self._unready[name] = Unready(mark, reason, due_s, rests, patience_s, self._listing)
            heapq.heappush(self._due, (due_s, name))

    def postpone(self, name: str, now_s: float) -> None:
        """The file is left alone, each time for longer."""
        with self._turn:
            unready = self._unready.get(name)
            if unready is not None:
                unready.rests = True
                unready.pause_s = min(max(1.0, 2 * unready.pause_s), AGAIN_S_MAX)
                unready.due_s = now_s + unready.pause_s
                heapq.heappush(self._due, (unready.due_s, name))

    def forget(self, name: str) -> None:
        with self._turn:
            self._unready.pop(name, None)

    def take_due(self, now_s: float) -> list[str]:
        """Some of those that have to be examined again now."""
        due: list[str] = []
        with self._turn:
            while self._due and self._due[0][0] <= now_s and len(due) < GIVEN_UP_MAX:
                due_s, name = heapq.heappop(self._due)
                unready = self._unready.get(name)
                if unready is not None and unready.due_s == due_s:
                    due.append(name)
        return due

    def put_back(self, name: str) -> None:
        """A file that was taken as due is due again with the next scan."""
        with self._turn:
            heapq.heappush(self._due, (self._unready[name].due_s, name))

    def step(self, name: str, mark: Mark, now_s: float) -> Step:
        """What to do with a file that is remembered and has this mark now."""
        unready = self._unready[name]
        if mark != unready.mark:
            return Step.READ
        return Step.WAIT if now_s < unready.due_s else Step.GIVE_UP
