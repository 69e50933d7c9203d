"""Whether what a power cut left keeps what was promised before it."""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bus.audit import NOTE, REFUSED
from bus.clock import SystemClock
from bus.events import Published
from bus.layout import DataLayout
from handlers.audit.reading import entry_in, lines_of, segments_of
from handlers.audit.resume_point import CatchUp, ResumePoint, find_resume_point
from handlers.decisions.table import JobTable
from handlers.journal.recovery import recover
from handlers.shim.assignment import CLAIMED_BY_SERVICE, claim_name
from handlers.supervision.record import decode_exit
from jobbus.service.instance import read_instance
from tests.faults.load import Load, SeamService, define, verify
from tests.faults.powercut.record import Promised
from tests.faults.seam import Plan
from transports.directory import command_format

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


def broken_promises(root: Path, promised: Promised) -> Iterator[str]:
    """What a start would find wrong below `root`, quickly: nothing is started."""
    layout = DataLayout(root / "data")
    if not layout.root.is_dir() or not layout.journal.is_dir():
        if promised.anything:
            yield "the data directory is gone"
        return
    yield from _torn(layout)
    past = find_resume_point(layout.audit)
    audit = AuditListener(CatchUp(past), CatchUp(ResumePoint()))
    found = recover(layout.journal, "0" * 12, SystemClock(), audit)
    found.journal.close(found.next_seq, SystemClock().now_ms())
    if promised.anything and not found.continuous:
        yield f"the journal is not continued: {found.notes}"
    yield from audit.wrong(layout.audit)
    for command_id in promised.acknowledged:
        if found.table.command(command_id) is None and not _waits(layout, command_id):
            yield f"lost: command {command_id}"
    for key, version in promised.versions.items():
        if found.next_seq <= version:
            yield f"number {version} was seen and will be given again: {found.next_seq}"
        record = found.table.execution(key) or found.table.command(key)
        if record is None or record.version < version:
            yield f"taken back: {key} was seen at {version}"
    for execution_id in promised.ran:
        if _is_free(layout.execution(execution_id).root):
            yield f"{execution_id} ran, and could be started again"


class AuditListener(NamedTuple):
    """`all` makes every entry again, which is possible as long as the journal has no snapshot."""

    missing: CatchUp
    all: CatchUp

    def begin(self, table: JobTable) -> None:
        for each in self:
            each.begin(table)

    def see(self, published: Published) -> None:
        for each in self:
            each.see(published)

    def wrong(self, directory: Path) -> Iterator[str]:
        """Each act has to have one line in the end, however much of the audit was lost."""
        entries = [entry_in(line) for path in segments_of(directory) for line in lines_of(path)]
        audited = Counter(e.seq for e in entries if e is not None and e.kind not in (NOTE, REFUSED))
        audited.update(entry.seq for entry in self.missing.missing)
        if wrong := audited - Counter(each.seq for each in self.all.missing):
            yield f"in the audit more than once, or from nowhere: {wrong}"
        if wrong := Counter(each.seq for each in self.all.missing) - audited:
            yield f"not in the audit: {wrong}"


def _is_free(folder: Path) -> bool:
    """Whether a recovery would win the next claim, and have the program started."""
    for generation in itertools.count():
        claim = folder / claim_name(generation)
        if not claim.exists():
            return True
        if claim.read_bytes() != CLAIMED_BY_SERVICE:
            return False
    raise AssertionError("never")


def _torn(layout: DataLayout) -> Iterator[str]:
    """Status and result files are made true by the start after an unclean end, so they may be."""
    places = ("JobCommandQueue/*.json", "JobOutput/*/control", "*.json", "Journal/*.json")
    for path in (path for place in places for path in layout.root.glob(place)):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            yield f"torn: {path.name}"
    for path in layout.root.glob("JobOutput/*/exit.json"):
        if decode_exit(path.read_bytes()) is None:
            yield f"torn: {path}"
    for name in ("secret.key", "admin.token"):
        path = layout.root / name
        if path.exists() and path.stat().st_size < 32:
            yield f"torn: {name}"


def _waits(layout: DataLayout, command_id: str) -> bool:
    """Whether it lies in the queue, whole: its seal is over every byte."""
    path = layout.queue / f"{command_id}.json"
    try:
        secret = (layout.root / "secret.key").read_bytes()
        return path.exists() and command_format.open_seal(path.read_bytes(), secret) is not None
    except (OSError, ValueError):
        return False


def broken_after_restart(
    root: Path, promised: Promised, tried: dict[str, str], board: Path
) -> Iterator[str]:
    """What is wrong when a service was started on it on another boot, and has handled all.

    What was accepted before the cut knows the board under its old name, `board`.
    """
    service = SeamService(root)
    define(service.apps)
    shutil.rmtree(board) if board.is_dir() and not board.is_symlink() else board.unlink()
    board.symlink_to(service.apps.board)
    service.plan = Plan(root=str(root), boot=OTHER_BOOT)
    load = Load(service, tried=tried, drops=False)
    load.acknowledged = set(promised.acknowledged)
    load.seen = dict(promised.versions)
    load.ran_before = set(promised.ran)
    try:
        service.start()
        load.settle()
        # What a shim said of itself is not synced: on another boot it is of no use to anybody.
        yield from (each for each in verify(load, exact_ends=False) if "process.json" not in each)
    finally:
        service.clear_away()
    assert read_instance(DataLayout(service.data)) is not None
