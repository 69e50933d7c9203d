"""What became of an execution, read from its folder and from /proc. Blocking; called in threads.

The order of the questions matters. A shim takes `lock` before it creates its claim and writes
`exit.json` before it lets `lock` go, so: claim, then lock, then exit record.
"""

import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

from bus.descriptors import DESCRIPTORS
from bus.files import (
    NotRegular,
    created_once,
    open_directory,
    read_regular,
    replace_file,
    sync_directory,
)
from bus.layout import DIRECTORY_MODE, DataLayout, ExecutionLayout
from bus.model import Reason, StopRequest
from bus.recurring import Recurring
from bus.reserve_spares import Need, make_way
from bus.scarcity import NO_MEANS, NO_ROOM, reason_of
from handlers.shim.assignment import CLAIMED_BY_SERVICE, claim_name
from handlers.shim.process_tree import boot_id, is_alive
from handlers.supervision.execution_inputs import (
    Alive,
    Elsewhere,
    Ended,
    Finding,
    Gone,
    NeverRan,
    Orphaned,
)
from handlers.supervision.record import ShimState, decode_exit, decode_state, encode_control

log = structlog.get_logger("jobbus.supervisor")
_troubles = Recurring(log)
_stop_troubles = Recurring(log)

GENERATIONS_MAX = 1000
CLAIM_WORDS = 4
"""Of a shim's claim: `shim`, its pid, its folder's device and inode, the start of the machine."""
RECORD_BYTES_MAX = 1 << 20


def investigate(layout: DataLayout, execution_id: str, *, is_copied: bool = False) -> Finding:
    """The claim is decided after this: either it is ours, or a shim had it.

    `is_copied`: it was begun before the data directory was copied. Then only what proves itself to
    be of this directory counts, a lock that is held or the folder's own mark in the files.
    """
    place = layout.execution(execution_id)
    _open_up(place.root)
    for generation in range(GENERATIONS_MAX):
        claim = place.root / claim_name(generation)
        content = _read(claim)  # first, since to try for it takes room on the disk, and a sync
        if content is None:
            if _win(claim):
                return Elsewhere(None) if is_copied else NeverRan(generation + 1)
            content = _read(claim)
        if content != CLAIMED_BY_SERVICE:
            return _after_claim(place, content or b"", is_copied=is_copied)
    return Gone(Reason.NO_EXIT_RECORD)


def investigate_all(
    layout: DataLayout, ids: Iterable[str], *, is_copied: bool = False
) -> list[Finding]:
    """`investigate` for each; one that cannot be read counts as alive for now."""
    return [_investigate_or_wait(layout, each, is_copied=is_copied) for each in ids]


def look_at_all(layout: DataLayout, ids: Iterable[str]) -> list[tuple[ShimState | None, bool]]:
    """`look` for each, and whether there is an exit record."""
    return [
        (_look_or_wait(layout, execution_id), _is_there(layout.execution(execution_id).exit))
        for execution_id in ids
    ]


def look(layout: DataLayout, execution_id: str) -> ShimState | None:
    """What the shim last wrote about itself; changes nothing."""
    data = _read(layout.execution(execution_id).process)
    return None if data is None else decode_state(data)


def write_control(layout: DataLayout, execution_id: str, order: StopRequest) -> None:
    """The order is durable; the shim follows it when it looks."""
    place = layout.execution(execution_id)
    _open_up(place.root)
    # Not the last spares: an order reaches its shim without the file, a command does not.
    replace_file(place.control, encode_control(order), need=Need.RECORD)


def try_control(layout: DataLayout, execution_id: str, order: StopRequest) -> bool:
    """Whether the order is written as by `write_control`; why not is logged."""
    try:
        write_control(layout, execution_id, order)
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and DESCRIPTORS.release_for(error):
            return try_control(layout, execution_id, order)
        _stop_troubles.say(f"stops cannot be written, only sent: {reason_of(error)}")
        return False
    _stop_troubles.over("stops can be written again")
    return True


