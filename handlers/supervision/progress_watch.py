"""Notices at once that a program writes, cuts or replaces its progress file.

Only a hint: the shim reads it.

One inotify instance for all executions, here in the service: a user has only 128 of them. The shims
look by themselves, too, but rarely when nothing happens.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from asyncinotify import Inotify, Mask, Watch

from bus.recurring import Backoff, Recurring
from bus.scarcity import lack_of_watches, reason_of

log = structlog.get_logger("jobbus.progress")

REST_S = 0.1
"""How long a file is not watched after each hint, however often its program writes."""

AGAIN_S = 1.0
AGAIN_S_MAX = 60.0

_MASK = (
    Mask.MODIFY
    | Mask.CLOSE_WRITE
    | Mask.ATTRIB  # its last name went: another file was renamed over it
    | Mask.MOVE_SELF
    | Mask.DELETE_SELF
    | Mask.ONESHOT
    | Mask.DONT_FOLLOW
)


class ProgressWatch:
    """Calls `written(execution_id)` while `run` runs.

    `_files` are those that are to be watched: `add` and `discard` write it. `_watches` and `_ids`
    are the watches that are armed, by execution and by `id()` of the watch; each fires once.
    `_inotify` is None while the system gives none.
    """

    def __init__(self, written: Callable[[str], None]) -> None:
        self._written = written
        self._inotify: Inotify | None = None
        self._files: dict[str, Path] = {}
        self._watches: dict[str, Watch] = {}
        self._ids: dict[int, str] = {}
        self._troubles = Recurring(log)

    async def run(self) -> None:
        """Ends on cancellation. Where the system lacks what it takes, it is tried again, rarely,
        and `try_again` must do meanwhile."""
        pauses = Backoff(AGAIN_S, AGAIN_S_MAX)
        while True:
            try:
                await self._listen()
            except OSError as error:
                self._complain(error)
            await asyncio.sleep(pauses.next_s())

    async def _listen(self) -> None:
        with Inotify() as inotify:
            self._inotify = inotify
            self._troubles.over("progress of jobs is noticed at once again")
            try:
                async for event in inotify:
                    if event.watch is not None:
                        self._noticed(event.watch)
            finally:
                self._inotify = None
                self._watches.clear()
                self._ids.clear()

    def add(self, execution_id: str, file: Path) -> None:
        """The file is watched; what was written before has to be looked at by the caller."""
        self._files[execution_id] = file
        self._arm(execution_id)

    def discard(self, execution_id: str) -> None:
        """The file is not watched any more."""
        self._files.pop(execution_id, None)
        watch = self._watches.pop(execution_id, None)
        if watch is None:
            return
        self._ids.pop(id(watch), None)
        if self._inotify is not None:
            try:
                self._inotify.rm_watch(watch)
            except (OSError, KeyError) as error:
                log.debug("a watch was gone already", error=str(error))

    def try_again(self) -> None:
        """Files that are not watched are looked at, and watched if that is possible now."""
        for execution_id in [each for each in self._files if each not in self._watches]:
            self._arm(execution_id)
            self._written(execution_id)

    def _complain(self, error: OSError) -> None:
        reason = lack_of_watches(error) or reason_of(error)
        self._troubles.say(f"progress of jobs is noticed late: {reason}")

    def _noticed(self, watch: Watch) -> None:
        execution_id = self._ids.pop(id(watch), None)
        if execution_id is None:
            return
        del self._watches[execution_id]
        asyncio.get_running_loop().call_later(REST_S, self._arm_again, execution_id)
        self._written(execution_id)

    def _arm_again(self, execution_id: str) -> None:
        if execution_id in self._files and self._arm(execution_id):
            self._written(execution_id)  # for what came while it was not watched

    def _arm(self, execution_id: str) -> bool:
        if self._inotify is None or execution_id in self._watches:
            return False
        try:
            watch = self._inotify.add_watch(self._files[execution_id], _MASK)
        except FileNotFoundError:
            return False  # its program has removed it, or not made it yet
        except OSError as error:
            self._complain(error)
            return False
        self._watches[execution_id] = watch
        self._ids[id(watch)] = execution_id
        return True
