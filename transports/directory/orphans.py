"""Status and result files whose records are gone: found by name and age, removed. Blocking."""

import os
from collections.abc import Callable
from pathlib import Path

from bus.layout import DataLayout
from bus.ports import TableReader
from transports.directory import disk
from transports.directory.command_format import id_in_name


def orphaned_status_files(layout: DataLayout, table: TableReader, since_ms: int) -> list[str]:
    """Names of status files not older than `since_ms` that belong to no execution of the table."""
    return _orphans(layout.status, lambda own: table.execution(own) is None, since_ms, 1 << 62)


def orphaned_result_files(
    layout: DataLayout, table: TableReader, since_ms: int, until_ms: int
) -> list[str]:
    """Names of result files last written between the two times that belong to no known command.

    Younger ones count as known: refused files have results and no record.
    """
    return _orphans(layout.results, lambda own: table.command(own) is None, since_ms, until_ms)


def sweep(layout: DataLayout, table: TableReader, since_ms: int, until_ms: int) -> int:
    """Orphaned files are gone; how many there were."""
    status = orphaned_status_files(layout, table, since_ms)
    results = orphaned_result_files(layout, table, since_ms, until_ms)
    for folder, names in ((layout.status, status), (layout.results, results)):
        with disk.open_directory(folder) as here:
            for name in names:
                disk.remove(name, here)
    return len(status) + len(results)


def _orphans(
    folder: Path, is_unknown: Callable[[str], bool], since_ms: int, until_ms: int
) -> list[str]:
    found = []
    with disk.open_directory(folder) as here:
        # First the names, then what is known: what begins meanwhile is known before it has a file.
        for name in os.listdir(here):
            own = id_in_name(name)
            if own is None or not is_unknown(own):
                continue
            try:
                mark = disk.mark_of(name, here)
            except FileNotFoundError:
                continue
            if mark.is_regular and since_ms <= mark.mtime_ns // 1_000_000 < until_ms:
                found.append(name)
    return found
