"""Files that people put into the apps folder, read so that nothing they are can do harm. Blocking
IO."""

import errno
import os
import stat
from typing import Final

SETTLED_NS: Final = 2_000_000_000
"""A file that was changed so lately may be changed again within the same tick of its file system's
clock, and look the same."""

ABSENT = (errno.ENOENT, errno.ENOTDIR)
"""There is no such file."""

UNREADABLE = (
    *(errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EISDIR, errno.EINVAL, errno.ENXIO),
)
"""There is one, and who put it there is to blame. Other errors say nothing about the file."""


def content_of(path: str, size_max: int) -> bytes:
    """The bytes of a regular file, one more than allowed at most; pipes and devices never hang.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        content = b""
        while len(content) <= size_max:
            piece = file.read(size_max + 1 - len(content))
            if not piece:
                break
            content += piece
        return content
