"""Goes through a record and looks at what power cuts at its moments would leave."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.powercut.check import broken_promises
from tests.faults.powercut.model import Cut, Disk, Line, cuts, lay_out
from tests.faults.powercut.record import Promised


@dataclass
class Tally:
    """How many images were looked at, and what was wrong with them."""

    images: int = 0
    broken: list[str] = field(default_factory=list)


def moments(
    lines: Sequence[Line], root: str, *, every: int = 1, lies: Callable[[Line], bool] | None = None
) -> Iterator[tuple[int, Disk, Promised]]:
    """The disk and the promises after each call, or after each so many.

    Calls for which `lies` is true report success and do nothing.
    """
    disk, promised = Disk(root), Promised()
    for at, line in enumerate(lines):
        promised.take(line)
        if line["op"] != "note" and not (lies is not None and lies(line)):
            disk.take(at, line)
        if at % every == 0:
            yield at, disk, promised


def cut_power(
    lines: Sequence[Line],
    root: str,
    place: Path,
    *,
    every: int = 1,
    seeds: int = 0,
    lies: Callable[[Line], bool] | None = None,
    enough: int | None = None,
) -> Tally:
    """Looks at every image of every moment, each kind of image once a moment; ends early when
    `enough` is broken."""
    tally = Tally()
    for at, disk, promised in moments(lines, root, every=every, lies=lies):
        if enough is not None and len(tally.broken) >= enough:
            break
        seen: set[frozenset[int]] = set()
        for cut in cuts(at, range(seeds)):
            kept = disk.kept(cut.keep)
            if kept in seen and cut.tear is None:
                continue
            seen.add(kept)
            tally.images += 1
            tally.broken.extend(
                f"call {at} ({lines[at]['op']}), {cut.name}: {what}"
                for what in _look(disk, cut, root, place / "image", promised)
            )
    return tally


def _look(disk: Disk, cut: Cut, root: str, target: Path, promised: Promised) -> list[str]:
    target.mkdir()
    try:
        lay_out(disk, cut, root, target)
        return list(broken_promises(target, promised))
    finally:
        shutil.rmtree(target)
