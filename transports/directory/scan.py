"""Scans of the queue directory: which files are new, which are no command. Blocking.

One thread scans at a time. What was found is handed back; the lanes belong to the event loop.

Entries of others that are no commands cost something once, not at every scan, however many they
are: folders are passed over while listing, what has another ending is examined again only when it
has lain there for long, and what cannot be moved away is tried again ever more rarely.
"""

import os
import time
from collections.abc import Container, Iterable, Sequence

import msgspec

from bus.clock import Clock
from bus.layout import DataLayout
from transports.directory import disk
from transports.directory.command_files import FileReader, Sighting
from transports.directory.command_format import SUFFIX, NotACommand
from transports.directory.disk import InMotion, Unfit
from transports.directory.poison import InHandNote
from transports.directory.queue_files import QueueFiles
from transports.directory.reject_reasons import POISON
from transports.directory.rejects import Rejects
from transports.directory.scan_plan import GIVEN_UP_MAX, GivenUp, ScanPlan, Step

NOTED_TOGETHER = 64
SET_ASIDE_BEFORE = (
    f"{POISON}starts of the service died of a file of this name before; take a new CommandID"
)
_GRANULE_NS = 100_000_000
"""A directory time younger than this may stand still while names still change."""
_LAST = 1 << 63


class Findings(msgspec.Struct):
    """What one scan found; `fresh` are the names that no scan had met before. `given_up`: files
    that stood still too long for a command that is still being written. `more`: names are left for
    the next scan. `busy_s`: how long it took if it was in vain.
    """

    found: list[Sighting] = []
    fresh: list[str] = []
    given_up: list[GivenUp] = []
    more: bool = False
    busy_s: float = 0.0


