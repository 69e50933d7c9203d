"""Who is alive below whom: reading /proc, and signals that cannot hit a reused pid. Stdlib only.

A pid alone names no process: it always goes with the start ticks (and across a service start with
the boot id). Zombies do not count as alive.
"""

import os
import signal
from collections.abc import Callable, Iterable
from typing import NamedTuple

MARKER_NAME = b"JOBBUS_EXECUTION_ID="
INSTANCE_NAME = b"JOBBUS_INSTANCE="
ENVIRONMENT_BYTES_MAX = 8 << 20
"""More than the kernel lets a program be started with, which is 6 MiB with its arguments."""
SMALL_BYTES_MAX = 65_536


class Process(NamedTuple):
    """One line of the process table. `ticks` is the start time in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    session: int
    ticks: int


def boot_id() -> str:
    """Differs after each start of the machine; empty where the system has no such thing."""
    return read_small("/proc/sys/kernel/random/boot_id").decode().strip()


def read_small(path: str) -> bytes:
    """What a file of /proc or /sys holds, up to 64 KiB; empty if it cannot be read.

    By descriptor, since `open` and pathlib would copy hundreds of shared pages in each shim.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, SMALL_BYTES_MAX)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def process(pid: int) -> Process | None:
    """The process that has `pid` now, also a zombie."""
    text = read_small(f"/proc/{pid}/stat")
    if not text:
        return None
    # The name may hold blanks and parentheses; the last one closes it (proc(5)).
    fields = text[text.rfind(b")") + 2 :].split()
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def is_alive(pid: int, ticks: int) -> bool:
    """Whether exactly that process still runs."""
    found = process(pid)
    return found is not None and found.ticks == ticks and found.state not in "ZX"


def all_processes() -> dict[int, Process]:
    """All living processes by pid, at one moment as far as /proc can give it."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {each.pid: each for each in found if each is not None and each.state not in "ZX"}


def descendants(table: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """The pids below `roots`, without the roots themselves."""
    children: dict[int, list[int]] = {}
    for each in table.values():
        children.setdefault(each.parent, []).append(each.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


class Marks(NamedTuple):
    """What the environment of a process says of the execution it belongs to.

    A name may stand there more than once, and each program decides which of them it passes on: so
    every occurrence counts. `instances` is empty for what was started before that was said.
    """

    executions: frozenset[str]
    instances: frozenset[str]

    def are_of(self, execution_id: str, instance: str) -> bool:
        """Whether they are those of the execution in that data directory; a copy of it has another
        instance, and executions of the same ids. An empty `instance` is not compared."""
        if execution_id not in self.executions:
            return False
        return not instance or not self.instances or instance in self.instances


NO_MARKS = Marks(frozenset(), frozenset())


def marks_of(pid: int) -> Marks:
    """The marks that the process was started with, as far as they may be read."""
    environment = _environment(pid)
    if MARKER_NAME not in environment:
        return NO_MARKS
    executions, instances = set(), set()
    # An entry ends with a NUL and with nothing else: what a value holds is no entry (environ(7)).
    for entry in environment.split(b"\0"):
        if entry.startswith(MARKER_NAME):
            executions.add(entry[len(MARKER_NAME) :].decode("ascii", "replace"))
        elif entry.startswith(INSTANCE_NAME):
            instances.add(entry[len(INSTANCE_NAME) :].decode("ascii", "replace"))
    return Marks(frozenset(executions), frozenset(instances))


def carries(pid: int, entry: bytes) -> bool:
    """Whether `NAME=value` stands in the environment that the process was started with."""
    return entry in _environment(pid).split(b"\0")


def _environment(pid: int) -> bytes:
    try:
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    parts: list[bytes] = []
    size = 0
    try:
        while size < ENVIRONMENT_BYTES_MAX:
            part = os.read(descriptor, SMALL_BYTES_MAX)
            if not part:
                break
            parts.append(part)
            size += len(part)
    except OSError:
        return b"".join(parts)
    finally:
        os.close(descriptor)
    return b"".join(parts)


def all_marks(table: dict[int, Process]) -> dict[int, Marks]:
    """The marks of all processes that carry an execution's, by pid."""
    found = ((pid, marks_of(pid)) for pid in table)
    return {pid: marks for pid, marks in found if marks.executions}


def strays_of(marks: dict[int, Marks], execution_id: str, instance: str) -> set[int]:
    """The pids that carry the marks of that execution."""
    return {pid for pid, each in marks.items() if each.are_of(execution_id, instance)}


def members(
    table: dict[int, Process],
    *,
    roots: Iterable[int] = (),
    leader: tuple[int, int] = (0, 0),
    strays: Iterable[int] = (),
) -> set[int]:
    """All that belong to one execution: below `roots`, in its session, `strays`, and below those.

    `leader` is pid and start ticks of the session's leader, which is the program. Its session
    counts only while the leader lives: afterwards the number may belong to others. What is older
    than the program is not of its tree, whatever marks it carries.
    """
    session, ticks = leader
    found = descendants(table, roots)
    found |= {pid for pid in strays if pid in table and table[pid].ticks >= ticks}
    if session in table and table[session].ticks == ticks:
        found.update(each.pid for each in table.values() if each.session == session)
    return found | descendants(table, found)


def send(target: Process, number: int) -> bool:
    """The signal went to exactly that process; False if it is gone or not ours to signal."""
    try:
        descriptor = os.pidfd_open(target.pid)
    except OSError:
        return False
    try:
        now = process(target.pid)
        if now is None or now.ticks != target.ticks:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


FindMembers = Callable[[dict[int, Process]], set[int]]
"""Which pids of a process table belong to one execution."""

KILL_ROUNDS = 20
"""How often a tree that grows while it is stopped is looked at again before the KILL."""


def kill_all(find: FindMembers) -> None:
    """KILL for everything `find` returns, stopped first so that none forks away meanwhile."""
    stopped: set[tuple[int, int]] = set()
    for _ in range(KILL_ROUNDS):
        table = all_processes()
        fresh = [table[pid] for pid in find(table) if (pid, table[pid].ticks) not in stopped]
        if not fresh:
            break
        for each in fresh:
            send(each, signal.SIGSTOP)
            stopped.add((each.pid, each.ticks))
    table = all_processes()
    for pid in find(table):
        send(table[pid], signal.SIGKILL)
