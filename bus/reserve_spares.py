"""Spares: small files of room, held back in `.reserve` for one command, order or record each.
Blocking IO.

Who needs room takes a spare by a rename, so that no other write can take its room in between. The
folders are filled by `bus.reserve`.
"""

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum

from bus.layout import FILE_MODE
from bus.scarcity import NO_ROOM

SPARES = 256
SPARE_BYTES = 16 * 1024

FOLDER = ".reserve"
PREFIX = "spare-"
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNFINISHED = "unfinished"
_RETURNED = "returned"
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
                continue  # another process was faster
            except OSError as error:
                if error.errno not in NO_ROOM or given_up == _GIVEN_UP_MAX:
                    return None
                given_up += 1
                _give_up(spare, place)  # the folder itself has no room for one more name
                continue
            handle = _opened(name, inside)
            if handle is not None:
                return handle
            remove(name, inside)
    return None


def give_back(name: str, inside: int) -> bool:
    """A file that was made of a spare is a spare again; False, and the file as it was, if it has
    not the room of a spare or none is missing."""
    if not _has_room_of_a_spare(os.stat(name, dir_fd=inside, follow_symlinks=False)):
        return False
    with _place_for(inside) as place:
        if place is None or (free := _free_name(place)) is None:
            return False
        try:
            # First out of the way: no reader must find the emptied file under its name.
            os.rename(name, _RETURNED, src_dir_fd=inside, dst_dir_fd=place)
        except OSError:
            return False
        handle = _opened(_RETURNED, place)
        if handle is None:
            remove(_RETURNED, place)
            return True
        try:
            os.ftruncate(handle, 0)
            keep_room(handle, 0, SPARE_BYTES)
            is_whole = _has_room_of_a_spare(os.fstat(handle))
        except OSError:
            is_whole = False  # another process was faster
        finally:
            os.close(handle)
        if is_whole:
            os.rename(_RETURNED, free, src_dir_fd=place, dst_dir_fd=place)
        else:
            remove(_RETURNED, place)
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


def fill(place: int) -> None:
    """There are all spares; those that were there stay."""
    there = set(_spares_in(place))
    for number in range(SPARES):
        name = f"{PREFIX}{number:03}"
        if name not in there:
            remove(_UNFINISHED, place)
            _make_spare(place)
            # A spare under its name has its room.
            os.rename(_UNFINISHED, name, src_dir_fd=place, dst_dir_fd=place)


def _make_spare(place: int) -> None:
    handle = os.open(_UNFINISHED, CREATE_FLAGS, FILE_MODE, dir_fd=place)
    try:
        keep_room(handle, 0, SPARE_BYTES)
        if _has_room_of_a_spare(os.fstat(handle)):
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, SPARE_BYTES)
        else:
            _write_zeros(handle, SPARE_BYTES)
    except OSError:
        remove(_UNFINISHED, place)
        raise
    finally:
        os.close(handle)


def _write_zeros(handle: int, size: int) -> None:
    if os.write(handle, bytes(size)) < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def _place_for(inside: int) -> Iterator[int | None]:
    """The `.reserve` on the file system of a folder: in it, or in one of the two above.

    The queue may be open to others: what they put there under this name is none of ours.
    """
    device = os.fstat(inside).st_dev
    for above in ("", "../", "../../"):
        try:
            place = os.open(f"{above}{FOLDER}", FOLDER_FLAGS, dir_fd=inside)
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
    return sorted(name for name in os.listdir(place) if name.startswith(PREFIX))


def _has_room_of_a_spare(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_blocks * 512 >= SPARE_BYTES


def _free_name(place: int) -> str | None:
    there = set(_spares_in(place))
    names = (f"{PREFIX}{number:03}" for number in range(SPARES))
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
    remove(name, place)
    with contextlib.suppress(OSError):
        os.fsync(place)  # some file systems give the room back only then


def remove(name: str, inside: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=inside)
