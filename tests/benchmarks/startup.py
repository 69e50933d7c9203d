"""How long a start takes with a long past, and how fast a long queue is worked off then."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bus.layout import DataLayout
from tests.benchmarks.contenders import Contender, Failed, Figures, measure
from tests.benchmarks.history import ended_executions, waiting_commands
from tests.benchmarks.node import running_node
from tests.benchmarks.tables import Column, Goal, Ratio, render

MANY = 100_000
JOBS = {"Bench/Job1": 'command = ["/bin/true"]\n'}
EMPTY = "empty directory"
KEPT = f"{MANY:,} kept executions"
RAW = f"{MANY:,} kept executions, no snapshot"
FEW, WAITING = "10,000 waiting files", f"{MANY:,} waiting files"


def table(folder: Path, rounds: int, seconds: float) -> str:
    contenders = [
        Contender(EMPTY, partial(_start, lambda layout: None)),
        Contender(KEPT, partial(_start, _past, twice=True)),
        Contender(RAW, partial(_start, _past)),
        Contender(FEW, partial(work_off, 10_000)),
        Contender(WAITING, partial(work_off, MANY)),
    ]
    rounds = min(rounds, 3)
    results = measure(contenders, folder, rounds=rounds, seconds=seconds)
    goals = [
        Goal(KEPT, figure="ready", at_most=2, unit="s"),
        Goal(WAITING, figure="ready", at_most=2, unit="s"),
        Goal(WAITING, figure="each_us", at_most=1.5, of=(FEW,), words="the cost with 10,000"),
    ]
    columns: list[Column | Ratio] = [
        Column("s to ready", "ready", digits=2, spread=True),
        Column("then commands/s", "rate", spread=True),
        Column("us a command", "each_us"),
        Column("RSS, MB", "rss"),
    ]
    rows = [contender.name for contender in contenders]
    return render("Start-up with a past", rows, columns, goals, results)


def _past(layout: DataLayout) -> None:
    day_ms = 86_400_000
    ended_executions(layout, MANY, since_ms=time.time_ns() // 1_000_000 - day_ms)


def _start(
    prepare: Callable[[DataLayout], None], folder: Path, seconds: float, *, twice: bool = False
) -> Figures:
    """`twice`: the second of two starts, which finds the snapshot that a service leaves behind."""
    (folder / "data").mkdir(mode=0o700)
    prepare(DataLayout(folder / "data"))
    os.sync()
    if twice:
        with running_node(folder, JOBS):
            time.sleep(2)
    with running_node(folder, JOBS) as node:
        return {"ready": node.ready_s, "rss": _rss_mb(node.pid)}


def work_off(count: int, folder: Path, seconds: float) -> Figures:
    """A service with so many waiting `status` commands: when it is ready, how fast it then is."""
    layout = DataLayout(folder / "data")
    layout.root.mkdir(mode=0o700)
    waiting_commands(layout, count)
    os.sync()
    with running_node(folder, JOBS) as node:
        began_s = time.monotonic()
        before = _results(layout)
        time.sleep(max(1.0, seconds))
        done = _results(layout) - before
        lasted_s = time.monotonic() - began_s
        rss = _rss_mb(node.pid)
        ready_s = node.ready_s
    if done <= 0:
        raise Failed("nothing was worked off")
    rate = done / lasted_s
    return {"ready": ready_s, "rate": rate, "each_us": 1e6 / rate, "rss": rss}


def _results(layout: DataLayout) -> int:
    with os.scandir(layout.results) as entries:
        return sum(1 for _ in entries)


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
