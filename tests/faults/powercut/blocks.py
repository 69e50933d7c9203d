"""Power cuts below real file systems: what their own recovery makes of what the device had.

A whole life is recorded on a device that keeps a record. For many moments of it images are built:
everything up to the last flush, and of the later writes all, none, those up to a moment, or some by
chance and torn. Each is mounted, which is the file system's recovery, and looked at.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.counterparts import missing, needs
from tests.faults.powercut.block_device import NAME, BlockOp, read_record
from tests.faults.powercut.check import broken_promises
from tests.faults.powercut.model import Line
from tests.faults.powercut.record import Promised, record
from tests.faults.powercut.run import Tally

SIZE = 512 << 20
MAKE: dict[str, tuple[str, ...]] = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K", "-s", "size=4096"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K"),
}
SECTOR = 4096
"""What a disk of today writes as one; the file systems are made for it."""

PATIENCE_S = 20.0


class NotMounted(Exception):
    """The file system does not find itself on the device."""


@dataclass
class Recorded:
    """A life: the image it began with, what the device got, what the outside was answered."""

    kind: str
    image: Path
    ops: Sequence[BlockOp]
    lines: Sequence[Line]


def record_on(kind: str, place: Path) -> Recorded:
    """A life on a fresh file system of this kind."""
    if os.geteuid() != 0:
        missing("only root may mount")
    make, *flags = MAKE[kind]
    needs("fusermount3")
    image, backing, disk = place / "image", place / "backing", place / "disk"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([needs(make), *flags, str(image)], check=True, capture_output=True)
    _copy(image, backing)
    disk.mkdir()
    with (
        _device(place / "device", backing, place / "blocks") as device,
        _mounted(kind, device, disk),
    ):
        lines = record(place)
    return Recorded(kind, image, list(read_record(place / "blocks")), lines)


def cut_power_below(
    life: Recorded, place: Path, *, moments: int, lies: bool = False, enough: int | None = None
) -> Tally:
    """Looks at the images of so many moments, spread over the life evenly.

    With `lies` the device reports that it flushed, and did not.
    """
    tally, durable, target = Tally(), place / "durable", place / "mounted"
    _copy(life.image, durable)
    target.mkdir(exist_ok=True)
    promised, lines = Promised(), iter([*life.lines, {"op": "end", "t": 1 << 62}])
    line, pending = next(lines), list[BlockOp]()
    step = max(1, len(life.ops) // moments)
    for at, op in enumerate(life.ops):
        if op.data is not None:
            pending.append(op)
        elif not lies:
            _apply(durable, pending)
            pending.clear()
        if at % step and at + 1 < len(life.ops):
            continue
        until_ns = life.ops[at + 1].at_ns if at + 1 < len(life.ops) else 1 << 62
        while line["t"] < until_ns:
            promised.take(line)
            line = next(lines)
        for name, kept in _kept(pending, random.Random(at)):
            tally.images += 1
            _copy(durable, place / "cut")
            _apply(place / "cut", kept)
            found = _look(life.kind, place / "cut", target, promised)
            tally.broken += [f"{life.kind}, block op {at}, {name}: {what}" for what in found]
            if enough is not None and len(tally.broken) >= enough:
                return tally
    return tally


def _look(kind: str, image: Path, target: Path, promised: Promised) -> list[str]:
    try:
        with _mounted(kind, str(image), target):
            return list(broken_promises(target, promised))
    except NotMounted as error:
        return [str(error)]


def _kept(pending: Sequence[BlockOp], chance: random.Random) -> Iterator[tuple[str, list[BlockOp]]]:
    """What of the unflushed writes is on the disk after all."""
    yield "nothing kept", []
    if not pending:
        return
    yield "all kept", list(pending)
    yield "in order", list(pending[: chance.randrange(len(pending))])
    yield "by chance", [op for op in pending if chance.random() < 0.5]
    yield "by chance and torn", [part for op in pending for part in _torn(op, chance)]


def _torn(op: BlockOp, chance: random.Random) -> Iterator[BlockOp]:
    assert op.data is not None
    for begin in range(0, len(op.data), SECTOR):
        if chance.random() < 0.5:
            yield op._replace(offset=op.offset + begin, data=op.data[begin : begin + SECTOR])


def _apply(image: Path, ops: Sequence[BlockOp]) -> None:
    with image.open("r+b", buffering=0) as file:
        for op in ops:
            assert op.data is not None
            os.pwrite(file.fileno(), op.data, op.offset)


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=auto", str(source), str(target)], check=True)


@contextmanager
def _device(mountpoint: Path, backing: Path, record_: Path) -> Iterator[str]:
    """The path of a loop device that keeps a record."""
    mountpoint.mkdir()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.faults.powercut.block_device"),
            *map(str, (mountpoint, backing, record_)),
        ]
    )
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not (mountpoint / NAME).exists():
            if server.poll() is not None or time.monotonic() > deadline_s:
                missing("there is no file system in user space here")
            time.sleep(0.02)
        losetup = [
            "losetup",
            "--sector-size",
            str(SECTOR),
            "--find",
            "--show",
            str(mountpoint / NAME),
        ]
        found = subprocess.run(losetup, check=True, capture_output=True, text=True)
        device = found.stdout.strip()
        try:
            yield device
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], check=False)
        with suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE_S)
        server.kill()
        server.wait()


@contextmanager
def _mounted(kind: str, device: str, target: Path) -> Iterator[None]:
    """The file system is there; it recovers by itself from what the device lost."""
    options = "loop" if Path(device).is_file() else "defaults"
    mount = ["mount", "-t", kind, "-o", options, device, str(target)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NotMounted(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", str(target)], check=True)
