"""The calls that decide what survives a crash: counted, broken or recorded below the functions.

Runs inside the service, its spawner and its shims, in tests only: `python -m tests.faults.seam PLAN
serve …` is `python -m jobbus serve …` with `os` wrapped. Only calls that touch a path below the
plan's root count. Stdlib only until `main`, for it is loaded into the lean spawner too.
"""

import base64
import fcntl
import json
import os
import shutil  # noqa: F401 - looks at os.open while it is imported, so that must be the real one
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parents[2]
WRITES = ("write", "pwrite")
SYNCS = ("fsync", "fdatasync", "syncfs")
SPAWNS = ("fork", "posix_spawn")
POISON_JOB = "P/Poison"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Plan(NamedTuple):
    """What happens below the root, in one process of one role.

    `at` is the number of the call, from 1 on; 0 never strikes. `action`: `kill` before the call,
    `torn` after half of a write, `after` the call was made, `freeze` before it until somebody kills
    the process, `fail` with `number` as errno, `record` all calls into the file `log`. With
    `calls`, only calls of these names count.
    `shim` is the number of the execution whose shim is meant, from 0 on: shims serve again. `hold`
    fails all later calls, too. The call that is struck is named in the file `mark`, which has to be
    a new one. `pause_s`, if not 0, is how long everybody rests who looks at the disk, or tries it,
    again and again. `poison` is where the service dies of each command of `POISON_JOB`: when its
    file is looked at (`look`), read (`read`) or was changed in Rejects (`repaired`), when it is
    decided (`decide`), or when its program is to be started (`spawn`).
    """

    root: str
    role: str = "service"
    at: int = 0
    action: str = "kill"
    number: int = 0
    calls: tuple[str, ...] = ()
    shim: int = 0
    hold: bool = False
    log: str = ""
    mark: str = ""
    boot: str = ""
    pause_s: float = 0.0
    poison: str = ""

    def encode(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def decode(cls, text: str) -> "Plan":
        content = json.loads(text)
        return cls(**{**content, "calls": tuple(content["calls"])})


class Real(NamedTuple):
    """The functions as they were."""

    fstat: Callable[[int], os.stat_result] = os.fstat
    open: Callable[..., int] = os.open
    write: Callable[..., int] = os.write
    pwrite: Callable[..., int] = os.pwrite
    fdopen: Callable[..., Any] = os.fdopen
    posix_spawn: Callable[..., int] = os.posix_spawn


REAL = Real()


class Seam:
    """The wrapped calls of one process; `role` changes when it forks."""

    def __init__(self, plan: Plan, role: str) -> None:
        self.plan = plan
        self.role = role
        self._pid = os.getpid()
        self._root = os.path.realpath(plan.root)
        self._count = 0
        self._execution = ""
        self._number = -1
        self._lock = threading.RLock()
        self._inside = threading.local()
        self._recorder = Recorder(plan.log) if plan.log else None

    def install(self) -> None:
        """From here on the calls of this process and of its forks go through the seam."""
        path_calls = ("unlink", "remove", "rmdir", "mkdir", "truncate")
        for name in (*path_calls, "open", "link", "rename", "replace"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        for name in (*WRITES, "fsync", "fdatasync", "ftruncate", "posix_fallocate"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        os.fork = self.forking(os.fork)
        os.posix_spawn = self._wrapped("posix_spawn", os.posix_spawn)
        os.fdopen = self._fdopen  # type: ignore[assignment]

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """One more call, which is not in `os`."""
        setattr(owner, attribute, self._wrapped(name, getattr(owner, attribute)))

    def note(self, **fields: object) -> None:
        """Something that happened stands in the record."""
        if self._recorder is not None:
            with self._lock, self._recorder.alone():
                self._recorder.write({"op": "note", **fields})

    # -- one call

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._pid != os.getpid() or getattr(self._inside, "busy", False):
                return real(*args, **kwargs)
            places = [] if name in SPAWNS else self._places(name, args, kwargs)
            if not places and name not in SPAWNS:
                return real(*args, **kwargs)
            return self._struck(name, real, places, args, kwargs)

        return call

    def _struck(
        self, name: str, real: Callable[..., Any], places: list[str], args: Any, kwargs: Any
    ) -> Any:
        if self._recorder is not None:
            return self._recorded(name, real, places, args, kwargs)
        if not self._is_hit(name, places):
            return real(*args, **kwargs)
        self._tell(f"{self.role} {name} {' '.join(places)}")
        if self.plan.action == "fail":
            raise OSError(self.plan.number, os.strerror(self.plan.number))
        if self.plan.action == "torn":
            data = bytes(args[1])
            real(args[0], data[: len(data) // 2], *args[2:])
        elif self.plan.action == "after":
            real(*args, **kwargs)
        elif self.plan.action == "freeze":
            freeze()
        return die()

    def _is_hit(self, name: str, places: list[str]) -> bool:
        plan = self.plan
        if self.role == plan.role == "shim":
            self._find_execution(places)
        if self.role != plan.role or (plan.calls and name not in plan.calls):
            return False
        if plan.action == "torn" and name not in WRITES:
            return False
        if self.role == "shim" and self._number != plan.shim:
            return False
        with self._lock:
            self._count += 1
            if plan.hold:
                return 0 < plan.at <= self._count
            # One blow is enough: a spawner that is started again reads the same plan.
            return self._count == plan.at and not os.path.exists(plan.mark)  # noqa: PTH110 - lean

    def _find_execution(self, places: list[str]) -> None:
        """Its number among all executions of this plan, when a call is the first in its folder."""
        folders = [path.partition("/JobOutput/")[2].partition("/")[0] for path in places]
        execution = next(filter(None, folders), self._execution)
        if execution == self._execution:
            return
        self._execution, self._number, self._count = execution, 0, 0
        while True:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            try:
                os.close(REAL.open(f"{self.plan.mark}.{self._number}", flags, 0o600))
            except FileExistsError:
                self._number += 1
            else:
                return

    def _tell(self, line: str) -> None:
        if self.plan.mark:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            descriptor = REAL.open(self.plan.mark, flags, 0o600)
            REAL.write(descriptor, line.encode() + b"\n")

    def _places(self, name: str, args: Any, kwargs: Any) -> list[str]:
        """The paths below the root that the call is about; none if it does not matter."""
        match name:
            case "open":
                flags = args[1] if len(args) > 1 else kwargs["flags"]
                found = [self._path(args[0], kwargs.get("dir_fd"))] if flags & _WRITING else []
            case "link" | "rename" | "replace":
                found = [
                    self._path(args[0], kwargs.get("src_dir_fd")),
                    self._path(args[1], kwargs.get("dst_dir_fd")),
                ]
            case "unlink" | "remove" | "rmdir" | "mkdir" | "truncate":
                found = [self._path(args[0], kwargs.get("dir_fd"))]
            case _:
                found = [_path_of(args[0])]
        inside = self._root + "/"
        return found if any((path + "/").startswith(inside) for path in found) else []

    def _path(self, path: Any, dir_fd: int | None) -> str:
        text = os.fsdecode(path)
        if not text.startswith("/"):
            text = (_path_of(dir_fd) if dir_fd is not None else os.getcwd()) + "/" + text  # noqa: PTH109
        return os.path.normpath(text)

    # -- recording

    def _recorded(
        self, name: str, real: Callable[..., Any], places: list[str], args: Any, kwargs: Any
    ) -> Any:
        """The call and its line are one step among all processes, so the lines show the order."""
        if name in SPAWNS:
            return real(*args, **kwargs)
        assert self._recorder is not None
        with self._lock, self._recorder.alone():
            self._inside.busy = True
            try:
                answer = real(*args, **kwargs)
                line: dict[str, Any] = {"op": name, "paths": places}
                if name in WRITES:
                    at = args[2] if name == "pwrite" else os.lseek(args[0], 0, 1) - answer
                    line |= {"at": at, "data": base64.b64encode(bytes(args[1])[:answer]).decode()}
                elif name in ("ftruncate", "truncate"):
                    line["size"] = args[1]
                elif name == "posix_fallocate":
                    line["size"] = args[1] + args[2]
                elif name == "open":
                    line["flags"] = args[1] if len(args) > 1 else kwargs["flags"]
                    line["inode"] = REAL.fstat(answer).st_ino
                self._recorder.write(line)
            finally:
                self._inside.busy = False
            return answer

    # -- processes

    def forking(self, real: Callable[[], int]) -> Callable[[], int]:
        """`real`, which forks; the child of a spawner is a shim."""

        def fork() -> int:
            hit = self._pid == os.getpid() and self._recorder is None and self._is_hit("fork", [])
            if hit:
                self._tell(f"{self.role} fork")
            if hit and self.plan.action == "kill":
                die()
            if hit and self.plan.action == "freeze":
                freeze()
            if hit and self.plan.action == "fail":
                raise OSError(self.plan.number, os.strerror(self.plan.number))
            pid = real()
            if pid == 0 and self.role == "spawner":
                self.role, self._pid, self._count = "shim", os.getpid(), 0
            elif pid and hit and self.plan.action == "after":
                die()
            return pid

        return fork

    def _fdopen(self, descriptor: int, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """Files that are written through Python's own buffer go by our `write` in the end."""
        if mode != "wb":
            return REAL.fdopen(descriptor, mode, *args, **kwargs)
        import io

        class Raw(io.RawIOBase):
            def writable(self) -> bool:
                return True

            def fileno(self) -> int:
                return descriptor

            def write(self, data: Any) -> int:
                return os.write(descriptor, bytes(data))

            def close(self) -> None:
                if not self.closed:
                    super().close()
                    os.close(descriptor)

        return io.BufferedWriter(Raw())


class Recorder:
    """A file of lines that several processes append to, one at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pid = 0
        self._descriptor = -1

    def alone(self) -> "Recorder":
        return self

    def __enter__(self) -> None:
        if self._pid != os.getpid():  # a lock is shared by the copies of one descriptor
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = REAL.open(self._path, flags, 0o600)
            self._pid = os.getpid()
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def write(self, line: dict[str, Any]) -> None:
        record = {**line, "pid": os.getpid(), "t": time.monotonic_ns()}
        REAL.write(self._descriptor, json.dumps(record).encode() + b"\n")


def freeze() -> None:
    """This process stands still until somebody kills it."""
    os.kill(os.getpid(), signal.SIGSTOP)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("no process outlives SIGKILL")


def _path_of(descriptor: Any) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - lean
    except OSError:
        return ""


def in_spawner(text: str) -> None:
    """The spawner and the shims that it forks go through the seam."""
    from handlers.shim import shim_record

    seam = Seam(Plan.decode(text), "spawner")
    seam.install()
    _take_over_clone(seam)
    _shorten(seam.plan, (shim_record, "EXIT_RETRY_S"))
    if seam.plan.log:
        _note_releases(seam)


def _take_over_clone(seam: Seam) -> None:
    """Where there are control groups, programs are not forked by `os`."""
    from handlers.shim import cgroup

    def fork_into(group: int) -> int:
        return seam.forking(lambda: real(group))()

    real = vars(cgroup)["fork_into"]
    vars(cgroup)["fork_into"] = fork_into


def _note_releases(seam: Seam) -> None:
    from handlers.shim.program_start import Launched

    release = Launched.release

    def noted(launched: Launched) -> None:
        seam.note(what="ran")
        release(launched)

    Launched.release = noted  # type: ignore[method-assign, assignment]


def main() -> None:
    """`serve` with the plan that is the first argument; as it is, if that is empty."""
    text = sys.argv.pop(1)
    from jobbus.cli.main import main as jobbus

    if text:
        _put_in(text)
    jobbus()


def _put_in(text: str) -> None:
    from bus import reserve
    from bus import reserve_spares as spares
    from handlers import disk_space as room
    from handlers import owner
    from handlers.journal import writer
    from handlers.supervision import execution_files, spawner_link
    from transports.directory import disk, projections, settled_files

    plan = Plan.decode(text)
    if plan.at or plan.log:
        for module in (
            reserve,
            spares,
        ):  # all are made alike: a sweep through more sees nothing new
            vars(module)["SPARES"] = 4

    spawner_link._START = (
        f"import sys; sys.path.append(sys.argv[1]); "
        f"from tests.faults import seam; seam.in_spawner({text!r}); "
        "from handlers.shim.spawner import main; main(int(sys.argv[2]))"
    )
    if plan.boot:
        vars(execution_files)["boot_id"] = lambda: plan.boot
    retries = (
        (owner, "NO_SPACE_RETRY_S"),
        (writer, "NO_SPACE_RETRY_S"),
        (projections, "RETRY_S"),
        (settled_files, "UNLINK_RETRY_S"),
    )
    _shorten(plan, (room, "LOOK_S"), *retries)
    if plan.poison:
        _die_of_poison(plan)
    seam = Seam(plan, "service")
    seam.install()
    seam.wrap(disk, "_syncfs", "syncfs")
    seam.wrap(spares, "_fallocate", "fallocate")


def _die_of_poison(plan: Plan) -> None:
    """The service kills itself at one point of handling, as a defect of ours or of the kernel's
    memory killer would end it."""
    from handlers import owner
    from handlers.supervision.supervisor import ProcessSupervisor
    from transports.directory.command_files import FileReader

    def deadly(owner: Any, name: str, is_poison: Callable[..., bool]) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if is_poison(*args):
                die()
            return real(*args, **kwargs)

        setattr(owner, name, call)

    def holds_poison(reader: Any, name: str, inside: int) -> bool:
        return POISON_JOB.encode() in Path(_path_of(inside), name).read_bytes()

    def asks_for_poison(_: Any, supervised: Any, *__: Any) -> bool:
        return bool(supervised.machine.execution.job_id == POISON_JOB)

    match plan.poison:
        case "look":
            deadly(FileReader, "sighting", holds_poison)
        case "read":
            deadly(FileReader, "envelope", holds_poison)
        case "repaired":
            deadly(FileReader, "repaired_name", holds_poison)
        case "decide":
            deadly(
                owner,
                "decide",
                lambda table, envelope, context: (
                    getattr(envelope.command, "job_id", None) == POISON_JOB
                ),
            )
        case "spawn":
            deadly(ProcessSupervisor, "_ask_spawner", asks_for_poison)
        case other:
            raise AssertionError(other)


def _shorten(plan: Plan, *pauses: tuple[ModuleType, str]) -> None:
    for module, name in pauses if plan.pause_s else ():
        assert name in vars(module)
        vars(module)[name] = plan.pause_s


if __name__ == "__main__":
    if sys.argv[1] == "fork_server":
        from tests.preforked_service import be_forked

        be_forked(int(sys.argv[2]))
    main()
