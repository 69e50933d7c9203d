"""The hold of one service on its data directory: taken, looked at while it runs, seen by others.
Blocking IO.

Two locks say the same: one on the directory itself, which goes wherever the directory goes and
which cannot be removed, and one on the file `lock`, which older versions and people look at.
"""

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import structlog

from bus.errors import DataDirectoryError, NoThread
from bus.layout import FILE_MODE, DataLayout
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from jobbus.service.instance import prepare, read_instance
from jobbus.service.stdio import STDERR, writer_to

LOCK_TRIES = 10
LOCK_PAUSE_S = 0.05
LOOK_S = 1.0
LAST_WORD_S = 0.2
EXIT_LOST = 1

_UNABLE = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""What file systems answer that lock files and no folders, network file systems above all."""

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})

log = structlog.get_logger("jobbus")
_troubles = Recurring(log)


class Hold:
    """The directory belongs to this process alone until `release`, or until `complaint`.

    `_root` and `_lock` are the locked descriptors, closed by `release` only; `_journal` is device
    and inode of the journal's folder when the hold began.
    """

    def __init__(self, layout: DataLayout, root: int, lock: int) -> None:
        self.layout = layout
        self._root = root
        self._lock = lock
        self._journal = _identity(layout.journal)

    def release(self) -> None:
        os.close(self._lock)
        os.close(self._root)

    def complaint(self) -> str | None:
        """Why the directory must not be used any more, and what helps; None while it is ours."""
        layout = self.layout
        begin_again = "start the service again"
        if _identity(layout.root) != _identity(self._root):
            return (
                f"{layout.root} is not the directory any more that this service began with (it was "
                f"moved, removed or replaced); put the right one there and {begin_again}"
            )
        if _identity(layout.lock) != _identity(self._lock):
            return (
                f"{layout.lock} was removed or replaced, so that a second service could use the "
                f"directory; leave that file alone and {begin_again}"
            )
        if _identity(layout.journal) != self._journal:
            return (
                f"{layout.journal} was removed or replaced, and with it the record of what was "
                f"done; put it back, from a backup if need be, and {begin_again}"
            )
        return None

    def end_if_lost(self) -> None:
        """Returns if the directory is ours; else the process has ended, and has said why.

        It ends as by a kill, which every promise is kept through: an end in order would write into
        a directory that may be another service's by now. Jobs go on.
        """
        try:
            complaint = self.complaint()
        except OSError as error:  # a disk that does not answer says nothing about whose it is
            _troubles.say(f"the data directory cannot be looked at: {reason_of(error)}")
            return
        if complaint is not None:
            _end(complaint)

    async def watch(self) -> None:
        """Looks from time to time, for ever; what the service writes asks by itself."""
        while True:
            await asyncio.sleep(LOOK_S)
            await DISK.run(self.end_if_lost)


@contextmanager
def held_data_directory(
    root: Path, *, allow_network_fs: bool = False, beside: Iterable[Path] = ()
) -> Iterator[Hold]:
    """The directory exists with all its folders and belongs to this process alone inside the block.

    Raises:
        DataDirectoryError: others may write there, it is on a network file system, another service
            has it, or it is something else's: it holds what is none of ours nor of `beside`.
    """
    layout = DataLayout(root.absolute())
    prepare(layout, allow_network_fs=allow_network_fs, beside=beside)
    hold = _take(layout)
    try:
        yield hold
    finally:
        hold.release()


@contextmanager
def locked_data_directory(root: Path, *, allow_network_fs: bool = False) -> Iterator[DataLayout]:
    """The same for a while, for work without a service."""
    with held_data_directory(root, allow_network_fs=allow_network_fs) as hold:
        yield hold.layout


def is_running(layout: DataLayout) -> bool:
    """Whether a service holds the directory now."""
    return _is_held(layout.root, os.O_RDONLY | os.O_DIRECTORY) or _is_held(layout.lock, os.O_RDWR)


def _take(layout: DataLayout) -> Hold:
    for _ in range(LOCK_TRIES):
        hold = _try(layout)
        if hold is not None:
            return hold
        # `is_running` of somebody else holds a lock for an instant; a service holds both for good.
        time.sleep(LOCK_PAUSE_S)
    raise DataDirectoryError(
        f"{layout.root} is in use by the service with pid {_holder(layout)}; "
        "stop it, or use another --data directory"
    )


def _try(layout: DataLayout) -> Hold | None:
    """Both locks, on what has these names also after they were taken; None if they are not free."""
    root = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(layout.lock, flags, FILE_MODE)
        try:
            if _lock(root, fcntl.LOCK_EX) and _lock(lock, fcntl.LOCK_EX):
                hold = Hold(layout, root, lock)
                if hold.complaint() is None:
                    _write_pid(lock)
                    root = lock = -1
                    return hold
        finally:
            if lock >= 0:
                os.close(lock)
    finally:
        if root >= 0:
            os.close(root)
    return None


def _lock(descriptor: int, kind: int) -> bool:
    """Whether the lock is ours now; True as well where there is none to be had on a folder."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNABLE:
            return True
        raise
    return True


def _write_pid(lock: int) -> None:
    """For people; the locks are what counts. Over the last one, which has room on a full disk."""
    own = f"{os.getpid()}\n".encode()
    with suppress(OSError):
        os.pwrite(lock, own, 0)
        os.ftruncate(lock, len(own))


def _is_held(path: Path, flags: int) -> bool:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _holder(layout: DataLayout) -> str:
    """The pid of who has the directory, as far as its files say it."""
    with suppress(OSError):
        written = layout.lock.read_bytes()[:20].decode("ascii", "replace").strip()
        if written:
            return written
    with suppress(DataDirectoryError, OSError):
        found = read_instance(layout)
        if found is not None and found.pid:
            return str(found.pid)
    return "unknown"


def _identity(place: Path | int) -> tuple[int, int] | None:
    """Device and inode; None if there is no such file."""
    try:
        found = os.fstat(place) if isinstance(place, int) else place.stat()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return found.st_dev, found.st_ino


def _end(complaint: str) -> NoReturn:
    with suppress(NoThread):
        writer = writer_to(STDERR)
        writer.write(f"jobbus: {complaint}\n")
        writer.finish(LAST_WORD_S)  # not longer: a reader that takes nothing must not keep us here
    os._exit(EXIT_LOST)
