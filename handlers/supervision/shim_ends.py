"""Notices the ends of shims by their pidfds."""

import asyncio
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress

import structlog

from bus.recurring import Recurring
from bus.scarcity import reason_of
from handlers.shim.process_tree import process
from handlers.supervision.record import ShimState

log = structlog.get_logger("jobbus.supervisor")

FOLLOWED_SHARE = 4
"""Of the files that the service may open, so many times fewer are for the ends of shims."""


class ShimEnds:
    """Calls `ended(execution_id)` when the process of a shim that is followed has ended.

    `_pidfds` has one open pidfd for each execution whose shim is followed; only this class opens
    it to the loop and closes it. With very many a shim is not followed, and the slow look must do:
    each is an open file.
    """

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._pidfds: dict[str, int] = {}
        self._followed_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // FOLLOWED_SHARE
        self._troubles = Recurring(log)

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._pidfds

    def follow(self, execution_id: str, pidfd: int) -> None:
        """The end of this shim, and of no other, will be noticed; `pidfd` belongs to us."""
        self.leave(execution_id)
        if len(self._pidfds) >= self._followed_max:
            os.close(pidfd)
            return
        self._pidfds[execution_id] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._has_ended, execution_id)

    def find(self, state: ShimState) -> bool:
        """Whether the shim of that state lives; if so it is followed, if the system allows."""
        try:
            pidfd = os.pidfd_open(state.shim)
        except ProcessLookupError:
            return False
        except OSError as error:
            # Nothing announces its end then: the slow look asks the files, and tries this again.
            self._troubles.say(f"ends of jobs are noticed late: {reason_of(error)} (pidfd_open)")
        else:
            self.follow(state.execution, pidfd)
            self._troubles.over("ends of jobs are noticed at once again")
        found = process(state.shim)
        if found is not None and found.ticks == state.shim_ticks:
            return True
        self.leave(state.execution)  # the pid was given to another process meanwhile
        return False

    def set_going(self, execution_id: str) -> None:
        """A shim that was stopped (SIGSTOP) runs: it could not act on an order otherwise."""
        pidfd = self._pidfds.get(execution_id)
        if pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)

    def leave(self, execution_id: str) -> None:
        """Its end is not of interest any more."""
        pidfd = self._pidfds.pop(execution_id, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def leave_all(self) -> None:
        for execution_id in list(self._pidfds):
            self.leave(execution_id)

    def _has_ended(self, execution_id: str) -> None:
        self.leave(execution_id)
        self._ended(execution_id)
