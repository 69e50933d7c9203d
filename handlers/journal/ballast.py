"""Room on the disk that is held back, so that stops and exits can be recorded when it is full."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from bus.errors import NoSpace
from bus.instance import sync_directory
from handlers.journal.disk import create_file, our_errors, write_all

BALLAST_BYTES = 8 * 1024 * 1024
LOW_BYTES = 64 * 1024 * 1024
LOW_INODES = 2_000


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


class Ballast:
    """The held-back file of one directory."""

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

    def release(self) -> bool:
        """The room is free for others; False if it was before."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        with suppress(NoSpace), our_errors("give up its ballast"):
            sync_directory(self._path.parent)  # some file systems give the room back only then
        return True

    def take(self) -> None:
        """The room is held back, or it cannot be: OSError."""
        descriptor = create_file(self._path)
        try:
            if hasattr(os, "posix_fallocate"):
                # Not written: zeros would take no room where the file system compresses.
                os.posix_fallocate(descriptor, 0, self._size)
            else:
                write_all(descriptor, bytes(self._size), 0)
            os.fsync(descriptor)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)
