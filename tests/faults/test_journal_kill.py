"""A service that is killed at any moment: what it acknowledged is there, and nothing twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.journal.journal import Journal
from tests.fault_points import count_calls, killed_at
from tests.journal_fixture import (
    NOW_MS,
    content_of,
    log_files,
    patch,
    record,
    reopen,
    seqs,
    snapshot,
    snapshot_of,
    written,
)
from tests.tally import Kind, Tally


def life(directory: Path, acknowledged_in: Path) -> None:
    """One service's life with the journal; what it acknowledged is appended to
    `acknowledged_in`."""
    found = Journal.open(directory, now_ms=NOW_MS, segment_bytes=300, ballast_bytes=4096)
    seq = found.next_seq
    with acknowledged_in.open("ab", buffering=0) as file:
        for step in range(9):
            found.journal.append([record(seq), record(seq + 1)])
            seq += 2
            file.write(b"%d\n" % (seq - 1))
            if step in (2, 4, 6):
                snapshot(found.journal, seq, b"%d" % seq)
    found.journal.close(seq, NOW_MS)


def check(directory: Path, acknowledged_in: Path) -> None:
    """All that was acknowledged is there, in order, once; and the journal can go on."""
    acknowledged = (
        [int(line) for line in acknowledged_in.read_bytes().split()]
        if acknowledged_in.exists()
        else []
    )
    found = reopen(directory)
    content = snapshot_of(found)
    begin = int(content[0]) if content else 1
    decisions = seqs(found)
    assert decisions == list(range(begin, begin + len(decisions)))
    last = begin + len(decisions) - 1
    assert last >= max(acknowledged, default=0)
    assert (found.continuous, found.next_seq) == (True, last + 1)
    found.journal.append([record(last + 1)])
    again = reopen(directory)
    assert (again.epoch, seqs(again)) == (found.epoch, [*decisions, last + 1])


STEPS = [
    pytest.param(23, id="some"),
    pytest.param(1, id="each", marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_call_it_loses_nothing_it_acknowledged(
    tmp_path: Path, step: int, tally: Tally
) -> None:
    calls = count_calls(lambda: life(made(tmp_path / "whole"), tmp_path / "whole.acknowledged_in"))
    assert calls > 60
    for number in range(1, calls + 2, step):
        directory, acknowledged_in = (
            made(tmp_path / str(number)),
            tmp_path / f"{number}.acknowledged_in",
        )
        with tally.trial(Kind.KILL_POINTS, "journal"):
            was_killed = killed_at(number, lambda d=directory, t=acknowledged_in: life(d, t))  # type: ignore[misc]
            assert was_killed is (number <= calls)
            check(directory, acknowledged_in)


def test_killed_again_and_again_it_goes_on(tmp_path: Path) -> None:
    directory, acknowledged_in = made(tmp_path / "journal"), tmp_path / "acknowledged_in"
    for number in range(5, 60, 11):
        assert killed_at(number, lambda: life(directory, acknowledged_in))
        check(directory, acknowledged_in)
        acknowledged_in.write_bytes(b"%d\n" % (reopen(directory).next_seq - 1))


def broken(directory: Path, fault: str) -> Path:
    """A journal of three segments and a snapshot whose second segment has the fault."""
    written(made(directory), 9, segment_bytes=300)
    snapshot(reopen(directory).journal, 3, b"3")
    victim = log_files(directory)[1]
    match fault:
        case "damaged":
            patch(victim, content_of(victim).index(b"Demo/J"), b"#")
        case "torn":
            patch(victim, len(content_of(victim)) - 3, b"#")
        case "missing":
            victim.unlink()
        case _:
            content = victim.read_bytes()
            victim.rename(directory / "elsewhere")
            victim.write_bytes(content)
    return directory


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", ["damaged", "torn", "missing", "copied"])
def test_killed_while_it_repairs_it_repairs_the_same(
    tmp_path: Path, fault: str, step: int, tally: Tally
) -> None:
    expected = seqs(reopen(broken(tmp_path / "whole", fault)))
    uncut = broken(tmp_path / "count", fault)
    calls = count_calls(lambda: reopen(uncut))
    for number in range(1, calls + 2, step):
        directory = broken(tmp_path / str(number), fault)
        first = (directory / "epoch.json").read_bytes()
        with tally.trial(Kind.KILL_POINTS, "journal that repairs"):
            was_killed = killed_at(number, lambda d=directory: reopen(d))  # type: ignore[misc]
            assert was_killed is (number <= calls)
            is_settled = (directory / "epoch.json").read_bytes() != first
            again = reopen(directory)
            assert again.continuous is is_settled
            assert seqs(again) == expected
            evidence = len([*directory.glob("*.damaged*"), *directory.glob("*.salvage*")])
            assert evidence >= {"copied": 0, "missing": 1}.get(fault, 2)
            again.journal.append([record(20)])
            assert seqs(reopen(directory)) == [*expected, 20]


APPENDER = """
import sys
from pathlib import Path
from bus.events import JobRemoved
from handlers.journal.journal import Journal
from handlers.journal.format import Record
found = Journal.open(Path(sys.argv[1]), now_ms=0, segment_bytes=20_000)
seq = found.next_seq
while True:
    found.journal.append([Record(seq=seq + n, at_ms=0, events=(JobRemoved(job_id="x"),))
                          for n in range(3)])
    seq += 3
    print(seq - 1, flush=True)
"""


def test_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    last = 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer.stdout:
            for _ in range(40):
                last = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        writer.wait()
        found = reopen(tmp_path)
        assert found.continuous
        assert seqs(found)[:last] == list(range(1, last + 1))


def made(directory: Path) -> Path:
    os.mkdir(directory, 0o700)  # noqa: PTH102 - not one of the watched calls
    return directory