def warn_of_copy(execution_id: str, state: ShimState | None) -> None:
    """What may run is not ours to signal: the files here are copies of its files."""
    if state is not None and is_alive(state.shim, state.shim_ticks):
        log.warning(
            "an execution runs in the directory that this one is a copy of; it is left alone",
            execution=execution_id,
            shim=state.shim,
            pid=state.pid,
        )


def _investigate_or_wait(layout: DataLayout, execution_id: str, *, is_copied: bool) -> Finding:
    try:
        finding = investigate(layout, execution_id, is_copied=is_copied)
    except OSError as error:
        _troubles.say(f"executions cannot be looked at; those that ran wait: {reason_of(error)}")
        return Alive(None)
    _troubles.over("executions can be looked at again")
    return finding


def _look_or_wait(layout: DataLayout, execution_id: str) -> ShimState | None:
    try:
        return look(layout, execution_id)
    except OSError as error:
        log.debug("an execution could not be looked at; tried again", error=str(error))
        return None


def _win(claim: Path) -> bool:
    """Creates the claim in our name unless it exists. Linked, so that its content is never partial:
    an empty claim is a shim's."""
    if not created_once(claim, CLAIMED_BY_SERVICE, need=Need.STOP):
        return False
    sync_directory(claim.parent.parent)
    return True


def _after_claim(place: ExecutionLayout, claim: bytes, *, is_copied: bool) -> Finding:
    """What the files say. A lock is held on a file, and never on a copy of it."""
    state = None if (data := _read(place.process)) is None else decode_state(data)
    if _is_locked(place.lock):
        return Alive(state)
    record = _read(place.exit)
    if record is not None and (exit_ := decode_exit(record)) is not None:
        return Ended(exit_)
    if not _is_of_here(place, claim, state, is_copied=is_copied):
        return Elsewhere(state)
    if state is None:
        # It died before it wrote who it is, so it never let the program run past the barrier.
        booted = claim.split()[-1:] in ([], [boot_id().encode()])
        return Gone(Reason.NO_EXIT_RECORD if booted else Reason.HOST_RESTART)
    if state.boot != boot_id():
        return Gone(Reason.HOST_RESTART)
    if is_alive(state.shim, state.shim_ticks):
        return Alive(state)  # its program has removed the lock
    return Orphaned(state)


def _is_of_here(
    place: ExecutionLayout, claim: bytes, state: ShimState | None, *, is_copied: bool
) -> bool:
    """Whether the shim that wrote these files wrote them into this folder.

    Devices have other numbers after a start of the machine; then nothing of it lives anyway. Shims
    of earlier versions say nothing of their folder, nor does a claim that was not written to the
    end: then it counts whether the whole directory is a copy.
    """
    words = claim.split()
    if words[-1:] != [boot_id().encode()] and (state is None or state.boot != boot_id()):
        return True
    written = state.folder if state is not None else ""
    if not written and len(words) == CLAIM_WORDS:
        written = words[2].decode("ascii", "replace")
    if not written:
        return not is_copied
    here = place.root.stat()
    return written == f"{here.st_dev}:{here.st_ino}"


def _open_up(folder: Path) -> None:
    """The folder is there and can be entered; its program may have removed or closed it."""
    try:
        folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    except OSError as error:
        if error.errno not in NO_ROOM or not _make_way(folder.parent):
            raise
        folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    mode = folder.lstat().st_mode
    if stat.S_ISDIR(mode) and mode & DIRECTORY_MODE != DIRECTORY_MODE:
        folder.chmod(DIRECTORY_MODE)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:  # a folder that its program has closed, too
        return False
    return True


def _is_locked(lock: Path) -> bool:
    """Whether a shim lives. The lock is taken for a moment; a shim that starts tries again."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in NO_MEANS:
            raise
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read(path: Path) -> bytes | None:
    try:
        return read_regular(path, RECORD_BYTES_MAX)
    except NotRegular:
        return None
    except OSError as error:
        if error.errno in NO_MEANS:
            raise
        return None


def _make_way(folder: Path) -> bool:
    with open_directory(folder) as descriptor:
        return make_way(descriptor)
