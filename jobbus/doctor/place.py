"""The directory itself: whose it is, who may write there, what it lies on. Blocking."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bus.files import NETWORK_FILE_SYSTEMS, file_system_of
from bus.free_space import LOW_BYTES, LOW_INODES
from bus.layout import DIRECTORY_MODE, FILE_MODE, DataLayout
from handlers.disk_space import scarcest
from jobbus.doctor.findings import Fix, Look, error, note, warning

_WITHOUT_MODES = ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk")
_SECRETS = ("admin.token", "secret.key", "tokens.json", "sessions.json")


def look_at_place(layout: DataLayout) -> Look:
    yield from _owner_and_modes(layout)
    yield from _file_system(layout)


def folders_of(layout: DataLayout) -> tuple[Path, ...]:
    return (
        layout.queue,
        layout.results,
        layout.status,
        layout.output,
        layout.rejects,
        layout.journal,
    )


def _owner_and_modes(layout: DataLayout) -> Look:
    found = layout.root.stat()
    if os.geteuid() not in (0, found.st_uid):
        yield error(
            "owner",
            f"{layout.root} belongs to account {found.st_uid}; run doctor and the service as that "
            "account",
        )
    kind = file_system_of(layout.root)
    if found.st_mode & 0o022 and kind in _WITHOUT_MODES:
        yield error(
            "modes",
            f"{layout.root} is on {kind}, which keeps no modes: everybody may write there, and "
            f"chmod changes nothing; mount it with umask=077 and uid={found.st_uid}",
        )
    elif found.st_mode & 0o022:
        yield _chmod(
            layout.root,
            found.st_mode & ~0o022,
            f"{layout.root} may be written by others, so the service refuses it",
        )
    for folder in folders_of(layout):
        if not folder.is_dir():
            yield note("folders", f"{folder.name}/ is missing; the next start makes it")
        elif folder.stat().st_uid != found.st_uid:
            yield error(
                "owner",
                f"{folder.name}/ belongs to another account than the directory; chown it, or the "
                "service cannot write there",
            )
    yield from _secrets(layout)


def _secrets(layout: DataLayout) -> Look:
    for name in _SECRETS:
        path = layout.root / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            yield error("secrets", f"{name} is not a regular file; put the file itself")
        elif mode & 0o077:
            text = f"{name} can be read by other accounts, which may then sign in with it"
            yield _chmod(path, FILE_MODE, text)


def _chmod(path: Path, mode: int, text: str) -> Fix:
    wanted = stat.S_IMODE(mode) & (DIRECTORY_MODE | 0o055 if path.is_dir() else FILE_MODE)
    command = f"chmod {wanted:o} {path}"
    finding = error("modes", f"{text}; run: {command}", repair=command)
    return Fix(finding, lambda: path.chmod(wanted))


def _file_system(layout: DataLayout) -> Look:
    kind = file_system_of(layout.root)
    if kind in NETWORK_FILE_SYSTEMS:
        yield warning(
            "file_system",
            f"{layout.root} is on a network file system ({kind}), where locks and syncs may not "
            "hold; move it to a local disk",
        )
    elif kind.startswith("fuse"):
        yield note(
            "file_system",
            f"{layout.root} is on {kind}: each command is synced alone there, which is slower",
        )
    space = scarcest(list(_there(layout)))
    if space.is_low:
        yield error(
            "space",
            f"{space.bytes_free // 1024**2} MiB and {space.inodes_free} inodes are left, less than "
            f"{LOW_BYTES // 1024**2} MiB and {LOW_INODES}: nothing is started; make room, or keep "
            "less by [keep] in jobbus.toml",
        )


def _there(layout: DataLayout) -> Iterator[Path]:
    yield layout.root
    yield from (folder for folder in folders_of(layout) if folder.is_dir())
