"""One data directory: made, named, and found again by others. Blocking IO.

`instance.json` says who a data directory is and where its service answers; `secret.key` seals what
our own publishers write.
"""

import errno
import os
import secrets
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from bus.errors import DataDirectoryError
from bus.file_marks import Place, place_of
from bus.files import NETWORK_FILE_SYSTEMS, file_system_of, made_once, replace_file, sync_directory
from bus.layout import DIRECTORY_MODE, DataLayout
from bus.reserve_spares import FOLDER as RESERVE
from bus.reserve_spares import Need
from bus.scarcity import reason_of
from bus.wording import quoted
from jobbus.service.trial import PASSING, try_out

SECRET_BYTES = 32

_EXPECTED = frozenset({RESERVE, "lost+found", "jobbus.toml", ".gitkeep", ".gitignore"})
"""What lies in directories that are empty for their owners, or are about to be ours."""


class InstanceFile(msgspec.Struct, frozen=True, kw_only=True):
    """`instance.json`. `url` and `pid` are empty while no service runs.

    `place` is the directory that is meant: in a copy the file names another one. `copy_of` is
    the instance that was copied, until what it was doing is settled here.

    `tls_cert` is the file with the certificate that answers at `url`, if it speaks TLS.
    """

    instance: str
    epoch: str = ""
    url: str = ""
    pid: int = 0
    started_at: str = ""
    tls_cert: str = ""
    place: Place | None = None
    copy_of: str = ""


def prepare(
    layout: DataLayout, *, allow_network_fs: bool = False, beside: Iterable[Path] = ()
) -> None:
    """The folders exist with safe modes, on a file system that can do what is needed.

    Paths of `beside` may lie in the directory although they are no part of it.
    """
    _check_free(layout, beside)
    _make_root(layout)
    kind = file_system_of(layout.root)
    try_out(layout.root, kind)
    _check_writers(layout.root)
    if kind in NETWORK_FILE_SYSTEMS and not allow_network_fs:
        raise DataDirectoryError(
            f"{layout.root} is on a network file system ({kind}), where locks and syncs are not "
            "safe; use a local disk, or --allow-network-fs if you know better"
        )
    for folder in (
        layout.queue,
        layout.queue_tmp,
        layout.results,
        layout.status,
        layout.output,
        layout.rejects,
        layout.journal,
        layout.audit,
        layout.sockets,
    ):
        folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        _check_writers(folder, is_queue=folder == layout.queue)


def _check_writers(folder: Path, *, is_queue: bool = False) -> None:
    """Raises if others may write there. In the queue they may, but not take away what is not
    theirs."""
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in (os.geteuid(), 0):
        raise DataDirectoryError(
            f"{folder} belongs to another account (uid {found.st_uid}), which could write there; "
            f"run as that account, or: chown -R {os.geteuid()} {folder}"
        )
    if not mode & 0o022 or (is_queue and mode & stat.S_ISVTX):
        return
    fix = f"chmod +t {folder}" if is_queue else f"chmod go-w {folder}"
    raise DataDirectoryError(f"{folder} may be written by others (mode {mode:o}); run: {fix}")


def _make_root(layout: DataLayout) -> None:
    """The directory is there for good: a name that is not synced takes all below it along."""
    root = layout.root
    made = [path for path in (root, *root.parents) if not path.exists()]
    try:
        root.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataDirectoryError(
            f"{root} cannot be the data directory: it, or what leads to it, is a file"
        ) from None
    except OSError as exc:
        raise DataDirectoryError(
            f"the data directory {root} cannot be made: {reason_of(exc)}; make it for this "
            "account, or give another one with --data"
        ) from exc
    if not layout.instance.exists() and root not in made:
        made.append(root)  # a first start that died may have left it unsynced
    for path in made:
        try:
            sync_directory(path.parent)
        except PermissionError:
            pass  # a folder that may be entered and not be listed
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
            # A file system that syncs no folders: whether this one does is tried right after.


