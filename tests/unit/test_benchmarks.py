"""Figures of `tests/benchmarks` are what they are called: failures count, nothing is negative."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.closed_loop import closed_loop
from tests.benchmarks.contenders import Contender, measure
from tests.benchmarks.tables import FAILED, Column, render
from tests.service import ROOT


async def test_calls_that_fail_are_counted_and_in_no_rate() -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.001)
        if calls % 2:
            raise ValueError

    figures = await closed_loop(call, 1, 0.2)
    assert figures["count"] == calls
    assert abs(figures["failed"] - calls / 2) <= 1
    assert figures["rate"] * 0.2 <= calls - figures["failed"]


def test_figure_that_cannot_be_is_no_figure_and_rounds_that_failed_are_reported(
    tmp_path: Path,
) -> None:
    rates = iter([-34.0, 0.0, 5.0])
    row = Contender("odd", lambda folder, seconds: {"rate": next(rates), "failed": 2.0})
    results = measure([row], tmp_path / "rounds", rounds=3, seconds=0.1)
    table = render("T", ["odd"], [Column("per second", "rate"), FAILED], [], results)
    assert results.values("odd", "rate") == [5.0]
    assert "2 of 3 rounds failed, the last one: nothing was done in the time" in table
    assert "failed" in table.splitlines()[2]


@pytest.mark.exhaustive
def test_starts_are_counted_by_their_ends_and_not_by_what_is_kept(tmp_path: Path) -> None:
    """Long enough for retention to forget most of them meanwhile: 100 of a job are kept."""
    command = [sys.executable, "-m", "tests.benchmarks.spawn_ours", str(tmp_path), "8", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["failed"] == 0
    assert 0 < figures["rate"] * 8 <= figures["count"]
