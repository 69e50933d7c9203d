"""Whether one `syncfs` serves a whole batch, or each file is synced for itself. No IO, no clock.

`syncfs` waits for everybody's dirty pages on the file system. Where that takes long, few commands
are sooner durable one by one; many are not, since each of their syncs waits in the same line.
"""

from transports.directory.settings import DirectorySettings


class Grouping:
    """Lives in the committer's thread."""

    def __init__(self, settings: DirectorySettings) -> None:
        self._settings = settings
        self._group_again_s = 0.0
        self._group_took_s = 0.0
        self._file_took_s = 0.0
        self.can_group = False
        """Whether `syncfs` does its work on the queue's file system."""

    def pays(self, count: int, now_s: float) -> bool:
        """Whether so many files are to be synced as a group."""
        if not self.can_group or count < self._settings.group_from:
            return False
        return now_s >= self._group_again_s or self._file_took_s * count > self._group_took_s

    def took(self, count: int, took_s: float, now_s: float, *, group: bool) -> bool:
        """Notes how long so many files took; True if groups are now left alone for a while."""
        if not group:
            each_s = took_s / count
            self._file_took_s = (self._file_took_s + each_s) / 2 if self._file_took_s else each_s
            return False
        self._group_took_s = took_s
        is_slow = took_s > self._settings.syncfs_slow_s
        self._group_again_s = now_s + self._settings.syncfs_pause_s if is_slow else now_s
        return is_slow
