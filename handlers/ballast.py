"""Room on the disk that is held back, so that stops and exits can be recorded when it is full."""

import os
from dataclasses import dataclass
from pathlib import Path

from bus.layout import FILE_MODE

BALLAST_BYTES = 8 * 1024 * 1024
LOW_BYTES = 64 * 1024 * 1024
LOW_INODES = 2_000
_BLOCK = bytes(1024 * 1024)


@dataclass(frozen=True)
class Space:
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

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".ballast"

    @property
    def is_held(self) -> bool:
        return self._path.exists()

    def hold(self) -> bool:
        """The room is held back, unless too little is left for that."""
        try:
            if self._path.stat().st_size == BALLAST_BYTES:
                return True
        except FileNotFoundError:
            pass
        if space_of(self._path.parent).is_low:
            return False
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, FILE_MODE)
        try:
            for _ in range(BALLAST_BYTES // len(_BLOCK)):
                os.write(descriptor, _BLOCK)
        except OSError:
            self._path.unlink()
            return False
        finally:
            os.close(descriptor)
        return True

    def release(self) -> bool:
        """The room is free for others; False if it was before."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
