"""A system that lacks something: for one service, from outside of it, and given back.

Nothing here touches a limit that others live under: descriptors and memory are limits of the
process, processes and threads of a control group of its own, inotify of a user namespace of its
own.
"""

import os
import resource
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.counterparts import missing, needs

GROUPS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


@contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """The process has this limit (`resource.RLIMIT_…`) inside the block."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, what, before)


@contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """It can open nothing more; what is open stays so, and what it closes it may open again."""
    taken = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    lowest = next(number for number in range(len(taken) + 1) if number not in taken)
    with limited(pid, resource.RLIMIT_NOFILE, lowest):
        yield


@contextmanager
def without_memory(pid: int, more_bytes: int = 0) -> Iterator[None]:
    """It gets no more address space than it has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    with limited(pid, resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + more_bytes):
        yield


class ProcessGroup:
    """A control group that counts processes and threads; it is removed after the block."""

    def __init__(self) -> None:
        parent = next((each for each in GROUPS if _counts(each)), None)
        if parent is None:
            missing("no control group of this machine counts processes")
        self.path = parent / f"jobbus-test-{secrets.token_hex(4)}"

    def __enter__(self) -> "ProcessGroup":
        try:
            self.path.mkdir()
        except OSError as error:
            missing(f"no control group may be made here: {error.strerror}")
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()
        for pid in (self.path / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (self.path.parent / "cgroup.procs").write_text(pid)
        for _attempt in range(
            100
        ):  # those that were moved, or have died, leave it in their own time
            with suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.05)

    def take(self, *pids: int) -> None:
        """These belong to it from now on, and what they make."""
        for pid in pids:
            (self.path / "cgroup.procs").write_text(str(pid))

    def allow(self, most: int) -> None:
        (self.path / "pids.max").write_text(str(most))

    def give_no_more(self) -> None:
        """Nothing in it can make a process or a thread."""
        self.allow(int((self.path / "pids.current").read_text()))

    def give_back(self) -> None:
        (self.path / "pids.max").write_text("max")


def in_own_namespace(instances: int | None, watches: int | None) -> list[str]:
    """The beginning of a command line: the rest runs where so many inotify instances and watches
    may be had. See `Namespace` to change that while it runs."""
    sets = [
        f"echo {most} > /proc/sys/user/max_inotify_{name}"
        for name, most in (("instances", instances), ("watches", watches))
        if most is not None
    ]
    script = " && ".join([*sets, 'exec "$@"'])
    return [needs("unshare"), "--user", "--map-root-user", "sh", "-c", script, "-"]


def set_inotify(pid: int, name: str, most: int) -> None:
    """The namespace of the process has this limit from now on."""
    command = [needs("nsenter"), "--target", str(pid), "--user", "sh", "-c"]
    _run([*command, f"echo {most} > /proc/sys/user/max_inotify_{name}"])


def _run(command: Sequence[str]) -> None:
    import subprocess

    subprocess.run(command, check=True)


def _counts(parent: Path) -> bool:
    if (parent / "cgroup.subtree_control").is_file():
        return "pids" in (parent / "cgroup.subtree_control").read_text().split()
    return parent.name == "pids" and (parent / "cgroup.procs").is_file()


PYTHON = sys.executable
