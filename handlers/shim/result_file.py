"""The file named in `JOBBUS_RESULT`: a JSON object in which a program says what came of its work.

Stdlib only. It is read once, when nothing of the program is left, so that it is never half written.
Everything in it comes from the job and may be hostile: its size is bounded, links are not followed.
"""

import contextlib
import json
import os
import stat
from typing import Any, NamedTuple, NoReturn

from handlers.shim.files import Folder, OwnFolder
from handlers.shim.masking import Masking, masked
from handlers.shim.progress_file import MARKS, not_a_file
from handlers.shim.progress_words import DATA_LEVELS_MAX, is_deeper, is_encodable, quoted

NAME = "result.json"
BYTES_MAX = 65_536
EXAMPLE = 'write one JSON object, such as {"rows": 3}'


class Result(NamedTuple):
    """`content` without secrets, of which it `had_secret`s; `note` is what was not taken and what
    would be right."""

    content: dict[str, Any] | None = None
    note: str = ""
    had_secret: bool = False


def read_result(folder: Folder | OwnFolder, masking: Masking | None) -> Result:
    """What the program has left. Where there are secrets, a file is removed in which one stands,
    however it is spelled, and also one that was not taken, since it was not looked through."""
    result = _result(folder, masking)
    is_clean = result.content is not None and not result.had_secret
    if masking is not None and not is_clean:
        with contextlib.suppress(OSError):
            os.unlink(NAME, dir_fd=folder.descriptor)
    return result


def _result(folder: Folder | OwnFolder, masking: Masking | None) -> Result:
    try:
        text = _decoded(_read(folder))
        content = _content(text, masked(masking, text))
    except FileNotFoundError:
        return Result()
    except PermissionError:
        return Result(note="the result file cannot be read: leave it readable for the service")
    except OSError as error:
        return Result(note=f"the result file cannot be read: {os.strerror(error.errno or 0)}")
    except _Unfit as why:
        return Result(note=masked(masking, str(why)))
    shown = masked(masking, content)
    return Result(shown, had_secret=shown != content or masked(masking, text) != text)


class _Unfit(Exception):
    """Why the file is not taken, and what would be right."""


def _read(folder: Folder | OwnFolder) -> bytes:
    """The whole file.

    Raises:
        OSError: there is none, or it cannot be read.
        _Unfit: it is no file, or too long.
    """
    found = os.stat(NAME, dir_fd=folder.descriptor, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise _Unfit(not_a_file(found.st_mode, "result", "JOBBUS_RESULT"))
    descriptor = folder.open(NAME, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        data = file.read(BYTES_MAX + 1)
    if len(data) > BYTES_MAX:
        raise _Unfit(
            f"the result was not taken: it has {found.st_size} bytes, of at most 64 KiB; leave "
            "more in files"
        )
    return data


def _decoded(data: bytes) -> str:
    """The text, in UTF-8 or as its byte order mark says.

    Raises:
        _Unfit: it is none.
    """
    codec = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(codec).strip(" \t\r\n\0\ufeff")
    except UnicodeDecodeError:
        raise _Unfit("the result was not taken: it is no text in UTF-8") from None


def _content(text: str, shown: str) -> dict[str, Any]:
    """The object that the text is. `shown` is the text without secrets: half of one, where a
    sentence cuts it off, would not be known as such.

    Raises:
        _Unfit: it is something else.
    """
    if not text:
        raise _Unfit(f"the result file is empty: {EXAMPLE}")
    try:
        content = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise _Unfit(f"the result {quoted(shown)} is not JSON: {EXAMPLE}") from None
    if not isinstance(content, dict):
        raise _Unfit(f"the result {quoted(shown)} is no JSON object: {EXAMPLE}")
    if is_deeper(content, DATA_LEVELS_MAX):
        raise _Unfit(f"the result was not taken: it is more than {DATA_LEVELS_MAX} levels deep")
    if not is_encodable(content):
        raise _Unfit(
            "the result was not taken: it holds a number or a character that JSON readers refuse"
        )
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
