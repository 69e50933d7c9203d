"""Status and result files on the disk: written whole, compared, removed. Blocking."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bus.layout import DataLayout
from bus.model import CommandRecord, Execution
from bus.ports import TableReader
from bus.reserve import NO_ROOM, Need
from transports.directory import disk
from transports.directory.results import encode_result, encode_status, result_name

Put = Callable[[str, int, bytes, Need | None], None]
"""Writes one file, inside a folder; the need is for a spare where the disk is full."""


def write(
    layout: DataLayout,
    executions: Sequence[Execution],
    commands: Sequence[CommandRecord],
    put: Put = disk.replace_file,
) -> set[str]:
    """The records' files say what they say, but for those that found no room: their ids.

    The reserve is for what has ended. The file of a live execution only says how far it is.
    """
    disk.make_directory(layout.status)
    disk.make_directory(layout.results)
    without: set[str] = set()
    if executions:
        with disk.open_directory(layout.status) as here:
            for execution in executions:
                need = Need.PROJECTION if execution.is_final else None
                with _noted_in(without, execution.id):
                    put(f"{execution.id}.json", here, encode_status(execution), need)
    if commands:
        with disk.open_directory(layout.results) as here:
            for command in commands:
                with _noted_in(without, command.id):
                    put(result_name(command), here, encode_result(command), Need.PROJECTION)
    return without


@contextmanager
def _noted_in(without: set[str], record_id: str) -> Iterator[None]:
    """The record is among `without` if its file finds no room: the next may be smaller."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        without.add(record_id)


def write_again(layout: DataLayout, table: TableReader) -> None:
    """Every status and result file is as the table says."""
    commands = tuple(one for one in table.commands() if one.is_final)
    without = write(layout, tuple(table.executions()), commands, replace_unless_same)
    if without:
        raise OSError(errno.ENOSPC, f"there is no room for {len(without)} of the files")


def wrong_files(layout: DataLayout, table: TableReader) -> list[str]:
    """The names of status and result files of what has ended that are not as the table says."""
    ended = [e for e in table.executions() if e.is_final]
    settled = [c for c in table.commands() if c.is_final]
    status = [(f"{one.id}.json", encode_status(one)) for one in ended]
    results = [(result_name(one), encode_result(one)) for one in settled]
    return _wrong(layout.status, status) + _wrong(layout.results, results)


def _wrong(folder: Path, files: Iterable[tuple[str, bytes]]) -> list[str]:
    with disk.open_directory(folder) as here:
        return [f"{folder.name}/{name}" for name, data in files if not _is_same(name, here, data)]


def sync(*folders: Path) -> bool:
    """Everything in the file systems of the folders is on the disk; False if nobody can tell."""
    done = set()
    for folder in folders:
        with disk.open_directory(folder) as here:
            device = os.fstat(here).st_dev
            if device in done:
                continue
            if not disk.syncs_all_for_real(here):
                return False
            disk.sync_all(here)
            done.add(device)
    return True


def remove(folder: Path, names: Sequence[str]) -> None:
    """The files are gone."""
    if names:
        with disk.open_directory(folder) as here:
            for name in names:
                disk.remove(name, here)


def replace_unless_same(name: str, inside: int, data: bytes, need: Need | None = None) -> None:
    """The file has this content; one that had it is left alone."""
    if not _is_same(name, inside, data):
        disk.replace_file(name, inside, data, need)


def _is_same(name: str, inside: int, data: bytes) -> bool:
    try:
        return disk.read_file(name, inside, len(data)).data == data
    except (FileNotFoundError, disk.Unfit, disk.InMotion):
        return False  # not the right content, whatever it is
