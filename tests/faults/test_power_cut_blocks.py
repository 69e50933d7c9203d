"""A power cut below ext4, XFS and btrfs takes back nothing that was answered.

The writes and flushes of a whole life are recorded at the block device; many of the images that a
cut could leave are mounted again, for which root, loop devices and FUSE are needed.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.powercut.blocks import MAKE, Recorded, cut_power_below, record_on
from tests.tally import Kind, Tally

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """In memory where there is such a place: images are copied all the time."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="jobbus-", dir=parent) as folder:
        yield Path(folder)


@pytest.fixture(scope="module", params=MAKE)
def life(place: Path, request: pytest.FixtureRequest) -> Recorded:
    folder = place / request.param
    folder.mkdir()
    return record_on(request.param, folder)


def test_no_promise_is_broken_by_a_power_cut_below(life: Recorded, tally: Tally) -> None:
    found = cut_power_below(life, life.image.parent, moments=80)
    tally.add(Kind.POWER_CUTS, f"below {life.kind}", found.images, len(found.broken))
    assert found.images > 100
    assert not found.broken, "\n".join(found.broken[:50])


def test_a_device_that_lies_about_its_flushes_is_noticed_below(life: Recorded) -> None:
    """Without this the test above could not fail."""
    assert cut_power_below(life, life.image.parent, moments=80, lies=True, enough=1).broken
