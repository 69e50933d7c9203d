"""A control group of one execution, where the service may make one (cgroup v2). Stdlib only.

It is the surest way to know and to kill a whole tree: no process can leave it by forking, and
`cgroup.kill` reaches all of it at once. Without it the subreaper does the work.
"""

import contextlib
import os
from typing import NamedTuple

from handlers.shim.kernel import fork_into
from handlers.shim.process_tree import read_small

FOLDER_PREFIX = "jobbus-"


MEMORY = "memory.max"
"""The file of the limit that processes can be given one by one, too, where no group keeps it."""

CONTROLLERS = frozenset(("cpu", "memory", "pids"))
"""What limits are kept by."""


class Delegation(NamedTuple):
    """Where groups may be made, None: nowhere, and which controllers they have there."""

    folder: str | None
    controllers: frozenset[str]


class GroupLimits(NamedTuple):
    """What the members of a group may use together."""

    memory_bytes: int | None = None
    cpu_weight: int | None = None
    pids: int | None = None


def delegation() -> Delegation:
    """What this process may do with groups. Controllers are turned on where that is possible.

    It is not in a folder that holds processes itself, as that of a unit does: with
    `DelegateSubgroup=` systemd puts them one level below what it has delegated.
    """
    own = own_group()
    if own is None:
        return Delegation(None, frozenset())
    above = os.path.dirname(own)  # noqa: PTH120 - lean start
    folder = above if _is_delegated(above) and os.access(above, os.W_OK) else own
    group = ControlGroup(folder)
    there = CONTROLLERS.intersection(group.read("cgroup.controllers").split())
    on = there.intersection(group.read("cgroup.subtree_control").split())
    turned_on = {each for each in there - on if group.write("cgroup.subtree_control", f"+{each}")}
    return Delegation(folder, on | turned_on)


def _is_delegated(folder: str) -> bool:
    """Whether systemd has marked it as left to its unit (systemd.resource-control(5))."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def own_group() -> str | None:
    """The folder of this process's group if groups may be made in it, e.g. with `Delegate=yes`."""
    mount = _mount_point()
    for line in read_small("/proc/self/cgroup").decode().splitlines():
        if mount is not None and line.startswith("0::/"):
            folder = os.path.normpath(mount + line[3:])
            return folder if os.access(folder, os.W_OK) else None
    return None


def _mount_point() -> str | None:
    for line in read_small("/proc/self/mounts").decode().splitlines():
        fields = line.split(" ")
        if fields[2] == "cgroup2":
            return fields[1]
    return None


class ControlGroup:
    """One folder below the service's own group."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @classmethod
    def create(cls, parent: str, execution_id: str, instance: str) -> "ControlGroup | None":
        """A new, empty group; None where the system refuses.

        A copy of the data directory may start an execution of the same id beside this one.
        """
        folder = f"{parent}/{FOLDER_PREFIX}{execution_id}-{instance}"
        try:
            os.mkdir(folder, 0o755)  # noqa: PTH102 - lean start
        except FileExistsError:
            pass  # left by a shim that died before its program ran
        except OSError:
            return None
        return cls(folder)

    def fork(self) -> int:
        """As `os.fork`; the child and what it will fork are in the group.

        Raises:
            OSError: there is no way into the group, or no process; nothing was forked.
        """
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return fork_into(descriptor)
        finally:
            os.close(descriptor)

    def add(self, pid: int) -> bool:
        """The process and what it will fork are in the group."""
        return self.write("cgroup.procs", str(pid))

    def kill(self) -> bool:
        """Every member got SIGKILL; False where the kernel has no `cgroup.kill` (before 5.14)."""
        return self.write("cgroup.kill", "1")

    def is_populated(self) -> bool:
        """Whether any process is left in the group or below it."""
        return self.read("cgroup.events").find("populated 1") >= 0

    def pids(self) -> set[int]:
        """All members, those of groups below included."""
        found: set[int] = set()
        for folder, _, _ in os.walk(self.folder):
            found.update(int(pid) for pid in self.read("cgroup.procs", folder).split())
        return found - {0}

    def oom_kills(self) -> int:
        """How many members the kernel killed for want of memory; 0 if that is not known."""
        return self._counter("memory.events", "oom_kill")

    def cpu_s(self) -> float:
        """Processor time of all that ever was in the group; 0 if that is not known."""
        return self._counter("cpu.stat", "usage_usec") / 1_000_000

    def memory_bytes_max(self) -> int:
        """The most that its members held together; 0 if that is not known (before 5.19)."""
        peak = self.read("memory.peak").strip()
        return int(peak) if peak.isdecimal() else 0

    def remove(self) -> None:
        """The group and the empty ones below it are gone; one that is in use stays."""
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106 - lean start

    def _counter(self, name: str, word: str) -> int:
        for line in self.read(name).splitlines():
            found, _, count = line.partition(" ")
            if found == word:
                return int(count)
        return 0

    def limit(self, limits: GroupLimits) -> list[str]:
        """The members may use no more together; the files of those that could not be set."""
        wanted = (
            (MEMORY, limits.memory_bytes),
            ("cpu.weight", limits.cpu_weight),
            ("pids.max", limits.pids),
        )
        return [
            name for name, value in wanted if value is not None and not self.write(name, str(value))
        ]

    def write(self, name: str, text: str) -> bool:
        """Whether the kernel has taken it."""
        try:
            descriptor = os.open(f"{self.folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.write(descriptor, text.encode())
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def read(self, name: str, folder: str | None = None) -> str:
        """What a file of the group holds; empty if there is none."""
        return read_small(f"{folder or self.folder}/{name}").decode()
