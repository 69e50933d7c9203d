"""What the system lacks for the moment, read from an error: nothing is wrong with the file, the
command or the code, and the next try may succeed. Pure.
"""

import errno
import os
import re

_LACKS = {
    errno.EMFILE: (
        "too many files are open in this process; raise its limit (ulimit -n, LimitNOFILE= in a "
        "unit)"
    ),
    errno.ENFILE: "too many files are open on this machine; raise fs.file-max",
    errno.ENOMEM: "the system gives no more memory; raise the limit or free some",
    errno.EAGAIN: (
        "the system gives no more processes or threads; allow more (ulimit -u, TasksMax= in a "
        "unit, pids.max of the control group)"
    ),
    errno.ENOBUFS: "the system gives no more memory for sockets",
}

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Of a call that writes: the disk, or what the account may have of it, is full."""

NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})

NO_MEANS = NO_DESCRIPTOR | {errno.ENOMEM}
"""Of a call that opens or reads a file: it says nothing about the file."""

_THREAD = "can't start new thread"  # what CPython raises as RuntimeError


_SYSTEM = re.compile(r"\(os error (\d+)\)")  # how watchfiles says what the system answered
NO_WATCH = "the system gives no inotify watch; raise fs.inotify.max_user_watches"


def lack_of(error: BaseException) -> str | None:
    """A sentence about what is missing and how to give more of it; None if nothing is."""
    if isinstance(error, BaseExceptionGroup):
        found = [lack_of(each) for each in error.exceptions]
        return found[0] if all(found) else None
    if isinstance(error, MemoryError):
        return _LACKS[errno.ENOMEM]
    if isinstance(error, RuntimeError) and _THREAD in str(error):
        return _LACKS[errno.EAGAIN]
    return _LACKS.get(error.errno or 0) if isinstance(error, OSError) else None


def lack_of_watches(error: BaseException) -> str | None:
    """The same for a call of inotify(7), whose limits are others."""
    match error:
        case OSError(errno=errno.EMFILE):
            return (
                "the system gives no inotify instance; raise fs.inotify.max_user_instances, or "
                "the limit of open files"
            )
        case OSError(errno=errno.ENOSPC):
            return NO_WATCH
        # watchfiles raises some of what the system answered as an OSError that has its text alone.
        case RuntimeError() | OSError(errno=None) if "watch limit reached" in str(error):
            return NO_WATCH
        case RuntimeError() | OSError(errno=None) if (
            number := _SYSTEM.search(str(error))
        ) is not None:
            return lack_of_watches(OSError(int(number[1]), str(error)))
        case _:
            return lack_of(error)


def reason_of(error: BaseException) -> str:
    """Why a call failed, for people: what is missing, or the system's own words without numbers."""
    lack = lack_of(error)
    if lack is not None:
        return lack
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)
