"""Why files lie in Rejects: the reason file beside each, written and read. Blocking."""

import os

import msgspec
import structlog
from msgspec.structs import replace

from bus.clock import rfc3339
from bus.retention_settings import DAY_MS
from transports.directory import disk
from transports.directory.disk import Mark

log = structlog.get_logger("jobbus.directory")

REASON = ".reason.json"
POISON = "poison: "
"""With this word begins the reason of what starts of the service died of."""
_SIZE_MAX = 65_536


class ReasonFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={
    "original_name": "OriginalName", "reason": "Reason", "rejected_at": "RejectedAt",
    "inode": "Inode", "size": "Size", "mtime_ns": "ModifiedNs", "uid": "OwnerUid",
    "digest": "Digest",
}):  # fmt: skip
    """Why a file lies in Rejects, and what it was like then (to see whether it was repaired)."""

    original_name: str
    reason: str
    rejected_at: str = ""
    inode: int = 0
    size: int = 0
    mtime_ns: int = 0
    uid: int = 0
    digest: str = ""


class Kept(msgspec.Struct, frozen=True):
    """A rejected file: its mark when it was last examined, and what it held when it was rejected.

    `digest` is empty where that could not be read, and in what earlier versions rejected. `poison`
    is the name it had, if starts died of it.
    """

    mark: Mark
    digest: str
    poison: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ReasonFile)


def write(name: str, here: int, file: ReasonFile) -> None:
    """The reason of the rejected file of this name is on the disk."""
    disk.replace_file(name_of(name), here, _encoder.encode(file) + b"\n")


def read(name: str, here: int) -> ReasonFile:
    """The reason of the rejected file of this name.

    Raises:
        OSError, Unfit, InMotion: see `disk.read_file`.
        ValueError: it is no reason file.
    """
    return _decoder.decode(disk.read_file(name_of(name), here, _SIZE_MAX).data)


def name_of(name: str) -> str:
    """What the reason file of a rejected file is called."""
    return name.removesuffix(".json") + REASON


def kept_in(here: int, now_ms: int) -> dict[str, Kept]:
    """What lies here, oldest first, with the marks of the time of rejection."""
    # What a clock rejected that was ahead is no newer than what came after it.
    today = stamp(now_ms + DAY_MS)
    names = sorted(_files_in(here), key=lambda name: (name <= today, name))
    return {
        name: _recorded(name, here)
        for name in names
        if name.endswith(".json") and not name.endswith(REASON)
    }


def kept_as(mark: Mark, file: ReasonFile) -> Kept:
    """A rejected file that has this reason and this mark."""
    is_poison = file.reason.startswith(POISON)
    return Kept(mark, file.digest, file.original_name.lower() if is_poison else "")


def stamp(now_ms: int) -> str:
    """The time of a rejection, with which the names of its files begin."""
    return rfc3339(now_ms).replace("-", "").replace(":", "").replace(".", "")


def _recorded(name: str, here: int) -> Kept:
    now = disk.mark_of(name, here)
    try:
        file = read(name, here)
    except (OSError, disk.Unfit, disk.InMotion, ValueError) as error:
        log.debug("no reason for %s: %s", name, error)
        return Kept(now, "")
    return kept_as(replace(now, inode=file.inode, size=file.size, mtime_ns=file.mtime_ns), file)


def _files_in(here: int) -> list[str]:
    """The names of all but folders, of which none is ours."""
    with os.scandir(here) as entries:
        return [each.name for each in entries if not each.is_dir(follow_symlinks=False)]
