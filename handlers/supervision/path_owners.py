"""Which accounts decide what lies at a path: the owners of the folders and links that lead there.
Blocking."""

import os
import stat
from collections.abc import Collection
from pathlib import Path

LINKS_MAX = 40
"""As many as the kernel follows."""


def first_foreign_owner(path: Path, trusted: Collection[int]) -> int | None:
    """The owner of the first thing on the way to the path, and at its end, who is not trusted.

    They can put anything behind it, so that only what is theirs may be taken from there. Nothing
    before it can be changed by them, so the answer holds for a file that is open already.

    Raises:
        OSError: the way does not lead anywhere (any more).
    """
    here, names, links = Path("/"), list(reversed(path.absolute().parts[1:])), 0
    while names:
        name = names.pop()
        if name == os.pardir:
            here = here.parent
            continue
        found = (here / name).lstat()
        if found.st_uid not in trusted:
            return found.st_uid
        if not stat.S_ISLNK(found.st_mode):
            here /= name
            continue
        links += 1
        if links > LINKS_MAX:
            return found.st_uid
        target = (here / name).readlink()
        here = Path("/") if target.is_absolute() else here
        names += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return None
