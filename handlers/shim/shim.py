"""The parent of one execution: starts it, watches it, limits it, ends it, and writes how it ended.

Stdlib only: it runs in a fork of the warm spawner, detached from it and from the service, and goes
on when both are dead. The files it writes are the truth; what it sends to the doorbell is a hint.

Signals: TERM, INT and HUP to the shim itself are ignored (it inherits that from the spawner). They
come from somebody who ends "all processes"; the program gets its own copy, and the shim must live
to record how it ended.
"""

import os
import select
import time
from typing import Any

from handlers.shim.assignment import Assignment, StopOrder, claim_name
from handlers.shim.bell import Bell
from handlers.shim.files import Folder
from handlers.shim.hearing import Hearing
from handlers.shim.ladder import GIVE_UP_S, KILL_AGAIN_S, Step, StopLadder
from handlers.shim.launch import Launched, failure_sentence, launch
from handlers.shim.masking import Masking
from handlers.shim.notify import JobProgress, ProgressFile
from handlers.shim.output import ERR, OUT, OutputWriter
from handlers.shim.pipes import Pipes, now_ms
from handlers.shim.telling import Record
from handlers.shim.tree import Tree

PROGRESS_FAST_S = 0.25
PROGRESS_SLOWER = 4

RECORD_LAG_S = 0.1
"""`process.json` tells that the program runs a moment later than the doorbell does: for one that
has ended by then `exit.json` says it, and a file less is written and removed."""


def run_shim(work: Assignment, bell: Bell, boot: str, children: int) -> bool:
    """The execution has run, or somebody else decides about it; the record is on disk.

    `children` can be read when a child may have ended. True if nothing is left of the execution in
    this process, and whoever should know of the end has been told.
    """
    folder = Folder(work.folder)
    # The lock comes before the claim: a claim without a held lock then means a dead shim.
    if not folder.take_lock():
        return False
    claim = f"shim {os.getpid()} {boot}\n".encode()
    if not folder.create_claim(claim_name(work.generation), claim):
        return False
    is_sound = Shim(work, folder, bell, boot, children).run()
    folder.close()
    return is_sound


