"""The files beside the journal: outputs, status, results, leftovers. Blocking."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from bus.layout import DataLayout
from handlers.ambiguity import protected_before_ms
from handlers.decisions.table import JobTable
from handlers.disposal import Disposal, orphaned_outputs
from jobbus.doctor.findings import Fix, Look, error, note, warning
from transports.directory import disk
from transports.directory.orphans import orphaned_status_files
from transports.directory.results import write_again, wrong_files

_STALE_S = 3600.0


class _Known:
    def __init__(self, table: JobTable) -> None:
        self._table = table

    def __contains__(self, execution_id: object) -> bool:
        return self._table.execution(str(execution_id)) is not None


def look_at_files(layout: DataLayout, table: JobTable, *, is_running: bool) -> Look:
    """What differs from what the table says; while a service runs it may only be late."""
    if layout.output.is_dir():
        yield from _outputs(layout, table)
    if layout.status.is_dir() and layout.results.is_dir():
        yield from _orphaned_status(layout, table)
        yield from _projections(layout, table, is_running=is_running)


def look_at_leftovers(layout: DataLayout) -> Look:
    """What writers that died left in folders for passing files."""
    for folder in (layout.queue, layout.results, layout.status, layout.rejects):
        stale = _stale(folder / disk.PASSING)
        if stale:
            finding = warning(
                "stale",
                f"{folder.name}/{disk.PASSING} holds {len(stale)} unfinished files",
                repair="remove them",
            )
            yield Fix(finding, lambda paths=stale: _unlink(paths))  # type: ignore[misc]
    rejects = _count(layout.rejects) // 2
    if rejects:
        yield note(
            "rejects",
            f"{layout.rejects.name}/ holds {rejects} files that were no command; each has its "
            ".reason.json",
        )


def _outputs(layout: DataLayout, table: JobTable) -> Look:
    known, since_ms = _Known(table), protected_before_ms(layout.journal)
    orphans = orphaned_outputs(layout, known, since_ms)
    if orphans:
        finding = warning(
            "outputs",
            f"{layout.output.name}/ holds {len(orphans)} folders of executions that are forgotten; "
            "the next start removes them",
            repair="remove them",
        )
        yield Fix(finding, lambda: Disposal(layout).sweep(known, since_ms))
    evidence = len(orphaned_outputs(layout, known, 0)) - len(orphans) if since_ms else 0
    if evidence:
        yield note(
            "evidence",
            f"{layout.output.name}/ holds {evidence} folders from before the journal was damaged, "
            "lost or restored; jobbus leaves them to you",
        )
    lost = [
        execution.id
        for execution in table.executions()
        if execution.is_final
        and execution.output_end
        and not (layout.execution(execution.id).root).is_dir()
    ]
    if lost:
        yield error(
            "outputs",
            f"the output of {len(lost)} executions is gone, e.g. of {lost[0]}; restore "
            f"{layout.output.name}/ from a backup, or live without it",
        )


def _orphaned_status(layout: DataLayout, table: JobTable) -> Look:
    names = orphaned_status_files(layout, table, protected_before_ms(layout.journal))
    if names:
        finding = warning(
            "status_files",
            f"{layout.status.name}/ holds {len(names)} files of executions that are forgotten; the "
            "next start removes them",
            repair="remove them",
        )
        yield Fix(finding, lambda: _unlink([layout.status / name for name in names]))


def _projections(layout: DataLayout, table: JobTable, *, is_running: bool) -> Look:
    wrong = wrong_files(layout, table)
    if not wrong:
        return
    examples = ", ".join(wrong[:3])
    if is_running:
        yield note(
            "projections",
            f"{len(wrong)} status and result files are missing or differ from the journal, e.g. "
            f"{examples}; the service may just be writing them",
        )
        return
    finding = warning(
        "projections",
        f"{len(wrong)} status and result files are missing or differ from the journal, e.g. "
        f"{examples}",
        repair="write them again from the journal",
    )
    yield Fix(finding, lambda: write_again(layout, table))


def _stale(folder: Path) -> list[Path]:
    before_s = time.time() - _STALE_S
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.is_file(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_mtime < before_s
            ]
    except FileNotFoundError:
        return []


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _count(folder: Path) -> int:
    try:
        return sum(1 for name in os.listdir(folder) if name.endswith(".json"))
    except FileNotFoundError:
        return 0
