"""Room that is held back on the disks of a data directory, for what must be written when they are
full: stops, ends, their records, and the start of the service itself. Blocking IO.

It is held as files, in bytes and in inodes, and given away as such: whoever needs room gets a file
that has it, under the name it wants. Room that was only set free would be gone by the next write of
the program that fills the disk. *Spares* are small, for one command, order or record each, and lie
in `.reserve` on each file system. The *ballast* is large: it becomes a segment of the journal.

Shims hold the room for their exit records themselves (`handlers.shim.files`).
"""

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path

import msgspec

from bus.layout import DIRECTORY_MODE, FILE_MODE, DataLayout

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
LOW_BYTES = 64 * 1024 * 1024
LOW_INODES = 2_000

SPARES = 256
SPARE_BYTES = 16 * 1024
BALLAST_BYTES = 8 * 1024 * 1024

FOLDER = ".reserve"
_PREFIX = "spare-"
_UNFINISHED = "unfinished"
_RETURNED = "returned"
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FLAGS = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GIVEN_UP_MAX = 4
_KEEP_SIZE = 1

_fallocate = None
if sys.platform == "linux":
    _fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Need(IntEnum):
    """Who asks for a spare; the value is how many must be left for those who need them more."""

    STOP = 0
    RECORD = 32
    PROJECTION = 96


class Space(msgspec.Struct, frozen=True):
    """What is left on the file system of a directory, for an account without special rights."""

    bytes_free: int
    inodes_free: int

    @property
    def is_low(self) -> bool:
        """Whether new work is to be refused, so that what runs can be brought to its end."""
        return self.bytes_free < LOW_BYTES or self.inodes_free < LOW_INODES


def space_of(directory: Path) -> Space:
    """Blocking, but only a system call. File systems without inode numbers report plenty."""
    found = os.statvfs(directory)
    inodes = found.f_favail if found.f_files else 1 << 40
    return Space(found.f_bavail * found.f_frsize, inodes)


class Reserve:
    """The spares of one data directory, on each of its file systems."""

    def __init__(self, layout: DataLayout) -> None:
        self._folders = (
            layout.root,
            layout.queue,
            layout.results,
            layout.status,
            layout.output,
            layout.journal,
        )

    @property
    def is_held(self) -> bool:
        """Whether all of it is."""
        return all(self._count(folder) >= SPARES for folder in self._homes())

    def hold(self) -> bool:
        """Whether all of it is held now; nothing is taken where little is left."""
        held = [self._hold(folder) for folder in self._homes()]
        return all(held)

    def _homes(self) -> Iterator[Path]:
        """The first folder on each file system."""
        devices = set()
        for folder in self._folders:
            try:
                device = folder.stat().st_dev
            except OSError:
                continue  # somebody took it away; whoever misses it makes it again
            if device not in devices:
                devices.add(device)
                yield folder

    def _count(self, folder: Path) -> int:
        try:
            return sum(name.startswith(_PREFIX) for name in os.listdir(folder / FOLDER))
        except OSError:
            return 0

    def _hold(self, folder: Path) -> bool:
        if self._count(folder) >= SPARES:
            return True
        if space_of(folder).is_low:
            return False
        place = folder / FOLDER
        try:
            place.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            handle = os.open(place, _FOLDER_FLAGS)
        except OSError:
            return False  # the next look tries again
        try:
            _fill(handle)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True


class Ballast:
    """The large piece: a file of zeros in the journal's folder."""

    def __init__(self, directory: Path, size: int = BALLAST_BYTES) -> None:
        self._path = directory / ".ballast"
        self._size = size

    @property
    def is_held(self) -> bool:
        """Whether the room is held back; blocking, but only a system call."""
        try:
            return self._path.lstat().st_size == self._size
        except FileNotFoundError:
            return False

    def hold(self) -> bool:
        """Whether the room is held back now; it is not taken while little is left."""
        if self.is_held:
            return True
        try:
            self._path.unlink(missing_ok=True)
            if self._size == 0 or space_of(self._path.parent).is_low:
                return False
            self.take()
        except OSError:
            return False  # nothing depends on it: the next one to ask tries again
        return True

    def take(self) -> None:
        """The room is held back, or it cannot be: OSError."""
        descriptor = os.open(self._path, _CREATE_FLAGS, FILE_MODE)
        try:
            if hasattr(os, "posix_fallocate"):
                # Not written: zeros would take no room where the file system compresses.
                os.posix_fallocate(descriptor, 0, self._size)
            else:
                write_all(descriptor, bytes(self._size))
            os.fsync(descriptor)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)

    def become(self, path: Path) -> bool:
        """The file, with its room, lies under `path` in the same folder; False if none is held."""
        try:
            self._path.rename(path)
        except FileNotFoundError:
            return False
        return True

    def put_back(self, path: Path) -> None:
        """The opposite of `become`, for one that was not written to."""
        path.rename(self._path)

    def release(self) -> bool:
        """The room is free for others; False if it was before.

        Raises:
            OSError: the folder could not be synced.
        """
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        handle = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)  # some file systems give the room back only then
        finally:
            os.close(handle)
        return True


def write_new(
    name: str,
    inside: int,
    data: bytes,
    *,
    need: Need | None = None,
    finish: Callable[[int], None] | None = None,
) -> None:
    """A new file of `data` lies under `name`; on a full disk one that is made of a spare.

    `finish` is called with its descriptor, e.g. to sync it. Without a `need` there is no spare.

    Raises:
        FileExistsError: there is one already.
        OSError: of lack of room, and nothing is left of it; of anything else, and part of it may
            lie there.
    """
    try:
        _write(os.open(name, _CREATE_FLAGS, FILE_MODE, dir_fd=inside), data, finish)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _remove(name, inside)
        handle = None if need is None else take(name, inside, need)
        if handle is None:
            raise
        try:
            _write(handle, data, finish)
        except OSError as again:
            if again.errno in NO_ROOM:
                _remove(name, inside)
            raise


