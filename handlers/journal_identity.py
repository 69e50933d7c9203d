"""Whose journal this is: the epoch, and the files it was written to. Blocking IO.

A copied or restored journal may lack what was acknowledged after the copy was made. Its files have
other inode numbers than the ones on record, which is how it is told from the original.
"""

import os
import secrets
from pathlib import Path

import msgspec

from bus.instance import sync_directory
from bus.layout import FILE_MODE

EPOCH_BYTES = 5


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """`epoch.json`: the epoch of the numbers, and the inode of each segment by name."""

    epoch: str
    inodes: dict[str, int] = {}


def new_epoch() -> str:
    return secrets.token_hex(EPOCH_BYTES)


def read_identity(directory: Path) -> Identity | None:
    """What is on record; None if nothing is, or nothing readable."""
    try:
        return msgspec.json.decode((directory / "epoch.json").read_bytes(), type=Identity)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write_identity(directory: Path, identity: Identity) -> None:
    """The record is durable."""
    temporary = directory / ".epoch.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, FILE_MODE)
    try:
        os.write(descriptor, msgspec.json.encode(identity))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(directory / "epoch.json")
    sync_directory(directory)
