"""Whose journal this is: the epoch, and the files it was written to. Blocking IO.

A copied or restored journal may lack what was acknowledged after the copy was made. Its files are
other files than those on record, by which it is known as a copy.
"""

import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from bus.file_marks import FileMark, mark_of
from bus.files import replace_file
from handlers.journal.disk import open_for_reading, set_aside

NAME = "epoch.json"
EPOCH_BYTES = 5

Epoch = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]{6,12}\Z")]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """`epoch.json`: the epoch of the numbers, and the mark of each segment by name.

    Segments with numbers below `dropped_below` were dropped: a snapshot must cover those.
    """

    epoch: Epoch
    files: dict[str, FileMark] = {}
    dropped_below: int = 0


def new_epoch() -> str:
    return secrets.token_hex(EPOCH_BYTES)


def mark_of_path(path: Path) -> FileMark:
    with open_for_reading(path) as file:
        return mark_of(file.fileno())


def read_identity(directory: Path) -> Identity | None:
    """What is on record; None if nothing is, or nothing readable (which is then set aside)."""
    path = directory / NAME
    try:
        with open_for_reading(path) as file:
            return msgspec.json.decode(file.read(), type=Identity)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        set_aside(path)
        return None


def write_identity(directory: Path, identity: Identity) -> None:
    """The record is durable, and so are all names in the directory."""
    replace_file(directory / NAME, msgspec.json.encode(identity), one_writer=True)


def is_copied(directory: Path) -> bool:
    """Whether a segment on record is another file than was recorded."""
    identity = read_identity(directory)
    known = identity.files if identity is not None else {}
    there = [(directory / name, mark) for name, mark in known.items()]
    return any(not mark.may_be(mark_of_path(path)) for path, mark in there if path.is_file())
