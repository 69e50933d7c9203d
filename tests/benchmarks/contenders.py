"""Who is measured, and the rounds: everybody once a round, a fresh process and folder each time."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.benchmarks.machine import FlushCounter, spread

Figures = Mapping[str, float]
ROOT = Path(__file__).parents[2]
_CHILD_EXTRA_S = 120


class Failed(Exception):
    """A contender ended without figures; the text says why."""


@dataclass(frozen=True)
class Contender:
    """One row. `run` is given a new empty folder and the seconds to measure for.

    skip: why it cannot take part here, shown in its row.
    """

    name: str
    run: Callable[[Path, float], Figures]
    skip: str | None = None


@dataclass
class Results:
    """Figures by contender and round; rounds in which it failed are missing for that contender."""

    rounds: dict[str, dict[int, Figures]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def values(self, name: str, figure: str) -> list[float]:
        return [one[figure] for one in self.rounds.get(name, {}).values() if figure in one]

    def median(self, name: str, figure: str) -> float | None:
        values = self.values(name, figure)
        return median(values) if values else None

    def ratio(self, name: str, figure: str, of: Sequence[str]) -> float | None:
        """The median over rounds of `name` divided by the best of `of` in the same round."""
        ratios: list[float] = []
        for number, figures in self.rounds.get(name, {}).items():
            others = [self.rounds.get(other, {}).get(number, {}).get(figure) for other in of]
            best = max((value for value in others if value), default=None)
            if best and figure in figures:
                ratios.append(figures[figure] / best)
        return median(ratios) if ratios else None


def measure(
    contenders: Sequence[Contender], folder: Path, *, rounds: int, seconds: float
) -> Results:
    """Runs everybody in turn, `rounds` times; says on stderr how far it is.

    Nothing is deleted on the way: on ext4 without a journal that would slow the next one down.
    """
    results = Results({c.name: {} for c in contenders})
    for contender in contenders:
        if contender.skip:
            results.notes[contender.name] = f"skipped: {contender.skip}"
    failed: Counter[str] = Counter()
    able = [c for c in contenders if not c.skip]
    folder.mkdir(parents=True)
    spread(folder)
    for number in range(rounds):
        # Another order each round, so that none always comes after the same neighbour.
        for contender in able[number % len(able) :] + able[: number % len(able)]:
            sys.stderr.write(f"\r\033[Kround {number + 1}/{rounds}: {contender.name}")
            sys.stderr.flush()
            own = folder / f"{number}-{able.index(contender)}"
            own.mkdir()
            try:
                results.rounds[contender.name][number] = _sound(contender.run(own, seconds))
            except Failed as why:
                failed[contender.name] += 1
                many = f"{failed[contender.name]} of {rounds} rounds failed"
                results.notes[contender.name] = f"{many}, the last one: {why}"
    sys.stderr.write("\r\033[K")
    return results


def _sound(figures: Figures) -> Figures:
    """The figures, if they can be what they are called: none of them counts below nothing.

    Raises:
        Failed: one cannot, so whatever counts it counts something else.
    """
    wrong = [f"{name} is {value:g}" for name, value in figures.items() if value < 0]
    if figures.get("rate") == 0:
        wrong.append("nothing was done in the time")
    if wrong:
        raise Failed(", ".join(wrong))
    return figures


def child(*argv: str | os.PathLike[str], seconds: float, folder: Path | None = None) -> Figures:
    """The figures that a program prints as JSON in the last line of its stdout.

    With `folder`, the flushes of its block device while the program ran are added, per `count`.
    """
    counter = FlushCounter(folder) if folder is not None else None
    before = counter.read() if counter else None
    try:
        done = subprocess.run(
            [os.fspath(arg) for arg in argv],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + _CHILD_EXTRA_S,
        )
    except subprocess.TimeoutExpired:
        raise Failed("took too long") from None
    after = counter.read() if counter else None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise Failed(f"exit code {done.returncode}: {said}")
    figures: dict[str, float] = json.loads(lines[-1])
    if before is not None and after is not None and figures.get("count"):
        figures["flushes"] = (after - before) / figures["count"]
    return figures


def python_child(
    module: str, *args: str | os.PathLike[str], seconds: float, folder: Path | None = None
) -> Figures:
    """`child` for a module of this package, in a fresh interpreter."""
    name = f"tests.benchmarks.{module}"
    return child(sys.executable, "-m", name, *args, seconds=seconds, folder=folder)
