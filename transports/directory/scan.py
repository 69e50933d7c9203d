"""Looking into the queue directory: what is new, what is no command, what may be swept. Blocking.

One thread looks at a time. What was found is handed back; the lanes belong to the event loop.

Entries of others that are no commands cost something once, not at every look, however many they
are: folders are passed over while listing, what has another ending is looked at again only when it
has lain there for long, and what cannot be moved away is tried again ever more rarely.
"""

import heapq
import logging
import os
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from bus.clock import Clock
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.layout import DataLayout
from bus.model import CommandRecord
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.spares import give_back
from transports.directory import disk
from transports.directory.command_files import SUFFIX, Reader, Sighting
from transports.directory.disk import InMotion, Mark, Unfit
from transports.directory.poison import InHandNote
from transports.directory.refusals import unreadable
from transports.directory.rejects import POISON, Rejects
from transports.directory.settings import DirectorySettings
from transports.directory.wire import NotACommand

log = logging.getLogger(__name__)

NOTED_TOGETHER = 64

SET_ASIDE_BEFORE = (
    f"{POISON}starts of the service died of a file of this name before; take a new CommandID"
)
_GRANULE_NS = 100_000_000
"""A directory time younger than this may stand still while names still change."""


OBSERVED_MAX = 5_000
"""Files that are no command are remembered up to here. Of more, those that could still become one
go to Rejects without a wait (they come back once they are whole), others are passed over."""

GIVEN_UP_MAX = 256
"""So many go to Rejects after one look: commands between them do not wait long."""

AGAIN_S_MAX = 3600.0


class Look(msgspec.Struct):
    """What one look found; `fresh` are the names that no look had met before. `given_up`: files
    that stood still too long for a command that is still being written. `more`: names are left for
    the next look. `busy_s`: how long it took if it was in vain.
    """

    found: list[Sighting] = []
    fresh: list[str] = []
    given_up: list["GivenUp"] = []
    more: bool = False
    busy_s: float = 0.0


class GivenUp(msgspec.Struct, frozen=True):
    """A file that will not become a command, as it was seen, and why."""

    name: str
    mark: Mark
    reason: str


class _Observed(msgspec.Struct):
    """A file that is no command so far, and what is wrong.

    `due_s`: when it is looked at again at the latest. `rests`: not before, whatever happens around
    it. `listing`: the last one in which it stood.
    """

    mark: Mark
    reason: str
    due_s: float
    rests: bool = False
    pause_s: float = 0.0
    listing: int = 0


