"""A power cut after any call to the disk takes back nothing that was answered.

Modelled: bytes and names that were not synced are there or not, in any order, torn at sectors. The
calls are those of a whole service with its shims under a load. See `powercut/model.py`.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.load import published_ids
from tests.faults.powercut.check import broken_after_restart
from tests.faults.powercut.model import Line, cuts, lay_out
from tests.faults.powercut.record import record
from tests.faults.powercut.run import cut_power, moments
from tests.tally import Kind, Tally


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """In memory where there is such a place: the disk is modelled."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="jobbus-", dir=parent) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def lines(place: Path) -> list[Line]:
    return record(place)


def test_no_promise_is_broken_by_a_power_cut_here_and_there(place: Path, lines: list[Line]) -> None:
    found = cut_power(lines, str(place / "disk"), place, every=19, seeds=1)
    assert found.images > 50
    assert not found.broken, "\n".join(found.broken)


LIES: dict[str, Callable[[Line], bool]] = {
    "names of the queue": lambda line: (
        line["op"] == "fsync" and line["paths"][0].endswith("/JobCommandQueue")
    ),
    "bytes of the queue": lambda line: (
        line["op"] == "syncfs"
        or (line["op"] == "fdatasync" and "/JobCommandQueue/" in line["paths"][0])
    ),
    "journal": lambda line: line["op"] == "fdatasync" and "/Journal/" in line["paths"][0],
    "claims": lambda line: line["op"] == "fsync" and "/JobOutput" in line["paths"][0],
}


SOONEST = ("journal", "claims")
"""Missed within a few images; for the others more of them are needed."""


@pytest.mark.parametrize(
    "lies",
    [
        pytest.param(lies, id=name, marks=[] if name in SOONEST else pytest.mark.exhaustive)
        for name, lies in LIES.items()
    ],
)
def test_the_model_notices_when_a_sync_is_left_out_of_the(
    place: Path, lines: list[Line], lies: Callable[[Line], bool]
) -> None:
    """Without this the tests above could not fail."""
    assert cut_power(lines, str(place / "disk"), place, every=2, lies=lies, enough=1).broken


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_no_promise_is_broken_by_a_power_cut_after_any_call(
    place: Path, lines: list[Line], tally: Tally
) -> None:
    found = cut_power(lines, str(place / "disk"), place, seeds=4)
    calls = sum(line["op"] != "note" for line in lines)
    tally.add(Kind.POWER_CUTS, f"after each of {calls} calls", found.images, len(found.broken))
    assert not found.broken, "\n".join(found.broken[:50])


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_a_service_on_another_boot_makes_everything_good_after_a_power_cut(
    place: Path, lines: list[Line], tally: Tally
) -> None:
    tried = published_ids()
    board = place / "disk" / "board"
    done, wrong = 0, []
    for at, disk, promised in moments(lines, str(place / "disk"), every=11):
        for cut in list(cuts(at, range(1)))[done % 3 :: 3]:
            target = place / f"restart-{at}-{done}"
            target.mkdir()
            lay_out(disk, cut, str(place / "disk"), target)
            done += 1
            wrong += [
                f"call {at} ({lines[at]['op']}), {cut.name}: {what}"
                for what in broken_after_restart(target, promised, tried, board)
            ]
    tally.add(Kind.POWER_CUTS, "with a service started on another boot", done, len(wrong))
    assert not wrong, "\n".join(wrong[:50])
