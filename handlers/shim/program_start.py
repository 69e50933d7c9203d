"""From an assignment to a program behind a barrier, and the sentence if it could not be executed.

Stdlib only. The child waits for the barrier so that its pids are on record, and it is in its
control group, before the first instruction of the program.
"""

import contextlib
import errno
import json
import os
import resource
import stat
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from handlers.shim.assignment import OWN_FOLDER, Assignment, ShimAccount
from handlers.shim.inherited import adjust_oom, favours, give_up
from handlers.shim.kernel import die_with_parent

_GO = b"g"


class Launched(NamedTuple):
    """The child in front of the barrier. `failure` ends with the exec, or has why there is none."""

    pid: int
    out: int
    err: int
    barrier: int
    failure: int

    def release(self) -> None:
        """The program may run."""
        with contextlib.suppress(OSError):  # the child is gone; its exit says so
            os.write(self.barrier, _GO)
        os.close(self.barrier)


FAVOURS = favours()
"""Of the spawner, from which all shims are forked."""


def launch(work: Assignment, fork: Callable[[], int], *, dies_with_shim: bool = False) -> Launched:
    """A child exists in a session of its own and waits at the barrier. `fork` is as `os.fork`.

    Raises:
        OSError: the system gives no process or no descriptor.
    """
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    barrier_read, barrier_write = os.pipe()
    failure_read, failure_write = os.pipe()
    pid = fork()
    if pid == 0:
        os.close(barrier_write)
        _run_child(
            work, out_write, err_write, barrier_read, failure_write, dies_with_shim=dies_with_shim
        )
    for descriptor in (out_write, err_write, barrier_read, failure_write):
        os.close(descriptor)
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    return Launched(pid, out_read, err_read, barrier_write, failure_read)


def no_process_sentence(error: OSError) -> str:
    """Why the system gave no process, and what helps if there are too many."""
    reason = os.strerror(error.errno or 0)
    if error.errno != errno.EAGAIN:
        return reason
    return (
        f"{reason}; allow more processes (ulimit -u, TasksMax= in a unit, pids.max of the control "
        "group)"
    )


def failure_sentence(work: Assignment, content: bytes) -> str:
    """Why the program could not be executed, for people."""
    failure = json.loads(content)
    stage, number = failure["stage"], failure["errno"]
    program, reason = work.argv[0], os.strerror(number)
    by = f" by the account {work.account.name}" if work.account is not None else ""
    not_started = f"the program {program!r} was not started"
    match stage:
        case "cwd":
            return f"{not_started}: its folder {work.cwd!r} cannot be entered{by}: {reason}"
        case "stdin" if number == errno.EINVAL:
            return f"{not_started}: its stdin {work.stdin_file!r} is no regular file"
        case "stdin":
            return f"{not_started}: its stdin {work.stdin_file!r} cannot be read{by}: {reason}"
        case "limits":
            return f"{not_started}: its limits could not be set: {reason}"
        case "account":
            return f"{not_started}: it could not be given to the account: {reason}"
        case "reach":
            place = os.path.dirname(os.path.dirname(work.folder))  # noqa: PTH120 - lean start
            return (
                f"{not_started}: the data directory {place!r} cannot be passed{by}: {reason}; let "
                "others pass the folders above it (chmod o+x)"
            )
        case _:
            pass
    if number == errno.ENOENT:
        if "/" in program:
            if failure["exists"]:
                return f"the program {program!r} names an interpreter that was not found"
            return f"the program {program!r} was not found in {work.cwd!r}"
        return f"the program {program!r} was not found in PATH={work.env.get('PATH', '')!r}"
    if number == errno.EACCES:
        return (
            f"the program {program!r} is not executable{by}: chmod +x it; if it has that mode, its "
            "folder, its interpreter or a mount with noexec forbids it"
        )
    if number == errno.ENOEXEC:
        return f"the program {program!r} is no program: it begins with no #! line"
    return f"the program {program!r} could not be executed: {reason}"


