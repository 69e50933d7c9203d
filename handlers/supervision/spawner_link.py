"""The service's end of the spawner: started, fed, restarted when it dies. Never blocks the loop."""

import array
import asyncio
import os
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from bus.recurring import Backoff, Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from handlers.shim.assignment import Assignment
from handlers.shim.process_title import room_for_title
from handlers.supervision.record import encode_assignment

log = structlog.get_logger("jobbus.spawner")

LENGTH = struct.Struct(">I")
READ_BYTES = 65_536
FRAME_BYTES_MAX = 8 << 20
FDS_A_READ = 64
RESTART_DELAY_S = 0.05
RESTART_DELAY_S_MAX = 5.0
TROUBLE_S = 10.0
"""So long after a start that the system refused others are not invited."""

_LEAN = ("-I", "-S", "-X", "utf8", "-X", "no_debug_ranges")
_START = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from handlers.shim.spawner import main; main(int(sys.argv[2]))"
)


class Forked(msgspec.Struct, frozen=True):
    """The spawner's answer. `error` is set if there is no shim."""

    id: str
    pid: int = 0
    error: str | None = None


_answer_decoder = msgspec.json.Decoder(Forked)

OnForked = Callable[[Forked, int | None], None]
"""Called with the answer and a pidfd of the shim, which the callee closes."""

OnDeath = Callable[[frozenset[str]], None]
"""Called with the executions whose requests had no answer when the spawner died."""


class SpawnerLink:
    """Keeps one spawner alive while `run` runs. Requests are bounded by the live executions.

    `_waiting` are the requests that were not sent yet: `request` adds, `_send` takes them out and
    puts the execution into `_unanswered`, until the answer or the death of the spawner. `pid` is
    the spawner's, 0 while there is none; `trouble` is written by `run` and by answers.
    """

    def __init__(self, on_forked: OnForked, on_death: OnDeath) -> None:
        self._on_forked = on_forked
        self._on_death = on_death
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._unanswered: set[str] = set()
        self._awake = asyncio.Event()
        self._pauses = Backoff(RESTART_DELAY_S, RESTART_DELAY_S_MAX)
        self._troubles = Recurring(log)
        self.pid = 0
        self.trouble: str | None = None
        """Why nothing can be started now; requests wait for it to pass."""

    def request(self, work: Assignment) -> None:
        """The spawner will be asked; an answer or its death follows.

        Raises:
            ValueError: it is longer than the kernel would take.
        """
        frame = encode_assignment(work)
        if len(frame) > FRAME_BYTES_MAX:
            raise ValueError(f"its arguments and environment are {len(frame)} bytes long")
        self._waiting.append((work.execution_id, frame))
        self._awake.set()

    async def run(self, ready: asyncio.Event) -> None:
        """Ends on cancellation; shims that were forked go on. Without a spawner, at the start too,
        all else goes on: what runs can be watched and stopped, and requests wait."""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            sound = loop.call_later(RESTART_DELAY_S_MAX, self._is_sound)
            try:
                await self._serve_one(ready)
                self._troubles.say("the spawner died and is started again", "died")
                if loop.time() - began_s < RESTART_DELAY_S_MAX:
                    self.trouble = "the process that starts programs dies again and again"
            except OSError as error:
                self.trouble = f"no program can be started: {reason_of(error)}"
                self._troubles.say(self.trouble, "none")
            except Exception:
                self._is_gone()
                raise
            finally:
                sound.cancel()
            self._is_gone()
            ready.set()
            await asyncio.sleep(self._pauses.next_s())

    def _is_gone(self) -> None:
        self.pid = 0
        lost, self._unanswered = frozenset(self._unanswered), set()
        self._on_death(lost)

    def _is_sound(self) -> None:
        """The spawner has lived for a while."""
        if self.pid:
            self.trouble = None
            self._pauses.reset()
            self._troubles.over("programs can be started again", "none")
            self._troubles.over(subject="died")

    async def _serve_one(self, ready: asyncio.Event) -> None:
        """One spawner from its start to its death."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            process = await DISK.run(_start, theirs)
        except BaseException:  # also a cancellation: one that starts all the same ends at once
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = process
        ready.set()
        closed = asyncio.Event()
        reader = _Reader(ours, self._answered, closed.set)
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, reader.read)
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(ours), name="spawner requests")
                await closed.wait()
                sender.cancel()
        finally:
            loop.remove_reader(ours)
            reader.close()
            ours.close()  # a living spawner ends
            await asyncio.shield(DISK.run(_reap, process))

    async def _send(self, link: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._waiting:
                execution_id, frame = self._waiting.popleft()
                self._unanswered.add(execution_id)
                _set_going(self.pid)
                try:
                    await loop.sock_sendall(link, LENGTH.pack(len(frame)) + frame)
                except OSError:
                    return  # dead; the reader sees it too
                finally:
                    del frame  # it may hold secrets, and the next request may be long in coming
            self._awake.clear()
            await self._awake.wait()

    def _answered(self, answer: Forked, pidfd: int | None) -> None:
        self._unanswered.discard(answer.id)
        if answer.error is not None:
            self.trouble = f"no program can be started: {answer.error}"
            asyncio.get_running_loop().call_later(TROUBLE_S, self._is_sound)
        self._on_forked(answer, pidfd)


class _Reader:
    """Frames and the descriptors that came with them, in order."""

    def __init__(self, link: socket.socket, answered: OnForked, closed: Callable[[], None]) -> None:
        self._link = link
        self._answered = answered
        self._closed = closed
        self._buffer = bytearray()
        self._pidfds: deque[int] = deque()

    def read(self) -> None:
        space = socket.CMSG_SPACE(FDS_A_READ * 4)
        try:
            data, ancillary, flags, _ = self._link.recvmsg(
                READ_BYTES, space, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary, flags = b"", [], 0
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
                self._pidfds.extend(found)
        if flags & socket.MSG_CTRUNC:
            self.close()  # we may open no more, so one was dropped: no answer gets that of another
        if not data:
            asyncio.get_running_loop().remove_reader(self._link)
            self._closed()
            return
        self._buffer += data
        self._take_frames()

    def close(self) -> None:
        while self._pidfds:
            os.close(self._pidfds.popleft())

    def _take_frames(self) -> None:
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if len(self._buffer) < LENGTH.size + length:
                return
            frame = bytes(self._buffer[LENGTH.size : LENGTH.size + length])
            del self._buffer[: LENGTH.size + length]
            answer = _answer_decoder.decode(frame)
            has_pidfd = answer.error is None and bool(self._pidfds)
            self._answered(answer, self._pidfds.popleft() if has_pidfd else None)


def _start(link: socket.socket) -> int:
    """A fresh, lean interpreter: no site, no environment, nothing of ours but the one socket."""
    root = str(Path(__file__).resolve().parents[2])
    null = os.open(os.devnull, os.O_RDWR)
    try:
        return os.posix_spawn(
            sys.executable,
            room_for_title([sys.executable, *_LEAN, "-c", _START, root, "3"]),
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, link.fileno(), 3),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(null)


def _set_going(pid: int) -> None:
    """A spawner that was stopped (SIGSTOP) would keep every start, and our own end."""
    with suppress(ProcessLookupError):  # not reaped yet, so the pid is no other process's
        os.kill(pid, signal.SIGCONT)


def _reap(pid: int) -> None:
    """The dead spawner is no zombie; a living one ends because its socket is closed."""
    _set_going(pid)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return
