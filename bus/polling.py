"""How often a folder is looked at: rarely where changes are announced, often where they are not.

No IO. A folder without announcements is known by the type of its file system, or noticed: a look
that only the clock caused found a change that was not announced.
"""

import math
from collections.abc import Collection

import structlog

log = structlog.get_logger("jobbus.polling")

SILENT_FILE_SYSTEMS = frozenset(
    {
        *("9p", "virtiofs", "vboxsf", "prl_fs", "vmhgfs", "drvfs", "fakeowner", "grpcfuse"),
        *("osxfs", "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre"),
    }
)
"""What other machines change there is not announced here. The same holds for `fuse` and all its
kinds."""

GRACE_S = 1.0
"""An announcement may come that much later than a look that found the same."""
NAMES_MAX = 4096
FULL_LOOK_S = 60.0
"""Not even the modification time of the folder is trusted for longer: it may stand still, too."""


def is_silent(kind: str) -> bool:
    """Whether a file system of this type, in the kernel's words, may announce nothing."""
    return kind in SILENT_FILE_SYSTEMS or kind.startswith("fuse")


class FolderPolling:
    """The state of one folder, called `name` to people; lives where the folder is looked at.

    `_reason` says why it is looked at often, and is empty while its announcements are trusted.
    Other parts write nothing but `often_s`. What was announced since the last verdict is in
    `_announced`; with `_vaguely` it may have been anything. `_doubtful` was found without an
    announcement, at `_found_s`.
    """

    def __init__(
        self, name: str, *, rare_s: float, often_s: float, grace_s: float = GRACE_S
    ) -> None:
        self._name = name
        self._rare_s = rare_s
        self.often_s = often_s
        self._grace_s = grace_s
        self._announced: set[str] = set()
        self._vaguely = False
        self._doubtful: set[str] = set()
        self._found_s = 0.0
        self._full_s = 0.0
        self._reason = ""

    @property
    def why(self) -> str | None:
        """Why it is looked at often, and how often; None while its announcements are trusted."""
        if not self._reason:
            return None
        return f"{self._name} {self._reason}; it is looked at every {self.often_s * 1000:.0f} ms"

    @property
    def interval_s(self) -> float:
        """Until the next look that nothing else causes."""
        if self._reason:
            return self.often_s
        return min(self._rare_s, self._grace_s) if self._doubtful else self._rare_s

    def unannounced_s_max(self) -> float:
        """How long a change may stay unseen that nothing announces: endless while all are."""
        return self.often_s if self._reason else math.inf

    def expect(self, kind: str) -> None:
        """The folder is on a file system of this type."""
        if is_silent(kind):
            self._turn(f"is on {kind}, which may not announce what others change")

    def announce(self, names: Collection[str] = ()) -> None:
        """Something happened to these names, or to any of them."""
        self._vaguely = self._vaguely or not names
        self._announced.update(names)
        if len(self._announced) > NAMES_MAX:
            self._announced.clear()
            self._vaguely = True

    def looks(self) -> None:
        """A look begins that an announcement caused: all that was announced is found by it."""
        if not self._doubtful:
            self._announced.clear()
            self._vaguely = False

    def is_full_look_due(self, now_s: float) -> bool:
        """Whether the folder is to be listed whatever its time says."""
        if not self._reason and now_s - self._full_s < FULL_LOOK_S:
            return False
        self._full_s = now_s
        return True

    def found(self, names: Collection[str], now_s: float) -> None:
        """A look that only the clock caused has found these, which were not there before."""
        if self._reason:
            return
        if self._doubtful:
            if now_s - self._found_s < self._grace_s:
                return
            if not self._vaguely and not self._doubtful <= self._announced:
                self._turn("holds entries that were not announced")
        # What was announced at the moment of the look was expected, whichever came first.
        self._doubtful = set() if self._vaguely else set(names) - self._announced
        self._found_s = now_s
        self._announced.clear()
        self._vaguely = False

    def _turn(self, reason: str) -> None:
        if not self._reason:
            self._reason = reason
            log.warning("%s", self.why)
