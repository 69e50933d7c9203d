"""A death before any call that decides what survives: nothing is lost, nothing runs twice.

A trial is a whole service under load, a SIGKILL at one call, a restart and a look at everything.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.crash_sweep import Aim, attempt_all, sweep
from tests.tally import Kind, Tally

QUICK = (
    Aim("service", 4, calls=("fdatasync",)),
    Aim("service", 30, action="torn"),
    Aim("service", 12, again=True),
    Aim("spawner", 2, action="after"),
    Aim("shim", 12),
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


def test_nothing_is_lost_or_doubled_by_a_death_here_and_there(place: Path) -> None:
    verdicts = attempt_all(place, QUICK)
    assert [verdict.aim for verdict in verdicts if not verdict.struck] == [], (
        "no process died of these"
    )
    wrong = [str(verdict) for verdict in verdicts if verdict.violations]
    assert not wrong, "\n".join(wrong)


def _of_execution(number: int) -> Callable[[int], Aim]:
    return lambda at: Aim("shim", at, shim=number)


SWEEPS: dict[str, Callable[[int], Aim]] = {
    "service": lambda at: Aim("service", at),
    "service-torn-writes": lambda at: Aim("service", at, action="torn"),
    "service-started-again": lambda at: Aim("service", at, again=True),
    "service-after-spawning": lambda at: Aim(
        "service", at, action="after", calls=("fork", "posix_spawn")
    ),
    "spawner": lambda at: Aim("spawner", at),
    "spawner-after-forking": lambda at: Aim("spawner", at, action="after"),
    **{f"shim-of-execution-{number}": _of_execution(number) for number in range(17)},
    "shim-torn-writes": lambda at: Aim("shim", at, action="torn"),
    "shim-after-forking": lambda at: Aim("shim", at, action="after", calls=("fork",)),
}


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("aims", SWEEPS.values(), ids=SWEEPS)
def test_nothing_is_lost_or_doubled_by_a_death_at_any_call_of(
    place: Path, aims: Callable[[int], Aim], tally: Tally, request: pytest.FixtureRequest
) -> None:
    verdicts = sweep(place, aims, print)
    wrong = [verdict for verdict in verdicts if verdict.violations]
    tally.add(Kind.KILL_POINTS, request.node.callspec.id, len(verdicts), len(wrong))
    assert verdicts, "no process died"
    assert not wrong, "\n".join(map(str, wrong))
