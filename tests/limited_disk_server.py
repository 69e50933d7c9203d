"""Shows a folder of the real disk without what its first argument names: `links` (as on FAT),
`locks`, `rename` over a file, or `sync` of folders."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import mfusepy

SHOWN = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")


class Limited(mfusepy.Operations):  # type: ignore[misc]
    use_ns = True

    def __init__(self, what: str, backing: str) -> None:
        self._what = what
        self._backing = backing

    def _real(self, path: str) -> Path:
        return Path(self._backing + path)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        try:
            found = self._real(path).lstat()
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno or errno.EIO) from error
        return {name: getattr(found, name) for name in SHOWN} | {"st_mtime": found.st_mtime_ns}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._real(path))]

    def mkdir(self, path: str, mode: int) -> None:
        self._real(path).mkdir(mode)

    def rmdir(self, path: str) -> None:
        self._real(path).rmdir()

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._real(path), flags & ~os.O_NOFOLLOW)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._real(path), length)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def unlink(self, path: str) -> None:
        self._real(path).unlink()

    def link(self, target: str, source: str) -> None:
        if self._what == "links":
            raise mfusepy.FuseOSError(errno.EPERM)
        os.link(self._real(source), self._real(target))

    def rename(self, old: str, new: str) -> None:
        if self._what == "rename" and self._real(new).exists():
            raise mfusepy.FuseOSError(errno.EEXIST)
        self._real(old).rename(self._real(new))

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        if self._what == "sync":
            raise mfusepy.FuseOSError(errno.EINVAL)


class LimitedWithoutLocks(Limited):
    """Without this method the kernel keeps the locks itself."""

    def flock(self, path: str, fh: int, op: int) -> None:
        raise mfusepy.FuseOSError(errno.EOPNOTSUPP)


if __name__ == "__main__":
    wanted, folder, mountpoint = sys.argv[1:]
    kind = LimitedWithoutLocks if wanted == "locks" else Limited
    mfusepy.FUSE(kind(wanted, folder), mountpoint, foreground=True, nothreads=True)
