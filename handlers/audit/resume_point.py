"""Where the audit goes on after earlier services, and what of it a crash has taken. Blocking.

Syncs are lazy, so a power cut leaves of the newest lines some and some not, in any order. All up to
the first hole can be relied on; behind it only what is there. The journal still has the rest.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bus.audit import NOTE, REFUSED, AuditEntry
from bus.errors import StorageFailed
from bus.events import Published
from bus.scarcity import NO_ROOM
from handlers.audit.entries.fold import AuditFold
from handlers.audit.reading import entry_in, lines_of, segments_of
from handlers.decisions.table import JobTable

LOOK_BACK_MAX = 8
"""Segments. Each start begins one, so this is how many starts in a row may die in catching up."""


class ResumePoint(NamedTuple):
    """Where the audit goes on.

    Events up to `written_until` have their entries, and so have those in `written_behind`.
    """

    next_n: int = 1
    last_seq: int = 0
    written_until: int = 0
    written_behind: frozenset[int] = frozenset()


class CatchUp:
    """Watches a recovery; implements `handlers.journal.recovery.RecoveryListener`."""

    def __init__(self, past: ResumePoint) -> None:
        self._written_behind = past.written_behind
        self.fold = AuditFold(written_until=past.written_until)
        self.missing: list[AuditEntry] = []

    def begin(self, table: JobTable) -> None:
        self.fold.begin(table)

    def see(self, published: Published) -> None:
        entry = self.fold.take(published)
        if entry is not None and published.seq not in self._written_behind:
            self.missing.append(entry)


def find_resume_point(directory: Path) -> ResumePoint:
    """What there is, from the newest on, as far back as it matters; it survives a power cut now."""
    last: AuditEntry | None = None
    written_until: int | None = None
    behind: set[int] = set()
    for path in segments_of(directory)[: -LOOK_BACK_MAX - 1 : -1]:
        whole, rest = _parted(path)
        if last is None:
            _sync_file(path)  # a crash may have come before the sync, and no other part will do it
            last = max((*whole, *rest), key=lambda entry: entry.n, default=None)
        if written_until is None:
            behind |= _events_of(rest, 0)
            written_until = whole[-1].seq if whole else None
            continue
        # A hole that was filled stays a hole, and what filled it stands behind everything.
        newer = _events_of((*whole, *rest), written_until)
        if not newer:
            break
        behind |= newer
    if last is None:
        return ResumePoint()
    return ResumePoint(last.n + 1, last.seq, written_until or 0, frozenset(behind))


def _parted(path: Path) -> tuple[list[AuditEntry], list[AuditEntry]]:
    """The entries before the first hole, and those behind it."""
    whole: list[AuditEntry] = []
    rest: list[AuditEntry] = []
    number = int(path.stem[9:])
    is_whole = True
    for line in lines_of(path):
        entry = entry_in(line)
        is_whole = is_whole and entry is not None and entry.n == number + len(whole)
        if entry is not None:
            (whole if is_whole else rest).append(entry)
    return whole, rest


def _events_of(entries: Iterable[AuditEntry], after: int) -> set[int]:
    """The numbers of the events that these are entries of, later than `after`."""
    return {e.seq for e in entries if e.seq > after and e.kind not in (REFUSED, NOTE)}


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """What was written survives a power cut.

    Raises:
        OSError: there is no room for it.
        StorageFailed: it may be lost, and another try would report success.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise StorageFailed(f"the audit could not be synced: {error}") from error
