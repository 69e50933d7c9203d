"""Descriptors that are held back, so that a stop can be taken in and carried out when the process
may open no more.

Each of them is nothing but a low number that is free once it is closed. What a stop needs (its
connection, its file, the order to the shim) asks for them when the system refuses; they are taken
back when it gives again.
"""

import os
import resource
import time
from collections.abc import Callable
from threading import Lock

from bus.errors import TooFewFiles
from bus.scarcity import NO_DESCRIPTOR

HELD_MAX = 16
SHARE = 16
"""Of so many that the process may have, one is held back."""

FEWEST = 32
"""With fewer open files a service cannot begin, or cannot start programs."""

LENT_S = 10.0
"""So long they are left to those who needed them."""


class HeldDescriptors:
    """The descriptors that this process holds back. May be used from any thread.

    `_held` are open and of no use but to be closed; `_lent_s` is when they were, 0 if they are
    held. `hold` and `release_for` write both under `_lock`.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: list[int] = []
        self._lent_s = 0.0
        self.shed: Callable[[], None] = _nothing
        """Makes other parts close some of theirs; called from any thread."""

    def hold(self) -> bool:
        """As many as should be are held back now; not while they are lent, nor if the system
        refuses."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(HELD_MAX, limit // SHARE)
        with self._lock:
            if self._lent_s and time.monotonic() - self._lent_s < LENT_S:
                return False
            self._lent_s = 0.0
            try:
                while len(self._held) < most:
                    self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                return False
        return True

    def release_for(self, error: OSError) -> bool:
        """Whether it is worth another try at once: `error` said that there is no descriptor, and
        there is one now. Otherwise `shed` was asked, and there may be one in a moment."""
        if error.errno not in NO_DESCRIPTOR:
            return False
        self.shed()
        with self._lock:
            held, self._held = self._held, []
            if held:
                self._lent_s = time.monotonic()
        for descriptor in held:
            os.close(descriptor)
        return bool(held)


def _nothing() -> None:
    return


DESCRIPTORS = HeldDescriptors()


def check_descriptors() -> None:
    """The process may have as many as a service needs.

    Raises:
        TooFewFiles: it may not.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < FEWEST:
        raise TooFewFiles(
            f"only {limit} files may be open in this process; a service needs {FEWEST}, and with "
            "many readers or jobs 1024 and more (ulimit -n, LimitNOFILE= in a unit)"
        )
