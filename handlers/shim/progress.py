"""The newest progress of one program, however it is told, and when to look for more. Stdlib only.

The service wakes the shim when the file grows; the looks by itself are for what no hint told.
"""

from collections.abc import Callable

from handlers.shim.files import Folder
from handlers.shim.masking import Masking, masked
from handlers.shim.notify import JobProgress, ProgressFile

FAST_S = 0.25
SLOWER = 4
"""Each look that found nothing makes the wait for the next so many times longer, up to `look_s`."""


class Progress:
    """`newest` holds no secrets; `changed` is called when it is another. `look_at_s`: next look."""

    def __init__(
        self,
        folder: Folder,
        masking: Masking | None,
        look_s: float,
        changed: Callable[[], None],
    ) -> None:
        self._file = ProgressFile(folder, masking)
        self._masking = masking
        self._look_s = look_s
        self._changed = changed
        self._wait_s = FAST_S
        self.newest: JobProgress = {}
        self.look_at_s = 0.0

    def look(self, now_s: float) -> None:
        """What was appended is known. Looks often only while the program keeps appending."""
        found = self._file.read()
        if found is not None:
            self._take(found)
            self._wait_s = FAST_S
        else:
            self._wait_s = min(self._wait_s * SLOWER, self._look_s)
        self.look_at_s = now_s + self._wait_s

    def say(self, said: JobProgress) -> None:
        """The program has told this by its socket; what it did not tell stays."""
        self._take({**self.newest, **said})

    def expect(self, now_s: float) -> None:
        """The program is busy with something else, so it may tell progress, too."""
        if self._wait_s > FAST_S:
            self._wait_s = FAST_S
            self.look_at_s = min(self.look_at_s, now_s + FAST_S)

    def _take(self, progress: JobProgress) -> None:
        progress = masked(self._masking, progress)
        if progress != self.newest:
            self.newest = progress
            self._changed()
