"""Removes the folders of forgotten executions, off the loop. Losing a removal to a crash leaves a
folder without a record, which the next start sweeps."""

import asyncio
import os
import secrets
from collections.abc import Container, Iterable
from pathlib import Path

import structlog

from bus.envelope import canonical_uuid
from bus.layout import DIRECTORY_MODE, DataLayout
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import READS
from handlers.ambiguity import begun_ms

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = structlog.get_logger("jobbus.disposal")


class Disposal:
    """Takes ids at once and removes their folders one after another.

    `_waiting` are the ids of folders still to be removed: calls add to it, `run` takes all of it.
    """

    def __init__(self, layout: DataLayout) -> None:
        self._layout = layout
        self._waiting: dict[str, None] = {}
        self._filled = asyncio.Event()
        self._troubles = Recurring(log)

    def __call__(self, execution_ids: Iterable[str]) -> None:
        """The executions' folders will be removed."""
        self._waiting.update(dict.fromkeys(execution_ids))
        self._filled.set()

    async def run(self) -> None:
        """Removes for ever."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            batch, self._waiting = list(self._waiting), {}
            try:
                await READS.run(self._remove, batch)
            except BaseException:
                self(batch)
                raise

    def sweep(self, known: Container[str], since_ms: int) -> int:
        """Folders of executions that have no record any more are removed; how many there were.

        Blocking. What does not look like ours, or was begun before `since_ms`, stays where it is.
        """
        orphans = orphaned_outputs(self._layout, known, since_ms)
        self._remove(orphans)
        return len(orphans)

    def _remove(self, execution_ids: list[str]) -> None:
        for execution_id in execution_ids:
            folder = self._layout.execution(execution_id).root
            try:
                _remove_folder(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._troubles.say(f"output cannot be removed: {reason_of(error)}: {folder}")


def _remove_folder(folder: Path) -> None:
    """The folder and what is in it are gone; never follows a link.

    Shims make no folders, programs may, and those may be deeper than a walk can recurse or a path
    can name: what lies in them is brought up, level by level.
    """
    handle = _opened(folder, None)
    try:
        waiting = os.listdir(handle)
        while waiting:
            name = waiting.pop()
            try:
                os.unlink(name, dir_fd=handle)
            except IsADirectoryError:
                waiting += _brought_up(name, handle)
    finally:
        os.close(handle)
    folder.rmdir()


def _brought_up(name: str, above: int) -> list[str]:
    """A folder in `above` is gone; the new names there of the folders that were in it."""
    found: list[str] = []
    handle = _opened(name, above)
    try:
        for inner in os.listdir(handle):
            try:
                os.unlink(inner, dir_fd=handle)
            except IsADirectoryError:
                os.close(_opened(inner, handle))  # one that is closed cannot be moved
                found.append(secrets.token_hex(16))
                os.rename(inner, found[-1], src_dir_fd=handle, dst_dir_fd=above)
    finally:
        os.close(handle)
    os.rmdir(name, dir_fd=above)
    return found


def _opened(name: str | Path, above: int | None) -> int:
    """The folder, with its rights given back to its owner: a program may have taken them."""
    try:
        handle = os.open(name, _FLAGS, dir_fd=above)
    except PermissionError:
        os.chmod(name, DIRECTORY_MODE, dir_fd=above)
        handle = os.open(name, _FLAGS, dir_fd=above)
    os.fchmod(handle, DIRECTORY_MODE)
    return handle


def orphaned_outputs(layout: DataLayout, known: Container[str], since_ms: int) -> list[str]:
    """The ids of executions begun at `since_ms` or later that have a folder and are not known."""
    # First the names, then what is known: what begins meanwhile is known before its folder is.
    names = os.listdir(layout.output)
    return [n for n in names if _is_ours(n) and begun_ms(n) >= since_ms and n not in known]


def _is_ours(name: str) -> bool:
    try:
        return canonical_uuid(name) == name
    except ValueError:
        return False
