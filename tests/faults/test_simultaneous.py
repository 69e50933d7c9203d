"""Service, spawner and all shims killed within 30 ms, at swept points: every promise holds."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.crash_sweep import Aim, attempt_all, sweep
from tests.tally import Kind, Tally


def together(role: str, *, shim: int = 0, again: bool = False) -> Callable[[int], Aim]:
    return lambda at: Aim(role, at, shim=shim, again=again, together=True)


QUICK = (
    together("service")(150),
    together("service")(250),
    together("service", again=True)(40),
    together("spawner")(3),
    together("shim", shim=0)(9),
    together("shim", shim=3)(14),
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: what the dead leave does not hang on real syncs."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="jobbus-", dir=memory) as folder:
        yield Path(folder)


def test_all_of_them_dead_at_once_lose_and_double_nothing_here_and_there(
    place: Path, tally: Tally
) -> None:
    verdicts = attempt_all(place, QUICK)
    wrong = [verdict for verdict in verdicts if verdict.violations]
    tally.add(Kind.SIMULTANEOUS, "here and there", len(verdicts), len(wrong))
    assert [verdict.aim for verdict in verdicts if not verdict.struck] == [], (
        "no process died of these"
    )
    assert not wrong, "\n".join(map(str, wrong))


SWEEPS = {
    "service": together("service"),
    "service-started-again": together("service", again=True),
    "spawner": together("spawner"),
    **{f"shim-of-execution-{number}": together("shim", shim=number) for number in range(7)},
}


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("aims", SWEEPS.values(), ids=SWEEPS)
def test_all_of_them_dead_at_once_lose_and_double_nothing_at_any_call_of(
    place: Path, aims: Callable[[int], Aim], tally: Tally, request: pytest.FixtureRequest
) -> None:
    verdicts = sweep(place, aims, print)
    wrong = [verdict for verdict in verdicts if verdict.violations]
    tally.add(Kind.SIMULTANEOUS, request.node.callspec.id, len(verdicts), len(wrong))
    assert verdicts, "no process died"
    assert not wrong, "\n".join(map(str, wrong))
