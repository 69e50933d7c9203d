"""A real file system that is small: for what happens when a disk is full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.counterparts import missing


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A tmpfs with these options at `place` inside the block; where nobody may mount, the test is
    skipped, or fails where nothing may be missing."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        missing(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
