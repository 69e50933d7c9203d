"""Real file systems that are small: for what happens when a disk is full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from tests.counterparts import missing

CHUNKS = (1 << 20, 1 << 16, 1 << 12, 1 << 8, 1)


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A tmpfs with these options at `place` inside the block; where mounting is denied, the test is
    skipped, or fails where nothing may be missing."""
    with _mount(place, ["-t", "tmpfs", "-o", options, "tmpfs"]):
        yield place


@contextmanager
def mounted_ext4(place: Path, image: Path, size_mib: int, inodes: int) -> Iterator[Path]:
    """The same with an ext4 in the file `image`; its owner alone may enter it."""
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    make = ["mkfs.ext4", "-q", "-F", "-N", str(inodes), str(image)]
    subprocess.run(make, check=True, capture_output=True)
    with _mount(place, ["-o", "loop", str(image)]):
        (place / "lost+found").rmdir()
        place.chmod(0o700)
        yield place
    image.unlink()


@contextmanager
def _mount(place: Path, arguments: list[str]) -> Iterator[None]:
    mount = ["mount", *arguments, str(place)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        missing(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


class Filler:
    """Another program that fills a file system to the last byte or the last inode, and takes
    at once whatever comes free."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self._place = place
        self._by_inodes = False

    def fill(self, *, inodes: bool) -> None:
        """Not a byte is left; or, with `inodes`, not a name."""
        self._by_inodes = inodes
        self.go_on()

    def go_on(self) -> None:
        """What has come free meanwhile is taken."""
        with suppress(OSError):
            while self._by_inodes:
                (self._place / str(uuid4())).touch()
        if not self._by_inodes:
            self._take_bytes()

    def let_go(self) -> None:
        """All of it is free again."""
        for path in self._place.iterdir():
            path.unlink()

    def _take_bytes(self) -> None:
        handle = os.open(self._place / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for size in CHUNKS:
                with suppress(OSError):
                    while os.write(handle, bytes(size)):
                        pass
        finally:
            os.close(handle)
