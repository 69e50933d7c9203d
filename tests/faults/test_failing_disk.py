"""A whole service on a disk that refuses or is full: it says so, and nothing half-written counts.

A failed sync ends the process, for what the disk holds is unknown then; anything else passes.
"""

import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.faults.crash_sweep import Aim, attempt_all, sweep
from tests.faults.load import Load, SeamService, define, verify
from tests.faults.seam import SYNCS, Plan
from tests.small_disk import mounted
from tests.tally import Kind, Tally

WRITING = ("open", "write", "pwrite", "link", "rename", "replace", "mkdir", "posix_fallocate")

CHANGING = ("unlink", "ftruncate")


def refused(
    number: int, calls: tuple[str, ...], role: str = "service", *, again: bool = False
) -> Callable[[int], Aim]:
    return lambda at: Aim(role, at, action="fail", number=number, calls=calls, again=again)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: the errors are injected."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="jobbus-", dir=memory) as folder:
        yield Path(folder)


QUICK = (
    refused(errno.EIO, SYNCS)(25),  # a burst on its way into the queue
    refused(errno.EIO, ("fdatasync",))(5),  # the journal, under load
    refused(errno.ENOSPC, WRITING)(40),
    refused(errno.ENOSPC, WRITING, "shim")(5),
)


def test_an_error_of_the_disk_is_reported_and_does_no_harm_here_and_there(place: Path) -> None:
    verdicts = attempt_all(place, QUICK)
    assert [verdict.aim for verdict in verdicts if not verdict.struck] == [], "nothing was refused"
    wrong = [str(verdict) for verdict in verdicts if verdict.violations]
    assert not wrong, "\n".join(wrong)


SWEEPS = {
    "EIO-at-syncs": refused(errno.EIO, SYNCS),
    "EIO-at-syncs-started-again": refused(errno.EIO, SYNCS, again=True),
    "EIO": refused(errno.EIO, (*WRITING, *CHANGING)),
    "EIO-in-shims": refused(errno.EIO, (*WRITING, *CHANGING, *SYNCS), "shim"),
    "ENOSPC": refused(errno.ENOSPC, WRITING),
    "ENOSPC-started-again": refused(errno.ENOSPC, WRITING, again=True),
    "ENOSPC-in-shims": refused(errno.ENOSPC, WRITING, "shim"),
    "EDQUOT": refused(errno.EDQUOT, WRITING),
    "no-process": refused(errno.EAGAIN, ("fork", "posix_spawn"), "spawner"),
}


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("aims", SWEEPS.values(), ids=SWEEPS)
def test_an_error_of_the_disk_does_no_harm_at_any_call(
    place: Path, aims: Callable[[int], Aim], tally: Tally, request: pytest.FixtureRequest
) -> None:
    verdicts = sweep(place, aims, print)
    wrong = [verdict for verdict in verdicts if verdict.violations]
    tally.add(Kind.INJECTED_ERRORS, request.node.callspec.id, len(verdicts), len(wrong))
    assert verdicts, "nothing was refused"
    assert not wrong, "\n".join(map(str, wrong))


@pytest.fixture(params=["size=200m,nr_inodes=4200", "size=80m"], ids=["inodes", "bytes"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own with room for a service, and a little more."""
    with mounted(tmp_path, request.param) as place:
        yield place


@pytest.mark.timeout(120)
def test_a_full_disk_refuses_starts_records_ends_and_recovers_by_itself(small_disk: Path) -> None:
    service = SeamService(small_disk / "node")
    service.plan = Plan(root=str(service.root), pause_s=0.1)
    define(service.apps)
    load = Load(service)
    try:
        service.start()
        load.begin()
        while not all_have_begun(load):
            time.sleep(0.05)  # on a full disk they would wait for room
        filled = fill(small_disk)
        for _ in range(min(len(filled) // 2, 100)):  # what is left is for stops and ends
            filled.pop().unlink()
        answer = refused_start(load)
        assert (answer["code"], answer["status"]) == ("no_space", 507)
        load.run_second_half()
        filled += fill(small_disk)
        assert refused_start(load)["status"] == 507
        for path in filled:
            path.unlink()
        load.publish("after", "start", "S/Reports")
        load.settle()
        wrong = list(verify(load, exact_ends=False))
        assert not wrong, "\n".join(wrong)
    finally:
        service.clear_away()


def all_have_begun(load: Load) -> bool:
    """Whether no start of the load waits any more, to be decided or for its slot."""
    known = {c["commandId"] for c in load.items("/commands") if c["status"] != "Pending"}
    executions = load.items("/executions")
    return load.tried.keys() <= known and all(e["status"] != "Queued" for e in executions)


def refused_start(load: Load) -> Any:
    """The problem that a start meets when the service has seen how little is left."""
    deadline_s = time.monotonic() + 30
    while b"little room is left" not in load.service.log.read_bytes():
        assert time.monotonic() < deadline_s, "it did not notice"
        time.sleep(0.1)
    status, answer = load.call("POST", "/commands", {"command": "start", "jobId": "S/Reports"})
    assert status == 507, answer
    return answer


def fill(root: Path) -> list[Path]:
    """Not a byte or not a name is left, but for the last of these files."""
    made: list[Path] = []
    by_bytes = os.statvfs(root).f_favail > 10_000
    try:
        for number in range(20_000):
            made.append(root / f"filler-{number}-{uuid4()}")
            with made[-1].open("wb") as file:
                file.write(bytes(1 << 20) if by_bytes else b"")
    except OSError:
        return [path for path in made if path.exists()]
    raise AssertionError("the disk is larger than it should be")
