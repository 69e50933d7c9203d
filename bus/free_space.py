"""How much is left on the file system of a directory. Blocking, but only a system call."""

import os
from pathlib import Path

import msgspec

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
