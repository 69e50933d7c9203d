"""Files that are no command: kept aside with the reason, within bounds, let back when repaired."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import structlog
from msgspec.structs import replace

from bus.clock import Clock
from bus.layout import DataLayout
from bus.recurring import Recurring
from bus.scarcity import reason_of
from transports.directory import disk, reject_reasons
from transports.directory.disk import Mark
from transports.directory.poison import InHandNote
from transports.directory.reject_reasons import POISON, Kept, ReasonFile, kept_as, kept_in, stamp
from transports.directory.settings import DirectorySettings

log = structlog.get_logger("jobbus.directory")


class Rejects:
    """The directory of rejected files. All methods block: they belong into the scanner's thread.

    `repaired_name` says of a changed file whether it is a command now (and then under which name it
    belongs into the queue) or not. A death of reading it is put down to the file, by `in_hand`.

    `_kept` has the rejected files by name, oldest first, with their marks; it is read from the
    directory at the first call, and every method keeps it in step. `_poisoned` are the names in it
    that starts died of, None if that has to be worked out again. `forget_before_ms` is set from
    outside, `_forgotten_ms` is how far that was done. `_is_bound_new`: the bounds changed since the
    files were counted.
    """

    def __init__(
        self,
        layout: DataLayout,
        settings: DirectorySettings,
        clock: Clock,
        repaired_name: Callable[[str, int], str | None],
        in_hand: InHandNote,
    ) -> None:
        self._queue: Path = layout.queue
        self._path: Path = layout.rejects
        self._settings = settings
        self._clock = clock
        self._repaired_name = repaired_name
        self._in_hand = in_hand
        self._kept: dict[str, Kept] | None = None
        self._troubles = Recurring(log)
        self._poisoned: frozenset[str] | None = None
        self.forget_before_ms = 0
        self._forgotten_ms = 0
        self._is_bound_new = False

    def go_by(self, settings: DirectorySettings) -> None:
        """From now on these count; what is more than they allow goes with the next examination."""
        self._settings = settings
        self._is_bound_new = True

    def take(self, name: str, queue_fd: int, reason: str) -> None:
        """The file is out of the queue and lies here with its reason; nothing is overwritten."""
        kept = self._load()
        now_ms = self._clock.now_ms()
        disk.make_directory(self._path)  # it may have been removed altogether
        with disk.open_directory(self._path) as here:
            try:
                mark = disk.mark_of(name, queue_fd)
            except FileNotFoundError:
                return
            digest = self._digest(name, queue_fd)
            kept_name = self._free_name(name, mark, now_ms)
            shown = name.encode("utf-8", "backslashreplace").decode()
            file = ReasonFile(
                original_name=shown,
                reason=reason,
                rejected_at=stamp(now_ms),
                inode=mark.inode,
                size=mark.size,
                mtime_ns=mark.mtime_ns,
                uid=mark.uid,
                digest=digest,
            )
            reject_reasons.write(kept_name, here, file)
            moved = self._move(name, queue_fd, kept_name, here, mark)
            kept[kept_name] = kept_as(moved, file)
            self._poisoned = None
            self._troubles.say(f"rejected {shown}: {reason}", f"{mark.uid} {reason}")
            self._prune(here)

    def come_back(self) -> int:
        """Files that were changed here and are commands now lie in the queue again; how many."""
        kept = self._load()
        if self.forget_before_ms > self._forgotten_ms:
            self._forget_old()
        if self._is_bound_new:
            self._is_bound_new = False
            with disk.open_directory(self._path) as here:
                self._prune(here)
        if not kept:
            return 0
        came = 0
        with disk.open_directory(self._path) as here, disk.open_directory(self._queue) as queue_fd:
            for name, before in list(kept.items())[-self._settings.rejects_max :]:
                try:
                    now = disk.mark_of(name, here)
                except FileNotFoundError:
                    self._forget(name, here)
                    continue
                if _same_file(now, before.mark):
                    continue
                kept[name] = replace(before, mark=now)
                if self._is_as_rejected(name, here, now, before):
                    continue
                came += self._let_back(name, here, queue_fd)
        return came

    def give_up_on(self, name: str) -> None:
        """Starts died of reading what the file was changed to: it stays until it changes again."""
        kept = self._load()
        with disk.open_directory(self._path) as here:
            try:
                found = reject_reasons.read(name, here)
                mark = disk.mark_of(name, here)
            except (OSError, disk.Unfit, disk.InMotion, ValueError) as error:
                log.debug("%s is not there any more: %s", name, error)
                return
            digest = self._digest(name, here)
            file = replace(
                found,
                reason=f"{POISON}starts of the service died of reading what it was changed to",
                inode=mark.inode,
                size=mark.size,
                mtime_ns=mark.mtime_ns,
                digest=digest,
            )
            reject_reasons.write(name, here, file)
        kept[name] = kept_as(mark, file)
        self._poisoned = None

    def has_poison(self, name: str) -> bool:
        """Whether starts died of a file of this name, however it came to lie in the queue again."""
        kept = self._load()
        if self._poisoned is None:
            self._poisoned = frozenset(each.poison for each in kept.values() if each.poison)
        return bool(self._poisoned) and name.lower() in self._poisoned

    def name_of_key(self, key: str) -> str | None:
        """The name of the file here that a note of what is in hand means by `key`; None if it means
        another."""
        prefix = self._key_of("")
        return key.removeprefix(prefix) if key.startswith(prefix) else None

    def _key_of(self, name: str) -> str:
        return f"{self._path.name}/{name}"

    def _is_as_rejected(self, name: str, here: int, now: Mark, before: Kept) -> bool:
        """Whether the file holds what was rejected: what was copied, restored or touched is not
        repaired, and must not run by itself."""
        if before.digest:
            return self._digest(name, here) == before.digest
        return (now.size, now.mtime_ns) == (before.mark.size, before.mark.mtime_ns)

    def _digest(self, name: str, inside: int) -> str:
        """A hash of the content; empty if it is more than a command may hold, or cannot be read."""
        try:
            data = disk.read_file(name, inside, self._settings.file_size_max).data
        except (FileNotFoundError, disk.Unfit, disk.InMotion):
            return ""
        return hashlib.blake2b(data, digest_size=16).hexdigest()

    def _move(self, name: str, queue_fd: int, kept_name: str, here: int, mark: Mark) -> Mark:
        try:
            os.rename(name, kept_name, src_dir_fd=queue_fd, dst_dir_fd=here)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return self._cut(kept_name, here, mark)
        # The queue has a file system of its own: a copy is kept, of what may be read of it.
        try:
            data = disk.read_file(name, queue_fd, self._settings.file_size_max).data
        except (disk.Unfit, disk.InMotion):
            data = b""
        disk.replace_file(kept_name, here, data)
        disk.remove(name, queue_fd)
        return disk.mark_of(kept_name, here)

    def _cut(self, kept_name: str, here: int, mark: Mark) -> Mark:
        """A file larger than all rejects may be together is kept as far as a command may reach."""
        if not mark.is_regular or mark.size <= self._settings.rejects_bytes_max:
            return mark
        try:
            disk.truncate_file(kept_name, here, self._settings.file_size_max)
        except OSError as error:
            self._troubles.say(f"{kept_name} cannot be cut: {reason_of(error)}", "cut")
            disk.remove(kept_name, here)
            return replace(mark, size=0)
        return disk.mark_of(kept_name, here)

    def _let_back(self, name: str, here: int, queue_fd: int) -> int:
        with self._in_hand.holding((self._key_of(name),), "rejects"):
            original = self._repaired_name(name, here)
        if original is None:
            return 0
        try:
            os.link(name, original, src_dir_fd=here, dst_dir_fd=queue_fd, follow_symlinks=False)
        except OSError as error:  # taken meanwhile, or another file system: it stays for people
            reason = reason_of(error)
            self._troubles.say(f"{original} was repaired but cannot go back: {reason}", "back")
            return 0
        disk.remove(name, here)
        self._forget(name, here)
        log.info("%s was repaired and is back in the queue", original)
        return 1

    def _load(self) -> dict[str, Kept]:
        """What lies here, oldest first, with the marks of the time of rejection."""
        if self._kept is None:
            disk.make_directory(self._path)
            with disk.open_directory(self._path) as here:
                disk.sweep_passing(here)
                self._kept = kept_in(here, self._clock.now_ms())
        return self._kept

    def _prune(self, here: int) -> None:
        """The oldest go until count and bytes are within the bounds."""
        kept = self._load()
        total = sum(each.mark.size for each in kept.values() if each.mark.is_regular)
        for name in list(kept):
            few = len(kept) <= self._settings.rejects_max
            if few and total <= self._settings.rejects_bytes_max:
                return
            total -= kept[name].mark.size if kept[name].mark.is_regular else 0
            disk.remove(name, here)
            self._forget(name, here)

    def _forget_old(self) -> None:
        """Names begin with the time of the rejection."""
        self._forgotten_ms = self.forget_before_ms
        oldest = stamp(self.forget_before_ms)
        with disk.open_directory(self._path) as here:
            for name in [name for name in self._load() if name < oldest]:
                disk.remove(name, here)
                self._forget(name, here)

    def _forget(self, name: str, here: int) -> None:
        self._load().pop(name, None)
        self._poisoned = None
        disk.remove(reject_reasons.name_of(name), here)

    def _free_name(self, name: str, mark: Mark, now_ms: int) -> str:
        content = f"{name}\0{mark.inode}\0{mark.mtime_ns}".encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        stem = f"{stamp(now_ms)}-{digest}"
        while f"{stem}.json" in self._load():
            stem += "x"
        return f"{stem}.json"


def _same_file(now: Mark, before: Mark) -> bool:
    return (now.inode, now.size, now.mtime_ns) == (before.inode, before.size, before.mtime_ns)
