"""What is measured on: cores, kernel, file system, and the device's own count of flushes."""

import contextlib
import fcntl
import os
import platform
import re
from pathlib import Path

_FLUSHES = 15
"""The sixteenth field of a block device's stat file (Documentation/block/stat.rst)."""

_GET_FLAGS, _SET_FLAGS, _TOP_OF_TREES = 0x80086601, 0x40086602, 0x00020000
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h."""


def describe(folder: Path) -> str:
    """One line that says honestly where the figures come from."""
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{cores} cores ({_model()}), {_memory_gib()} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, data on {file_system(folder)}, "
        f"load {load:.1f} at the start"
    )


def file_system(folder: Path) -> str:
    """The type of the file system below `folder`, and for ext4 whether it has a journal."""
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] != number:
            continue
        kind, source = fields[fields.index("-") + 1 : fields.index("-") + 3]
        if kind != "ext4":
            return kind
        journal = any(Path("/proc/fs/jbd2").glob(f"{Path(source).name}-*"))
        return "ext4" if journal else "ext4 without a journal"
    return "an unknown file system"


def spread(folder: Path) -> None:
    """Folders made in `folder` from now on lie far from one another, where ext4 can do that.

    On ext4 without a journal a new file next to many deleted ones costs up to milliseconds for
    some minutes (no inode is reused so soon, and the search passes over each of them). Neighbours
    in one block group would so pay for what others deleted before them.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # other file systems have no such flag, and no need
            flags = bytearray(fcntl.ioctl(handle, _GET_FLAGS, bytes(8)))
            word = int.from_bytes(flags[:4], "little") | _TOP_OF_TREES
            fcntl.ioctl(handle, _SET_FLAGS, word.to_bytes(4, "little") + bytes(4))
    finally:
        os.close(handle)


class FlushCounter:
    """Flushes the block device below a folder has completed, whichever process asked for them."""

    def __init__(self, folder: Path) -> None:
        device = os.stat(folder).st_dev
        self._stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")

    def read(self) -> int | None:
        try:
            fields = self._stat.read_text().split()
        except OSError:
            return None
        return int(fields[_FLUSHES]) if len(fields) > _FLUSHES else None


def _model() -> str:
    match = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.machine()


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
