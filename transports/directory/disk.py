"""What the directory transport asks of a file system: small blocking calls, run in a thread.

Nothing here knows what a command is.
"""

import contextlib
import ctypes
import errno
import os
import secrets
import stat
import sys
from pathlib import Path

import msgspec

from bus.clock import TIME_MS_MAX
from bus.files import READ_FLAGS, replace_in, write_new
from bus.files import open_directory as open_directory
from bus.layout import DIRECTORY_MODE, FILE_MODE
from bus.reserve_spares import Need
from bus.scarcity import NO_MEANS, NO_ROOM

FUSE_MAGIC = 0x65735546
PASSING = ".tmp"
_SHARED = stat.S_ISGID | stat.S_IRGRP

_libc = ctypes.CDLL(None, use_errno=True)
CAN_SYNC_ALL = sys.platform == "linux" and hasattr(_libc, "syncfs")
"""Whether one call can sync a whole file system."""


class Mark(msgspec.Struct, frozen=True):
    """The state of what lies under a name; a file with the same mark has not changed."""

    inode: int
    size: int
    mtime_ns: int
    links: int
    mode: int
    uid: int

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class FoundFile(msgspec.Struct, frozen=True):
    """The whole content of a regular file that stood still while it was read."""

    data: bytes
    mark: Mark


class Unfit(Exception):
    """What lies under the name is not a file to be read; the text says why."""


class InMotion(Exception):
    """The file changed while it was read."""


def make_directory(path: Path) -> None:
    """`path` exists as a directory, and its name survives a power cut."""
    try:
        path.mkdir(mode=DIRECTORY_MODE)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directory(path.parent)
        make_directory(path)
        return
    with open_directory(path.parent) as parent:
        os.fsync(parent)


def mark_of(name: str, inside: int) -> Mark:
    """The mark of what lies under `name`; never follows a link.

    Raises:
        FileNotFoundError: nothing does (any more).
    """
    return _mark(os.stat(name, dir_fd=inside, follow_symlinks=False))


