"""Prints the SHA-256 of every file below a folder, in the form that `sha256sum -c` reads.

Usage: checksum.py [FOLDER]. Exits with 0, or 3 if some files could not be read, or 1 if FOLDER
could not. Progress goes to the file that JOBBUS_PROGRESS names, if it names one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator
from typing import NamedTuple, TextIO

PIECE_BYTES = 1024 * 1024
PROGRESS_PAUSE_S = 0.1  # at most ten progress lines a second
UNREADABLE = 3


class File(NamedTuple):
    path: str  # relative to the folder
    size: int


class Progress:
    """Reports how many of `total` bytes are done."""

    def __init__(self, total: int, out: TextIO | None) -> None:
        self.total = total
        self.done = 0
        self._out = out
        self._next_s = 0.0

    def add(self, count: int, path: str) -> None:
        self.done += count
        if time.monotonic() >= self._next_s:
            self.report(path)

    def report(self, message: str) -> None:
        if self._out is None:
            return
        # A file may have grown since it was counted: never more than all.
        percent = min(100.0, 100.0 * self.done / self.total) if self.total else 100.0
        line = {"percent": round(percent, 1), "message": message, "data": {"bytes": self.done}}
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()
        self._next_s = time.monotonic() + PROGRESS_PAUSE_S


def main() -> int:
    folder = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else sysconfig.get_path("stdlib")
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape")  # any name goes
    if not os.path.isdir(folder):
        print(f"{folder} is no folder", file=sys.stderr)
        return 1
    unreadable: list[str] = []
    files = sorted(files_below(folder, unreadable))
    with progress_file() as out:
        progress = Progress(sum(file.size for file in files), out)
        digest = checksum_all(folder, files, progress, unreadable)
        progress.report(f"{len(files)} files")
    print(f"# total {digest}  {len(files)} files, {progress.done} bytes")
    return UNREADABLE if unreadable else 0


def checksum_all(folder: str, files: list[File], progress: Progress, unreadable: list[str]) -> str:
    """Prints a line a file; the digest of all these lines together."""
    total = hashlib.sha256()
    for file in files:
        try:
            digest = checksum(os.path.join(folder, file.path), file.path, progress)
        except OSError as error:
            complain(error, unreadable)
            continue
        line = f"{digest}  {file.path}"
        if "\\" in file.path or "\n" in file.path:  # as sha256sum writes such names
            line = "\\" + line.replace("\\", "\\\\").replace("\n", "\\n")
        print(line, flush=True)
        total.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return total.hexdigest()


def checksum(path: str, name: str, progress: Progress) -> str:
    digest = hashlib.sha256()
    # What was a file when it was counted may be a pipe by now: opening must not wait for it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no regular file any more")
        while True:
            piece = file.read(PIECE_BYTES)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)
            progress.add(len(piece), name)


def files_below(folder: str, unreadable: list[str]) -> Iterator[File]:
    """All regular files; links are not followed, so nothing comes twice or from elsewhere."""

    def failed(error: OSError) -> None:
        complain(error, unreadable)

    for place, _, names in os.walk(folder, onerror=failed):
        for name in names:
            path = os.path.join(place, name)
            try:
                found = os.lstat(path)
            except OSError as error:
                complain(error, unreadable)
                continue
            if stat.S_ISREG(found.st_mode):
                yield File(os.path.relpath(path, folder), found.st_size)


def complain(error: OSError, unreadable: list[str]) -> None:
    unreadable.append(str(error))
    print(f"cannot be read: {error}", file=sys.stderr, flush=True)


def progress_file() -> TextIO:
    """Where progress goes; nowhere when the program is run by hand."""
    return open(os.environ.get("JOBBUS_PROGRESS") or os.devnull, "a", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