def take(name: str, inside: int, need: Need) -> int | None:
    """A descriptor of the spare that lies under `name` now, where nothing was; None if all that
    are left are for others."""
    with _place_for(inside) as place:
        if place is None:
            return None
        given_up = 0
        for spare in _spares_in(place)[need:]:
            try:
                os.rename(spare, name, src_dir_fd=place, dst_dir_fd=inside)
            except FileNotFoundError:
                continue  # somebody was faster
            except OSError as error:
                if error.errno not in NO_ROOM or given_up == _GIVEN_UP_MAX:
                    return None
                given_up += 1
                _give_up(spare, place)  # the folder itself has no room for one more name
                continue
            handle = _opened(name, inside)
            if handle is not None:
                return handle
            _remove(name, inside)
    return None


def give_back(name: str, inside: int) -> bool:
    """A file that was made of a spare is one again; False, and the file as it was, if it has not
    the room of a spare or none is missing."""
    if not _has_room_of_a_spare(os.stat(name, dir_fd=inside, follow_symlinks=False)):
        return False
    with _place_for(inside) as place:
        if place is None or (free := _free_name(place)) is None:
            return False
        try:
            # First out of the way: nobody must find the emptied file under its name.
            os.rename(name, _RETURNED, src_dir_fd=inside, dst_dir_fd=place)
        except OSError:
            return False
        handle = _opened(_RETURNED, place)
        if handle is None:
            _remove(_RETURNED, place)
            return True
        try:
            os.ftruncate(handle, 0)
            keep_room(handle, 0, SPARE_BYTES)
            is_whole = _has_room_of_a_spare(os.fstat(handle))
        except OSError:
            is_whole = False  # somebody was faster
        finally:
            os.close(handle)
        if is_whole:
            os.rename(_RETURNED, free, src_dir_fd=place, dst_dir_fd=place)
        else:
            _remove(_RETURNED, place)
        return True


def make_way(inside: int) -> bool:
    """One spare was given up, so that a name or a folder finds room; False if none is left."""
    with _place_for(inside) as place:
        if place is None:
            return False
        for spare in _spares_in(place):
            _give_up(spare, place)
            return True
    return False


def keep_room(handle: int, offset: int, length: int) -> None:
    """That range of the file has its room, also behind its end, which stays where it is; if the
    file system can do that.

    Raises:
        OSError: there is no room.
    """
    if _fallocate is not None and _fallocate(handle, _KEEP_SIZE, offset, length) != 0:
        number = ctypes.get_errno()
        if number in NO_ROOM:
            raise OSError(number, os.strerror(number))


def write_all(handle: int, data: bytes) -> None:
    """All bytes are with the kernel, however many writes it took."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _write(handle: int, data: bytes, finish: Callable[[int], None] | None) -> None:
    """The file behind the descriptor, which is closed, is `data` and nothing else."""
    try:
        write_all(handle, data)
        if os.fstat(handle).st_size != len(data):  # the cut would also take the room behind the end
            os.ftruncate(handle, len(data))
        if finish is not None:
            finish(handle)
    finally:
        os.close(handle)


def _fill(place: int) -> None:
    """There are all spares; those that were there stay."""
    there = set(_spares_in(place))
    for number in range(SPARES):
        name = f"{_PREFIX}{number:03}"
        if name not in there:
            _remove(_UNFINISHED, place)
            _make_spare(place)
            # Whoever finds one under its name can rely on its room.
            os.rename(_UNFINISHED, name, src_dir_fd=place, dst_dir_fd=place)


def _make_spare(place: int) -> None:
    handle = os.open(_UNFINISHED, _CREATE_FLAGS, FILE_MODE, dir_fd=place)
    try:
        keep_room(handle, 0, SPARE_BYTES)
        if _has_room_of_a_spare(os.fstat(handle)):
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, SPARE_BYTES)
        else:
            write_all(handle, bytes(SPARE_BYTES))
    except OSError:
        _remove(_UNFINISHED, place)
        raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _place_for(inside: int) -> Iterator[int | None]:
    """The `.reserve` on the file system of a folder: in it, or in one of the two above.

    The queue may be open to others: what they put there under this name is none of ours.
    """
    device = os.fstat(inside).st_dev
    for above in ("", "../", "../../"):
        try:
            place = os.open(f"{above}{FOLDER}", _FOLDER_FLAGS, dir_fd=inside)
        except OSError:
            continue
        try:
            found = os.fstat(place)
            if found.st_dev == device and found.st_uid == os.geteuid() and not found.st_mode & 0o77:
                yield place
                return
        finally:
            os.close(place)
    yield None


def _spares_in(place: int) -> Sequence[str]:
    return sorted(name for name in os.listdir(place) if name.startswith(_PREFIX))


def _has_room_of_a_spare(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_blocks * 512 >= SPARE_BYTES


def _free_name(place: int) -> str | None:
    there = set(_spares_in(place))
    names = (f"{_PREFIX}{number:03}" for number in range(SPARES))
    return next((name for name in names if name not in there), None)


def _opened(name: str, inside: int) -> int | None:
    """A descriptor of a regular file that is this account's and has one name; else None."""
    try:
        handle = os.open(name, _OPEN_FLAGS, dir_fd=inside)
    except OSError:
        return None
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid():
        return handle
    os.close(handle)
    return None


def _give_up(name: str, place: int) -> None:
    _remove(name, place)
    with contextlib.suppress(OSError):
        os.fsync(place)  # some file systems give the room back only then


def _remove(name: str, inside: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=inside)
