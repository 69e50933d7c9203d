"""Start and reap of a short job with durable states, eight live, beside bare `posix_spawn`."""

from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import native
from tests.benchmarks.contenders import Contender, Figures, child, measure, python_child
from tests.benchmarks.tables import Column, Goal, Ratio, render

PROGRAM = "/bin/true"
LIVE = 8
C, OURS = "C posix_spawn", "jobbus, publish to durable end"


def table(folder: Path, rounds: int, seconds: float) -> str:
    contenders = [
        Contender(C, _limit, native.missing()),
        Contender(OURS, _ours(LIVE)),
    ]
    results = measure(contenders, folder, rounds=rounds, seconds=seconds)
    goals = [Goal(OURS, at_least=0.15, of=(C,), words="C")]
    columns: list[Column | Ratio] = [
        Column("starts/s", "rate", spread=True),
        Column("flushes each", "flushes", digits=2),
        Ratio("÷ C", (C,)),
    ]
    title = f"Start and reap of {PROGRAM}, {LIVE} live"
    return render(title, [C, OURS], columns, goals, results)


def _limit(folder: Path, seconds: float) -> Figures:
    return child(native.program("spawn"), str(seconds), str(LIVE), PROGRAM, seconds=seconds)


def _ours(live: int) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        args = (folder, str(seconds), str(live))
        return python_child("spawn_ours", *args, seconds=seconds, folder=folder)

    return run
