"""`[directory] group`: accounts of one group may put commands into the queue and read what became
of them, and nothing else of the data directory. Blocking IO.

The queue is 1730: members make files there and cannot list it, nor touch those of others. Results
and states are as readable as their folders. The set-group bit gives new files the group, and shows
a later start without the setting what to close again.
"""

import grp
import os
import stat
from pathlib import Path

from bus.errors import ConfigError, DataDirectoryError
from bus.layout import DIRECTORY_MODE, DataLayout

ROOT_MODE = 0o710
QUEUE_MODE = 0o3730
READ_MODE = 0o2750


def group_id(name: str) -> int:
    """The number of a group, given by its name or itself.

    Raises:
        ConfigError: there is none of that name.
    """
    if name.isascii() and name.isdigit() and len(name) < 10:
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise ConfigError(f"[directory] group: there is no group {name!r}") from None


def share(layout: DataLayout, group: str | None) -> None:
    """The group may use the directory as the setting says; with None the owner alone.

    Raises:
        ConfigError: there is no such group.
        DataDirectoryError: this account may not give its folders to it.
    """
    folders = ((layout.queue, QUEUE_MODE), (layout.results, READ_MODE), (layout.status, READ_MODE))
    if group is None:
        if layout.queue.stat().st_mode & stat.S_ISGID:
            for folder, _ in ((layout.root, ROOT_MODE), *folders):
                folder.chmod(DIRECTORY_MODE)
        return
    number = group_id(group)
    for folder, mode in (*folders, (layout.root, ROOT_MODE)):
        _give(folder, number, mode, group)


def _give(folder: Path, number: int, mode: int, group: str) -> None:
    try:
        os.chown(folder, -1, number)
    except PermissionError as exc:
        raise DataDirectoryError(
            f"{folder} cannot be given to the group {group}: the account of the service must be in "
            f"it; run: usermod -aG {group} ACCOUNT, and start again"
        ) from exc
    folder.chmod(mode)  # after the owner: a change of that takes the set-group bit away
