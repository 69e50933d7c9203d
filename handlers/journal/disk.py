"""What the journal asks of a file system: small blocking calls that raise the errors of ours."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bus.errors import DataDirectoryError, NoSpace, StorageFailed
from bus.files import sync_directory, write_new
from bus.layout import FILE_MODE
from bus.scarcity import NO_DESCRIPTOR, NO_ROOM, reason_of
from bus.spares import Need

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_WRITE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_READ_BYTES = 256 * 1024

EVIDENCE = ".damaged"
"""What nobody reads any more, and nobody removes but people."""

SALVAGE = ".salvage"
"""What was set aside and is still to be told again, as far as it can be read."""


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


def create_file(path: Path) -> int:
    """A descriptor of a new, empty file."""
    return os.open(path, _WRITE | os.O_CREAT | os.O_EXCL, FILE_MODE)


def open_file(path: Path) -> int:
    """A descriptor of a regular file, to be read and written."""
    return _regular(os.open(path, _WRITE), path)


def open_for_reading(path: Path) -> BinaryIO:
    """The regular file `path`; a link, a pipe or a device in its place is refused.

    Raises:
        DataDirectoryError: it is something else.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DataDirectoryError(f"{path} is a symbolic link; put the file itself") from error
        raise
    return os.fdopen(_regular(descriptor, path), "rb", buffering=_READ_BYTES)


def write_all(descriptor: int, content: bytes, offset: int) -> None:
    """All of `content` stands at `offset`, not synced; a short write is gone on with."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def sync_content(descriptor: int) -> None:
    """What was written is on the disk; of the file's own record only what is needed to read it."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    elif hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync there stops at the drive's own memory
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """The file has this content, whole and durable, and its name is durable too."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    _write_new(temporary, content)
    temporary.replace(path)
    sync_directory(path.parent)


def keep_good_part(path: Path, end: int, suffix: str) -> Path:
    """The file ends at `end`; the whole of it goes on under the name that is given back.

    There is a whole file under the old name all the time.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with open_for_reading(path) as file:
        good = file.read(end)
    _write_new(temporary, good)
    evidence = free_name(path, suffix)
    os.link(path, evidence)
    temporary.replace(path)
    return evidence


def set_aside(path: Path, suffix: str = EVIDENCE) -> Path:
    """The file goes on under a name of another kind, and never replaces another one."""
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


def _write_new(path: Path, content: bytes) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_new(path.name, folder, content, need=Need.RECORD, finish=os.fsync)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(folder)


def _regular(descriptor: int, path: Path) -> int:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise DataDirectoryError(f"{path} is not a regular file; move it away")
