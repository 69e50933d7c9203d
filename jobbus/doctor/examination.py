"""The whole look at one data directory, and the repair of what is safe to repair. Blocking."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bus.errors import DataDirectoryError
from bus.files import replace_file, sync_directory
from bus.layout import DataLayout
from handlers.journal.opening import NEW_EPOCH_FILE
from jobbus.doctor.accounts import look_at_accounts
from jobbus.doctor.files import look_at_files, look_at_leftovers
from jobbus.doctor.findings import Finding, Fix, Level, error, note
from jobbus.doctor.journal import JournalLook
from jobbus.doctor.place import look_at_place
from jobbus.doctor.roles import look_at_roles
from jobbus.doctor.unit import look_at_unit
from jobbus.service.directory_hold import is_running, locked_data_directory
from jobbus.service.instance import check_ours, read_instance
from jobbus.service.settings import Settings


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `doctor --json` prints."""

    data: str
    running: bool
    findings: tuple[Finding, ...]

    @property
    def is_well(self) -> bool:
        """Nothing is wrong, or it is not any more."""
        return all(f.repaired or f.level is Level.NOTE for f in self.findings)


def examine(root: Path, *, repair: bool = False, settings: Settings | None = None) -> Report:
    """What there is to say about the directory; with `repair` after what is safe was done.

    `settings` are those of its service, as far as they are known.

    Raises:
        DataDirectoryError: there is none, or it cannot be repaired while a service runs.
    """
    layout = DataLayout(root.absolute())
    settings = settings or Settings()
    if not layout.root.is_dir():
        if layout.root.exists():
            raise DataDirectoryError(f"{layout.root} is no directory")
        raise DataDirectoryError(f"there is no data directory {layout.root}")
    check_ours(layout)
    running = is_running(layout)
    if not repair:
        return _report(layout, running, _findings(_look(layout, settings, running=running)))
    if running:
        raise DataDirectoryError(f"stop the service of {layout.root} first: it owns the files now")
    first = list(_repaired(look_at_place(layout)))
    with locked_data_directory(layout.root, allow_network_fs=True):
        rest = list(_repaired(_look_inside(layout, settings, running=False)))
    return _report(layout, False, [*first, *rest])


def begin_new_epoch(root: Path) -> None:
    """The next start begins a new epoch: all readers of the feed take a fresh snapshot.

    Raises:
        DataDirectoryError: a service runs there.
    """
    with locked_data_directory(root, allow_network_fs=True) as layout:
        replace_file(layout.journal / NEW_EPOCH_FILE, b"")
        sync_directory(layout.journal)


def _report(layout: DataLayout, running: bool, findings: Iterable[Finding]) -> Report:
    return Report(data=str(layout.root), running=running, findings=tuple(findings))


def _look(layout: DataLayout, settings: Settings, *, running: bool) -> Iterator[Finding | Fix]:
    yield from look_at_place(layout)
    yield from _look_inside(layout, settings, running=running)


def _look_inside(
    layout: DataLayout, settings: Settings, *, running: bool
) -> Iterator[Finding | Fix]:
    yield from _instance(layout, running=running)
    journal = JournalLook(running)
    yield from journal.look(layout)
    yield from look_at_leftovers(layout)
    if journal.table is not None:
        yield from look_at_files(layout, journal.table, is_running=running)
        yield from look_at_accounts(layout, journal.table)
        yield from look_at_roles(layout, journal.table, settings)


def _instance(layout: DataLayout, *, running: bool) -> Iterator[Finding | Fix]:
    try:
        found = read_instance(layout)
    except DataDirectoryError as fault:
        yield error("instance", f"{fault}; remove it while no service runs, a new one is made")
        return
    if running and found is not None and found.pid:
        yield note("lock", f"a service runs here with pid {found.pid} at {found.url}")
        yield from look_at_unit(found.pid)


def _findings(looked: Iterable[Finding | Fix]) -> Iterator[Finding]:
    for each in looked:
        yield each.finding if isinstance(each, Fix) else each


def _repaired(looked: Iterable[Finding | Fix]) -> Iterator[Finding]:
    for each in looked:
        if isinstance(each, Fix):
            each.repair()
            yield replace(each.finding, repaired=True)
        else:
            yield each
