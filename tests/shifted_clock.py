"""A whole service on a machine whose wall clock is set, forwards and back, while it runs.

Debian's `faketime` gives the service's process another wall clock; its monotonic clock is true, as
on a machine where somebody, or NTP, sets the time.
"""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path

from tests.counterparts import missing
from tests.jobs import Apps
from tests.service import PATIENCE_S, Running, Service

HOUR_S = 3600
DAY_S = 24 * HOUR_S
YEAR_S = 365 * DAY_S
NEAR_S = 30


class ShiftedService(Service):
    """`set_clock` has taken effect when it returns, and holds for later starts."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._library = _library()
        self._shift = root / "clock"
        self.settings: dict[str, str] = {}
        self.set_clock(0)

    def set_clock(self, ahead_s: int) -> None:
        self._shift.write_text(f"{ahead_s:+d}\n", encoding="ascii")
        deadline_s = time.monotonic() + PATIENCE_S
        while self._process is not None and abs(self._ahead_s() - ahead_s) > NEAR_S:
            assert time.monotonic() < deadline_s, "the clock of the service does not move"
            time.sleep(0.1)

    def _ahead_s(self) -> float:
        """By how much the service's clock is ahead of ours, as its answers say."""
        with urllib.request.urlopen(f"{self.url}/livez", timeout=PATIENCE_S) as answer:
            date = parsedate_to_datetime(answer.headers["Date"])
        return date.timestamp() - time.time()

    def environment(self) -> dict[str, str]:
        return (
            super().environment()
            | {
                "LD_PRELOAD": str(self._library),
                "FAKETIME_TIMESTAMP_FILE": str(self._shift),
                # Read again after this: without a cache each look at the clock would read the file.
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
            | self.settings
        )

    def _run(self, *arguments: str) -> Running:
        return self.spawn(*arguments)


@contextmanager
def shifted_service(
    root: Path, define: Callable[[Apps], None], **settings: str
) -> Iterator[ShiftedService]:
    """It runs inside the block and leaves no process; `settings` are its environment."""
    service = ShiftedService(root)
    service.settings = settings
    define(service.apps)
    try:
        service.start()
        yield service
    finally:
        service.clear_away()


def _library() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        missing("faketime is not installed")
    return found[0]


def run_shifted(service: ShiftedService, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command line on the same machine, by the same clock."""
    return subprocess.run(
        [sys.executable, "-m", "jobbus", *arguments],
        env=service.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
