"""A control group of one execution, where the service may make one (cgroup v2). Stdlib only.

It is the surest way to know and to kill a whole tree: no process can leave it by forking, and
`cgroup.kill` reaches all of it at once. Without it the subreaper does the work.
"""

import contextlib
import os

from handlers.shim.kernel import fork_into
from handlers.shim.process_tree import read_small

FOLDER_PREFIX = "jobbus-"


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
        return self._write("cgroup.procs", str(pid))

    def kill(self) -> bool:
        """Every member got SIGKILL; False where the kernel has no `cgroup.kill` (before 5.14)."""
        return self._write("cgroup.kill", "1")

    def is_populated(self) -> bool:
        """Whether any process is left in the group or below it."""
        return self._read("cgroup.events").find("populated 1") >= 0

    def pids(self) -> set[int]:
        """All members, those of groups below included."""
        found: set[int] = set()
        for folder, _, _ in os.walk(self.folder):
            found.update(int(pid) for pid in self._read("cgroup.procs", folder).split())
        return found - {0}

    def oom_kills(self) -> int:
        """How many members the kernel killed for want of memory; 0 if that is not known."""
        for line in self._read("memory.events").splitlines():
            word, _, count = line.partition(" ")
            if word == "oom_kill":
                return int(count)
        return 0

    def remove(self) -> None:
        """The group and the empty ones below it are gone; one that is in use stays."""
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106 - lean start

    def _write(self, name: str, text: str) -> bool:
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

    def _read(self, name: str, folder: str | None = None) -> str:
        return read_small(f"{folder or self.folder}/{name}").decode()
