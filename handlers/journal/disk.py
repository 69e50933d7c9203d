"""What the journal asks of a file system: small blocking calls that raise the errors of ours."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bus.errors import DataDirectoryError, NoSpace, StorageFailed
from bus.files import READ_FLAGS, NotRegular, create_file, open_regular
from bus.layout import FILE_MODE
from bus.scarcity import NO_DESCRIPTOR, NO_ROOM, reason_of

_WRITE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_READ_BYTES = 256 * 1024

EVIDENCE = ".damaged"
"""What is never read again, and only people remove."""

SALVAGE = ".salvage"
"""What was set aside and is still to be replayed, as far as it can be read."""


@contextmanager
def our_errors(aim: str) -> Iterator[None]:
    """Inside the block a full disk is `NoSpace` and any other fault `StorageFailed`.

    A lack of descriptors counts as a full disk: nothing was opened, so nothing is in doubt, and it
    passes. `aim` completes the sentence: "the journal could not …".
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM or error.errno in NO_DESCRIPTOR:
            raise NoSpace(f"the journal could not {aim}: {reason_of(error)}") from error
        raise StorageFailed(f"the journal could not {aim}: {error}") from error


def begin_file(path: Path) -> int:
    """A descriptor of a new, empty file."""
    return os.open(path, _WRITE | os.O_CREAT | os.O_EXCL, FILE_MODE)


def open_file(path: Path, flags: int = _WRITE) -> int:
    """A descriptor of a regular file, to be read and written.

    Raises:
        DataDirectoryError: a link, a pipe or a device has the name.
    """
    try:
        return open_regular(path, flags)
    except NotRegular as error:
        raise DataDirectoryError(
            f"{path} is {error}; a file of the journal belongs there, move this away"
        ) from error


def open_for_reading(path: Path) -> BinaryIO:
    """The regular file `path`.

    Raises:
        DataDirectoryError: as `open_file`.
    """
    return os.fdopen(open_file(path, READ_FLAGS), "rb", buffering=_READ_BYTES)


def sync_content(descriptor: int) -> None:
    """What was written is on the disk; of the file's own record only what is needed to read it."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    elif hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync there stops at the drive's own memory
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def keep_good_part(path: Path, end: int, suffix: str) -> Path:
    """The file ends at `end`; the whole of it goes on under the name that is given back.

    There is a whole file under the old name all the time.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with open_for_reading(path) as file:
        good = file.read(end)
    create_file(temporary, good)
    evidence = free_name(path, suffix)
    os.link(path, evidence)
    temporary.replace(path)
    return evidence


def set_aside(path: Path, suffix: str = EVIDENCE) -> Path:
    """The file goes on under a name of another kind, and never replaces another file."""
    evidence = free_name(path, suffix)
    path.rename(evidence)
    return evidence


def free_name(path: Path, suffix: str) -> Path:
    """A name for what was set aside of `path` that nothing has yet."""
    free = path.with_name(f"{path.name}{suffix}")
    number = 1
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}{suffix}-{number}")
    return free
