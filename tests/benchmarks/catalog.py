"""A folder of 5,000 jobs with schedules: checked, loaded, one of them changed, and at rest."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from tests.benchmarks.contenders import ROOT, Contender, Failed, Figures, measure
from tests.benchmarks.idle import WATCH_S, watched
from tests.benchmarks.node import RunningNode, running_node
from tests.benchmarks.tables import FAILED, Column, Goal, Ratio, render

MANY, APPS = 5_000, 50
SETTLED_S = 5.0
"""A service has read and watched its apps that long after its start."""

LOOK_S = 0.01
PATIENCE_S = 60.0
CHANGED = "Bench0/Job0"
EMPTY, FULL = "1 job", f"{MANY:,} jobs"

_LOAD = """
import sys, time
from pathlib import Path
from handlers.catalog.definition_files import DefinitionFiles
began = time.monotonic()
found = DefinitionFiles(Path(sys.argv[1])).scan()
assert all(each.spec for each in found)
print(time.monotonic() - began)
"""


def table(folder: Path, rounds: int, seconds: float) -> str:
    contenders = [Contender(EMPTY, partial(_run, 1)), Contender(FULL, partial(_run, MANY))]
    rounds = min(rounds, 3)
    results = measure(contenders, folder, rounds=rounds, seconds=max(seconds, WATCH_S))
    goals = [
        Goal(FULL, figure="check", at_most=2, unit="s"),
        Goal(FULL, figure="load", at_most=2, unit="s"),
        Goal(FULL, figure="changed", at_most=1, unit="s"),
    ]
    columns: list[Column | Ratio] = [
        Column("s for jobbus check", "check", digits=2, spread=True),
        Column("s to load", "load", digits=2, spread=True),
        Column("s to ready", "ready", digits=2),
        Column("s until a change is in force", "changed", digits=2, spread=True),
        FAILED,
        Column("CPU % at rest", "cpu", digits=3),
        Column("wake-ups/s", "wakeups", digits=2),
        Column("RSS, MB", "rss"),
    ]
    title = f"{MANY:,} jobs with schedules, at rest for {max(seconds, WATCH_S):g} s"
    return render(title, [EMPTY, FULL], columns, goals, results)


def _run(count: int, folder: Path, seconds: float) -> Figures:
    jobs = {f"Bench{n % APPS}/Job{n // APPS}": _definition(n) for n in range(count)}
    with running_node(folder, jobs) as node:
        time.sleep(SETTLED_S)
        changed = _change(node, folder / "apps")
        time.sleep(SETTLED_S)
        at_rest = watched(node, seconds)
    apps = str(folder / "apps")
    return {
        **at_rest,
        "check": _timed("-m", "jobbus", "check", apps),
        "load": float(_python("-c", _LOAD, apps)),
        "ready": node.ready_s,
        "changed": changed,
        "failed": 0.0,
    }


def _definition(number: int) -> str:
    """As people write them; not due while it is measured."""
    return f"""command = ["./run.sh", "--count={{{{Count}}}}"]
description = "Job {number} of many"
tags = ["nightly"]
timeout_s = 600

[variables.Count]
type = "integer"
default = {number}
min = 0

[[schedule]]
cron = "{number % 60} {number // 60 % 24} 29 2 *"
zone = "Europe/Berlin"

[retry]
attempts = 3
"""


def _change(node: RunningNode, apps: Path) -> float:
    """Seconds from a saved file to the service's answer with what it says."""
    app, name = CHANGED.split("/")
    file = apps / app / "jobs" / name / "job.toml"
    draft = file.with_name("draft")
    draft.write_text(file.read_text().replace("timeout_s = 600", "timeout_s = 7"))
    draft.replace(file)
    began_s = time.monotonic()
    while node.call("GET", f"/jobs/{CHANGED}")["timeoutS"] != 7:
        if time.monotonic() - began_s > PATIENCE_S:
            raise Failed("the change is not in force")
        time.sleep(LOOK_S)
    return time.monotonic() - began_s


def _timed(*arguments: str) -> float:
    began_s = time.monotonic()
    _python(*arguments)
    return time.monotonic() - began_s


def _python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(done.stdout[-300:] + done.stderr[-300:])
    return done.stdout
