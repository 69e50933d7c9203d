"""Folders that are written behind a mount's back, so that the system announces nothing there."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.counterparts import missing, needs
from tests.small_disk import mounted


@contextmanager
def shared_by_fuse(place: Path) -> Iterator[tuple[Path, Path]]:
    """The folder as it is written from elsewhere, and as it is seen here, through `bindfs`."""
    bindfs = needs("bindfs")
    behind, seen = place / "behind", place / "seen"
    behind.mkdir(mode=0o700)
    seen.mkdir(mode=0o700)
    if not Path("/dev/fuse").exists():
        missing("there is no /dev/fuse")
    done = subprocess.run(
        [bindfs, str(behind), str(seen)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        missing(f"bindfs mounts nothing here: {done.stderr.strip()}")
    try:
        yield behind, seen
    finally:
        _unmount(seen)


@contextmanager
def shared_by_layers(place: Path) -> Iterator[tuple[Path, Path]]:
    """The same through a file system whose type says nothing of it: an overlay, whose upper layer
    is written directly."""
    layers, seen = place / "layers", place / "seen"
    layers.mkdir()
    seen.mkdir()
    with mounted(layers, "size=256m"):
        for name in ("lower", "upper", "work"):
            (layers / name).mkdir(mode=0o700)
        options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
        done = subprocess.run(
            ["mount", "-t", "overlay", "-o", options, "overlay", str(seen)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            missing(f"no overlay may be mounted here: {done.stderr.strip()}")
        try:
            yield layers / "upper", seen
        finally:
            _unmount(seen)


def _unmount(seen: Path) -> None:
    subprocess.run(["umount", "--lazy", str(seen)], check=True)
