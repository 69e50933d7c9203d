"""Room that is held back on the disks of a data directory, for what must be written when they are
full: stops, ends, their records, and the start of the service itself. Blocking IO.

It is held as files, in bytes and in inodes, and given away as such: a writer that needs room gets a
file that has it, under the name it wants. Room that was only set free would be gone by the next
write of the program that fills the disk. *Spares* (`bus.reserve_spares`) are small, for one
command, order or record each, and lie in `.reserve` on each file system. The *ballast* is large: it
becomes a segment of the journal.

Shims hold the room for their exit records themselves (`handlers.shim.files`).
"""

import os
from collections.abc import Iterator
from pathlib import Path

from bus.files import write_all
from bus.free_space import space_of
from bus.layout import DIRECTORY_MODE, FILE_MODE, DataLayout
from bus.reserve_spares import CREATE_FLAGS, FOLDER, FOLDER_FLAGS, PREFIX, SPARES, fill

BALLAST_BYTES = 8 * 1024 * 1024


class Reserve:
    """The spares of one data directory, on each of its file systems."""

    def __init__(self, layout: DataLayout) -> None:
        self._folders = (
            layout.root,
            layout.queue,
            layout.results,
            layout.status,
            layout.output,
            layout.journal,
        )

    @property
    def is_held(self) -> bool:
        """Whether all of it is."""
        return all(self._count(folder) >= SPARES for folder in self._homes())

    def hold(self) -> bool:
        """Whether all of it is held now; nothing is taken where little is left."""
        held = [self._hold(folder) for folder in self._homes()]
        return all(held)

    def _homes(self) -> Iterator[Path]:
        """The first folder on each file system."""
        devices = set()
        for folder in self._folders:
            try:
                device = folder.stat().st_dev
            except OSError:
                continue  # it was removed; the part that needs it makes it again
            if device not in devices:
                devices.add(device)
                yield folder

    def _count(self, folder: Path) -> int:
        try:
            return sum(name.startswith(PREFIX) for name in os.listdir(folder / FOLDER))
        except OSError:
            return 0

    def _hold(self, folder: Path) -> bool:
        if self._count(folder) >= SPARES:
            return True
        if space_of(folder).is_low:
            return False
        place = folder / FOLDER
        try:
            place.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            handle = os.open(place, FOLDER_FLAGS)
        except OSError:
            return False  # the next look tries again
        try:
            fill(handle)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True


class Ballast:
    """The large piece: a file of zeros in the journal's folder."""

    def __init__(self, directory: Path, size: int = BALLAST_BYTES) -> None:
        self._path = directory / ".ballast"
        self._size = size

    @property
    def is_held(self) -> bool:
        """Whether the room is held back; blocking, but only a system call."""
        try:
            return self._path.lstat().st_size == self._size
        except FileNotFoundError:
            return False

    def hold(self) -> bool:
        """Whether the room is held back now; it is not taken while little is left."""
        if self.is_held:
            return True
        try:
            self._path.unlink(missing_ok=True)
            if self._size == 0 or space_of(self._path.parent).is_low:
                return False
            self.take()
        except OSError:
            return False  # nothing depends on it: the next call tries again
        return True

    def take(self) -> None:
        """The room is held back, or it cannot be: OSError."""
        descriptor = os.open(self._path, CREATE_FLAGS, FILE_MODE)
        try:
            if hasattr(os, "posix_fallocate"):
                # Not written: zeros would take no room where the file system compresses.
                os.posix_fallocate(descriptor, 0, self._size)
            else:
                write_all(descriptor, bytes(self._size))
            os.fsync(descriptor)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)

    def become(self, path: Path) -> bool:
        """The file, with its room, lies under `path` in the same folder; False if none is held."""
        try:
            self._path.rename(path)
        except FileNotFoundError:
            return False
        return True

    def put_back(self, path: Path) -> None:
        """The opposite of `become`, for a file that was not written to."""
        path.rename(self._path)

    def release(self) -> bool:
        """The room is free for others; False if it was before.

        Raises:
            OSError: the folder could not be synced.
        """
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        handle = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)  # some file systems give the room back only then
        finally:
            os.close(handle)
        return True