def time_of(mark: Mark) -> int:
    """When the file changed; its owner can set that to years that no record can hold."""
    return min(max(mark.mtime_ns // 1_000_000, 0), TIME_MS_MAX)


def mark_of_open(handle: int) -> Mark:
    """The mark of an open file."""
    return _mark(os.fstat(handle))


def read_file(name: str, inside: int, size_max: int) -> FoundFile:
    """Reads a regular file whole, never through a link and never waiting for a writer.

    Raises:
        FileNotFoundError: it is gone.
        Unfit: it is no regular file, has a second name, is too large or cannot be read.
        InMotion: it changed meanwhile; read it again.
        OSError: the system lacks the means to read any file.
    """
    try:
        handle = os.open(name, READ_FLAGS, dir_fd=inside)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in NO_MEANS:
            raise
        raise Unfit(_why_not_opened(error)) from error
    try:
        before = _mark(os.fstat(handle))
        _check(before, size_max)
        data = _read(handle, before.size + 1)
        after = os.fstat(handle)
    finally:
        os.close(handle)
    if not len(data) == before.size == after.st_size or after.st_mtime_ns != before.mtime_ns:
        raise InMotion(name)
    return FoundFile(data, before)


def create_file(
    name: str, inside: int, data: bytes, *, sync: bool, need: Need | None = None
) -> None:
    """A new file with this content; with `sync` its bytes survive a power cut (its name does not).

    On a full disk it is made of a spare, if there is a `need` for one.

    Raises:
        OSError: as it came; a half-written file may lie there.
        SyncFailed: the sync failed for another reason than lack of room.
    """
    write_new(name, inside, data, need=need, finish=sync_data if sync else None)


def replace_file(name: str, inside: int, data: bytes, need: Need | None = None) -> None:
    """`name` has this content, at every moment either the old or the new one. Not synced.

    It is for the owner alone, and for the group of a folder that is shared (`[directory] group`).

    The name that is used on the way is hidden, this call's alone (the past is written again beside
    the work) and none that a reader of `*.json` would take: a death in here leaves it,
    half-written. On a full disk it is made of a spare, if there is a `need` for one.
    """
    passing = f".{name}.{secrets.token_hex(4)}{PASSING}"
    folder = os.fstat(inside)

    def share(handle: int) -> None:
        if os.fstat(handle).st_gid != folder.st_gid:  # a spare was not made here
            os.fchown(handle, -1, folder.st_gid)
        os.fchmod(handle, FILE_MODE | stat.S_IRGRP)  # whatever the umask says

    finish = share if folder.st_mode & _SHARED == _SHARED else None
    replace_in(inside, name, data, passing=passing, need=need, finish=finish)


def sweep_passing(inside: int) -> None:
    """What deaths in `replace_file` left is gone; only for the one writer of the directory."""
    for name in os.listdir(inside):
        if name.startswith(".") and name.endswith(PASSING):
            with contextlib.suppress(OSError):  # litter does no harm; not to start would
                remove(name, inside)


def truncate_file(name: str, inside: int, size: int) -> None:
    """The regular file under `name` has at most `size` bytes.

    Raises:
        OSError: EMLINK; it has another name, under which its owner wants it whole.
    """
    handle = os.open(
        name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inside
    )
    try:
        if os.fstat(handle).st_nlink != 1:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        os.ftruncate(handle, size)
    finally:
        os.close(handle)


def remove(name: str, inside: int) -> None:
    """Nothing lies under `name`; it is no error if nothing did."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=inside)


class SyncFailed(Exception):
    """A sync failed: what the disk holds is unknown, and a retry would report success."""


def sync_file(name: str, inside: int) -> None:
    """A regular file and its name in the directory survive a power cut, of any writer."""
    handle = os.open(name, READ_FLAGS, dir_fd=inside)
    try:
        sync_data(handle)
    finally:
        os.close(handle)
    sync_directory(inside)


def sync_data(handle: int) -> None:
    """The file's bytes are on the disk."""
    _synced(getattr(os, "fdatasync", os.fsync), handle)


def sync_directory(handle: int) -> None:
    """The directory's names are on the disk."""
    _synced(os.fsync, handle)


def sync_all(handle: int) -> None:
    """Everything written to the file system of `handle` before is on the disk (Linux only)."""
    _synced(_syncfs, handle)


def syncs_all_for_real(handle: int) -> bool:
    """Whether `sync_all` does what it says here: FUSE answers it with success and does nothing."""
    if not CAN_SYNC_ALL:
        return False
    answer = ctypes.create_string_buffer(512)
    if _libc.fstatfs(handle, answer) != 0:
        return False
    return ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF != FUSE_MAGIC


def _syncfs(handle: int) -> None:
    if _libc.syncfs(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _synced(call: object, handle: int) -> None:
    assert callable(call)
    try:
        call(handle)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise SyncFailed(f"the disk refused a sync: {os.strerror(error.errno or 0)}") from error


def _mark(status: os.stat_result) -> Mark:
    return Mark(
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_nlink,
        status.st_mode,
        status.st_uid,
    )


def _check(mark: Mark, size_max: int) -> None:
    if stat.S_ISREG(mark.mode) and mark.links == 1 and mark.size <= size_max:
        return
    if not mark.is_regular:
        raise Unfit("not a regular file")
    if mark.links != 1:
        raise Unfit(f"has {mark.links} names (hard links); a command file has one")
    raise Unfit(f"has {mark.size} bytes; a command may have {size_max}")


def _read(handle: int, size: int) -> bytes:
    try:
        return os.read(handle, size)
    except OSError as error:
        if error.errno in NO_MEANS:
            raise
        raise Unfit(f"cannot be read: {error.strerror}") from error


def _why_not_opened(error: OSError) -> str:
    match error.errno:
        case errno.ELOOP:
            return "a symbolic link, which is never followed"
        case errno.ENXIO | errno.ENODEV:
            return "not a regular file"
        case errno.EACCES | errno.EPERM:
            return "may not be read by the service; give it read permission"
        case _:
            return f"cannot be opened: {error.strerror}"
