"""Services that are forked from a process which has imported everything: a start for a sixth.

The tests start hundreds of services, the sweeps thousands, and most of a start is imports. A fork
server of each kind serves a whole test process. What it forks has the imports and nothing else: it
becomes the caller's service by its arguments and its environment, and runs to the interpreter's own
end, so that late complaints are seen, too.
"""

import array
import atexit
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
FRAME = struct.Struct("=i")
REQUEST_MAX = 1 << 16
DESCRIPTORS = 2  # stdout and stderr


class Forked:
    """A service from the fork server, with as much of `subprocess.Popen` as its callers use."""

    def __init__(self, link: socket.socket, stdout: IO[bytes]) -> None:
        self._link = link
        self.stdout: IO[bytes] | None = stdout
        (self.pid,) = FRAME.unpack(link.recv(FRAME.size))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and is_readable(self._link.fileno(), 0):
            self._bury()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not is_readable(self._link.fileno(), timeout):
                raise subprocess.TimeoutExpired("serve", timeout or 0)
            self._bury()
        assert self.returncode is not None
        return self.returncode

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes, bytes]:
        """The rest of its output; it has ended."""
        assert input is None
        assert self.stdout is not None
        self.wait(timeout)
        with self.stdout as stdout:
            return stdout.read(), b""

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _bury(self) -> None:
        (status,) = FRAME.unpack(self._link.recv(FRAME.size))
        self.returncode = os.waitstatus_to_exitcode(status)
        self._link.close()


class ForkServer:
    """The one of its kind in this process; it is started when it is first asked, and ends with it.

    `program` is what `python` runs to become it: it calls `be_forked` with its last argument.
    """

    def __init__(self, program: Sequence[str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link = ours
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *program, str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self.close)

    def fork(self, arguments: Sequence[str], environment: Mapping[str, str], stderr: int) -> Forked:
        """A child that goes on behind `be_forked` with these arguments."""
        readable, writable = os.pipe()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            descriptors = array.array("i", [theirs.fileno(), writable, stderr])
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            request = json.dumps([list(arguments), dict(environment)])
            self._link.sendmsg([request.encode()], passed)
        os.close(writable)
        return Forked(ours, os.fdopen(readable, "rb"))

    def close(self) -> None:
        self._link.close()
        self._process.wait()


_mine: dict[tuple[str, ...], ForkServer] = {}
_making = threading.Lock()


def fork_server(*program: str) -> ForkServer:
    """The fork server of this process that runs `program`."""
    with _making:
        if program not in _mine:
            _mine[program] = ForkServer(program)
        return _mine[program]


def be_forked(descriptor: int) -> None:
    """Returns in each child, with its arguments in `sys.argv` and its environment; the fork server
    itself ends in here."""
    _import_all()
    link = socket.socket(fileno=descriptor)
    living: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in living:
                pid, asked = living.pop(ready)
                poll.unregister(ready)
                os.close(ready)
                with asked:
                    asked.send(FRAME.pack(os.waitpid(pid, 0)[1]))
                continue
            request, descriptors, _, _ = socket.recv_fds(link, REQUEST_MAX, 1 + DESCRIPTORS)
            if not request:
                link.close()
                sys.exit()
            pid = os.fork()
            if pid == 0:
                _settle(descriptors, [link, *(asked for _, asked in living.values())], living)
                sys.argv[1:], environment = json.loads(request)
                os.environ.clear()
                os.environ.update(environment)
                return
            for given in descriptors[1:]:
                os.close(given)
            asked = socket.socket(fileno=descriptors[0])
            asked.send(FRAME.pack(pid))
            pidfd = os.pidfd_open(pid)
            living[pidfd] = (pid, asked)
            poll.register(pidfd, select.POLLIN)


def _settle(
    descriptors: Sequence[int], strange: Sequence[socket.socket], pidfds: Iterable[int]
) -> None:
    """Nothing of the fork server's is left in the child but its imports."""
    asked, stdout, stderr = descriptors
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    # Those that Python opened know the files of the fork server: whether one can seek there, say.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    for link in strange:
        link.close()
    for each in (asked, stdout, stderr, *pidfds):
        os.close(each)


def is_readable(descriptor: int, timeout_s: float | None) -> bool:
    """Whether there was something, or the end, in time. A test process may have thousands open,
    for which `select` has no room."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def _import_all() -> None:
    """What `serve` imports until it is ready, in its order."""
    import jobbus.cli.main
    from jobbus.service.lean_imports import lean_imports

    with lean_imports():
        import jobbus.service.app  # noqa: F401


if __name__ == "__main__":
    be_forked(int(sys.argv[1]))
    from jobbus.cli.main import main

    main()
