"""Looking into the queue directory: what is new, what is no command, what may be swept. Blocking.

One thread looks at a time. What was found is handed back; the lanes belong to the event loop.
"""

import logging
import os
import time
from collections.abc import Container, Sequence

import msgspec

from bus.clock import Clock
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.layout import DataLayout
from bus.model import CommandRecord
from transports.directory import disk
from transports.directory.disk import InMotion, Mark, Unfit
from transports.directory.reader import SUFFIX, Reader, Sighting
from transports.directory.rejects import Rejects
from transports.directory.settings import DirectorySettings
from transports.directory.wire import NotACommand

log = logging.getLogger(__name__)

_GRANULE_NS = 100_000_000
"""A directory time younger than this may stand still while names still change."""


class Look(msgspec.Struct):
    """What one look found; `fresh` are the names that no look had met before. `given_up`: files
    that stood still too long for a command that is still being written. `more`: names are left for
    the next look.
    """

    found: list[Sighting] = []
    fresh: list[str] = []
    given_up: list["GivenUp"] = []
    more: bool = False
    listing_s: float = 0.0


class GivenUp(msgspec.Struct, frozen=True):
    """A file that will not become a command, as it was seen, and why."""

    name: str
    mark: Mark
    reason: str


class _Observed(msgspec.Struct):
    """A file that is no command so far: since when it has stood still, and what is wrong."""

    mark: Mark
    since_s: float
    reason: str


class Intake:
    """Finds commands that others put into the directory."""

    def __init__(
        self,
        layout: DataLayout,
        settings: DirectorySettings,
        clock: Clock,
        reader: Reader,
        rejects: Rejects,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._reader = reader
        self._rejects = rejects
        self._observed: dict[str, _Observed] = {}
        self._seen_directory: tuple[int, int] | None = None

    @property
    def observes(self) -> bool:
        """Whether there are files that are no command so far."""
        return bool(self._observed)

    def look(self, accounted: Container[str], limit: int | None, *, rung: bool) -> Look:
        """New commands, at most `limit` files examined; none of the names in `accounted`.

        Without `rung` a directory that has not changed is not listed.
        """
        look = Look()
        with disk.open_directory(self._layout.queue) as queue_fd:
            if rung or self._changed(queue_fd):
                self._list(queue_fd, accounted, limit, look)
            elif self._observed:
                self._examine(sorted(self._observed), queue_fd, look)
        # Found in one listing, they arrived together as far as we know: the writers' own times
        # order them, and the names (ours and other UUIDv7 sort by time) break ties.
        look.found.sort(key=lambda one: (one.accepted_ns or _LAST, one.submitted_ms, one.name))
        return look

    def envelopes(self, names: list[str]) -> "list[Envelope | CommandRecord | None]":
        """For each name the command, or the record of its refusal, or None if it is none (now)."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            return [self._envelope(name, queue_fd) for name in names]

    def durable_envelope(self, name: str) -> "Envelope | CommandRecord | None":
        """As `envelopes` for one name; the file and its name survive a power cut."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            found = self._envelope(name, queue_fd)
            if found is None and self._has_lost_its_twin(name, queue_fd):
                found = self._envelope(name, queue_fd)
            if found is not None:
                disk.sync_file(name, queue_fd)
        return found

    def unlink(self, names: list[str]) -> None:
        """The files of ended commands are gone. Not synced: if one comes back, its id is known."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            for name in names:
                disk.remove(name, queue_fd)

    def poison(self, name: str, why: str) -> CommandRecord | None:
        """The file is in Rejects; gives the answer for its writer, None if it is gone."""
        refused = Refused(ErrorCode.POISON, why)
        with disk.open_directory(self._layout.queue) as queue_fd:
            try:
                record = self._reader.rejected(name, queue_fd, refused, self._clock.now_ms())
            except (FileNotFoundError, InMotion, NotACommand, Unfit):
                return None
            self._rejects.take(name, queue_fd, f"poison: {why}")
        return record

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
                    log.warning("%s cannot go to Rejects: %s", file.name, error.strerror)
                    continue
                self._observed.pop(file.name, None)

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
        names = [n for n in os.listdir(queue_fd) if n not in accounted and not n.startswith(".")]
        names.sort()
        for gone in self._observed.keys() - set(names):
            del self._observed[gone]
        look.listing_s = time.perf_counter() - began
        look.more = limit is not None and len(names) > limit
        self._seen_directory = None
        if still and not look.more:
            self._seen_directory = (status.st_ino, status.st_mtime_ns)
        self._examine(names[:limit], queue_fd, look)

    def _examine(self, names: list[str], queue_fd: int, look: Look) -> None:
        for name in names:
            try:
                if name not in self._observed:
                    look.fresh.append(name)
                elif not self._moved_on(name, queue_fd, look):
                    continue
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
        patience_s = self._settings.settle_s if name.endswith(SUFFIX) else self._settings.stray_s
        if self._clock.monotonic_s() - observed.since_s < patience_s or observed.mark.is_directory:
            return False
        if observed.mark.links > 1 and self._freed_of_its_twin(name, queue_fd):
            return True
        look.given_up.append(GivenUp(name, observed.mark, observed.reason))
        return False

    def _look_closer(self, name: str, queue_fd: int, look: Look) -> None:
        """Reads once more, with a mark taken before: no change after it can be overlooked."""
        try:
            mark = disk.mark_of(name, queue_fd)
        except FileNotFoundError:
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
            if before is None or before.mark != mark:
                self._observed[name] = _Observed(mark, self._clock.monotonic_s(), str(why))

    def _freed_of_its_twin(self, name: str, queue_fd: int) -> bool:
        """Whether the second name was one in `.tmp`, left by a publisher that was killed."""
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
            self._observed[name] = _Observed(mark, self._clock.monotonic_s(), str(why))
        except OSError:
            raise
        except Exception as defect:  # ours, and told: no file of a stranger ends the service
            log.exception("%s could not be judged", name)
            reason = f"jobbus broke on it: {type(defect).__name__}; please report that"
            self._observed[name] = _Observed(mark, self._clock.monotonic_s(), reason)
        return None

    def _refusal(self, name: str, queue_fd: int, why: Refused) -> CommandRecord | None:
        try:
            return self._reader.rejected(name, queue_fd, why, self._clock.now_ms())
        except (FileNotFoundError, InMotion, NotACommand, Unfit) as gone:
            log.debug("%s changed while it was refused: %s", name, gone)
            return None


_LAST = 1 << 63
