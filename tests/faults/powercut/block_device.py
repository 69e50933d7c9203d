"""A block device that keeps a record: a file in a file system of our own, with a loop device on it.

Run as `python -m tests.faults.powercut.block_device MOUNTPOINT BACKING RECORD`: at MOUNTPOINT there
is one file, `disk`, with the content of BACKING. Each write to it and each flush stands in RECORD
with its time, in the order in which the device got them.
"""

import errno
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

NAME = "disk"
HEAD = struct.Struct("=QQI")  # when, where, how much; a flush is at FLUSH
FLUSH = 1 << 63


class BlockOp(NamedTuple):
    """A write, or without `data` a flush. `at_ns` is of the machine's monotonic clock."""

    at_ns: int
    offset: int
    data: bytes | None


def read_record(record: Path) -> Iterator[BlockOp]:
    with record.open("rb") as file:
        while head := file.read(HEAD.size):
            at_ns, offset, size = HEAD.unpack(head)
            yield BlockOp(at_ns, offset, None if offset == FLUSH else file.read(size))


def main(mountpoint: str, backing: str, record: str) -> None:
    import mfusepy

    data = os.open(backing, os.O_RDWR)
    log = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(offset: int, content: bytes = b"") -> None:
        os.write(log, HEAD.pack(time.monotonic_ns(), offset, len(content)) + content)

    class OneFile(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            if path != f"/{NAME}":
                raise mfusepy.FuseOSError(errno.ENOENT)
            size = os.fstat(data).st_size
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", NAME]

        def open(self, path: str, flags: int) -> int:
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(data, size, offset)

        def write(self, path: str, content: bytes, offset: int, fh: int) -> int:
            note(offset, content)
            return os.pwrite(data, content, offset)

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            note(FLUSH)
            return 0

    mfusepy.FUSE(OneFile(), mountpoint, foreground=True, nothreads=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
