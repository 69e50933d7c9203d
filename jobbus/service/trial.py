"""What a data directory needs of its file system, tried in a folder of its own before anything else
is done there. Blocking IO.

Each answer is one sentence: what is missing, on which file system, and what helps.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bus.errors import DataDirectoryError
from bus.layout import DIRECTORY_MODE, FILE_MODE

PASSING = ".trial-"
ELSEWHERE = "use a directory on ext4, XFS or btrfs"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_ONE, _TWO = "one", "two"


class _Lacks(Exception):
    """What the file system cannot do."""


def try_out(root: Path, kind: str) -> None:
    """The file system of `root`, of this type, can do what is needed; nothing of it is left.

    A directory that this account may not write, or without room, is for others to judge.

    Raises:
        DataDirectoryError: it cannot.
    """
    place = root / f"{PASSING}{secrets.token_hex(8)}"
    try:
        place.mkdir(mode=DIRECTORY_MODE)
    except OSError as error:
        if error.errno == errno.EROFS:
            raise DataDirectoryError(
                f"{root} is on a file system that is mounted read-only; mount it with rw, or use "
                "another --data directory"
            ) from error
        return
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for each in _TRIALS:
                each(handle)
        finally:
            os.close(handle)
    except _Lacks as lack:
        where = f"a file system ({kind})" if kind else "a file system"
        raise DataDirectoryError(f"{root} is on {where} {lack}") from lack
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise DataDirectoryError(
                f"{root} is on a file system ({kind}) that refuses to make, write or sync files: "
                f"{(error.strerror or 'no reason given').lower()}; {ELSEWHERE}"
            ) from error
    finally:
        _clear(place)


def _modes(here: int) -> None:
    _make(_ONE, here)
    modes = (os.fstat(here).st_mode, os.stat(_ONE, dir_fd=here).st_mode)
    if any(stat.S_IMODE(mode) & 0o077 for mode in modes):
        raise _Lacks(
            "that keeps no modes, so everybody might read and write there and chmod changes "
            f"nothing; mount it with umask=077 and uid={os.geteuid()}, or {ELSEWHERE}"
        )


def _only_once(here: int) -> None:
    try:
        _make(_ONE, here)
    except FileExistsError:
        return
    raise _Lacks(
        f"that makes a file again which is there, so that two could take one name; {ELSEWHERE}"
    )


def _links(here: int) -> None:
    try:
        os.link(_ONE, _TWO, src_dir_fd=here, dst_dir_fd=here)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        raise _Lacks(
            "that has no hard links (as FAT and exFAT), by which a command gets its name without "
            f"taking another's; {ELSEWHERE}"
        ) from error


def _renames(here: int) -> None:
    try:
        os.rename(_ONE, _TWO, src_dir_fd=here, dst_dir_fd=here)  # one file: nothing happens
        _make("three", here)
        os.rename("three", _TWO, src_dir_fd=here, dst_dir_fd=here)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        raise _Lacks(
            f"that puts no file in another's place by its name, as whole files appear; {ELSEWHERE}"
        ) from error


def _locks(here: int) -> None:
    first, second = (os.open(_TWO, os.O_RDWR | os.O_CLOEXEC, dir_fd=here) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    except OSError:
        pass
    finally:
        os.close(first)
        os.close(second)
    raise _Lacks(
        f"without exclusive locks, so that two services could have one directory; {ELSEWHERE}, or "
        "mount it with locks"
    )


def _syncs(here: int) -> None:
    try:
        os.fsync(here)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        raise _Lacks(
            f"that syncs no folders, so that a power cut takes accepted commands along; {ELSEWHERE}"
        ) from error


_TRIALS: tuple[Callable[[int], None], ...] = (_modes, _only_once, _links, _renames, _locks, _syncs)


def _make(name: str, here: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    handle = os.open(name, flags, FILE_MODE, dir_fd=here)
    try:
        os.write(handle, b"x")
        os.fsync(handle)
    finally:
        os.close(handle)


def _clear(place: Path) -> None:
    with suppress(OSError):
        for path in place.iterdir():
            with suppress(OSError):
                path.unlink()
        place.rmdir()
