"""The parent of one execution: starts it, watches it, limits it, ends it, and writes how it ended.

Stdlib only: it runs in a fork of the warm spawner, detached from it and from the service, and goes
on when both are dead. The files it writes are the truth; what it sends to the doorbell is a hint.

Signals: TERM, INT and HUP to the shim itself are ignored (it inherits that from the spawner). They
come from a person who ends "all processes"; the program gets its own copy, and the shim must live
to record how it ended.
"""

import os
import select
import time
from typing import Any

from handlers.shim.artifact_files import NAME as ARTIFACTS
from handlers.shim.artifact_files import collect
from handlers.shim.assignment import (
    CHECK,
    ORDER,
    PROBED_READINESS,
    READY_SEEN,
    Assignment,
    StopOrder,
)
from handlers.shim.cgroup import GroupLimits
from handlers.shim.check import Check
from handlers.shim.files import Folder, OwnFolder
from handlers.shim.limits import Limits
from handlers.shim.masking import Masking, masked
from handlers.shim.notify_socket import NotifySocket
from handlers.shim.output import ERR, OUT, OutputWriter
from handlers.shim.pipes import Pipes, now_ms
from handlers.shim.program_start import Launched, failure_sentence, launch, no_process_sentence
from handlers.shim.progress import Progress
from handlers.shim.result_file import read_result
from handlers.shim.shim_record import Record
from handlers.shim.state_sender import StateSender
from handlers.shim.stopping import Stopping
from handlers.shim.tree import Tree

START_LIMITS = ("start_timeout", "ready")
RUN_LIMITS = ("start_timeout", "run_timeout")

NUMBER_DIGITS_MAX = 19

RECORD_LAG_S = 0.1
"""`process.json` says so much later than the datagram that the program runs: of a program that has
ended by then `exit.json` says it, and a file less is written and removed."""

SOCKETS_S = 1.0
"""At most so often it is looked whether the sockets have their names."""


