"""The files that prove that a shim lives and record what it knows. Stdlib only, blocking."""

import contextlib
import errno
import fcntl
import json
import os
import time
from typing import Any

from handlers.shim.assignment import OWN_FOLDER, ShimAccount

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
LOCK_WAIT_S = 5.0
CONTROL_BYTES_MAX = 65_536
HELD_BYTES = 8192
"""An exit record with the largest progress is longer: then that is left out on a full disk."""

FILE_MODE = 0o600


_encoder = json.JSONEncoder(separators=(",", ":"))


def encode(content: dict[str, Any]) -> bytes:
    """`content` as the JSON that the service reads."""
    return _encoder.encode(content).encode()


class Folder:
    """The folder of one execution, held open so that no name is resolved twice.

    `_lock` is the descriptor of the lock, from `take_lock` to `close`; `_claim` that of a claim
    that is not durable yet, `_held` that of the room for the exit record while it is held.
    """

    def __init__(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)  # noqa: PTH102 - lean start
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        found = os.fstat(self.descriptor)
        self.mark = f"{found.st_dev}:{found.st_ino}"
        """Which folder this is, until the machine is started again; a copy of it is another."""
        self._lock: int | None = None
        self._claim: int | None = None
        self._held: int | None = None

    @property
    def is_in_place(self) -> bool:
        """Whether its path still leads to it."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - lean start
        except OSError:
            return False
        return self.mark == f"{found.st_dev}:{found.st_ino}"

    def open(self, name: str, flags: int) -> int:
        """A descriptor of one of our files, never through a link."""
        return os.open(name, flags | os.O_NOFOLLOW, FILE_MODE, dir_fd=self.descriptor)

    def make_folder(self, name: str) -> None:
        """The program finds a folder of that name, if the disk takes one."""
        with contextlib.suppress(OSError):
            os.mkdir(name, 0o700, dir_fd=self.descriptor)

    def take_lock(self) -> bool:
        """The lock is held until `close` or the end of this process; False if another keeps it.

        Others look whether it is held by taking it for a moment, so one refusal means nothing.
        """
        self._lock = descriptor = self.open("lock", os.O_RDWR | os.O_CREAT)
        give_up = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    return False
                time.sleep(0.002)
            else:
                return True

    def close(self) -> None:
        """The lock is free: who looks at it from now on finds the exit record."""
        for descriptor in (self._lock, self._held):
            if descriptor is not None:
                os.close(descriptor)
        os.close(self.descriptor)

    def create_claim(self, name: str, content: bytes) -> bool:
        """This process decides about the run; False if another was first."""
        try:
            self._claim = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        try:
            _write_all(self._claim, content)
        except OSError:
            os.unlink(name, dir_fd=self.descriptor)  # an empty claim would mean a run
            raise
        return True

    def hold_room(self) -> None:
        """`write_held` will find room in bytes and inodes, whatever fills the disk until then.

        Raises:
            OSError: there is none, and nothing is held.
        """
        self._held = self._create(self._held_name())
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._held, 0, HELD_BYTES)
        else:
            _write_all(self._held, bytes(HELD_BYTES))

    def drop_room(self) -> None:
        """Nothing is held any more."""
        if self._held is not None:
            self._close_held()
            with contextlib.suppress(OSError):
                os.unlink(self._held_name(), dir_fd=self.descriptor)

    def write_held(self, name: str, content: dict[str, Any]) -> None:
        """As `write_whole`, durable, into the room that is held; once, for it is used up then.

        Raises:
            OSError: it could not be written, and nothing is left of it; or the program has put
                something else there.
        """
        if self._held is None or not self._is_held_there(self._held):
            self._close_held()
            raise FileNotFoundError(errno.ENOENT, "no room is held")
        data = encode(content)
        try:
            os.lseek(self._held, 0, os.SEEK_SET)
            _write_all(self._held, data)
            os.ftruncate(self._held, len(data))
            os.fsync(self._held)
            self._rename(self._held_name(), name)
        except OSError:
            self.drop_room()
            raise
        self._close_held()

    def _close_held(self) -> None:
        """What was held is not ours to write to any more."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _is_held_there(self, descriptor: int) -> bool:
        """Whether the name still means our file: the program runs under our account."""
        ours = os.fstat(descriptor)
        try:
            there = os.stat(self._held_name(), dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _held_name(self) -> str:
        return f".held.{os.getpid()}"

    def settle_claim(self) -> None:
        """That it was this process is durable. Only then may the program run.

        Raises:
            OSError: that is not certain; nothing may run.
        """
        if self._claim is None:
            return
        os.fsync(self._claim)
        os.close(self._claim)
        self._claim = None
        os.fsync(self.descriptor)
        parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.descriptor)
        os.fsync(parent)
        os.close(parent)

    def settle_names(self) -> None:
        """The names of all files are durable.

        Raises:
            OSError: that is not certain.
        """
        os.fsync(self.descriptor)

    def write_whole(self, name: str, content: dict[str, Any], *, durable: bool) -> None:
        """The file holds `content`; readers see the old or the new one, never a part.

        `durable`: what it holds is, once its name is (`settle_names`).

        Raises:
            OSError: it could not be written; the old one stays, and nothing is left of the new.
        """
        temporary = f".{name}.{os.getpid()}"
        descriptor = self._create(temporary)
        try:
            _write_all(descriptor, encode(content))
            if durable:
                os.fsync(descriptor)
        except OSError:
            os.unlink(temporary, dir_fd=self.descriptor)
            raise
        finally:
            os.close(descriptor)
        try:
            self._rename(temporary, name)
        except IsADirectoryError:
            self._move_away(name)
            self._rename(temporary, name)

    def _create(self, name: str) -> int:
        """A new file. The program runs under our account: whatever it has put there instead (a
        folder, a pipe that would hold us up) is not ours to write to."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            return self.open(name, flags)
        except FileExistsError:
            self._move_away(name)
            return self.open(name, flags)

    def _move_away(self, name: str) -> None:
        self._rename(name, f".{name}.moved-{time.monotonic_ns()}")

    def _rename(self, before: str, after: str) -> None:
        os.rename(before, after, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def read_json(self, name: str) -> Any:
        """The decoded content; None if there is none or it is not ours to understand."""
        try:
            descriptor = self.open(name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            return json.loads(os.read(descriptor, CONTROL_BYTES_MAX))
        except (OSError, ValueError, RecursionError):
            return None
        finally:
            os.close(descriptor)


class OwnFolder:
    """The folder of a program that runs as another account, inside of that of its execution: there
    it writes, replaces and removes what it likes, and nothing else of the execution is its own.

    What is read from there must belong to the account: a name can be a hard link to any file.
    """

    def __init__(self, outer: Folder, account: ShimAccount) -> None:
        """Raises OSError if the file system does not keep owners."""
        self._account = account
        with contextlib.suppress(FileExistsError):
            os.mkdir(OWN_FOLDER, 0o700, dir_fd=outer.descriptor)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        self.descriptor = os.open(OWN_FOLDER, flags, dir_fd=outer.descriptor)
        os.fchown(self.descriptor, account.uid, account.gid)
        os.fchmod(outer.descriptor, 0o711)  # it can be passed, not listed

    def open(self, name: str, flags: int) -> int:
        """A descriptor of one of its files, never through a link.

        Raises:
            OSError: there is none, or it is not of the account.
        """
        descriptor = os.open(name, flags | os.O_NOFOLLOW, FILE_MODE, dir_fd=self.descriptor)
        try:
            if flags & os.O_CREAT:
                os.fchown(descriptor, self._account.uid, self._account.gid)
            elif os.fstat(descriptor).st_uid != self._account.uid:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def make_folder(self, name: str) -> None:
        """The program finds a folder of that name, if the disk takes one."""
        with contextlib.suppress(OSError):
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
            uid, gid = self._account.uid, self._account.gid
            os.chown(name, uid, gid, dir_fd=self.descriptor, follow_symlinks=False)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if written == 0:
            raise OSError(errno.ENOSPC, "nothing was written")
        view = view[written:]
