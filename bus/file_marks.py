"""By what a file or folder differs from a copy of it. Blocking IO."""

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

import msgspec

_LONG = struct.Struct("@l")
_FS_IOC_GETVERSION = 2 << 30 | _LONG.size << 16 | ord("v") << 8 | 1
"""The generation of an inode: it changes each time the number is given out again."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class FileMark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a file keeps for life and a copy of it does not get.

    `generation` is 0 where the file system has none. The device is no part of it: its number
    may change at each boot.
    """

    inode: int
    generation: int = 0

    def may_be(self, other: "FileMark") -> bool:
        """Whether both marks may be of the same file."""
        if self.generation and other.generation and self.generation != other.generation:
            return False
        return self.inode == other.inode


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which folder it is: its mark, and the device as it was numbered since that start of the
    machine. A snapshot or an overlay of the folder has the same mark on another device."""

    mark: FileMark
    device: int = 0
    boot: str = ""

    def may_be(self, other: "Place") -> bool:
        """Whether both may be the same folder."""
        if self.boot and self.boot == other.boot and self.device != other.device:
            return False
        return self.mark.may_be(other.mark)


def mark_of(descriptor: int) -> FileMark:
    """The mark of an open file."""
    answer = bytearray(_LONG.size)
    with suppress(OSError):  # tmpfs and others have no such number; the inode alone has to do
        fcntl.ioctl(descriptor, _FS_IOC_GETVERSION, answer)
    return FileMark(os.fstat(descriptor).st_ino, int.from_bytes(answer[:4], "little"))


def place_of(folder: Path) -> Place:
    """Which folder it is now."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device = os.fstat(descriptor).st_dev
        return Place(mark=mark_of(descriptor), device=device, boot=_boot_id())
    finally:
        os.close(descriptor)


def _boot_id() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
