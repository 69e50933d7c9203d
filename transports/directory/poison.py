"""Which work kills the service: what is in hand is noted before it begins, and read after a death.

Two notes lie beside the queue: `.handling` has the ids of commands that are decided and acted upon,
`.reading` the names of files that are read. What was in hand when two starts died is poison: it is
set aside, so that the third start lives. A command that is on record was accepted, so it takes one
death more. A note is overwritten in place and not synced: a process that dies leaves it with the
kernel, and a power cut blames no command.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from bus.layout import FILE_MODE, DataLayout
from bus.reserve_spares import Need, keep_room, take
from bus.scarcity import NO_ROOM
from transports.directory import disk

log = structlog.get_logger("jobbus.directory")

CAREFUL_COMMANDS = 2048
"""More than can have been under way (inbox and batch) when the service died."""
DEATHS_MAX = 2
"""So often a start may die of what is not on record: setting it aside is a refusal."""

DEATHS_RECORDED_MAX = 3
"""… and of what is. It failed no check, and it is in hand also for what merely comes with it: two
kills from outside, one in a batch and one in the start after it, met an execution that was to blame
for neither."""
HANDLING = ".handling"
READING = ".reading"
ROOM_BYTES = 32 * 1024
"""A whole batch of the owner's."""
_SIZE_MAX = 1 << 20
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Suspect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Work that was in hand in `deaths` starts that died, or is now.

    `after` counts deaths after it was on record: what kills does so at the same point each time.
    """

    key: str
    deaths: int = 0
    in_hand: bool = False
    after: int = 0


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line of the file. `id` and `deaths` are what earlier versions wrote."""

    boot: str = ""
    suspects: tuple[Suspect, ...] = ()
    id: str = ""
    deaths: int = 0


class Deaths(NamedTuple):
    """In how many starts that died something was in hand: before it was on record, and after."""

    before: int = 0
    after: int = 0


_decoder = msgspec.json.Decoder(Note)
_encoder = msgspec.json.Encoder()


class InHandNote:
    """One note. All methods block, if only for a write to memory; from any thread.

    `is_recorded` says, at the start, whether the journal knows what came of it.
    `_hands` has what is in hand by its holder; `take` writes it. `_deaths` has in how many starts
    that died each suspect was; `begin` reads it from the last note, `forget` removes from it.
    `_handle` is the open file, None while it cannot be written. `_turn` guards all of them. The
    file exists exactly while a service runs or after one died.
    """

    def __init__(
        self,
        layout: DataLayout,
        name: str,
        is_recorded: Callable[[str], bool] = lambda key: False,
    ) -> None:
        self._is_recorded = is_recorded
        self._layout = layout
        self._name = name
        self._turn = threading.Lock()
        self._hands: dict[str, Sequence[str]] = {}
        self._deaths: dict[str, Deaths] = {}
        self._handle: int | None = None
        self._boot = _boot_id()

    def begin(self) -> dict[str, Deaths] | None:
        """Marks the start. In how many starts that died each suspect was in hand; None after an
        end in order."""
        with self._turn, disk.open_directory(self._layout.queue) as queue_fd:
            before = self._read(queue_fd)
            self._open(queue_fd)
            for suspect in before.suspects if before is not None else ():
                has_died = suspect.in_hand and before is not None and before.boot == self._boot
                key, deaths = _key(suspect.key), Deaths(suspect.deaths, suspect.after)
                if has_died and self._is_recorded(key):
                    deaths = deaths._replace(after=deaths.after + 1)
                elif has_died:
                    deaths = deaths._replace(before=deaths.before + 1)
                if any(deaths):
                    self._deaths[key] = deaths
            self._write()
            return None if before is None else dict(self._deaths)

    def is_suspect(self, key: str) -> bool:
        """Whether it was in hand in a start that died."""
        return key in self._deaths

    def take(self, keys: Sequence[str], holder: str = "") -> None:
        """The holder has these in hand and nothing else."""
        with self._turn:
            if keys:
                self._hands[holder] = keys
            elif self._hands.pop(holder, None) is None:
                return
            self._write()

    @contextlib.contextmanager
    def holding(self, keys: Sequence[str], holder: str) -> Iterator[None]:
        """A death in the block is put down to these."""
        self.take(keys, holder)
        try:
            yield
        finally:
            self.take((), holder)

    def forget(self, keys: Iterable[str]) -> None:
        """These are no suspects any more."""
        with self._turn:
            if [key for key in keys if self._deaths.pop(key, None) is not None]:
                self._write()

    def end(self) -> None:
        """Marks the end in order."""
        with self._turn:
            try:
                with disk.open_directory(self._layout.queue) as queue_fd:
                    disk.remove(self._name, queue_fd)
            except OSError as error:  # then the next start is careful
                log.warning("the orderly end cannot be marked: %s", error)
            self._close()

    def close(self) -> None:
        """The note stays as it is."""
        with self._turn:
            self._close()

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self) -> None:
        if self._handle is None:
            return
        held = dict.fromkeys(key for keys in self._hands.values() for key in keys)
        suspects = [self._suspect(key, in_hand=True) for key in held]
        suspects += [self._suspect(k, in_hand=False) for k in self._deaths.keys() - held.keys()]
        note = Note(boot=self._boot, suspects=tuple(suspects))
        with contextlib.suppress(OSError):  # a full disk must not keep commands back
            os.pwrite(self._handle, _encoder.encode(note) + b"\n", 0)

    def _suspect(self, key: str, *, in_hand: bool) -> Suspect:
        before, after = self._deaths.get(key, Deaths())
        return Suspect(key=_text(key), deaths=before, in_hand=in_hand, after=after)

    def _read(self, queue_fd: int) -> Note | None:
        try:
            found = disk.read_file(self._name, queue_fd, _SIZE_MAX)
            if found.mark.uid != os.geteuid():
                return None  # another account of the group could blame others' commands
            note = _decoder.decode(found.data.partition(b"\n")[0])
        except FileNotFoundError:
            return None
        except (disk.Unfit, disk.InMotion, ValueError) as error:
            log.debug("the note of the last start cannot be read: %s", error)
            return Note()
        if note.id:
            of_old = Suspect(key=note.id, deaths=note.deaths, in_hand=True)
            return Note(boot=self._boot, suspects=(of_old,))
        return note

    def _open(self, queue_fd: int) -> None:
        """The file is ours and has its room, if there is any way to that."""
        self._close()
        try:
            self._handle = self._opened(queue_fd)
        except OSError as error:
            log.warning("what is in hand cannot be noted: %s", os.strerror(error.errno or 0))

    def _opened(self, queue_fd: int) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(self._name, flags, FILE_MODE, dir_fd=queue_fd)
            found = disk.mark_of_open(handle)
            if found.uid != os.geteuid() or not found.is_regular or found.links != 1:
                os.close(handle)
                disk.remove(self._name, queue_fd)
                handle = os.open(self._name, flags | os.O_EXCL, FILE_MODE, dir_fd=queue_fd)
            with contextlib.suppress(OSError):
                keep_room(handle, 0, ROOM_BYTES)
        except OSError as error:
            spare = take(self._name, queue_fd, Need.RECORD) if error.errno in NO_ROOM else None
            if spare is None:
                raise
            return spare
        return handle


def _text(key: str) -> str:
    """A name of a file as text, whatever its bytes are."""
    return os.fsencode(key).decode("latin-1")


def _key(text: str) -> str:
    """The opposite of `_text`; of a text that `_text` did not make, the nearest name."""
    return os.fsdecode(text.encode("latin-1", "replace"))


def _boot_id() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""  # every start counts as on the same boot
