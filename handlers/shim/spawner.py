"""The warm process that forks shims: starts once, imports little, and does nothing else.

It is a fresh interpreter, started by exec, so it holds none of the service's locks, sockets or
threads. Stdlib only. It ends when the service does; the shims it forked do not.

Protocol on the socket it inherits, both ways: 4 bytes big endian length, then the content. Asked:
the execution's id, a line end, an `Assignment` as JSON, which only the shim decodes: it may hold
secrets. Answered: `{"id", "pid"}` with a pidfd of the shim, or `{"id", "error"}`.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
from typing import NoReturn

from handlers.shim.cgroup import delegation
from handlers.shim.files import encode
from handlers.shim.inherited import forget_ignored
from handlers.shim.pool import LENGTH, Pool
from handlers.shim.process_title import show_title
from handlers.shim.process_tree import boot_id, process
from handlers.shim.program_start import no_process_sentence
from handlers.shim.serving import Serving
from handlers.shim.state_sender import StateSender

FRAME_BYTES_MAX = 16 << 20

_LEVEL, _RIGHTS = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS)
_DESCRIPTOR = struct.Struct("i")

STDERR = 2

CAUGHT = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ,
    signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
"""Nothing comes of these, here and in the shims: the end of the service is seen at its socket, a
terminal's Ctrl-C is not for us, and some programs signal their parent by USR1. Caught and
not ignored, since what is caught has its default again in a program that is executed, and what is
ignored would stay ignored in there."""


def main(descriptor: int) -> None:
    """Serves the socket `descriptor` until its other end is closed."""
    show_title("jobbus: spawner")
    _take_signals()
    _close_inherited(descriptor)
    Spawner(socket.socket(fileno=descriptor)).run()


class Spawner:
    """Finds a shim for each assignment and reaps those that end."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._link_number = link.fileno()
        self._buffer = bytearray()
        self._ended, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._link, select.POLLIN)
        self._poll.register(self._ended, select.POLLIN)
        self._pool = Pool(self._poll, self._become_shim)
        self._serving = Serving(StateSender(), boot_id(), delegation().folder)
        _warm_up()
        gc.collect()
        gc.freeze()  # so that no collection in a shim touches, and thereby copies, these pages

    def run(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll(self._pool.wait_ms()):
                if descriptor == self._ended:
                    os.read(self._ended, 4096)
                    self._pool.reap()
                elif descriptor != self._link_number:
                    self._pool.receive(descriptor)
                elif not self._read():
                    return
            self._pool.tend()

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
            execution_id, _, work = frame.partition(b"\n")
            self._spawn(execution_id.decode(), work)
        return True

    def _spawn(self, execution_id: str, work: bytes) -> None:
        try:
            pid = self._pool.give(work)
        except OSError as error:
            self._answer({"id": execution_id, "error": no_process_sentence(error)}, None)
            return
        # The shim is reaped by us only, so until then its pid belongs to no other process.
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            self._answer({"id": execution_id, "pid": pid}, None)
            return
        self._answer({"id": execution_id, "pid": pid}, pidfd)
        os.close(pidfd)

    def _become_shim(self, line: int) -> NoReturn:
        code = 1
        try:
            os.setsid()
            os.close(self._link_number)
            os.close(self._ended)
            os.close(self._wake)
            self._serving.run(line)
            code = 0
        finally:
            # Whatever is raised, the code of the spawner above must never run in the child.
            os._exit(code)

    def _answer(self, content: dict[str, object], pidfd: int | None) -> None:
        data = encode(content)
        frame = LENGTH.pack(len(data)) + data
        passed = [] if pidfd is None else [(_LEVEL, _RIGHTS, _DESCRIPTOR.pack(pidfd))]
        try:
            sent = self._link.sendmsg([frame], passed)
            if sent < len(frame):
                self._link.sendall(frame[sent:])
        except OSError:
            return  # the service is gone; the next read ends this process


def _take_signals() -> None:
    forget_ignored()
    for number in (*CAUGHT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    # What the service, or who started it, blocked is no business of a program.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _close_inherited(own: int) -> None:
    """What who started the service left open (a lock, one end of a pipe) is no business of a
    program either: it would be held for as long as a job runs."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > STDERR and int(name) != own:
            with contextlib.suppress(OSError):  # it was the listing itself
                os.close(int(name))


def _warm_up() -> None:
    """What each shim does at first is done once here, so that it is shared and not copied."""
    delegation()
    process(os.getpid())
    encode({"a": [1, 1.5, None, True, "x"]})
    json.loads('{"a": [1, 1.5, null, true, "x"]}')
