"""Whose journal this is: the epoch, and the files it was written to. Blocking IO.

A copied or restored journal may lack what was acknowledged after the copy was made. Its files are
other files than the ones on record, which is how it is told from the original.
"""

import fcntl
import os
import secrets
import struct
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from handlers.journal.disk import open_for_reading, replace_file, set_aside

NAME = "epoch.json"
EPOCH_BYTES = 5

Epoch = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]{6,12}\Z")]

_LONG = struct.Struct("@l")
_FS_IOC_GETVERSION = 2 << 30 | _LONG.size << 16 | ord("v") << 8 | 1
"""The generation of an inode: another one each time the number is given out again."""


class FileMark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a file keeps for life and a copy of it does not get.

    `generation` is 0 where the file system does not tell. The device is no part of it: its number
    may be another after each boot.
    """

    inode: int
    generation: int = 0

    def may_be(self, other: "FileMark") -> bool:
        """Whether both marks may be of the same file."""
        if self.generation and other.generation and self.generation != other.generation:
            return False
        return self.inode == other.inode


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """`epoch.json`: the epoch of the numbers, and the mark of each segment by name.

    Segments with numbers below `dropped_below` were dropped: a snapshot must cover those.
    """

    epoch: Epoch
    files: dict[str, FileMark] = {}
    dropped_below: int = 0


def new_epoch() -> str:
    return secrets.token_hex(EPOCH_BYTES)


def mark_of(descriptor: int) -> FileMark:
    """The mark of an open file."""
    answer = bytearray(_LONG.size)
    with suppress(OSError):  # tmpfs and others have no such number; the inode alone has to do
        fcntl.ioctl(descriptor, _FS_IOC_GETVERSION, answer)
    return FileMark(os.fstat(descriptor).st_ino, int.from_bytes(answer[:4], "little"))


def mark_of_path(path: Path) -> FileMark:
    with open_for_reading(path) as file:
        return mark_of(file.fileno())


def read_identity(directory: Path) -> Identity | None:
    """What is on record; None if nothing is, or nothing readable (which is then set aside)."""
    path = directory / NAME
    try:
        with open_for_reading(path) as file:
            return msgspec.json.decode(file.read(), type=Identity)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        set_aside(path)
        return None


def write_identity(directory: Path, identity: Identity) -> None:
    """The record is durable, and so are all names in the directory."""
    replace_file(directory / NAME, msgspec.json.encode(identity))
