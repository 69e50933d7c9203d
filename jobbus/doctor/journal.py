"""The journal as the next start would find it, without changing anything. Blocking."""

from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import msgspec

from bus.errors import DataDirectoryError
from bus.events import Published
from bus.layout import DataLayout
from handlers.decisions.table import JobTable
from handlers.decisions.table_content import TableContent
from handlers.journal import identity as identities
from handlers.journal.disk import EVIDENCE, open_for_reading
from handlers.journal.format import Torn
from handlers.journal.identity import Identity, mark_of_path
from handlers.journal.opening import NEW_EPOCH_FILE, salvage_of
from handlers.journal.segment_reader import SegmentRecords, SegmentScan, scan_segment
from handlers.journal.segments import first_seq_of, segments_of
from handlers.journal.snapshots import Snapshot, open_snapshot, snapshots_of
from jobbus.doctor.findings import Finding, Fix, Look, error, note, warning

_content_decoder = msgspec.json.Decoder(TableContent)


@dataclass
class JournalLook:
    """What was found. `table` is None where the journal lacks a part."""

    is_running: bool
    is_whole: bool = True
    is_clean: bool = True
    table: JobTable | None = None
    snapshots: list[Snapshot] = field(default_factory=list)
    scans: list[SegmentScan] = field(default_factory=list)

    def look(self, layout: DataLayout) -> Look:
        directory = layout.journal
        if not directory.is_dir():
            self.is_whole = False
            return
        try:
            yield from self._files(directory)
            if self.is_whole:
                self.table = self._replayed(directory)
        except (DataDirectoryError, OSError) as fault:
            self.is_whole = False
            yield error("journal", str(fault))
        yield from _evidence(directory)

    def _files(self, directory: Path) -> Look:
        segments = segments_of(directory)
        on_record = (directory / identities.NAME).exists()
        if not segments and not snapshots_of(directory) and not on_record:
            self.is_whole = False
            yield note("journal", "the journal is empty: no service has run here yet")
            return
        identity = yield from self._identity(directory)
        yield from self._snapshots(directory)
        for path in segments:
            yield from self._segment(path, identity, is_last=path == segments[-1])
        last = next((scan.last for scan in reversed(self.scans) if scan.last), None)
        self.is_clean = last is not None and last.clean
        if not self.is_running and not self.is_clean:
            yield note("journal", "the last service did not end in order; the next start recovers")
        if identity is not None:
            yield from self._missing(identity, segments)
        if (directory / NEW_EPOCH_FILE).exists():
            yield note("epoch", "a new epoch was asked for: the next start begins one")

    def _identity(self, directory: Path) -> Generator[Finding | Fix, None, Identity | None]:
        path = directory / identities.NAME
        try:
            with open_for_reading(path) as file:
                return msgspec.json.decode(file.read(), type=Identity)
        except FileNotFoundError:
            why = "is missing"
        except (msgspec.MsgspecError, UnicodeDecodeError):
            why = "is damaged"
        yield error(
            "epoch",
            f"{path.name} {why}: the next start begins a new epoch, and readers "
            "of the feed take a fresh snapshot",
        )
        return None

    def _snapshots(self, directory: Path) -> Look:
        for path in snapshots_of(directory):
            try:
                self.snapshots.append(open_snapshot(path))
            except Torn as fault:
                yield error(
                    "journal",
                    f"{path.name} is damaged ({fault}): the next start sets it aside and takes "
                    "the snapshot before, or reads the journal from its beginning",
                )

    def _segment(self, path: Path, identity: Identity | None, *, is_last: bool) -> Look:
        scan = scan_segment(path)
        self.scans.append(scan)
        if scan.broken or not (scan.is_whole or is_last):
            self.is_whole = False
            yield error(
                "journal",
                f"{path.name} is damaged at byte {scan.end}, before its end: copy the directory, "
                "check the disk, then start; what stands before the damage is used, what can be "
                "read behind it is emitted again, the files are kept aside and a new epoch begins",
            )
        elif scan.torn and not self.is_running:
            yield note(
                "journal",
                f"{path.name} ends with {scan.torn} bytes that were never acknowledged; the next "
                "start cuts them",
            )
        known = identity.files.get(path.name) if identity is not None else None
        if identity is None or (known is None and is_last and scan.last is None):
            return
        if known is None or not known.may_be(mark_of_path(path)):
            yield warning(
                "epoch",
                f"{path.name} is a copy: the journal was copied or restored, so the next start "
                "begins a new epoch",
            )

    def _missing(self, identity: Identity, segments: list[Path]) -> Look:
        there = {path.name for path in segments}
        covered = self.snapshots[-1].head.seq if self.snapshots else 1
        names = sorted({*identity.files, *there})
        for name, following in zip_longest(names, names[1:]):
            needed = following is None or first_seq_of(Path(following)) > covered
            if name not in there and needed:
                self.is_whole = False
                yield error(
                    "journal",
                    f"{name} is missing: put it back, or "
                    "what it held is lost and a new epoch begins",
                )

    def _replayed(self, directory: Path) -> JobTable:
        """The table as the journal has it, as far as it was written by now."""
        snapshot = self.snapshots[-1] if self.snapshots else None
        from_seq = snapshot.head.seq if snapshot is not None else 1
        table = JobTable.thaw(_content_decoder.decode(line) for line in snapshot or ())
        parts = tuple((scan.path, scan.end) for scan in self.scans)
        for record in SegmentRecords(from_seq, parts):
            for offset, event in enumerate(record.events):
                if record.seq + offset >= from_seq:
                    table.apply(Published(record.seq + offset, record.at_ms, event))
        return table


def _evidence(directory: Path) -> Look:
    unread = [path.name for path in salvage_of(directory)]
    if unread:
        yield note(
            "journal",
            f"the last start died while it took in what can be read behind damage; the next one "
            f"goes on with {', '.join(unread[:5])}",
        )
    kept = sorted(path.name for path in directory.iterdir() if EVIDENCE in path.name)
    if kept:
        yield note(
            "evidence",
            f"Journal/ keeps evidence of damage, which is never read nor removed by jobbus: "
            f"{', '.join(kept[:5])}{' …' if len(kept) > 5 else ''}",
        )
