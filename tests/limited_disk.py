"""A file system in user space that can do less than a data directory needs."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.counterparts import missing, needs

PATIENCE_S = 20.0


@contextmanager
def lacking(what: str, place: Path) -> Iterator[Path]:
    """A mounted file system without `what`, see `tests.limited_disk_server`; where none can be
    mounted the test is skipped, or fails."""
    needs("fusermount3")
    backing, seen = place / "backing", place / "seen"
    backing.mkdir(mode=0o700)
    seen.mkdir()
    (backing / "mounted").touch()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.limited_disk_server", what, str(backing), str(seen)]
    )
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not (seen / "mounted").exists():
            if server.poll() is not None or time.monotonic() > deadline_s:
                missing("there is no file system in user space here")
            time.sleep(0.02)
        yield seen
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(seen)], check=False)
        with suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE_S)
        server.kill()
        server.wait()
