"""One job that prints as fast as it can: kept on disk with index, beside straight to a file."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from bus.clock import from_rfc3339
from tests.benchmarks import native
from tests.benchmarks.contenders import Contender, Failed, Figures, measure
from tests.benchmarks.node import RunningNode, running_node
from tests.benchmarks.tables import Column, Goal, Ratio, render

MEGABYTES = 300
FILE, OURS = "straight to a file", "jobbus"
_END_S = 60.0


def table(folder: Path, rounds: int, seconds: float) -> str:
    contenders = [
        Contender(FILE, _to_file, native.missing()),
        Contender(OURS, _through_us, native.missing()),
    ]
    results = measure(contenders, folder, rounds=rounds, seconds=seconds)
    goals = [Goal(OURS, at_least=0.35, of=(FILE,), words="a file")]
    columns: list[Column | Ratio] = [
        Column("MB/s", "rate", spread=True),
        Ratio("÷ file", (FILE,)),
    ]
    title = f"Output of one job, {MEGABYTES} MB of 100-byte lines"
    return render(title, [FILE, OURS], columns, goals, results)


def _to_file(folder: Path, seconds: float) -> Figures:
    with (folder / "output.log").open("wb") as file:
        began_s = time.monotonic()
        subprocess.run([native.program("lines"), str(MEGABYTES)], stdout=file, check=True)
        lasted_s = time.monotonic() - began_s
    return {"rate": MEGABYTES / lasted_s}


def _through_us(folder: Path, seconds: float) -> Figures:
    """From the start of the program to the moment when its output was complete."""
    command = json.dumps([str(native.program("lines")), str(MEGABYTES)])
    job = f"command = {command}\n[output]\nmax_bytes = {2 * MEGABYTES * 1_000_000 + 1000}\n"
    with running_node(folder, {"Bench/Lines": job}) as node:
        node.call("POST", "/commands", {"command": "start", "jobId": "Bench/Lines"})
        execution = _ended(node)
    if execution["outputEnd"] != MEGABYTES * 1_000_000:
        raise Failed(f"only {execution['outputEnd']} bytes were kept")
    lasted_ms = from_rfc3339(execution["endTime"]) - from_rfc3339(execution["startTime"])
    return {"rate": MEGABYTES / max(lasted_ms, 1) * 1000}


def _ended(node: RunningNode) -> dict[str, Any]:
    """The one execution, when it has ended."""
    until_s = time.monotonic() + _END_S
    while time.monotonic() < until_s:
        time.sleep(0.2)
        items: list[dict[str, Any]] = node.call("GET", "/executions")["items"]
        if items and items[0]["endTime"]:
            return items[0]
    raise Failed("the job did not end")