class Shim:
    """One execution from the claim to `exit.json`."""

    def __init__(
        self, work: Assignment, folder: Folder, bell: Bell, boot: str, children: int
    ) -> None:
        self.work = work
        self.folder = folder
        self.bell = bell
        bell.ring_at(work.bell)
        self.hearing = Hearing(work.socket)
        self.output = OutputWriter(folder, work.max_bytes)
        self.masking = (Masking(work.masks) or None) if work.masks else None
        self.progress_file = ProgressFile(folder, self.masking)
        self.tree = Tree(work.execution_id, work.cgroup)
        self.ladder = StopLadder()
        self.progress: JobProgress = {}
        self.error: str | None = None
        self.cause: str | None = None
        self.stop: StopOrder | None = None
        self.gave_up = False
        self._limits: dict[str, float] = {}
        self._look_at_s = 0.0
        self._record_at_s: float | None = None
        self._progress_wait_s = PROGRESS_FAST_S
        self._poll = select.poll()
        self.pipes = Pipes(self._poll, self.output, self.masking)
        self.record = Record(work.execution_id, boot, folder)
        self._launched: Launched | None = None
        self._child_ended = children
        self._poll.register(children, select.POLLIN)
        self._poll.register(self.hearing.descriptor, select.POLLIN)

    def run(self) -> bool:
        """Everything, in order; returns when the record is written, as `run_shim` says."""
        self._look_at_control()
        if self.cause is None:
            self._launch()
        if self._launched is not None:
            self._loop()
        return self._finish()

    # -- the beginning

    def _launch(self) -> None:
        work = self.work
        work.env["NOTIFY_SOCKET"] = self.hearing.address
        if work.watchdog_s:
            work.env["WATCHDOG_USEC"] = str(int(work.watchdog_s * 1_000_000))
        try:
            launched = launch(work, self.tree.fork)
        except OSError as error:
            self.error = self._masked(
                f"the system gave no process for {work.argv[0]!r}: {error.strerror}"
            )
            return
        self._launched = launched
        self.tree.take(launched.pid)
        self.record.take(launched.pid, self.tree, self.hearing.address)
        self.record.write(self._state())
        self.pipes.add(launched.out, OUT)
        self.pipes.add(launched.err, ERR)
        self._poll.register(launched.told, select.POLLIN)
        launched.release()

    def _exec_told(self, launched: Launched) -> None:
        """The barrier's other end was closed by the exec, or says why there was none."""
        told = os.read(launched.told, 4096)
        self._poll.unregister(launched.told)
        os.close(launched.told)
        if told:
            self.error = self._masked(failure_sentence(self.work, told))
            return
        self.record.started_ms = now_ms()
        now = time.monotonic()
        if self.work.timeout_s:
            self._limits["run_timeout"] = now + self.work.timeout_s
        if self.work.ready == "spawn":
            self._become_ready()
        elif self.work.ready.startswith("after_s:"):
            self._limits["ready"] = now + float(self.work.ready.partition(":")[2])
        if self.record.ready_ms is None and self.work.start_timeout_s:
            self._limits["start_timeout"] = now + self.work.start_timeout_s
        self._tell(RECORD_LAG_S)

    def _become_ready(self) -> None:
        if self.record.ready_ms is not None or self.record.started_ms is None:
            return
        self.record.ready_ms = now_ms()
        self._limits.pop("start_timeout", None)
        self._limits.pop("ready", None)
        self._feed_watchdog()
        self._tell(RECORD_LAG_S)

    # -- the life

    def _loop(self) -> None:
        while not self._is_over():
            self._turn(self._wait_ms())

    def _turn(self, wait_ms: int) -> None:
        events = self._poll.poll(wait_ms)
        launched = self._launched
        assert launched is not None
        for descriptor, _ in events:
            if descriptor in self.pipes:
                self._read_pipe(descriptor)
            elif descriptor == self._child_ended:
                os.read(self._child_ended, 512)
                self.tree.reap()
            elif descriptor == self.hearing.descriptor:
                self._hear()
            else:
                self._exec_told(launched)
        self.output.flush_index()
        self._pass_time(time.monotonic())

    def _wait_ms(self) -> int:
        now = time.monotonic()
        deadlines = [self._look_at_s, *self._limits.values()]
        deadlines.extend(
            at
            for at in (
                self.ladder.deadline_s,
                self.pipes.drain_until_s,
                self.bell.due_s,
                self._record_at_s,
            )
            if at
        )
        return max(0, int((min(deadlines) - now) * 1000) + 1)

    def _pass_time(self, now: float) -> None:
        if now >= self._look_at_s:
            self._look_at_control()
            self._look_at_progress(now)
        for name in [name for name, at in self._limits.items() if now >= at]:
            del self._limits[name]
            self._limit_struck(name)
        if self._record_at_s is not None and now >= self._record_at_s:
            self._record_at_s = None
            self.record.write(self._state())
        self._climb(now)
        self.pipes.drain(now, is_over=self.gave_up or self.tree.is_empty())
        self.bell.ring_if_due(now, self._state)

    def _is_over(self) -> bool:
        """The tree is gone (or given up on) and nobody can write to the pipes any more."""
        return (self.gave_up or self.tree.is_empty()) and not self.pipes

    def _limit_struck(self, name: str) -> None:
        if name == "ready":
            self._become_ready()
            return
        if self.tree.main_status is not None and self.work.leftover == "stop":
            return  # the program has ended by itself; its children are on the ladder already
        self._order(StopOrder(name, "system:limits", now_ms(), self.work.stop_grace_s))

    # -- what the program says

    def _read_pipe(self, descriptor: int) -> None:
        if not self.pipes.read(descriptor):
            return
        self.bell.news()
        if self._progress_wait_s > PROGRESS_FAST_S:  # it is busy, so it may tell progress, too
            self._progress_wait_s = PROGRESS_FAST_S
            self._look_at_s = min(self._look_at_s, time.monotonic() + PROGRESS_FAST_S)

    def _hear(self) -> None:
        for words in self.hearing.words(self.tree.owns):
            if "CONTROL" in words:
                self._look_at_control()
                self._look_at_progress(time.monotonic())
            else:
                self._heed(words)

    def _heed(self, words: dict[str, str]) -> None:
        now = time.monotonic()
        words = self._masked(words)
        if words.get("READY") == "1":
            self._become_ready()
        if words.get("WATCHDOG") == "1":
            self._feed_watchdog()
        elif words.get("WATCHDOG") == "trigger" and self.work.watchdog_s:
            self._limits["watchdog"] = now
        more = words.get("EXTEND_TIMEOUT_USEC", "")
        if more.isdecimal() and len(more) < 16:
            self._extend(now, int(more) / 1_000_000)
        said = self.hearing.progress_in(words)
        if said:
            self._make_progress({**self.progress, **said})

    def _extend(self, now: float, more_s: float) -> None:
        self.ladder.extend(now, more_s)
        for name in ("start_timeout", "run_timeout"):
            if name in self._limits:
                self._limits[name] = max(self._limits[name], now + more_s)

    def _feed_watchdog(self) -> None:
        if (
            self.work.watchdog_s
            and self.record.ready_ms is not None
            and not self.ladder.is_climbing
        ):
            self._limits["watchdog"] = time.monotonic() + self.work.watchdog_s

    def _look_at_progress(self, now: float) -> None:
        """Reads what was appended. Looks often only while the program keeps appending."""
        found = self.progress_file.read()
        if found is not None:
            self._make_progress(found)
            self._progress_wait_s = PROGRESS_FAST_S
        else:
            self._progress_wait_s = min(self._progress_wait_s * PROGRESS_SLOWER, self.work.look_s)
        self._look_at_s = now + self._progress_wait_s

    def _make_progress(self, progress: JobProgress) -> None:
        progress = self._masked(progress)
        if progress != self.progress:
            self.progress = progress
            self.bell.news()

    def _masked(self, content: Any) -> Any:
        """`content` without the secrets that this execution was given."""
        return content if self.masking is None else self.masking.tree(content)

    # -- stopping

    def _look_at_control(self) -> None:
        order = StopOrder.from_json(self.folder.read_json("control"))
        if order is not None and order != self.stop:
            self._order(order)

    def _order(self, order: StopOrder) -> None:
        """Begins the ladder, or brings its KILL nearer."""
        passed_s = max(0.0, (now_ms() - order.at_ms) / 1000)
        grace_s = max(0.0, order.grace_s - passed_s)
        self.ladder.order(time.monotonic(), grace_s, kill=order.kill)
        main_ended = self.tree.main_status is not None and self.work.leftover == "stop"
        if self.cause is None and not main_ended:
            self.cause = order.reason
        self.stop = order
        self._limits.clear()
        if self._launched is not None:
            self._tell()

    def _climb(self, now: float) -> None:
        if self.gave_up or self.tree.is_empty():
            self.ladder.deadline_s = None
            return
        main_alive = self.tree.main_status is None
        if not main_alive and not self.ladder.is_climbing and self.work.leftover == "stop":
            self.ladder.order(now, self.work.stop_grace_s)
            self._limits.clear()
        step = self.ladder.step(now, main_alive=main_alive)
        if step is Step.SIGNAL:
            self.tree.signal_main(self.work.stop_signal, whole_group=self.work.stop_to == "group")
        elif step is Step.SIGNAL_REST:
            self.tree.signal_all(self.work.stop_signal)
        elif step is Step.KILL:
            self.tree.kill()
        elif step is Step.GIVE_UP:
            self.gave_up = True

    # -- telling

    def _tell(self, lag_s: float = 0.0) -> None:
        """A new state is on its way to the service, and soon in `process.json`."""
        now = time.monotonic()
        if self._record_at_s is None or self._record_at_s > now + lag_s:
            self._record_at_s = now + lag_s
        self.bell.news(at_once=True)
        self.bell.ring_if_due(now, self._state)

    def _state(self) -> dict[str, Any]:
        return self.record.state(self.stop, self.progress, self.output.end)

    # -- the end

    def _finish(self) -> bool:
        self.hearing.close()
        self.output.flush_index()
        found = self.progress_file.read()
        if found is not None:
            self.progress = self._masked(found)
        survivors = self._sweep()
        self.output.close(now_ms())
        self.tree.dissolve()
        content = self.record.exit_content(
            self.tree,
            survivors=survivors,
            cause=self.cause,
            error=self.error,
            progress=self.progress,
            output_end=self.output.end,
        )
        self.record.write_exit(content)
        is_told = self.bell.ring_out({**self._state(), "exit": content})
        return is_told and self._launched is not None and not survivors

    def _sweep(self) -> list[int]:
        """Kills what left the tree and still carries the marker; returns what is alive after it."""
        give_up = time.monotonic() + GIVE_UP_S
        while True:
            survivors = self.tree.survivors(thorough=self.ladder.is_climbing)
            if not survivors or self.gave_up or time.monotonic() > give_up:
                return survivors
            self.tree.kill()
            time.sleep(KILL_AGAIN_S)
