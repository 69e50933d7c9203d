"""The warm process that forks shims: starts once, imports little, and does nothing else.

It is a fresh interpreter, started by exec, so it holds none of the service's locks, sockets or
threads. Stdlib only. It ends when the service does; the shims it forked do not.

Protocol on the socket it inherits, both ways: 4 bytes big endian length, then JSON. Asked: an
`Assignment`. Answered: `{"id", "pid"}` with a pidfd of the shim, or `{"id", "error"}`.
"""

import gc
import json
import os
import select
import signal
import socket
import struct
import traceback
from typing import NoReturn

from handlers.shim.assignment import Assignment
from handlers.shim.bell import Bell
from handlers.shim.cgroup import own_group
from handlers.shim.files import encode
from handlers.shim.kernel import name_process
from handlers.shim.process_tree import boot_id, process
from handlers.shim.shim import run_shim

LENGTH = struct.Struct(">I")
FRAME_BYTES_MAX = 16 << 20


def main(descriptor: int) -> None:
    """Serves the socket `descriptor` until its other end is closed."""
    name_process("jobbus-spawner")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # The end of the service is told by its socket; a terminal's Ctrl-C is not for us.
        signal.signal(number, signal.SIG_IGN)
    Spawner(socket.socket(fileno=descriptor)).run()


class Spawner:
    """Forks a shim for each assignment and reaps those that end."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = bytearray()
        self._group = own_group()
        self._ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = wake
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._bell = Bell()
        self._boot = boot_id()
        _warm_up()
        gc.collect()
        gc.freeze()  # so that no collection in a shim touches, and thereby copies, these pages

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._ended:
                    os.read(self._ended, 4096)
                    _reap()
                elif not self._read():
                    return

    def _read(self) -> bool:
        data = self._link.recv(1 << 18)
        if not data:
            return False
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > FRAME_BYTES_MAX:
                return False
            if len(self._buffer) < LENGTH.size + length:
                break
            frame = bytes(self._buffer[LENGTH.size : LENGTH.size + length])
            del self._buffer[: LENGTH.size + length]
            self._spawn(frame)
        return True

    def _spawn(self, frame: bytes) -> None:
        message = json.loads(frame)
        execution_id = message["execution_id"]
        try:
            pid = os.fork()
        except OSError as error:
            self._answer({"id": execution_id, "error": f"fork: {error.strerror}"}, None)
            return
        if pid == 0:
            self._become_shim(message)
        # The child is reaped by us only, so until then its pid belongs to nobody else.
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            self._answer({"id": execution_id, "pid": pid}, None)
            return
        self._answer({"id": execution_id, "pid": pid}, pidfd)
        os.close(pidfd)

    def _become_shim(self, message: dict[str, object]) -> NoReturn:
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            self._link.close()
            os.close(self._ended)
            os.close(self._wake)
            if message.get("cgroup") == "":
                message["cgroup"] = self._group
            run_shim(Assignment(**message), self._bell, self._boot)  # type: ignore[arg-type]
            code = 0
        finally:
            # Whatever is raised, the code of the spawner above must never run in the child.
            if code:
                _record_crash(str(message.get("folder")))
            os._exit(code)

    def _answer(self, content: dict[str, object], pidfd: int | None) -> None:
        data = json.dumps(content).encode()
        frame = LENGTH.pack(len(data)) + data
        try:
            if pidfd is None:
                self._link.sendall(frame)
            else:
                sent = socket.send_fds(self._link, [frame], [pidfd])
                self._link.sendall(frame[sent:])
        except OSError:
            return  # the service is gone; the next read ends this process


def _warm_up() -> None:
    """What each shim does at first is done once here, so that it is shared and not copied."""
    own_group()
    process(os.getpid())
    encode({"a": [1, 1.5, None, True, "x"]})
    json.loads('{"a": [1, 1.5, null, true, "x"]}')


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _record_crash(folder: str) -> None:
    """What killed the shim stands beside its files; there is no terminal to print it on."""
    try:
        descriptor = os.open(f"{folder}/shim.crash", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, traceback.format_exc().encode())
    except OSError:
        return
