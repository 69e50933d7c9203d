"""The folder named in `JOBBUS_ARTIFACTS`: files that a program leaves for others.

Stdlib only. It is gone through once, when nothing of the program is left: what may be had stands in
`artifacts.json` from then on, with the size and time by which it is known again, and what may not
is removed. Everything in it comes from the job and may be hostile: no link is followed, only plain
files of one name count, and what is remembered is bounded.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from handlers.shim.assignment import OWN_FOLDER
from handlers.shim.files import NO_ROOM, Folder, OwnFolder
from handlers.shim.masking import percent

NAME = "artifacts"
LIST = "artifacts.json"
LEVELS_MAX = 16
PATH_BYTES_MAX = 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Left(NamedTuple):
    """What an execution has left: so many `files` of `size_bytes` together; `note` says what of it
    was not kept, and why."""

    files: int = 0
    size_bytes: int = 0
    note: str = ""


def collect(folder: Folder, own: Folder | OwnFolder, files_max: int, bytes_max: int) -> Left:
    """What the program has left in its `own` folder is listed durably, and the rest removed."""
    try:
        top = os.open(NAME, _FOLDER, dir_fd=own.descriptor)
    except FileNotFoundError:
        return Left()
    except OSError:
        return Left(note="the folder of the artifacts was replaced, so none are kept")
    try:
        found = _Collection(files_max, bytes_max)
        found.take(top, b"", 1)
    finally:
        os.close(top)
    if not found.files:
        with contextlib.suppress(OSError):
            os.rmdir(NAME, dir_fd=own.descriptor)
        return Left(note=found.note)
    files = sorted(found.files, key=lambda each: str(each["path"]))
    try:
        place = NAME if own is folder else f"{OWN_FOLDER}/{NAME}"
        folder.write_whole(LIST, {"folder": place, "files": files}, durable=True)
    except OSError as error:
        why = "the disk was full" if error.errno in NO_ROOM else os.strerror(error.errno or 0)
        return Left(note=f"{len(files)} artifacts were not listed: {why}")
    return Left(len(files), found.size_bytes, found.note)


class _Collection:
    """`files` are those that are kept; `_over` of them were too many or too large, `_odd` no plain
    files, `_unread` could not be looked at."""

    def __init__(self, files_max: int, bytes_max: int) -> None:
        self._files_max = files_max
        self._bytes_max = bytes_max
        self.files: list[dict[str, Any]] = []
        self.size_bytes = 0
        self._over = 0
        self._odd = 0
        self._unread = 0

    @property
    def note(self) -> str:
        """What was not kept; empty if all was."""
        return "; ".join(self._reasons())

    def take(self, handle: int, above: bytes, level: int) -> None:
        """All that lies in the folder and below it."""
        with os.scandir(handle) as entries:
            for entry in entries:
                try:
                    self._take(handle, above, os.fsencode(entry.name), level)
                except OSError:
                    self._unread += 1

    def _take(self, handle: int, above: bytes, name: bytes, level: int) -> None:
        path = above + b"/" + name if above else name
        found = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            if level >= LEVELS_MAX:
                self._odd += 1
                return
            inner = os.open(name, _FOLDER, dir_fd=handle)
            try:
                self.take(inner, path, level + 1)
            finally:
                os.close(inner)
            with contextlib.suppress(OSError):  # what is kept is in it
                os.rmdir(name, dir_fd=handle)
        elif not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or len(path) > PATH_BYTES_MAX:
            self._odd += 1
            os.unlink(name, dir_fd=handle)
        elif (
            len(self.files) >= self._files_max or self.size_bytes + found.st_size > self._bytes_max
        ):
            self._over += 1
            os.unlink(name, dir_fd=handle)
        else:
            self.size_bytes += found.st_size
            self.files.append(
                {
                    "path": percent(path, b"/").decode(),
                    "size": found.st_size,
                    "mtime_ns": found.st_mtime_ns,
                }
            )

    def _reasons(self) -> Iterator[str]:
        if self._over:
            yield (
                f"{_were(self._over)} not kept: [artifacts] of the job allows "
                f"{self._files_max} files with {self._bytes_max} bytes together"
            )
        if self._odd:
            yield (
                f"{_were(self._odd)} not kept: only plain files are, with one name of at "
                f"most {PATH_BYTES_MAX} bytes, in folders of at most {LEVELS_MAX} levels"
            )
        if self._unread:
            files = "artifact" if self._unread == 1 else "artifacts"
            yield f"{self._unread} {files} could not be looked at"


def _were(count: int) -> str:
    return f"{count} artifact was" if count == 1 else f"{count} artifacts were"
