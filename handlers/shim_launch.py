"""From an assignment to a program behind a barrier, and the sentence if it could not be executed.

Stdlib only. The child waits for the barrier so that its pids are on record, and it is in its
control group, before the first instruction of the program.
"""

import contextlib
import errno
import json
import os
import resource
import signal
import socket
from typing import NamedTuple, NoReturn

from handlers.assignment import Assignment

_RESTORED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)
"""What Python or we changed; an ignored signal would stay ignored in the program."""

_GO = b"g"


class Launched(NamedTuple):
    """The child in front of the barrier. `barrier` tells, once released, how the exec went."""

    pid: int
    out: int
    err: int
    barrier: socket.socket

    def release(self) -> None:
        """The program may run."""
        with contextlib.suppress(OSError):  # the child is gone; its exit says so
            self.barrier.send(_GO)


def launch(work: Assignment) -> Launched:
    """A child exists in a session of its own and waits at the barrier.

    Raises:
        OSError: the system gives no process or no descriptor.
    """
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _run_child(work, out_write, err_write, ours, theirs)
    os.close(out_write)
    os.close(err_write)
    theirs.close()
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    ours.setblocking(False)
    return Launched(pid, out_read, err_read, ours)


def failure_sentence(work: Assignment, told: bytes) -> str:
    """Why the program could not be executed, for people."""
    failure = json.loads(told)
    stage, number = failure["stage"], failure["errno"]
    program, reason = work.argv[0], os.strerror(number)
    if stage == "cwd":
        return f"the program {program!r} was not started: its folder {work.cwd!r}: {reason}"
    if stage == "limits":
        return f"the program {program!r} was not started: its limits could not be set: {reason}"
    if number == errno.ENOENT:
        if "/" in program:
            if failure["exists"]:
                return f"the program {program!r} names an interpreter that was not found"
            return f"the program {program!r} was not found in {work.cwd!r}"
        return f"the program {program!r} was not found in PATH={work.env.get('PATH', '')!r}"
    if number == errno.EACCES:
        return f"the program {program!r} is not executable: {reason}"
    if number == errno.ENOEXEC:
        return f"the program {program!r} is no program: it begins with no #! line"
    return f"the program {program!r} could not be executed: {reason}"


def _run_child(
    work: Assignment, out: int, err: int, ours: socket.socket, barrier: socket.socket
) -> NoReturn:
    """Becomes the program; never returns, whatever happens."""
    stage = "exec"
    try:
        os.setsid()
        ours.close()
        if barrier.recv(1) != _GO:
            os._exit(127)  # the shim died: nobody would know of this run
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        stage = "limits"
        _set_limits(work)
        stage = "cwd"
        os.chdir(work.cwd)
        stage = "exec"
        _restore_signals()
        os.execvpe(work.argv[0], work.argv, work.env)  # noqa: S606 - an argv list, no shell
    except OSError as error:
        told = {
            "stage": stage,
            "errno": error.errno or 0,
            "exists": os.path.exists(work.argv[0]),  # noqa: PTH110 - lean start
        }
        barrier.send(json.dumps(told).encode())
    except ValueError:  # a NUL inside an argument
        barrier.send(json.dumps({"stage": stage, "errno": errno.EINVAL, "exists": True}).encode())
    finally:
        os._exit(127)


def _set_limits(work: Assignment) -> None:
    if work.nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, work.nice)
    if work.cpu_s is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (work.cpu_s, work.cpu_s + 1))
    if work.memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (work.memory_bytes, work.memory_bytes))


def _restore_signals() -> None:
    for number in _RESTORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
