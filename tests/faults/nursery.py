"""Services that are forked from a process which has imported everything: a start for a third.

The sweeps start thousands of services, and most of a start is imports. One nursery serves a whole
test process. What it forks has the imports and nothing else: it becomes the caller's service by
its arguments and runs to the interpreter's own end, so that late complaints are heard too.
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

from tests.service import is_readable

ROOT = Path(__file__).resolve().parents[2]
FRAME = struct.Struct("=i")
REQUEST_MAX = 1 << 16
DESCRIPTORS = 2  # stdout and stderr


class Forked:
    """A service from the nursery, with as much of `subprocess.Popen` as its callers use."""

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


class Nursery:
    """The one of this process; it is started when it is first asked, and ends with it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link = ours
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.seam", "nursery", str(theirs.fileno())],
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self.close)

    def fork(self, arguments: Sequence[str], stderr: int) -> Forked:
        """`python -m tests.faults.seam` with these arguments."""
        readable, writable = os.pipe()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            descriptors = array.array("i", [theirs.fileno(), writable, stderr])
            told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            self._link.sendmsg([json.dumps(list(arguments)).encode()], told)
        os.close(writable)
        return Forked(ours, os.fdopen(readable, "rb"))

    def close(self) -> None:
        self._link.close()
        self._process.wait()


_mine: list[Nursery] = []
_making = threading.Lock()


def nursery(environment: Mapping[str, str]) -> Nursery:
    """The nursery of this process; all its services have the environment of the first."""
    with _making:
        if not _mine:
            _mine.append(Nursery(environment))
        return _mine[0]


def be_forked(descriptor: int) -> None:
    """Returns in each child, with its arguments in `sys.argv`; the nursery itself ends in here."""
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
                sys.exit()
            pid = os.fork()
            if pid == 0:
                _settle(descriptors, [link, *(asked for _, asked in living.values())], living)
                sys.argv[1:] = json.loads(request)
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
    """Nothing of the nursery's is left in the child but its imports."""
    asked, stdout, stderr = descriptors
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for link in strange:
        link.close()
    for each in (asked, stdout, stderr, *pidfds):
        os.close(each)
