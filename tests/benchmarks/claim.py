"""From claim to durable result with a long queue behind it, beside what else is at-least-once."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks.contenders import Contender, Figures, measure, python_child
from tests.benchmarks.publish import not_installed
from tests.benchmarks.startup import MANY, work_off
from tests.benchmarks.tables import FAILED, Column, Goal, Ratio, render

OURS = "jobbus"
PEERS = {"SQLite": "a table by hand", "persist-queue": "acknowledged"}
"""huey is no peer here: it deletes at the claim, so what it held is lost with its process."""


def table(folder: Path, rounds: int, seconds: float) -> str:
    rows = {name: f"{name}, {words}" for name, words in PEERS.items()}
    contenders = [
        Contender(OURS, partial(work_off, MANY)),
        Contender(rows["SQLite"], _peer("SQLite")),
        Contender(rows["persist-queue"], _peer("persist-queue"), not_installed("persist-queue")),
    ]
    results = measure(contenders, folder, rounds=min(rounds, 3), seconds=seconds)
    peers = tuple(rows.values())
    goals = [Goal(OURS, at_least=4, of=peers, words="the best peer")]
    columns: list[Column | Ratio] = [
        Column("commands/s", "rate", spread=True),
        FAILED,
        Column("us a command", "each_us"),
        Ratio("÷ best peer", peers),
    ]
    title = f"Claim to durable result, {MANY:,} waiting"
    return render(title, [OURS, *peers], columns, goals, results)


def _peer(name: str) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        return python_child("claim_peers", name, folder, str(seconds), str(MANY), seconds=seconds)

    return run