class Shim:
    """One execution from the claim to `exit.json`.

    Each part keeps its own state, as its class says. Of this class: `error` is why the program was
    not executed, `_launched` its child once there is one, `_record_at_s` when `process.json` is
    written next, None while it holds the newest state; `_files` is the folder of what the program
    writes, `_sockets_at_s` when the names of the
    sockets are looked at next.
    """

    def __init__(
        self, work: Assignment, folder: Folder, sender: StateSender, boot: str, children: int
    ) -> None:
        self.work = work
        self.folder = folder
        self.sender = sender
        sender.send_to(work.sockets)
        self.notify_socket = NotifySocket(work.sockets, sender.folder, work.execution_id)
        self.output = OutputWriter(folder, work.max_bytes)
        self.masking = (Masking(work.masks) or None) if work.masks else None
        self.error: str | None = None
        self._files = self._program_folder(folder)
        self.progress = Progress(self._files, self.masking, work.look_s, sender.changed)
        self.tree = Tree(work.execution_id, work.instance, work.cgroup)
        self.stopping = Stopping(work, self.tree)
        self.limits = Limits()
        self.record = Record(work, boot, folder)
        self._record_at_s: float | None = None
        self._sockets_at_s = 0.0
        self._launched: Launched | None = None
        self._child_ended = children
        self._poll = select.poll()
        self._poll.register(children, select.POLLIN)
        self._poll.register(self.notify_socket.descriptor, select.POLLIN)
        self.pipes = Pipes(self._poll, self.output, self.masking)
        self.check = Check(work, self.tree, self._poll, self.masking, self._report_check)

    def _program_folder(self, folder: Folder) -> Folder | OwnFolder:
        """Where the program may write; it reaches that and its socket, whatever its account."""
        account = self.work.account
        if account is None:
            return folder
        try:
            self.notify_socket.let_in(account)
            return OwnFolder(folder, account)
        except OSError as error:
            reason = f"its files could not be given to the account {account.name}"
            self.error = f"{self.work.argv[0]!r}: {reason}: {os.strerror(error.errno or 0)}"
            return folder

    def run(self) -> bool:
        """Everything, in order; returns when the record is written, as `run_shim` says."""
        self._look_at_control()
        if self.stopping.cause is None:
            self._launch()
        self.folder.settle_claim()
        if self._launched is not None:
            self._loop()
        return self._finish()

    # -- the beginning

    def _launch(self) -> None:
        work = self.work
        self._files.make_folder(ARTIFACTS)
        work.env["NOTIFY_SOCKET"] = self.notify_socket.address
        if work.watchdog_s:
            work.env["WATCHDOG_USEC"] = str(int(work.watchdog_s * 1_000_000))
        if self.error is not None:
            return
        lacking = self.tree.enclose(GroupLimits(work.memory_bytes, work.cpu_weight, work.pids))
        if lacking:
            self.error = (
                f"the program {work.argv[0]!r} was not started: its control group cannot keep "
                f"{' and '.join(lacking)}; give the service a group with these controllers"
            )
            return
        if self.tree.limits_memory:
            work = work._replace(memory_bytes=None)
        try:
            launched = launch(work, self.tree.fork)
        except OSError as error:
            reason = (
                f"the system gave no process for {work.argv[0]!r}: {no_process_sentence(error)}"
            )
            self.error = masked(self.masking, reason)
            return
        self._launched = launched
        self.tree.take(launched.pid)
        self.record.take(launched.pid, self.tree, self.notify_socket.address)
        self.record.write(self._state())
        self.pipes.add(launched.out, OUT)
        self.pipes.add(launched.err, ERR)
        self._poll.register(launched.failure, select.POLLIN)
        # Last, so that the child gets ready for its exec while the disk is waited for.
        self.folder.settle_claim()
        launched.release()

    def _executed(self, launched: Launched) -> None:
        """The barrier's other end was closed by the exec, or says why there was none."""
        failure = os.read(launched.failure, 4096)
        self._poll.unregister(launched.failure)
        os.close(launched.failure)
        if failure:
            self.error = masked(self.masking, failure_sentence(self.work, failure))
            return
        self.record.started_ms = now_ms()
        now = time.monotonic()
        if self.work.timeout_s:
            self.limits.set("run_timeout", now + self.work.timeout_s)
        if self.work.ready == "spawn":
            self._become_ready()
        elif self.work.ready.startswith("after_s:"):
            self.limits.set("ready", now + float(self.work.ready.partition(":")[2]))
        if self.record.ready_ms is None and self.work.start_timeout_s:
            self.limits.set("start_timeout", now + self.work.start_timeout_s)
        self._changed(RECORD_LAG_S)

    def _become_ready(self) -> None:
        if self.record.ready_ms is not None or self.record.started_ms is None:
            return
        self.record.ready_ms = now_ms()
        self.limits.lift(START_LIMITS)
        self._feed_watchdog()
        self._changed(RECORD_LAG_S)

    # -- the life

    def _loop(self) -> None:
        # Until the tree is gone (or given up on) and no process can write to the pipes any more.
        while self.pipes or not self.stopping.is_over:
            self._turn(self._wait_ms())

    def _turn(self, wait_ms: int) -> None:
        events = self._poll.poll(wait_ms)
        launched = self._launched
        assert launched is not None
        for descriptor, _ in events:
            if descriptor in self.pipes:
                self._read_pipe(descriptor)
            elif descriptor in self.check:
                self.check.read(descriptor)
            elif descriptor == self._child_ended:
                os.read(self._child_ended, 512)
                self.tree.reap()
            elif descriptor == self.notify_socket.descriptor:
                self._receive()
            else:
                self._executed(launched)
        self.output.flush_index()
        self._pass_time(time.monotonic())

    def _wait_ms(self) -> int:
        due_s = self.progress.look_at_s
        for at_s in (
            self.limits.next_s,
            self.stopping.deadline_s,
            self.pipes.drain_until_s,
            self.check.deadline_s,
            self.sender.due_s,
            self._record_at_s,
        ):
            if at_s is not None and at_s < due_s:
                due_s = at_s
        return max(0, int((due_s - time.monotonic()) * 1000) + 1)

    def _pass_time(self, now: float) -> None:
        if now >= self.progress.look_at_s:
            self._look_at_control()
            self.progress.look(now)
            if now >= self._sockets_at_s:
                self._look_at_sockets()
        for name in self.limits.take_struck(now):
            self._limit_struck(name)
        if self._record_at_s is not None and now >= self._record_at_s:
            self._record_at_s = None
            self.record.write(self._state())
        if self.stopping.has_ended_by_itself:
            self.limits.lift_all()
        self.check.pass_time(now, is_over=not self._is_checked)
        self.stopping.climb(now)
        self.pipes.drain(now, is_over=self.stopping.is_over)
        self.sender.send_if_due(now, self._state)

    def _limit_struck(self, name: str) -> None:
        if name == "ready":
            self._become_ready()
        elif name == "watchdog" and self._look_at_sockets():
            self._feed_watchdog()  # its words had no way to us
        elif not self.stopping.has_ended_by_itself:
            self._obey(StopOrder(name, "system:limits", now_ms(), self.work.stop_grace_s))

    def _look_at_sockets(self) -> bool:
        """Whether the program's socket had lost its name, and has it again: the folder may have
        been removed. In a data directory that took the place of ours we make no names."""
        self._sockets_at_s = time.monotonic() + SOCKETS_S
        self.sender.look(is_in_place=self.folder.is_in_place)
        return self.notify_socket.bind_again()

    # -- what the program says

    def _read_pipe(self, descriptor: int) -> None:
        if self.pipes.read(descriptor):
            self.sender.changed()
            self.progress.expect(time.monotonic())

    def _receive(self) -> None:
        for words in self.notify_socket.received(self.tree.owns):
            if "CONTROL" in words:
                self._look_at_control()
                self._take(StopOrder.from_text(words.get(ORDER, "")))
                if words.get(READY_SEEN) == "1":
                    self._become_ready()
                number = words.get(CHECK, "")
                if self._is_checked and number.isdecimal() and len(number) < NUMBER_DIGITS_MAX:
                    self.check.begin(int(number))
                self.progress.look(time.monotonic())
            else:
                self._take_message(masked(self.masking, words))

    def _take_message(self, words: dict[str, str]) -> None:
        now = time.monotonic()
        if words.get("READY") == "1" and self.work.ready != PROBED_READINESS:
            self._become_ready()
        if self.record.ready_ms is not None and ("RELOADING" in words or "READY" in words):
            # `RELOADING=1`, and `READY=1` when that is done (sd_notify(3)).
            self.progress.reload(is_reloading=words.get("READY") != "1")
        if words.get("WATCHDOG") == "1":
            self._feed_watchdog()
        elif words.get("WATCHDOG") == "trigger" and self.work.watchdog_s:
            self.limits.set("watchdog", now)
        more = words.get("EXTEND_TIMEOUT_USEC", "")
        if more.isdecimal() and len(more) < 16:
            more_s = int(more) / 1_000_000
            self.stopping.extend(now, more_s)
            self.limits.extend(RUN_LIMITS, now + more_s)
        self.progress.take(words)

    def _feed_watchdog(self) -> None:
        is_ready = self.record.ready_ms is not None
        if self.work.watchdog_s and is_ready and not self.stopping.is_climbing:
            self.limits.set("watchdog", time.monotonic() + self.work.watchdog_s)

    # -- checks

    @property
    def _is_checked(self) -> bool:
        """Whether it is of interest if the program is well: it is ready, and not to end."""
        is_up = self.record.ready_ms is not None and self.tree.main_status is None
        return is_up and self.stopping.order is None

    def _report_check(self) -> None:
        """The result goes to the service alone; one that is lost is replaced by the next."""
        now = time.monotonic()
        self.sender.changed(at_once=True)
        self.sender.send_if_due(now, self._state)

    # -- orders

    def _look_at_control(self) -> None:
        self._take(StopOrder.from_json(self.folder.read_json("control")))

    def _take(self, order: StopOrder | None) -> None:
        if order is not None and order != self.stopping.order:
            self._obey(order)

    def _obey(self, order: StopOrder) -> None:
        self.stopping.obey(order)
        self.limits.lift_all()
        if self._launched is not None:
            # On record before the first signal: if we die in between, it is known why.
            self.record.write(self._state())
            self._changed()
            self._record_at_s = None

    # -- the state

    def _changed(self, lag_s: float = 0.0) -> None:
        """A new state is on its way to the service, and soon in `process.json`."""
        now = time.monotonic()
        if self._record_at_s is None or self._record_at_s > now + lag_s:
            self._record_at_s = now + lag_s
        self.sender.changed(at_once=True)
        self.sender.send_if_due(now, self._state)

    def _state(self) -> dict[str, Any]:
        state = self.record.state(self.stopping.order, self.progress.newest, self.output.end)
        return state if self.check.result is None else {**state, "check": self.check.result}

    # -- the end

    def _finish(self) -> bool:
        self.output.flush_index()
        survivors = self.stopping.sweep()
        # Nothing of the program is left, so these are its last words.
        for words in self.notify_socket.received(self.tree.owns):
            if "CONTROL" not in words:
                self._take_message(masked(self.masking, words))
        self.notify_socket.close()
        self.check.close()
        self.progress.look(time.monotonic(), is_last=True)
        self.output.close(now_ms())
        self.tree.dissolve()
        content = self.record.exit_content(
            self.tree,
            survivors=survivors,
            cause=self.stopping.cause,
            error=self.error,
            progress=self.progress.newest,
            output_end=self.output.end,
            result=read_result(self._files, self.masking),
            left=collect(
                self.folder,
                self._files,
                self.work.artifact_files_max,
                self.work.artifact_bytes_max,
            ),
        )
        last = {**self._state(), "exit": content}
        is_sent = self.record.write_exit(content, lambda: self.sender.send_last(last))
        return is_sent and self._launched is not None and not survivors
