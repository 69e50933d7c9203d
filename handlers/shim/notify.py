"""What a job says about itself: the progress file and sd_notify's words. Stdlib only.

Everything here comes from the job and may be hostile: sizes are bounded, links are not followed.
"""

import json
import math
import os
import stat
from typing import Any

from handlers.shim.files import Folder
from handlers.shim.masking import Masking

FILE_BYTES_MAX = 1 << 20
LINE_BYTES_MAX = 65_536
MESSAGE_MAX = 1000
DATA_BYTES_MAX = 16_384
DATA_LEVELS_MAX = 32
"""Every reader of it recurses, each from a stack of another depth."""

JobProgress = dict[str, Any]
"""`percent`, `message`, `data`: the fields of `bus.model.Progress` that were given."""


def parse_progress(line: bytes) -> JobProgress | None:
    """`42`, `42% copying` or a JSON object as progress; None if it is nothing of these."""
    text = line.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        return _from_object(text)
    number, _, message = text.partition(" ")
    if number.endswith("%"):
        number = number[:-1]
    percent = _percent(number)
    if percent is None:
        return None
    return _progress(percent, message.strip(), None)


def _from_object(text: str) -> JobProgress | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    percent, message, data = (content.get(key) for key in ("percent", "message", "data"))
    return _progress(
        None if percent is None else _percent(percent),
        message if isinstance(message, str) else "",
        data if isinstance(data, dict) and len(text) <= DATA_BYTES_MAX else None,
    )


def _progress(
    percent: float | None, message: str, data: dict[str, Any] | None
) -> JobProgress | None:
    made: JobProgress = {}
    if percent is not None:
        made["percent"] = percent
    if message:
        # A lone surrogate from a JSON escape could not be encoded by anybody later.
        made["message"] = message[:MESSAGE_MAX].encode("utf-8", "replace").decode()
    if data is not None and not _is_deeper(data, DATA_LEVELS_MAX) and _is_encodable(data):
        made["data"] = data
    return made or None


def _percent(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        return None
    return min(100.0, max(0.0, number)) if math.isfinite(number) else None


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in value)


def _is_encodable(data: dict[str, Any]) -> bool:
    try:
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


class ProgressFile:
    """The file named in `JOBBUS_PROGRESS`, read as it grows and cut when it is too long.

    With `masking` it is also cut when a secret stands in it, which it is then not told.
    """

    def __init__(self, folder: Folder, masking: Masking | None = None) -> None:
        self._folder = folder
        self._masking = masking
        self._offset = 0
        self._inode = 0
        self._rest = b""
        os.close(folder.open("progress", os.O_WRONLY | os.O_CREAT))

    def read(self) -> JobProgress | None:
        """The newest progress since the last call, if there is any."""
        try:
            found = os.stat("progress", dir_fd=self._folder.descriptor, follow_symlinks=False)
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_ino != self._inode or found.st_size < self._offset:
            self._inode, self._offset, self._rest = found.st_ino, 0, b""
        if found.st_size == self._offset:
            return None
        try:
            return self._read_new(found.st_size)
        except OSError:
            return None

    def _read_new(self, size: int) -> JobProgress | None:
        descriptor = self._folder.open("progress", os.O_RDWR | os.O_NONBLOCK)
        try:
            # Only the newest word counts, so of a long file only the end is looked at.
            start = max(self._offset, size - FILE_BYTES_MAX)
            if start > self._offset:
                self._rest = b""
            data = self._rest + os.pread(descriptor, size - start, start)
            self._offset = size
            tells = self._masking is not None and self._masking.whole(data) != data
            if size > FILE_BYTES_MAX or tells:
                os.ftruncate(descriptor, 0)
                self._offset = 0
        finally:
            os.close(descriptor)
        return self._newest(data)

    def _newest(self, data: bytes) -> JobProgress | None:
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            self._rest = b""
        # A whole number without a line end is taken too: `printf 42 > "$JOBBUS_PROGRESS"`.
        for line in (self._rest, *reversed(lines[-100:])):
            if 0 < len(line) <= LINE_BYTES_MAX:
                found = parse_progress(line if self._masking is None else self._masking.whole(line))
                if found is not None:
                    return found
        return None


def parse_notify(datagram: bytes) -> dict[str, str]:
    """The assignments of an sd_notify datagram; later ones win (sd_notify(3))."""
    found: dict[str, str] = {}
    for line in datagram.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            found[name.decode("ascii", "replace")] = value.decode("utf-8", "replace")
    return found
