"""How all parts write and read files: whole or not at all, never through a link. Blocking IO.

What is written goes under a passing name first; whatever the disk answers, nothing is left of a
file that could not be written. On a full disk it is made of a spare, as far as its `need` allows.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bus.layout import FILE_MODE
from bus.reserve_spares import CREATE_FLAGS, Need, remove, take
from bus.scarcity import NO_ROOM

NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "fuse.sshfs",
    }
)
"""Where a lock or a sync may not mean what we need it to mean."""

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_FILE = frozenset({errno.ENXIO, errno.ENODEV, errno.EISDIR})
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class NotRegular(Exception):
    """What has the name is no regular file; the text says what it is, e.g. `a symbolic link`."""


def replace_file(
    path: Path,
    content: bytes,
    *,
    need: Need = Need.RECORD,
    one_writer: bool = False,
    last_look: Callable[[], None] | None = None,
) -> None:
    """The file says `content`, whole and durably, for this account alone.

    With `one_writer` the passing name is always the same, so that what a death left half-written
    goes with the next write; without it several processes may replace the file. `last_look` is
    called right before the file is replaced; what it raises leaves it as it was.
    """

    def finish(handle: int) -> None:
        os.fsync(handle)
        if last_look is not None:
            last_look()

    with open_directory(path.parent) as folder:
        passing = f".{path.name}.tmp" if one_writer else _passing_name(path.name)
        if one_writer:
            remove(passing, folder)
        replace_in(folder, path.name, content, passing=passing, need=need, finish=finish)
        os.fsync(folder)


def replace_in(
    folder: int,
    name: str,
    content: bytes,
    *,
    passing: str,
    need: Need | None = None,
    finish: Callable[[int], None] | None = None,
) -> None:
    """`name` in the open folder says `content`: at every moment either the old or the new one.

    Durable as far as `finish`, which is called last before that, syncs the file; the name is not
    synced.
    """
    try:
        write_new(passing, folder, content, need=need, finish=finish)
        os.rename(passing, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        remove(passing, folder)
        raise


def created_once(path: Path, content: bytes, *, need: Need = Need.RECORD) -> bool:
    """The file exists and was never seen in part; whether `content` is its content, durably, since
    no other writer was first."""
    passing = path.with_name(_passing_name(path.name))
    try:
        create_file(passing, content, need=need)
        os.link(passing, path)
    except FileExistsError:
        return False
    finally:
        passing.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """What the file says: the content of the first writer, durably and for this account."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if not created_once(path, make()):
            sync_directory(path.parent)  # the other writer may not have come to that yet
        return path.read_bytes()


def create_file(path: Path, content: bytes, *, need: Need = Need.RECORD) -> None:
    """A new file of `content` is durable; its name is not synced.

    Raises:
        FileExistsError: there is one already.
        OSError: it could not be written, and nothing is left of it.
    """
    with open_directory(path.parent) as folder:
        try:
            write_new(path.name, folder, content, need=need, finish=os.fsync)
        except FileExistsError:
            raise
        except OSError:
            remove(path.name, folder)
            raise


def write_new(
    name: str,
    inside: int,
    data: bytes,
    *,
    need: Need | None = None,
    finish: Callable[[int], None] | None = None,
) -> None:
    """A new file of `data` lies under `name`; on a full disk one that is made of a spare.

    `finish` is called with its descriptor, e.g. to sync it. Without a `need` there is no spare.

    Raises:
        FileExistsError: there is one already.
        OSError: of lack of room, and nothing is left of it; of anything else, and part of it may
            lie there.
    """
    try:
        _write(os.open(name, CREATE_FLAGS, FILE_MODE, dir_fd=inside), data, finish)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        remove(name, inside)
        handle = None if need is None else take(name, inside, need)
        if handle is None:
            raise
        try:
            _write(handle, data, finish)
        except OSError as again:
            if again.errno in NO_ROOM:
                remove(name, inside)
            raise


def write_all(handle: int, data: bytes, offset: int | None = None) -> None:
    """All bytes are with the kernel, however many writes it took: at `offset`, or where the
    descriptor stands."""
    view = memoryview(data)
    while view:
        if offset is None:
            written = os.write(handle, view)
        else:
            written = os.pwrite(handle, view, offset)
            offset += written
        view = view[written:]


def sync_directory(path: Path) -> None:
    """Names made or removed in `path` are durable."""
    with open_directory(path) as folder:
        os.fsync(folder)


@contextmanager
def open_directory(path: Path | str, *, inside: int | None = None) -> Iterator[int]:
    """A descriptor of the directory for the length of the block."""
    handle = os.open(path, _FOLDER_FLAGS, dir_fd=inside)
    try:
        yield handle
    finally:
        os.close(handle)


def open_regular(path: Path | str, flags: int = READ_FLAGS, *, inside: int | None = None) -> int:
    """A descriptor of the regular file; a link is not followed, and no pipe waited for.

    Raises:
        NotRegular: it is something else.
        OSError: there is none, or it may not be opened.
    """
    try:
        handle = os.open(path, flags, dir_fd=inside)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegular("a symbolic link") from error
        if error.errno in _NO_FILE:
            raise NotRegular("not a regular file") from error
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise NotRegular("not a regular file")


def read_regular(path: Path, size_max: int) -> bytes:
    """The first `size_max` bytes of the file.

    Raises:
        NotRegular, OSError: as `open_regular`.
    """
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        content = b""
        while len(content) < size_max and (piece := file.read(size_max - len(content))):
            content += piece
        return content


def file_system_of(path: Path) -> str:
    """The type of the file system `path` is on, in the kernel's words; empty if unknown."""
    wanted = path.stat().st_dev
    device = f"{os.major(wanted)}:{os.minor(wanted)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split(" ")[2] == device and after:
            return after.split(" ")[0]
    return ""


def _write(handle: int, data: bytes, finish: Callable[[int], None] | None) -> None:
    """The file behind the descriptor, which is closed, is `data` and nothing else."""
    try:
        write_all(handle, data)
        if os.fstat(handle).st_size != len(data):  # the cut would also take the room behind the end
            os.ftruncate(handle, len(data))
        if finish is not None:
            finish(handle)
    finally:
        os.close(handle)


def _passing_name(name: str) -> str:
    return f".{name}.{secrets.token_hex(4)}"