def _check_free(layout: DataLayout, beside: Iterable[Path]) -> None:
    """Nothing is made, and no modes are changed, in a directory that belongs to something else.

    A directory of ours may hold anything besides. One that is still to become ours is empty, or
    holds what a first start that died has left, or what the names say is meant for it.

    Raises:
        DataDirectoryError: it holds something else.
    """
    try:
        names = {entry.name for entry in layout.root.iterdir()}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # it is made, or refused by what follows
    if _is_ours(layout, names):
        return
    expected = {path.name for path in layout.all} | _EXPECTED
    expected |= {_first_below(layout.root, path) for path in beside}
    strange = sorted(
        name for name in names - expected if not name.startswith((PASSING, *_temporaries(layout)))
    )
    if strange:
        raise DataDirectoryError(
            f"{layout.root} is no data directory of jobbus and not empty ({quoted(strange[0])} is "
            "in it); give --data an empty directory, or one that is still to be made"
        )


def _is_ours(layout: DataLayout, names: Collection[str]) -> bool:
    """Whether a service, or what writes commands for one, has made it what it is."""
    marks = (layout.instance, layout.journal, layout.queue)
    return not {path.name for path in marks}.isdisjoint(names)


def _temporaries(layout: DataLayout) -> tuple[str, ...]:
    """How the names of files begin that are on their way to their place."""
    return tuple(f".{path.name}." for path in layout.all)


def _first_below(root: Path, path: Path) -> str:
    """The name in `root` by which `path` is reached; empty if it lies elsewhere."""
    absolute = path.absolute()
    return absolute.relative_to(root).parts[0] if root in absolute.parents else ""


def check_ours(layout: DataLayout, *, may_be_empty: bool = False) -> None:
    """Something of a service's is in the directory: nothing is put into one of something else.

    Raises:
        DataDirectoryError: there is not, or it cannot be seen.
    """
    try:
        names = {entry.name for entry in layout.root.iterdir()}
    except PermissionError:
        raise DataDirectoryError(
            f"{layout.root} cannot be read; use the account of the service, or --url with a token"
        ) from None
    if (names or not may_be_empty) and not _is_ours(layout, names):
        raise DataDirectoryError(
            f"{layout.root} is no data directory of jobbus: no {layout.instance.name}, "
            f"{layout.journal.name}/ or {layout.queue.name}/ is in it; give the directory that "
            "serve --data names"
        )


def read_instance(layout: DataLayout) -> InstanceFile | None:
    """Who this directory is, if it ever had a service."""
    try:
        return msgspec.json.decode(layout.instance.read_bytes(), type=InstanceFile)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataDirectoryError(f"{layout.instance} is damaged: {error}") from error


def write_instance(layout: DataLayout, content: InstanceFile) -> None:
    """The file says `content`, whole, whatever happens meanwhile. Without it there is no start."""
    replace_file(layout.instance, msgspec.json.encode(content), need=Need.STOP)


def own_identity(layout: DataLayout, *, is_copied: bool) -> InstanceFile:
    """Who this directory is, on record. A copy of another one becomes itself here, before anything
    follows from what it says. `is_copied`: what it holds is known to be a copy."""
    found = read_instance(layout) or InstanceFile(instance=secrets.token_hex(6))
    here = place_of(layout.root)
    own = msgspec.structs.replace(found, place=here)
    if is_copied or (found.place is not None and not found.place.may_be(here)):
        made, copy_of = secrets.token_hex(6), found.copy_of or found.instance
        # Nor must anybody be sent to where the original answers.
        own = msgspec.structs.replace(own, instance=made, copy_of=copy_of, url="", pid=0)
    if own != found:
        write_instance(layout, own)
    return own


def secret_key(layout: DataLayout) -> bytes:
    """32 bytes known only to this account; made once, by the first that needs it.

    Raises:
        DataDirectoryError: the file has lost them; with a key that anybody can guess, others of
            the queue's group could write what counts as ours.
    """
    path = layout.secret_key
    found = made_once(path, lambda: secrets.token_bytes(SECRET_BYTES))
    if len(found) < SECRET_BYTES:
        raise DataDirectoryError(f"{path} is damaged; remove it, and the next start makes another")
    return found
