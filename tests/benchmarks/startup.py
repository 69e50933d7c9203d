"""How long a start takes with a long past, and how fast a long queue is worked off then."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bus.layout import DataLayout
from tests.benchmarks.contenders import Contender, Failed, Figures, measure
from tests.benchmarks.history import ended_executions, waiting_commands
from tests.benchmarks.node import RunningNode, running_node
from tests.benchmarks.tables import FAILED, Column, Goal, Ratio, render

MANY = 100_000
WARM_UP = 1000
"""Commands that are handled before anything is counted."""

LOOK_S = 0.02
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
        FAILED,
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
        at, from_s = _handled(node), time.monotonic()
        while sum(at) < min(WARM_UP, count // 10):
            time.sleep(LOOK_S)
            at, from_s = _handled(node), time.monotonic()
        done, now_s = at, from_s
        # Not longer than there is work: an idle tail would be counted as slowness.
        while sum(done) < count and now_s < from_s + max(1.0, seconds):
            time.sleep(LOOK_S)
            done, now_s = _handled(node), time.monotonic()
        rss = _rss_mb(node.pid)
        good, bad = done[0] - at[0], done[1] - at[1]
        if good <= 0:
            raise Failed("nothing was worked off")
        rate = good / (now_s - from_s)
        figures = {"rate": rate, "each_us": 1e6 / rate, "failed": float(bad)}
        return {"ready": node.ready_s, "rss": rss, **figures}


def _handled(node: RunningNode) -> tuple[int, int]:
    """How many `status` commands have ended well and otherwise, by the service's own count of
    ends: what is kept of them is another thing."""
    good = bad = 0
    for outcome, number in node.ended_commands("status").items():
        if outcome == "done":
            good += number
        else:
            bad += number
    return good, bad


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
