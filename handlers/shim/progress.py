"""The newest progress of one program, however it is said, and when to look for more. Stdlib only.

The service wakes the shim when the file changes; its own looks are for what no hint announced.
"""

from collections.abc import Callable

from handlers.shim.files import Folder, OwnFolder
from handlers.shim.masking import Masking, masked
from handlers.shim.progress_file import ProgressFile
from handlers.shim.progress_words import MESSAGE_MAX, JobProgress, parse_record

FAST_S = 0.25
SLOWER = 4
"""Each look that found nothing makes the wait for the next so many times longer, up to `look_s`."""


class Progress:
    """`newest` holds no secrets; `changed` is called when it is another. `look_at_s`: next look."""

    def __init__(
        self,
        folder: Folder | OwnFolder,
        masking: Masking | None,
        look_s: float,
        changed: Callable[[], None],
    ) -> None:
        self._file = ProgressFile(folder, masking)
        self._masking = masking
        self._look_s = look_s
        self._changed = changed
        self._wait_s = FAST_S
        self._note: str | None = None
        self._is_reloading = False
        self.newest: JobProgress = {}
        self.look_at_s = 0.0

    def look(self, now_s: float, *, is_last: bool = False) -> None:
        """What was written is known. Looks often only while the program keeps writing.

        `is_last`: nothing of the program is left, so that what stands there is all it said.
        """
        found = self._file.read(now_s, is_last=is_last)
        self._note_miss(self._file.miss)
        if found is not None:
            self._take(found)
        if found is not None or self._file.is_open:
            self._wait_s = FAST_S
        else:
            self._wait_s = min(self._wait_s * SLOWER, self._look_s)
        self.look_at_s = now_s + self._wait_s

    def take(self, words: dict[str, str]) -> None:
        """The program has sent this to its socket; what it did not mention stays."""
        said: JobProgress = {}
        if "X_PROGRESS" in words:
            found, miss = parse_record(words["X_PROGRESS"])
            self._note_miss(miss)
            said.update(found or {})
        if "STATUS" in words:
            said["message"] = words["STATUS"][:MESSAGE_MAX]
        if said:
            self._take({**self.newest, **said})

    def reload(self, *, is_reloading: bool) -> None:
        """The program reads its configuration again, or has done that."""
        if is_reloading != self._is_reloading:
            self._is_reloading = is_reloading
            self._take({name: said for name, said in self.newest.items() if name != "reloading"})

    def expect(self, now_s: float) -> None:
        """The program is busy with something else, so it may report progress, too."""
        if self._wait_s > FAST_S:
            self._wait_s = FAST_S
            self.look_at_s = min(self.look_at_s, now_s + FAST_S)

    def _take(self, progress: JobProgress) -> None:
        if self._note is not None:
            progress = {**progress, "note": self._note}
        if self._is_reloading:
            progress = {**progress, "reloading": True}
        progress = masked(self._masking, progress)
        if progress != self.newest:
            self.newest = progress
            self._changed()

    def _note_miss(self, miss: str | None) -> None:
        """The first of what was not understood is reported, once and for good."""
        if self._note is None and miss is not None:
            self._note = miss
            self._take(self.newest)
