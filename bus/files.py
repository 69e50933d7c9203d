"""Files that appear whole, and what is known of the file system they are on. Blocking IO."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from bus.layout import FILE_MODE
from bus.scarcity import NO_ROOM
from bus.spares import CREATE_FLAGS, Need, remove, take

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


def write_all(handle: int, data: bytes) -> None:
    """All bytes are with the kernel, however many writes it took."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


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


def write_private(
    path: Path,
    content: bytes,
    *,
    need: Need = Need.RECORD,
    last_look: Callable[[], None] | None = None,
) -> None:
    """The file says `content`, whole and durably, for this account alone; on a full disk, too, as
    long as the reserve has a spare that is large enough.

    `last_look` is called right before the file is replaced; what it raises leaves it as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write_new(temporary, content, need)
        if last_look is not None:
            last_look()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Names made or removed in `path` are durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """What the file says: the content of whoever made it first, durably and for this account."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    _write_new(temporary, make())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another one was first; its content is the one that counts
    finally:
        temporary.unlink()
    sync_directory(path.parent)
    return path.read_bytes()


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


def _write_new(path: Path, content: bytes, need: Need = Need.RECORD) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_new(path.name, folder, content, need=need, finish=os.fsync)
    finally:
        os.close(folder)


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