class DirectoryScan:
    """Finds commands that others put into the directory.

    `_plan` remembers what is no command yet, shared with `QueueFiles`, which notes there what it
    could not read. `_seen_directory` is the inode and time of the directory at the last complete
    listing, None if the next one may not be left out; only scans write it.
    """

    def __init__(
        self,
        layout: DataLayout,
        clock: Clock,
        reader: FileReader,
        files: QueueFiles,
        plan: ScanPlan,
        rejects: Rejects,
        in_hand: InHandNote,
    ) -> None:
        self._layout = layout
        self._clock = clock
        self._reader = reader
        self._files = files
        self._plan = plan
        self._rejects = rejects
        self._in_hand = in_hand
        self._seen_directory: tuple[int, int] | None = None

    @property
    def due_in_s(self) -> float | None:
        """See `ScanPlan.due_in_s`."""
        return self._plan.due_in_s(self._clock.monotonic_s())

    def scan(self, accounted: Container[str], limit: int | None, *, must_list: bool) -> Findings:
        """New commands, at most `limit` files examined; none of the names in `accounted`.

        Without `must_list` a directory that has not changed is not listed.
        """
        findings = Findings()
        self._files.begin_scan()
        with disk.open_directory(self._layout.queue) as queue_fd:
            if must_list or self._changed(queue_fd):
                self._list(queue_fd, accounted, limit, findings)
            began_s = time.perf_counter()
            due = self._plan.take_due(self._clock.monotonic_s())
            self._examine(due, queue_fd, findings)
            findings.busy_s += time.perf_counter() - began_s
        # Found in one listing, they arrived together as far as we know: the writers' own times
        # order them, and the names (ours and other UUIDv7 sort by time) break ties.
        findings.found.sort(
            key=lambda each: (each.accepted_ns or _LAST, each.submitted_ms, each.name)
        )
        return findings

    def scan_names(self, names: Iterable[str], accounted: Container[str]) -> Findings:
        """The same for a few names, without a listing."""
        findings = Findings()
        self._files.begin_scan()
        with disk.open_directory(self._layout.queue) as queue_fd:
            new = [n for n in names if n not in accounted and n.endswith(SUFFIX) and n[0] != "."]
            self._examine(new, queue_fd, findings)
        return findings

    def _changed(self, queue_fd: int) -> bool:
        status = os.fstat(queue_fd)
        return (status.st_ino, status.st_mtime_ns) != self._seen_directory

    def _list(
        self, queue_fd: int, accounted: Container[str], limit: int | None, findings: Findings
    ) -> None:
        began = time.perf_counter()
        status = os.fstat(queue_fd)
        still = time.time_ns() - status.st_mtime_ns > _GRANULE_NS
        names, findings.more = self._plan.next_of(self._names(queue_fd, accounted), limit)
        self._seen_directory = None
        if still and not findings.more:
            self._seen_directory = (status.st_ino, status.st_mtime_ns)
        self._examine(names, queue_fd, findings)
        findings.busy_s = time.perf_counter() - began if not findings.found else 0.0

    def _names(self, queue_fd: int, accounted: Container[str]) -> list[str]:
        """Those to be examined; what is remembered and not there any more is forgotten."""
        self._plan.begin_listing()
        found = []
        with os.scandir(queue_fd) as entries:
            for entry in entries:
                name = entry.name
                if name in accounted or name.startswith("."):
                    continue
                unready = self._plan.listed(name)
                if unready is not None:
                    if unready.rests:
                        continue
                elif entry.is_dir(follow_symlinks=False):
                    continue
                elif not name.endswith(SUFFIX):
                    self._note_stray(name, queue_fd)
                    continue
                found.append(name)
        self._plan.end_listing()
        return found

    def _note_stray(self, name: str, queue_fd: int) -> None:
        """Without the ending it is no command, whatever becomes of its content."""
        if self._plan.is_full:
            return
        try:
            mark = disk.mark_of(name, queue_fd)
        except FileNotFoundError:
            return
        reason = f"a command file is called {{CommandID}}{SUFFIX}"
        self._plan.note(name, mark, reason, self._clock.monotonic_s())

    def _examine(self, names: Sequence[str], queue_fd: int, findings: Findings) -> None:
        """Noted many at once; alone where a start may have died of one of them."""
        for begin in range(0, len(names), NOTED_TOGETHER):
            piece = names[begin : begin + NOTED_TOGETHER]
            alone = any(map(self._in_hand.is_suspect, piece))
            for held in ([name] for name in piece) if alone else [piece]:
                with self._in_hand.holding(held, "scan"):
                    for name in held:
                        self._examine_one(name, queue_fd, findings)

    def _examine_one(self, name: str, queue_fd: int, findings: Findings) -> None:
        try:
            if self._plan.get(name) is None:
                if not self._plan.is_full:
                    findings.fresh.append(name)
            elif not self._is_to_be_read(name, queue_fd, findings):
                return
            if self._rejects.has_poison(name):
                mark = disk.mark_of(name, queue_fd)
                findings.given_up.append(GivenUp(name, mark, SET_ASIDE_BEFORE))
                return
            findings.found.append(self._reader.sighting(name, queue_fd))
            self._plan.forget(name)
        except FileNotFoundError:
            self._plan.forget(name)
        except (InMotion, NotACommand, Unfit):
            self._read_again(name, queue_fd, findings)

    def _is_to_be_read(self, name: str, queue_fd: int, findings: Findings) -> bool:
        """Whether the file changed since the last scan; not if it only stood still too long."""
        mark = disk.mark_of(name, queue_fd)
        match self._plan.step(name, mark, self._clock.monotonic_s()):
            case Step.READ:
                return True
            case Step.WAIT:
                return False
            case Step.GIVE_UP:
                if mark.links > 1 and self._files.freed_of_its_twin(name, queue_fd):
                    return True
                if len(findings.given_up) < GIVEN_UP_MAX:
                    unready = self._plan.get(name)
                    assert unready is not None
                    findings.given_up.append(GivenUp(name, mark, unready.reason))
                else:
                    self._plan.put_back(name)
                return False

    def _read_again(self, name: str, queue_fd: int, findings: Findings) -> None:
        """Reads once more, with a mark taken before: no change after it can be overlooked."""
        try:
            mark = disk.mark_of(name, queue_fd)
        except FileNotFoundError:
            self._plan.forget(name)
            return
        if mark.is_directory:
            self._plan.forget(name)
            return
        try:
            findings.found.append(self._reader.sighting(name, queue_fd))
            self._plan.forget(name)
        except FileNotFoundError:
            self._plan.forget(name)
        except InMotion:
            self._plan.forget(name)
            findings.more = True
        except (NotACommand, Unfit) as why:
            self._note_unready(GivenUp(name, mark, str(why)), findings)

    def _note_unready(self, file: GivenUp, findings: Findings) -> None:
        before = self._plan.get(file.name)
        if before is None and self._plan.is_full:
            self._seen_directory = None  # what is left is found again
            if len(findings.given_up) < GIVEN_UP_MAX:
                findings.given_up.append(file)
        elif before is None or before.mark != file.mark:
            self._plan.note(file.name, file.mark, file.reason, self._clock.monotonic_s())
