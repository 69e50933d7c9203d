"""The processes of one execution as their shim sees them: reaped, signalled, killed. Stdlib only.

As subreaper the shim gets every orphan of the tree as its own child, so "no children left" means
"the tree is empty", exactly and without a look at /proc. A control group says the same where there
is one. Session and marker find what left both.
"""

import contextlib
import errno
import os
import signal

from handlers.shim.cgroup import MEMORY, ControlGroup, GroupLimits
from handlers.shim.process_tree import (
    Process,
    all_marks,
    all_processes,
    carries,
    descendants,
    kill_all,
    members,
    process,
    read_small,
    send,
    strays_of,
)

PARENTS_MAX = 64


class Tree:
    """All that descends from the program.

    `_pid` and `main_ticks` are the program's process, set by `take`; `enclose` and `fork` set
    `_group`; `_is_limited` says that it keeps limits, `limits_memory` that of memory, too; `kill`
    sets `_killed`, `dissolve` `ooms`. The rest is written by `reap`: `_has_children`, the program's
    `main_status` and what all ended members used, which `dissolve` may learn better from the group;
    and `_beside`, the status of each process that was started beside the program, None until it has
    ended: `take_beside` adds it, `leave_beside` takes it out.
    """

    def __init__(self, execution_id: str, instance: str, cgroup_parent: str | None) -> None:
        self._execution_id = execution_id
        self._instance = instance
        self._cgroup_parent = cgroup_parent
        self._group: ControlGroup | None = None
        self._pid = 0
        self.main_ticks = 0
        self._has_children = False
        self._beside: dict[int, int | None] = {}
        self._is_limited = False
        self.limits_memory = False
        self._killed = False
        self.ooms = 0
        self.main_status: int | None = None
        self.cpu_s = 0.0
        self.memory_bytes_max = 0

    @property
    def level(self) -> str:
        """The surest level of containment that is in force."""
        return "subreaper" if self._group is None else "cgroup"

    @property
    def group_folder(self) -> str | None:
        return None if self._group is None else self._group.folder

    def fork(self) -> int:
        """As `os.fork`; the child is the program's process, in its group where there is one.

        Raises:
            OSError: the system gives no process.
        """
        group = self._group = self._group or self._new_group()
        if group is None:
            return os.fork()
        with contextlib.suppress(OSError):
            return group.fork()
        pid = os.fork()
        if pid and not group.add(pid):
            group.remove()
            self._group = None
            if self._is_limited:  # it is still in front of its barrier
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return pid

    def enclose(self, limits: GroupLimits) -> list[str]:
        """What is forked will be in a group that keeps these limits; those that it cannot keep, by
        the names of their files. Without a limit of its own, memory is left to the caller."""
        if limits == GroupLimits():
            return []
        self._group = self._new_group()
        if self._group is None:
            nothing = ("cpu.weight", limits.cpu_weight), ("pids.max", limits.pids)
            return [name for name, value in nothing if value is not None]
        lacking = self._group.limit(limits)
        self._is_limited = True
        self.limits_memory = limits.memory_bytes is not None and MEMORY not in lacking
        return [name for name in lacking if name != MEMORY]

    def _new_group(self) -> ControlGroup | None:
        if self._cgroup_parent is None:
            return None
        return ControlGroup.create(self._cgroup_parent, self._execution_id, self._instance)

    def take(self, pid: int) -> None:
        """`pid` is what `fork` returned, still in front of its barrier."""
        self._pid = pid
        self._has_children = True
        found = process(pid)
        self.main_ticks = 0 if found is None else found.ticks

    def fork_beside(self) -> int:
        """As `os.fork`; the child is a member, and not the program.

        Raises:
            OSError: the system gives no process.
        """
        if self._group is not None:
            with contextlib.suppress(OSError):
                return self._group.fork()
        pid = os.fork()
        if pid and self._group is not None:
            self._group.add(pid)
        return pid

    def take_beside(self, pid: int) -> None:
        """`pid` is what `fork_beside` returned, still in front of its barrier."""
        self._beside[pid] = None
        self._has_children = True

    def status_beside(self, pid: int) -> int | None:
        """How that process ended; None until it has."""
        return self._beside[pid]

    def leave_beside(self, pid: int) -> None:
        """That process has ended, and its number may be given to others."""
        del self._beside[pid]

    def kill_beside(self, pid: int, entry: bytes) -> None:
        """Nothing runs of what that process has started: its session, and what carries `entry`.

        Orphans of it are children of this process; without any there is nothing to look for.
        """
        if self._beside[pid] is not None and not self._has_orphans():
            return

        def find(table: dict[int, Process]) -> set[int]:
            below = descendants(table, [os.getpid()])
            found = {each for each in below if table[each].session == pid or carries(each, entry)}
            return found | descendants(table, found)

        kill_all(find)
        self.reap()

    def _has_orphans(self) -> bool:
        """Whether there may be children but the program."""
        own = os.getpid()
        children = read_small(f"/proc/{own}/task/{own}/children").split()
        alive = {int(child) for child in children} - {self._pid}
        return bool(alive) or (self._has_children and not children)

    def reap(self) -> None:
        """Every ended child is taken leave of; the program's own status is kept."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._has_children = False
                return
            if pid == 0:
                return
            if pid in self._beside:
                self._beside[pid] = status
                continue
            self.cpu_s += usage.ru_utime + usage.ru_stime
            self.memory_bytes_max = max(self.memory_bytes_max, usage.ru_maxrss * 1024)
            if pid == self._pid and self.main_status is None:
                self.main_status = status

    def is_empty(self) -> bool:
        """Nothing of the tree is alive, as far as subreaper and group show."""
        if self._has_children:
            return False
        return self._group is None or not self._group.is_populated()

    def owns(self, pid: int) -> bool | None:
        """Whether `pid` is of the tree; None if there is no such process any more."""
        found = process(pid)
        if found is None:
            return None
        if found.session == self._pid or (self._group and pid in self._group.pids()):
            return True
        own = os.getpid()
        for _ in range(PARENTS_MAX):
            if found is None or found.parent in (0, 1):
                return False
            if found.parent == own:
                return True
            found = process(found.parent)
        return False

    def signal_main(self, number: int, *, whole_group: bool) -> None:
        """The signal, then CONT so that a stopped process can act on it."""
        if self.main_status is not None:
            return
        for each in (number, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # Not reaped yet, so the pid cannot have been given to another process.
                os.killpg(self._pid, each) if whole_group else os.kill(self._pid, each)

    def signal_all(self, number: int) -> None:
        """The signal, then CONT, to each member that is left."""
        for each in self._members():
            send(each, number)
            send(each, signal.SIGCONT)

    def kill(self) -> None:
        """KILL went to all that can be found."""
        self._killed = True
        if self._group is not None:
            self._group.kill()
        # Also with a group: one that moved itself out of it, or was never in it, is found here.
        kill_all(self._find)
        self.reap()

    def survivors(self, *, thorough: bool) -> list[int]:
        """Pids that are still alive. `thorough` also looks for markers in the whole system."""
        self.reap()
        if self.is_empty() and not thorough:
            return []
        return sorted(each.pid for each in self._members())

    def exit_of_main(self) -> tuple[int | None, int | None]:
        """Exit code and signal of the program; one of them is None."""
        if self.main_status is None:
            return None, None
        code = os.waitstatus_to_exitcode(self.main_status)
        return (code, None) if code >= 0 else (None, -code)

    @property
    def core_dumped(self) -> bool:
        """Whether the system wrote an image of the program's memory at its end (core(5))."""
        return self.main_status is not None and os.WCOREDUMP(self.main_status)

    def oom_cause(self, number: int | None) -> str | None:
        """`oom` if the kernel killed the program for want of memory, as far as that is known."""
        return "oom" if number == signal.SIGKILL and not self._killed and self.ooms else None

    def dissolve(self) -> None:
        """The group is removed if it is empty."""
        if self._group is not None:
            self.ooms = self._group.oom_kills()
            # Its counters have also those that no parent of the tree took leave of.
            self.cpu_s = max(self.cpu_s, self._group.cpu_s())
            self.memory_bytes_max = self._group.memory_bytes_max() or self.memory_bytes_max
            self._group.remove()

    def _members(self) -> list[Process]:
        table = all_processes()
        found = self._find(table)
        if self._group is not None:
            found |= self._group.pids() & table.keys()
        return [table[pid] for pid in found]

    def _find(self, table: dict[int, Process]) -> set[int]:
        own = os.getpid()
        strays = strays_of(all_marks(table), self._execution_id, self._instance)
        leader = (self._pid, self.main_ticks)
        return members(table, roots=[own], leader=leader, strays=strays) - {own}