def _run_child(
    work: Assignment, out: int, err: int, barrier: int, failure: int, *, dies_with_shim: bool
) -> NoReturn:
    """Becomes the program; never returns, whatever happens.

    Each function that is called here copies pages of the shim, so there are few. No signal is
    restored: what the spawner catches (`handlers.shim.signals`) is back to its default by the exec.
    """
    stage = "exec"
    try:
        os.setsid()
        if os.read(barrier, 1) != _GO:
            os._exit(127)  # the shim died: this run would be on no record
        os.dup2(out, 1)
        os.dup2(err, 2)
        stage = "limits"
        _set_limits(work)
        if work.account is not None:
            stage = "account"
            _become(work.account, out, err)
            stage = "reach"
            own = f"{work.folder}/{OWN_FOLDER}"
            os.close(os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        if dies_with_shim:
            die_with_parent()  # after the account: a change of it takes that away (prctl(2))
        stage = "stdin"
        _redirect_stdin(work)
        stage = "cwd"
        os.chdir(work.cwd)
        stage = "exec"
        _execute(work.argv, work.env)
    except OSError as error:
        reason = {
            "stage": stage,
            "errno": error.errno or 0,
            "exists": os.path.exists(work.argv[0]),  # noqa: PTH110 - lean start
        }
        os.write(failure, json.dumps(reason).encode())
    except ValueError:  # a NUL inside an argument
        reason = {"stage": stage, "errno": errno.EINVAL, "exists": True}
        os.write(failure, json.dumps(reason).encode())
    finally:
        os._exit(127)


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """As `os.execvpe`, which imports and looks around more than a fresh fork should.

    Raises:
        OSError: no file could be executed; the one that was found but not run says why, if any.
    """
    name = argv[0]
    if "/" in name:
        os.execve(name, argv, env)  # noqa: S606 - an argv list, no shell
    failure: OSError | None = None
    for folder in env.get("PATH", os.defpath).split(":"):
        try:
            os.execve(f"{folder}/{name}" if folder else name, argv, env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failure = failure or error
    raise failure or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _set_limits(work: Assignment) -> None:
    os.umask(work.umask)
    give_up(*FAVOURS)
    if work.oom_score_adj is not None:
        adjust_oom(work.oom_score_adj)
    if work.nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, work.nice)
    if work.cpu_s is not None:
        _limit(resource.RLIMIT_CPU, work.cpu_s, work.cpu_s + 1)
    if work.memory_bytes is not None:
        _limit(resource.RLIMIT_AS, work.memory_bytes, work.memory_bytes)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if work.open_files is not None:
        _limit(resource.RLIMIT_NOFILE, work.open_files, max(work.open_files, most))
    elif work.open_files_default is not None:
        _limit(resource.RLIMIT_NOFILE, min(work.open_files_default, most), most)


def _redirect_stdin(work: Assignment) -> None:
    """The program reads there what the definition names; the account opens the file."""
    if work.stdin_file is not None:
        # A pipe would hold us up, and a device gives no end.
        source = os.open(work.stdin_file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        os.set_blocking(source, True)
    elif work.stdin_text is not None:
        source = os.memfd_create("stdin")
        view = memoryview(work.stdin_text.encode("utf-8", "surrogateescape"))
        while view:
            view = view[os.write(source, view) :]
        os.lseek(source, 0, os.SEEK_SET)
    else:
        return
    os.dup2(source, 0)


def _become(account: ShimAccount, out: int, err: int) -> None:
    """This process is of the account, and has no way back."""
    for pipe in (out, err):
        os.fchown(pipe, account.uid, account.gid)  # or /dev/stdout could not be opened
    if (account.uid, account.gid) == (os.geteuid(), os.getegid()):
        return  # it is the service's own, which may have no right to change anything
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)


def _limit(kind: int, soft: int, hard: int) -> None:
    """Raises OSError, also where Python would say ValueError: the hard limit cannot be raised."""
    try:
        resource.setrlimit(kind, (soft, hard))
    except ValueError as exc:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from exc
