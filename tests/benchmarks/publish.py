"""Durable publish through the directory transport, beside the file limit and embeddable queues."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import native
from tests.benchmarks.contenders import Contender, Figures, child, measure, python_child
from tests.benchmarks.tables import FAILED, Column, Goal, Ratio, render

COMMAND_BYTES = 400
PEERS = {"persist-queue": "persistqueue", "huey": "huey"}


def table(folder: Path, rounds: int, seconds: float) -> str:
    parts = []
    for publishers in (64, 1):
        limit = f"C, groups of {publishers}" if publishers > 1 else "C, file by file"
        ours = f"jobbus, {publishers} publishers" if publishers > 1 else "jobbus, 1 publisher"
        peers = tuple(f"{name}, {publishers} threads" for name in PEERS)
        contenders = [
            Contender(limit, _limit(publishers), native.missing()),
            Contender(ours, _ours(publishers)),
            *(
                Contender(row, _peer(name, publishers), not_installed(name))
                for name, row in zip(PEERS, peers, strict=True)
            ),
        ]
        results = measure(contenders, folder / str(publishers), rounds=rounds, seconds=seconds)
        goals = [
            Goal(ours, at_least=0.6, of=(limit,), words="C"),
            Goal(ours, at_least=2, of=peers, words="best queue library"),
            Goal(ours, figure="flushes", at_most=0.1, unit="flushes"),
        ]
        columns: list[Column | Ratio] = [
            Column("commands/s", "rate", spread=True),
            FAILED,
            Column("p50 ms", "p50_ms", digits=2),
            Column("p99 ms", "p99_ms", digits=2),
            Column("flushes each", "flushes", digits=3),
            Ratio("÷ C", (limit,)),
        ]
        title = f"Durable publish, {COMMAND_BYTES}-byte commands, {publishers} at once"
        rows = [contender.name for contender in contenders]
        parts.append(render(title, rows, columns, goals if publishers > 1 else [], results))
    return "\n".join(parts)


def _limit(group: int) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        args = (str(seconds), str(group), str(COMMAND_BYTES))
        return child(native.program("files"), folder, *args, seconds=seconds, folder=folder)

    return run


def _ours(publishers: int) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        args = (str(seconds), str(publishers))
        return python_child("publish_ours", folder, *args, seconds=seconds, folder=folder)

    return run


def _peer(name: str, producers: int) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        args = (str(seconds), str(producers))
        return python_child("publish_peers", name, folder, *args, seconds=seconds, folder=folder)

    return run


def not_installed(name: str) -> str | None:
    """Why its row is skipped, or None."""
    found = importlib.util.find_spec(PEERS[name])
    return None if found else f"{name} is not installed"
