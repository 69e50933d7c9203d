"""A shim's life in its process: takes an execution, sees it through, takes the next. Stdlib only.

It goes on with the one it has when spawner and service are dead, and ends after it.
"""

import contextlib
import json
import os
import signal

from handlers.shim.assignment import FORMAT, Assignment, ShimAccount, claim_name
from handlers.shim.files import NO_ROOM, Folder
from handlers.shim.kernel import become_subreaper
from handlers.shim.pipes import now_ms
from handlers.shim.pool import FREE, LENGTH
from handlers.shim.process_title import show_title, title_of_shim
from handlers.shim.shim import Shim
from handlers.shim.state_sender import StateSender

RUNS_MAX = 200
"""Memory in pieces, a number that was never given back: nothing gets old enough to matter."""

WORK_BYTES_MAX = 65_536
"""After a larger assignment a shim would keep more memory than a fresh one needs."""


class Serving:
    """What all shims of one spawner share. `group` is the control group that theirs are made in."""

    def __init__(self, sender: StateSender, boot: str, group: str | None) -> None:
        self._sender = sender
        self._boot = boot
        self._group = group

    def run(self, line: int) -> None:
        """Returns when the spawner has gone, or this process should not be used again."""
        become_subreaper()
        children = _watch_children()
        for _ in range(RUNS_MAX):
            show_title("jobbus: shim (waiting)")
            content = _take(line)
            if content is None or not self._see_through(content, children):
                return
            del content
            try:
                os.write(line, FREE)
            except OSError:
                return

    def _see_through(self, content: bytes, children: int) -> bool:
        """Whether this process may see another execution through."""
        fields = json.loads(content)
        if fields["cgroup"] == "":
            fields["cgroup"] = self._group
        if fields["account"] is not None:
            fields["account"] = ShimAccount(*fields["account"])
        work = Assignment(**fields)
        show_title(title_of_shim(work.job_id, work.execution_id))
        try:
            is_sound = run_shim(work, self._sender, self._boot, children)
        except Exception:  # nothing else can come: signals are caught, and no code here exits
            _record_crash(work.folder)
            raise
        # A shim that was given secrets forgets them by ending.
        return is_sound and not work.masks and len(content) <= WORK_BYTES_MAX


def run_shim(work: Assignment, sender: StateSender, boot: str, children: int) -> bool:
    """The execution has run, or another process decides about it; the record is on disk.

    `children` can be read when a child may have ended. True if nothing is left of the execution in
    this process, and its end was sent to the service.
    """
    try:
        folder = _claimed(work, boot)
        if folder is None:
            return False
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _report_no_room(work, sender, boot)
        return False
    is_sound = Shim(work, folder, sender, boot, children).run()
    folder.close()
    return is_sound


def _claimed(work: Assignment, boot: str) -> Folder | None:
    """The folder with the lock, room for the record of the end, and the claim; None if another
    process has it.

    Raises:
        OSError: there is no room for all of that; then there is no claim.
    """
    folder = Folder(work.folder)
    # The lock comes before the claim: a claim without a held lock then means a dead shim.
    if not folder.take_lock():
        return None
    claim = f"shim {os.getpid()} {folder.mark} {boot}\n".encode()
    try:
        folder.hold_room()
        if folder.create_claim(claim_name(work.generation), claim):
            return folder
    except OSError:
        folder.drop_room()
        raise
    folder.drop_room()
    return None


def _report_no_room(work: Assignment, sender: StateSender, boot: str) -> None:
    """A start that finds a full disk has failed, and can be made again. Nothing of it ran, and
    without a claim nothing is left to run: if this is not received, the next recovery starts it."""
    about = {"version": FORMAT, "execution": work.execution_id}
    error = "there is no room on the disk for the files of the execution"
    end = {**about, "ended_ms": now_ms(), "error": error}
    sender.send_to(work.sockets)
    sender.send_last({**about, "shim": os.getpid(), "boot": boot, "exit": end})


def _watch_children() -> int:
    """A descriptor that can be read when a child may have ended."""
    ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    return ended


def _take(line: int) -> bytes | None:
    """The next assignment; None if none will come."""
    head = _read(line, LENGTH.size)
    return None if head is None else _read(line, LENGTH.unpack(head)[0])


def _read(line: int, size: int) -> bytes | None:
    parts = []
    while size:
        try:
            part = os.read(line, size)
        except OSError:
            return None
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _record_crash(folder: str) -> None:
    """What killed the shim stands beside its files; there is no terminal to print it on."""
    import traceback  # no shim needs it, so none carries it

    with contextlib.suppress(OSError):
        descriptor = os.open(f"{folder}/shim.crash", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, traceback.format_exc().encode())
