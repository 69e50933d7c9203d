"""How commands become durable files: the write protocol. Blocking.

A file appears under its name only when its bytes are on the disk, and is acknowledged only when its
name is too. Both syncs are needed: without either, a power cut loses acknowledged commands.
"""

import os
import secrets
import time
from collections.abc import Sequence

import msgspec
import structlog

from bus.descriptors import DESCRIPTORS
from bus.errors import BusError, NoSpace, StorageFailed, TransportBusy
from bus.layout import DataLayout
from bus.reserve_spares import Need, make_way
from bus.scarcity import NO_DESCRIPTOR, NO_ROOM, reason_of
from transports.directory import disk

log = structlog.get_logger("jobbus.directory")

LINK_TRIES = 4
TRIES = 4
TRY_AGAIN_S = 0.1
"""A commit that found no descriptor waits so long, and so often, for connections to be closed."""


class Piece(msgspec.Struct):
    """One file on its way into the queue; after the commit `error` or `taken` or neither is set.

    `taken`: its name was there already; nothing was overwritten. With a `need` it goes in on a full
    disk, too, as long as the reserve lasts. An `urgent` one goes first.
    """

    id: str
    data: bytes = b""
    need: Need | None = None
    urgent: bool = False
    owner: str = ""
    error: BusError | None = None
    taken: bool = False
    _tmp: str = ""

    @property
    def name(self) -> str:
        return f"{self.id}.json"


def commit(layout: DataLayout, pieces: Sequence[Piece], *, group: bool) -> float:
    """All pieces are durable under their names, or say why not; the seconds until their bytes were.

    With `group`, one `syncfs` serves all; else every file is synced alone. Two phases either way:
    no name is linked before all bytes are on the disk.

    Raises:
        StorageFailed: a sync failed; what the disk holds is unknown.
    """
    fault: BusError | None = None
    for left in reversed(range(TRIES)):
        try:
            with _OpenBoth(layout) as (queue_fd, tmp_fd):
                return _commit(pieces, queue_fd, tmp_fd, group=group)
        except disk.SyncFailed as error:
            raise storage_failed(error) from error
        except OSError as error:
            fault = _fault(error)
            if not (left and _may_pass(error)):
                break
    for piece in pieces:
        piece.error = piece.error or fault
    return 0.0


def storage_failed(error: disk.SyncFailed) -> StorageFailed:
    """What a failed sync means to publishers."""
    return StorageFailed(f"{error}; the service must restart and read what is there")


def _may_pass(error: OSError) -> bool:
    """Whether a moment later it may be otherwise: descriptors come back when others are closed."""
    if DESCRIPTORS.release_for(error):
        return True
    if error.errno in NO_DESCRIPTOR:
        time.sleep(TRY_AGAIN_S)
    return error.errno in NO_DESCRIPTOR


def can_group(layout: DataLayout) -> bool:
    """Whether `syncfs` does its work on the queue's file system."""
    with disk.open_directory(layout.queue) as handle:
        return disk.syncs_all_for_real(handle)


class _OpenBoth:
    """Descriptors of the queue and of its `.tmp`, which is made if it was removed."""

    def __init__(self, layout: DataLayout) -> None:
        self._layout = layout

    def __enter__(self) -> tuple[int, int]:
        try:
            return self._open()
        except FileNotFoundError:
            disk.make_directory(self._layout.queue_tmp)
            return self._open()

    def _open(self) -> tuple[int, int]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._queue = os.open(self._layout.queue, flags)
        try:
            self._tmp = os.open(".tmp", flags | os.O_NOFOLLOW, dir_fd=self._queue)
        except OSError:
            os.close(self._queue)
            raise
        return self._queue, self._tmp

    def __exit__(self, *_: object) -> None:
        os.close(self._tmp)
        os.close(self._queue)


def _commit(pieces: Sequence[Piece], queue_fd: int, tmp_fd: int, *, group: bool) -> float:
    began_s = time.monotonic()
    written = [piece for piece in pieces if _write(piece, tmp_fd, sync=not group)]
    try:
        if group and written:
            began_s = time.monotonic()  # files that are not synced are written in no time
            disk.sync_all(queue_fd)
        took_s = time.monotonic() - began_s
        linked = [piece for piece in written if _link(piece, tmp_fd, queue_fd)]
    finally:
        for piece in written:
            _discard(piece, tmp_fd)
    if linked:
        _sync_names(queue_fd)
    return took_s


def _write(piece: Piece, tmp_fd: int, *, sync: bool) -> bool:
    piece._tmp = f"{piece.id}.{secrets.token_hex(6)}"
    for left in reversed(range(TRIES)):
        try:
            disk.create_file(piece._tmp, tmp_fd, piece.data, sync=sync, need=piece.need)
        except OSError as error:
            _discard(piece, tmp_fd)
            piece.error = _fault(error)
            if not (left and _may_pass(error)):
                return False
        else:
            piece.error = None
            return True
    return False


def _discard(piece: Piece, tmp_fd: int) -> None:
    """Its name on the way is gone, or is swept later: what was linked is none the less there."""
    try:
        disk.remove(piece._tmp, tmp_fd)
    except OSError as error:
        log.warning("left in .tmp: %s", error)


def _link(piece: Piece, tmp_fd: int, queue_fd: int) -> bool:
    for _ in range(LINK_TRIES):
        try:
            os.link(
                piece._tmp,
                piece.name,
                src_dir_fd=tmp_fd,
                dst_dir_fd=queue_fd,
                follow_symlinks=False,
            )
        except FileExistsError:
            piece.taken = True
            return False
        except OSError as error:
            piece.error = _fault(error)
            is_full = error.errno in NO_ROOM  # for one more name in the folder
            if piece.need is None or not is_full or not make_way(queue_fd):
                return False
        else:
            piece.error = None
            return True
    return False


def _sync_names(queue_fd: int) -> None:
    try:
        disk.sync_directory(queue_fd)
    except OSError as error:  # no room for names that are linked already: neither there nor not
        raise disk.SyncFailed(f"the directory could not be synced: {error.strerror}") from error


def _fault(error: OSError) -> BusError:
    if error.errno in NO_ROOM:
        return NoSpace("the disk has no room for the command; nothing was accepted")
    return TransportBusy(f"the command could not be written: {reason_of(error)}")