class Scan:
    """Finds commands that others put into the directory."""

    def __init__(
        self,
        layout: DataLayout,
        settings: DirectorySettings,
        clock: Clock,
        reader: Reader,
        rejects: Rejects,
        in_hand_note: InHandNote,
    ) -> None:
        self._in_hand_note = in_hand_note
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._reader = reader
        self._rejects = rejects
        self._observed: dict[str, _Observed] = {}
        self._due: list[tuple[float, str]] = []
        """A heap, which may name some that are not observed any more, or are due later."""
        self._listing = 0
        self._after = ""
        """Up to this name all were examined, if the last look did not come to the end."""
        self._has_swept = False
        self._seen_directory: tuple[int, int] | None = None
        self._troubles = Recurring(log)

    @property
    def due_in_s(self) -> float | None:
        """How soon a file that is no command so far has to be looked at again; None: there is
        none."""
        return self._due[0][0] - self._clock.monotonic_s() if self._due else None

    def look(self, accounted: Container[str], limit: int | None, *, rung: bool) -> Look:
        """New commands, at most `limit` files examined; none of the names in `accounted`.

        Without `rung` a directory that has not changed is not listed.
        """
        look = Look()
        self._has_swept = False
        with disk.open_directory(self._layout.queue) as queue_fd:
            if rung or self._changed(queue_fd):
                self._list(queue_fd, accounted, limit, look)
            began_s = time.perf_counter()
            self._examine(self._take_due(), queue_fd, look)
            look.busy_s += time.perf_counter() - began_s
        # Found in one listing, they arrived together as far as we know: the writers' own times
        # order them, and the names (ours and other UUIDv7 sort by time) break ties.
        look.found.sort(key=lambda one: (one.accepted_ns or _LAST, one.submitted_ms, one.name))
        return look

    def look_at(self, names: Iterable[str], accounted: Container[str]) -> Look:
        """The same for a few names, without a listing."""
        look = Look()
        self._has_swept = False
        with disk.open_directory(self._layout.queue) as queue_fd:
            new = [n for n in names if n not in accounted and n.endswith(SUFFIX) and n[0] != "."]
            self._examine(new, queue_fd, look)
        return look

    def envelopes(self, names: list[str]) -> "list[Envelope | CommandRecord | None]":
        """For each name the command, or the record of its refusal, or None if it is none (now)."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            found = []
            for name in names:
                with self._in_hand((name,), "fill"):
                    found.append(self._envelope(name, queue_fd))
            return found

    def durable_envelope(self, name: str) -> "Envelope | CommandRecord | None":
        """As `envelopes` for one name; the file and its name survive a power cut."""
        with (
            disk.open_directory(self._layout.queue) as queue_fd,
            self._in_hand((name,), f"compare {name}"),
        ):
            found = self._envelope(name, queue_fd)
            if found is None and self._has_lost_its_twin(name, queue_fd):
                found = self._envelope(name, queue_fd)
            if found is not None:
                disk.sync_file(name, queue_fd)
        return found

    def unlink(self, names: list[str]) -> None:
        """The files of ended commands are gone. Not synced: if one comes back, its id is known.

        What was made of a spare is one again: on a disk that stays full, stops would use them up.
        """
        with disk.open_directory(self._layout.queue) as queue_fd:
            for name in names:
                try:
                    is_spare = give_back(name, queue_fd)
                except FileNotFoundError:
                    continue
                if not is_spare:
                    disk.remove(name, queue_fd)

    def poison(self, command_id: str, why: str) -> "tuple[CommandRecord, Envelope | None] | None":
        """The file of the command is in Rejects; gives the answer for its writer, and the command
        if it can be told. None if there is no such file."""
        refused = Refused(ErrorCode.POISON, why)
        with disk.open_directory(self._layout.queue) as queue_fd:
            name = _name_of(command_id, queue_fd)
            if name is None:
                return None
            with self._in_hand((name,), "poison"):
                try:
                    record = self._reader.rejected(name, queue_fd, refused, self._clock.now_ms())
                except (FileNotFoundError, InMotion, NotACommand, Unfit):
                    return None
                found = self._envelope(name, queue_fd)
            self._rejects.take(name, queue_fd, f"{POISON}{why}")
        return record, found if isinstance(found, Envelope) else None

    def poison_unread(self, name: str, why: str) -> CommandRecord | None:
        """The same for a file that may not even be read: its name and its owner are all there is to
        tell. None if it is gone, or called after no command."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            try:
                mark = disk.mark_of(name, queue_fd)
            except FileNotFoundError:
                return None
            self._rejects.take(name, queue_fd, f"{POISON}{why}")
        record = unreadable(name, mark, why, self._clock.now_ms())
        return record and msgspec.structs.replace(record, error_code=ErrorCode.POISON)

    def reject(self, name: str, reason: str) -> None:
        """The file goes to Rejects at once."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            self._rejects.take(name, queue_fd, reason)

    def set_aside(self, files: Sequence[GivenUp]) -> None:
        """They are in Rejects, unless they changed since they were seen."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            for file in files:
                try:
                    if disk.mark_of(file.name, queue_fd) != file.mark:
                        continue
                    self._rejects.take(file.name, queue_fd, file.reason)
                except FileNotFoundError:
                    pass
                except OSError as error:  # no room, or no way in: others do not wait for that
                    why = reason_of(error)
                    self._troubles.say(f"{file.name} cannot go to Rejects: {why}", why)
                    self._try_later(file.name)
                    continue
                self._observed.pop(file.name, None)

    def _try_later(self, name: str) -> None:
        observed = self._observed.get(name)
        if observed is not None:
            observed.rests = True
            observed.pause_s = min(max(1.0, 2 * observed.pause_s), AGAIN_S_MAX)
            observed.due_s = self._clock.monotonic_s() + observed.pause_s
            heapq.heappush(self._due, (observed.due_s, name))

    def sweep(self) -> None:
        """Files in `.tmp` that nobody will finish are gone; ours that were linked have one name."""
        disk.make_directory(self._layout.queue_tmp)
        oldest_s = self._clock.now_ms() / 1000 - self._settings.tmp_age_s
        with disk.open_directory(self._layout.queue_tmp) as tmp_fd:
            for name in os.listdir(tmp_fd):
                try:
                    mark = disk.mark_of(name, tmp_fd)
                    # Two names: its writer was killed between link and unlink. Without this its
                    # queue file would look like somebody's hard link for ever.
                    if mark.links == 2 or mark.mtime_ns / 1e9 < oldest_s:
                        disk.remove(name, tmp_fd)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    log.debug("left in .tmp: %s", error)

    def _changed(self, queue_fd: int) -> bool:
        status = os.fstat(queue_fd)
        return (status.st_ino, status.st_mtime_ns) != self._seen_directory

    def _list(
        self, queue_fd: int, accounted: Container[str], limit: int | None, look: Look
    ) -> None:
        began = time.perf_counter()
        status = os.fstat(queue_fd)
        still = time.time_ns() - status.st_mtime_ns > _GRANULE_NS
        names = self._next_of(self._names(queue_fd, accounted), limit, look)
        self._seen_directory = None
        if still and not look.more:
            self._seen_directory = (status.st_ino, status.st_mtime_ns)
        self._examine(names, queue_fd, look)
        look.busy_s = time.perf_counter() - began if not look.found else 0.0

    def _next_of(self, names: list[str], limit: int | None, look: Look) -> list[str]:
        """In order, from where the last look ended: what stays hides nothing behind it."""
        if limit is None:
            return sorted(names)
        rest = [name for name in names if name > self._after] or names
        look.more = len(rest) > limit
        chosen = heapq.nsmallest(limit, rest)
        self._after = chosen[-1] if look.more else ""
        return chosen

    def _names(self, queue_fd: int, accounted: Container[str]) -> list[str]:
        """Those to be examined; what is observed and not there any more is forgotten."""
        self._listing += 1
        found = []
        with os.scandir(queue_fd) as entries:
            for entry in entries:
                name = entry.name
                if name in accounted or name.startswith("."):
                    continue
                observed = self._observed.get(name)
                if observed is not None:
                    observed.listing = self._listing
                    if observed.rests:
                        continue
                elif entry.is_dir(follow_symlinks=False):
                    continue
                elif not name.endswith(SUFFIX):
                    self._observe_stray(name, queue_fd)
                    continue
                found.append(name)
        gone = [name for name, each in self._observed.items() if each.listing != self._listing]
        for name in gone:
            del self._observed[name]
        if len(self._due) > 2 * len(self._observed) + OBSERVED_MAX:
            self._due = [(each.due_s, name) for name, each in self._observed.items()]
            heapq.heapify(self._due)
        return found

    def _observe_stray(self, name: str, queue_fd: int) -> None:
        """Without the ending it is no command, whatever becomes of its content."""
        if len(self._observed) >= OBSERVED_MAX:
            return
        try:
            mark = disk.mark_of(name, queue_fd)
        except FileNotFoundError:
            return
        self._observe(name, mark, f"a command file is called {{CommandID}}{SUFFIX}")

    def _observe(self, name: str, mark: Mark, reason: str) -> None:
        """It is looked at again when it has stood still for long enough."""
        could_become_one = name.endswith(SUFFIX)
        patience_s = self._settings.settle_s if could_become_one else self._settings.stray_s
        due_s = self._clock.monotonic_s() + patience_s
        rests = not could_become_one
        self._observed[name] = _Observed(mark, reason, due_s, rests, patience_s, self._listing)
        heapq.heappush(self._due, (due_s, name))

    def _take_due(self) -> list[str]:
        """Some of those that have to be looked at again now."""
        now_s = self._clock.monotonic_s()
        due: list[str] = []
        while self._due and self._due[0][0] <= now_s and len(due) < GIVEN_UP_MAX:
            due_s, name = heapq.heappop(self._due)
            observed = self._observed.get(name)
            if observed is not None and observed.due_s == due_s:
                due.append(name)
        return due

    def _examine(self, names: Sequence[str], queue_fd: int, look: Look) -> None:
        """Noted many at once; alone where a start may have died of one of them."""
        for begin in range(0, len(names), NOTED_TOGETHER):
            piece = names[begin : begin + NOTED_TOGETHER]
            alone = any(map(self._in_hand_note.is_suspect, piece))
            for held in ([name] for name in piece) if alone else [piece]:
                with self._in_hand(held, "look"):
                    for name in held:
                        self._examine_one(name, queue_fd, look)

    def _examine_one(self, name: str, queue_fd: int, look: Look) -> None:
        try:
            if name not in self._observed:
                if len(self._observed) < OBSERVED_MAX:
                    look.fresh.append(name)
            elif not self._moved_on(name, queue_fd, look):
                return
            if self._rejects.has_poison(name):
                mark = disk.mark_of(name, queue_fd)
                look.given_up.append(GivenUp(name, mark, SET_ASIDE_BEFORE))
                return
            look.found.append(self._reader.sighting(name, queue_fd))
            self._observed.pop(name, None)
        except FileNotFoundError:
            self._observed.pop(name, None)
        except (InMotion, NotACommand, Unfit):
            self._look_closer(name, queue_fd, look)

    def _moved_on(self, name: str, queue_fd: int, look: Look) -> bool:
        """Whether the file changed since the last look; not if it only stood still too long."""
        observed = self._observed[name]
        if disk.mark_of(name, queue_fd) != observed.mark:
            return True
        if self._clock.monotonic_s() < observed.due_s:
            return False
        if observed.mark.links > 1 and self._freed_of_its_twin(name, queue_fd):
            return True
        if len(look.given_up) < GIVEN_UP_MAX:
            look.given_up.append(GivenUp(name, observed.mark, observed.reason))
        else:
            heapq.heappush(self._due, (observed.due_s, name))
        return False

    def _look_closer(self, name: str, queue_fd: int, look: Look) -> None:
        """Reads once more, with a mark taken before: no change after it can be overlooked."""
        try:
            mark = disk.mark_of(name, queue_fd)
        except FileNotFoundError:
            self._observed.pop(name, None)
            return
        if mark.is_directory:
            self._observed.pop(name, None)
            return
        try:
            look.found.append(self._reader.sighting(name, queue_fd))
            self._observed.pop(name, None)
        except FileNotFoundError:
            self._observed.pop(name, None)
        except InMotion:
            self._observed.pop(name, None)
            look.more = True
        except (NotACommand, Unfit) as why:
            before = self._observed.get(name)
            if before is None and len(self._observed) >= OBSERVED_MAX:
                self._seen_directory = None  # what is left is found again
                if len(look.given_up) < GIVEN_UP_MAX:
                    look.given_up.append(GivenUp(name, mark, str(why)))
            elif before is None or before.mark != mark:
                self._observe(name, mark, str(why))

    def _freed_of_its_twin(self, name: str, queue_fd: int) -> bool:
        """Whether the second name was one in `.tmp`, left by a publisher that was killed."""
        if not self._has_swept:  # one look is enough for all that have a second name
            self._has_swept = True
            self.sweep()
        return disk.mark_of(name, queue_fd).links == 1

    def _has_lost_its_twin(self, name: str, queue_fd: int) -> bool:
        """The same at once: with a publisher that asks again and again it never stands still."""
        try:
            links = disk.mark_of(name, queue_fd).links
            return links > 1 and self._freed_of_its_twin(name, queue_fd)
        except FileNotFoundError:
            return False

    def _envelope(self, name: str, queue_fd: int) -> "Envelope | CommandRecord | None":
        try:
            mark = disk.mark_of(name, queue_fd)
        except FileNotFoundError:
            return None
        try:
            return self._reader.envelope(name, queue_fd)
        except Refused as why:
            return self._refusal(name, queue_fd, why)
        except (FileNotFoundError, InMotion) as gone:
            log.debug("%s is no command any more: %s", name, gone)
        except (NotACommand, Unfit) as why:
            # Its outline was that of a command and the rest is not, e.g. a name in Latin-1. Without
            # this note the next look would find a command again, and so on without end.
            self._observe(name, mark, str(why))
        except OSError:
            raise
        except Exception as defect:  # ours, and told: no file of a stranger ends the service
            log.exception("%s could not be judged", name)
            reason = f"jobbus broke on it: {type(defect).__name__}; please report that"
            self._observe(name, mark, reason)
        return None

    @contextmanager
    def _in_hand(self, names: Sequence[str], holder: str) -> Iterator[None]:
        """A death in the block is put down to these files."""
        self._in_hand_note.take(names, holder)
        try:
            yield
        finally:
            self._in_hand_note.take((), holder)

    def _refusal(self, name: str, queue_fd: int, why: Refused) -> CommandRecord | None:
        try:
            return self._reader.rejected(name, queue_fd, why, self._clock.now_ms())
        except (FileNotFoundError, InMotion, NotACommand, Unfit) as gone:
            log.debug("%s changed while it was refused: %s", name, gone)
            return None


def _name_of(command_id: str, queue_fd: int) -> str | None:
    """What the command's file is called, in whatever case."""
    own = f"{command_id}{SUFFIX}"
    return next((name for name in os.listdir(queue_fd) if name.lower() == own), None)


_LAST = 1 << 63
