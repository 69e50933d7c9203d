"""The one thread that makes commands durable, and what it knows of how long syncs take."""

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from bus.errors import StorageFailed
from bus.fair_queue import FairQueue
from bus.layout import DataLayout
from bus.threads import start_thread
from transports.directory.commit import Piece, can_group, commit
from transports.directory.settings import DirectorySettings

log = structlog.get_logger("jobbus.directory")

Done = Callable[[Sequence[Piece], StorageFailed | None], None]


class Committer:
    """The thread that commits what waits, up to `batch_max` pieces at once.

    `done` is called from that thread, once a batch. What is urgent goes first, and within a lane
    each owner has a turn after the other. `before_answer` is called when what a batch wrote is
    durable, and may end the process: no publisher is answered then.

    `_urgent` and `_normal` have the pieces that wait: `put` appends, the thread takes, both under
    `_filled`, as `_is_open` is, which `stop` clears. The rest is the thread's own: `_was_urgent`
    says that the batch before was only urgent, `_failure` is a sync that failed. After that nothing
    is written any more: every later batch gets the same failure.
    """

    def __init__(
        self,
        layout: DataLayout,
        settings: DirectorySettings,
        done: Done,
        before_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self._layout = layout
        self._before_answer = before_answer
        self._settings = settings
        self._done = done
        self._filled = threading.Condition()
        self._urgent: FairQueue[Piece] = FairQueue()
        self._normal: FairQueue[Piece] = FairQueue()
        self._is_open = True
        self._was_urgent = False
        self._failure: StorageFailed | None = None
        self._grouping = Grouping(settings)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = start_thread(self._run, "committer")

    def put(self, pieces: Sequence[Piece]) -> None:
        """Hands over what is to be committed, in order for each owner. The caller bounds how much
        is under way."""
        with self._filled:
            for piece in pieces:
                (self._urgent if piece.urgent else self._normal).append(piece.owner, piece)
            self._filled.notify()

    def stop(self) -> None:
        """Everything handed over before is committed and reported; blocks until then."""
        with self._filled:
            self._is_open = False
            self._filled.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        self._grouping.can_group = can_group(self._layout)
        while pieces := self._next():
            self._one_batch(pieces)

    def _next(self) -> list[Piece]:
        """The next batch, as soon as there is one; none at the end.

        What is urgent waits for no other bytes to be synced, but every second batch has others too.
        """
        with self._filled:
            while self._is_open and not (self._urgent or self._normal):
                self._filled.wait()
            is_alone = bool(self._urgent) and not self._was_urgent
            self._was_urgent = is_alone
            batch: list[Piece] = []
            for lane in (self._urgent,) if is_alone else (self._urgent, self._normal):
                while lane and len(batch) < self._settings.batch_max:
                    batch.append(lane.take())
            return batch

    def _one_batch(self, pieces: Sequence[Piece]) -> None:
        if self._failure is None:
            try:
                self._commit(pieces)
            except StorageFailed as error:
                self._failure = error
        self._done(pieces, self._failure)

    def _commit(self, pieces: Sequence[Piece]) -> None:
        group = self._grouping.pays(len(pieces), time.monotonic())
        took_s = commit(self._layout, pieces, group=group)
        self._before_answer()
        if self._grouping.took(len(pieces), took_s, time.monotonic(), group=group):
            log.debug("syncfs took %.0f ms; small batches do without for a while", took_s * 1000)


class Grouping:
    """Whether one `syncfs` serves a whole batch, or each file is synced for itself. Pure.

    `syncfs` waits for all dirty pages on the file system. Where that takes long, few commands are
    sooner durable one by one; many are not, since each of their syncs waits in the same line.

    `can_group`: whether `syncfs` does its work on the queue's file system; the committer's thread
    sets it once. The times are seconds: when a group may be synced again, how long the last group
    took, and about how long one file takes; `took` writes them.
    """

    def __init__(self, settings: DirectorySettings) -> None:
        self._settings = settings
        self._group_again_s = 0.0
        self._group_took_s = 0.0
        self._file_took_s = 0.0
        self.can_group = False

    def pays(self, count: int, now_s: float) -> bool:
        """Whether so many files are to be synced as a group."""
        if not self.can_group or count < self._settings.group_from:
            return False
        return now_s >= self._group_again_s or self._file_took_s * count > self._group_took_s

    def took(self, count: int, took_s: float, now_s: float, *, group: bool) -> bool:
        """Notes how long so many files took; True if groups are now left alone for a while."""
        if not group:
            each_s = took_s / count
            self._file_took_s = (self._file_took_s + each_s) / 2 if self._file_took_s else each_s
            return False
        self._group_took_s = took_s
        is_slow = took_s > self._settings.syncfs_slow_s
        self._group_again_s = now_s + self._settings.syncfs_pause_s if is_slow else now_s
        return is_slow
