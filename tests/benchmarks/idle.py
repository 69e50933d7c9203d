"""What a service costs that has nothing to do: memory at rest, and with 20 quiet jobs."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.contenders import Contender, Failed, Figures, measure
from tests.benchmarks.node import RunningNode, processes_of, running_node
from tests.benchmarks.tables import Column, Goal, Ratio, render

JOBS = 20
WATCH_S = 20.0
QUIET = f'command = ["/bin/sleep", "3600"]\nmax_running = {JOBS}\n'
REST, BUSY = "at rest", f"{JOBS} quiet jobs"


def table(folder: Path, rounds: int, seconds: float) -> str:
    contenders = [Contender(REST, _at_rest), Contender(BUSY, _with_jobs)]
    rounds = min(rounds, 3)
    results = measure(contenders, folder, rounds=rounds, seconds=max(seconds, WATCH_S))
    goals = [
        Goal(REST, figure="rss", at_most=60, unit="MB RSS"),
        Goal(BUSY, figure="per_job", at_most=1.5, unit="MiB a job"),
        Goal(BUSY, figure="wakeups", at_most=5, unit="wake-ups/s"),
        Goal(BUSY, figure="cpu", at_most=0.1, unit="% CPU"),
    ]
    columns: list[Column | Ratio] = [
        Column("RSS of the service, MB", "rss", digits=1),
        Column("private, all processes, MiB", "private", digits=1),
        Column("private a job, MiB", "per_job", digits=2),
        Column("wake-ups/s", "wakeups", digits=2, spread=True),
        Column("of the jobs' shims", "shim_wakeups", digits=2),
        Column("CPU %", "cpu", digits=3),
        Column("processes", "processes"),
    ]
    title = f"Idle, watched for {max(seconds, WATCH_S):g} s"
    return render(title, [REST, BUSY], columns, goals, results)


def _at_rest(folder: Path, seconds: float) -> Figures:
    with running_node(folder, {"Bench/Quiet": QUIET}) as node:
        time.sleep(3)
        return watched(node, seconds)


def _with_jobs(folder: Path, seconds: float) -> Figures:
    with running_node(folder, {"Bench/Quiet": QUIET}) as node:
        time.sleep(2)
        before = set(processes_of(node.data, node.pid))
        private_before = _private_mib(before)
        for _ in range(JOBS):
            node.call("POST", "/commands", {"command": "start", "jobId": "Bench/Quiet"})
        time.sleep(3)
        if len(node.call("GET", "/executions?status=Running")["items"]) < JOBS:
            raise Failed("not all jobs run")
        after = set(processes_of(node.data, node.pid))
        grown = _private_mib(after) - private_before
        figures = dict(watched(node, seconds, shims=after - before))
        node.call("POST", "/commands", {"command": "stop", "jobId": "Bench/Quiet", "kill": True})
        time.sleep(2)
        return figures | {"per_job": grown / JOBS}


def watched(node: RunningNode, seconds: float, shims: Iterable[int] = ()) -> Figures:
    """Voluntary context switches and CPU time of all processes, over `seconds`."""
    pids = processes_of(node.data, node.pid)
    shims = set(shims)
    began_s = time.monotonic()
    switches, cpu_ns = _switches(pids), _cpu_ns(pids)
    of_shims = _switches(shims)
    time.sleep(seconds)
    lasted_s = time.monotonic() - began_s
    return {
        "rss": _rss_mb(node.pid),
        "private": _private_mib(pids),
        "wakeups": (_switches(pids) - switches) / lasted_s,
        "shim_wakeups": (_switches(shims) - of_shims) / lasted_s,
        "cpu": (_cpu_ns(pids) - cpu_ns) / lasted_s / 1e7,
        "processes": float(len(pids)),
    }


def _switches(pids: Iterable[int]) -> int:
    return sum(_number(path / "status", "voluntary_ctxt_switches:") for path in _threads(pids))


def _cpu_ns(pids: Iterable[int]) -> int:
    """The first number of schedstat: time on a core, by thread."""
    return sum(int((path / "schedstat").read_text().split()[0]) for path in _threads(pids))


def _threads(pids: Iterable[int]) -> Iterable[Path]:
    return (path for pid in pids for path in Path(f"/proc/{pid}/task").iterdir())


def _private_mib(pids: Iterable[int]) -> float:
    words = ("Private_Clean:", "Private_Dirty:")
    return (
        sum(_number(Path(f"/proc/{p}/smaps_rollup"), word) for p in pids for word in words) / 1024
    )


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _number(path: Path, word: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(word):
            return int(line.split()[1])
    return 0
