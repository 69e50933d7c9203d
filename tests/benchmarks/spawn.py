"""Start and reap of a short job with durable states, eight live, beside bare `posix_spawn` and
supervisord."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import native
from tests.benchmarks.contenders import Contender, Figures, child, measure, python_child
from tests.benchmarks.tables import FAILED, Column, Goal, Ratio, render

PROGRAM = "/bin/true"
LIVE = 8
C, OURS, PEER = "C posix_spawn", "jobbus, publish to durable end", "supervisord, nothing durable"


def table(folder: Path, rounds: int, seconds: float) -> str:
    contenders = [
        Contender(C, _limit, native.missing()),
        Contender(OURS, _ours(LIVE)),
        Contender(PEER, _supervisord, _not_installed()),
    ]
    results = measure(contenders, folder, rounds=rounds, seconds=seconds)
    goals = [
        Goal(OURS, at_least=0.15, of=(C,), words="C"),
        Goal(OURS, at_least=3, of=(PEER,), words="supervisord"),
    ]
    columns: list[Column | Ratio] = [
        Column("starts/s", "rate", spread=True),
        FAILED,
        Column("flushes each", "flushes", digits=2),
        Ratio("÷ C", (C,)),
    ]
    title = f"Start and reap of {PROGRAM}, {LIVE} live"
    return render(title, [C, OURS, PEER], columns, goals, results)


def _limit(folder: Path, seconds: float) -> Figures:
    return child(native.program("spawn"), str(seconds), str(LIVE), PROGRAM, seconds=seconds)


def _ours(live: int) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        args = (folder, str(seconds), str(live))
        return python_child("spawn_ours", *args, seconds=seconds, folder=folder)

    return run


def _supervisord(folder: Path, seconds: float) -> Figures:
    args = (folder, str(seconds), str(LIVE), PROGRAM)
    return python_child("spawn_supervisord", *args, seconds=seconds)


def _not_installed() -> str | None:
    found = importlib.util.find_spec("supervisor")
    return None if found else "supervisor is not installed"
