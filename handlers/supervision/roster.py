"""The live executions that are watched: who comes, whose shim is followed, and how each leaves."""

import asyncio
import os
import resource
from collections.abc import Callable, Iterator

from bus.commands import ReportEnded, ReportLost, ReportSpawnFailed
from bus.model import ExitRecord, Reason
from bus.ports import OutputNotice, ReportSink
from handlers.supervision.progress_watch import ProgressWatch
from handlers.supervision.watched import Watched

FOLLOWED_SHARE = 4
"""Of the files that the service may open, so many times fewer are for the ends of shims."""


class Roster:
    """One `Watched` an execution. Each leaves with the last report about it.

    `shim_ended` is told when a shim that is followed has ended. The only writer of `pidfd`.
    """

    def __init__(
        self,
        report: ReportSink,
        output: OutputNotice,
        progress: ProgressWatch,
        shim_ended: Callable[[Watched], None],
    ) -> None:
        self._report = report
        self._output = output
        self._progress = progress
        self._shim_ended = shim_ended
        self._watched: dict[str, Watched] = {}
        self._followed = 0
        self._follow_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // FOLLOWED_SHARE

    def __len__(self) -> int:
        return len(self._watched)

    def __iter__(self) -> Iterator[str]:
        """The ids of the executions."""
        return iter(self._watched)

    def get(self, execution_id: str) -> Watched | None:
        return self._watched.get(execution_id)

    def holds(self, watched: Watched) -> bool:
        """Whether it is the newest of its execution; one that was asked for again has another."""
        return self._watched.get(watched.execution.id) is watched

    def add(self, watched: Watched) -> None:
        self._watched[watched.execution.id] = watched

    # -- shims

    def follow(self, watched: Watched, pidfd: int) -> None:
        """The end of this shim, and of no other, will be noticed; `pidfd` belongs to the roster.

        With very many it is closed, and the slow look must do: each is an open file.
        """
        self.unfollow(watched)
        if self._followed >= self._follow_max:
            os.close(pidfd)
            return
        self._followed += 1
        watched.pidfd = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, watched)

    def unfollow(self, watched: Watched) -> None:
        if watched.pidfd is not None:
            asyncio.get_running_loop().remove_reader(watched.pidfd)
            os.close(watched.pidfd)
            watched.pidfd = None
            self._followed -= 1

    def unfollow_all(self) -> None:
        for watched in self._watched.values():
            self.unfollow(watched)

    def _ended(self, watched: Watched) -> None:
        self.unfollow(watched)
        self._shim_ended(watched)

    # -- last words

    def end(self, watched: Watched, exit_: ExitRecord) -> None:
        """It ended, or could not begin, as the record says."""
        if exit_.error is not None and exit_.started_ms is None:
            self.fail(watched, exit_.error)
            return
        execution_id = watched.execution.id
        self._remove(execution_id)
        self._report(ReportEnded(execution_id=execution_id, exit=exit_))
        self._output.grown(execution_id)

    def fail(self, watched: Watched, error: str) -> None:
        """Its program was not started and will not be."""
        execution_id = watched.execution.id
        self._remove(execution_id)
        self._report(ReportSpawnFailed(execution_id=execution_id, error=error))

    def lose(self, execution_id: str, reason: Reason, *, elsewhere: bool = False) -> None:
        """Reports the execution Lost; `elsewhere` as in `ReportLost`."""
        self._remove(execution_id)
        report = ReportLost(execution_id=execution_id, reason=reason, elsewhere=elsewhere)
        self._report(report)

    def _remove(self, execution_id: str) -> None:
        watched = self._watched.pop(execution_id, None)
        if watched is not None:
            self.unfollow(watched)
            self._progress.discard(execution_id)
