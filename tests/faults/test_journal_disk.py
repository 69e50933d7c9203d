"""A disk that is full or fails: the caller gets the right error, and the journal goes on or
stops."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

import pytest

from bus.errors import NoSpace, StorageFailed
from bus.free_space import LOW_BYTES, LOW_INODES, Space, space_of
from bus.reserve import Ballast
from handlers.journal.format import Record
from handlers.journal.journal import Journal
from handlers.journal.snapshots import SnapshotHead
from tests.counterparts import missing, needs
from tests.fault_points import Interrupt, count_calls, watched_calls
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
from tests.small_disk import mounted
from tests.tally import Kind, Tally

STEPS = [
    pytest.param(19, id="some"),
    pytest.param(1, id="each", marks=pytest.mark.exhaustive),
]
WRITES = {"write", "pwrite", "fsync", "fdatasync", "rename", "replace", "link", "posix_fallocate"}


class Life:
    """A service's life with the journal, which tries again when there was no room, as it does."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.acknowledged = 0
        self.refusals = 0

    def run(self) -> None:
        journal = self._open()
        seq = 1
        for step in range(9):
            self._append(journal, [record(seq), record(seq + 1)])
            seq += 2
            self.acknowledged = seq - 1
            if step in (2, 4, 6):
                try:
                    snapshot(journal, seq, b"%d" % seq)
                except NoSpace:
                    self.refusals += 1
        journal.close(seq, NOW_MS)

    def _open(self) -> Journal:
        try:
            found = Journal.open(
                self.directory, now_ms=NOW_MS, segment_bytes=300, ballast_bytes=4096
            )
        except NoSpace:
            self.refusals += 1
            return self._open()
        return found.journal

    def _append(self, journal: Journal, records: list[Record]) -> None:
        try:
            journal.append(records)
        except NoSpace:
            self.refusals += 1
            self._append(journal, records)

    def check(self) -> None:
        """Each acknowledged decision is there once, and nothing that was refused."""
        found = reopen(self.directory)
        content = snapshot_of(found)
        begin = int(content[0]) if content else 1
        assert seqs(found) == list(range(begin, self.acknowledged + 1))
        assert found.continuous
        assert not [path for path in self.directory.iterdir() if path.name.endswith(".tmp")]


def is_write(name: str) -> bool:
    return name in WRITES


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("times", [1, 4])
def test_no_room_at_any_call_refuses_whole_decisions_and_passes(
    tmp_path: Path, step: int, times: int, tally: Tally
) -> None:
    calls = count_calls(Life(tmp_path / "whole").run)
    refusals = 0
    for number in range(1, calls + 1, step):
        left = times

        def no_room(n: int, name: str, first: int = number) -> None:
            nonlocal left
            if n >= first and left and is_write(name):
                left -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        life = Life(tmp_path / str(number))
        with tally.trial(Kind.INJECTED_ERRORS, "journal without room"):
            with watched_calls(no_room):
                life.run()
            life.check()
        refusals += life.refusals
    assert refusals > 0


@pytest.mark.parametrize("step", STEPS)
def test_failure_at_any_call_ends_the_journal_for_good(
    tmp_path: Path, step: int, tally: Tally
) -> None:
    calls = count_calls(Life(tmp_path / "whole").run)
    failures = 0
    for number in range(1, calls + 1, step):
        names: list[str] = []

        def fails(n: int, name: str, at: int = number, names: list[str] = names) -> None:
            names.append(name)
            if n == at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        life = Life(tmp_path / str(number))
        with tally.trial(Kind.INJECTED_ERRORS, "journal on a failing disk"):
            with watched_calls(fails):
                try:
                    life.run()
                except StorageFailed:
                    failures += 1
            found = reopen(life.directory)
            content = snapshot_of(found)
            begin = int(content[0]) if content else 1
            decisions = seqs(found)
            assert decisions == list(range(begin, begin + len(decisions)))
            # What failed may be there all the same: its outcome is open, and never believed before.
            assert begin + len(decisions) - 1 in (life.acknowledged, life.acknowledged + 2)
            assert found.continuous
    assert failures > 0


def test_nothing_is_written_after_a_failed_sync(tmp_path: Path) -> None:
    journal = written(tmp_path, 1).journal
    with watched_calls(failing("fdatasync", errno.EIO)), pytest.raises(StorageFailed):
        journal.append([record(2)])
    assert journal.last_error is not None
    calls: list[str] = []
    with watched_calls(lambda _, name: calls.append(name)):
        with pytest.raises(StorageFailed):
            journal.append([record(3)])
        with pytest.raises(StorageFailed):
            snapshot(journal, 3, b"1")
        journal.close(3, NOW_MS)
    assert calls == []
    assert not reopen(tmp_path).clean


def test_a_sync_that_fails_after_the_ballast_was_given_up_ends_the_journal_too(
    tmp_path: Path,
) -> None:
    journal = Journal.open(tmp_path, now_ms=NOW_MS, ballast_bytes=4096).journal
    journal.append([record(1)])
    errors = iter([errno.ENOSPC, errno.EIO])

    def fails(_: int, name: str) -> None:
        number = next(errors, 0) if name == "fdatasync" else 0
        if number:
            raise OSError(number, os.strerror(number))

    with watched_calls(fails), pytest.raises(StorageFailed):
        journal.append([record(2)])
    with pytest.raises(StorageFailed):
        journal.append([record(2)])


def test_the_end_of_a_service_needs_no_room(tmp_path: Path) -> None:
    journal = written(tmp_path, 1).journal
    with watched_calls(failing("fdatasync", errno.ENOSPC)):
        journal.close(2, NOW_MS)
    found = reopen(tmp_path)
    assert (found.clean, seqs(found)) == (False, [1])


def test_what_an_earlier_start_left_unsynced_is_synced_before_it_is_believed(
    tmp_path: Path,
) -> None:
    written(tmp_path, 1)
    with watched_calls(failing("fdatasync", errno.EIO)), pytest.raises(StorageFailed):
        reopen(tmp_path)
    assert seqs(reopen(tmp_path)) == [1]


def failing(call: str, number: int) -> Interrupt:
    """Each call of this name fails."""

    def interrupt(_: int, name: str) -> None:
        if name == call:
            raise OSError(number, os.strerror(number))

    return interrupt


# -- a file system that is really full -------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 4 MiB and 64 inodes."""
    place = tmp_path / "small"
    place.mkdir()
    with mounted(place, "size=4m,nr_inodes=64,mode=0700"):
        yield place


def fill(place: Path) -> Path:
    """Takes all room there is."""
    filler = place / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with pytest.raises(OSError, match="No space"):
                write_for_ever(file, size)
    return filler


def write_for_ever(file: FileIO, size: int) -> None:
    while file.write(bytes(size)) == size:
        pass
    write_for_ever(file, size)  # the rest of a short write


def take_inodes(place: Path) -> list[Path]:
    """As many files as there is room for."""
    takers = [place / f"inode{number}" for number in range(1000)]
    with suppress(OSError):
        for taker in takers:
            taker.touch()
    assert not takers[-1].exists()
    return [taker for taker in takers if taker.exists()]


def append_until_full(journal: Journal, seq: int) -> int:
    """The first number that found no room."""
    while True:
        try:
            journal.append([record(seq, size=100)])
        except NoSpace:
            return seq
        seq += 100


def held(directory: Path) -> Ballast:
    """A ballast on a disk that would be too small for one by its own judgement."""
    ballast = Ballast(directory, size=1 << 20)
    ballast.take()
    return ballast


def test_full_disk_gives_up_the_ballast_then_refuses_and_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    journal = reopen(small_disk).journal
    journal.append([record(1)])
    journal.ballast = held(small_disk)
    filler = fill(small_disk)
    refused = append_until_full(journal, 2)
    assert refused > 2, "the ballast's room was of no use"
    assert not journal.ballast.is_held
    with pytest.raises(NoSpace, match="No space left"):
        journal.append([record(refused, size=100)])
    on_disk = seqs(reopen(small_disk))
    assert on_disk == [1, *range(2, refused, 100)]
    filler.unlink()
    journal.append([record(refused)])
    found = reopen(small_disk)
    assert (seqs(found), found.continuous) == ([*on_disk, refused], True)


def test_low_space_is_known_before_the_disk_is_full(small_disk: Path) -> None:
    assert space_of(small_disk).is_low
    assert space_of(small_disk).bytes_free <= 4 << 20
    assert space_of(small_disk).inodes_free < 64
    assert not Space(bytes_free=LOW_BYTES, inodes_free=LOW_INODES).is_low
    assert Space(bytes_free=LOW_BYTES - 1, inodes_free=LOW_INODES).is_low
    assert Space(bytes_free=LOW_BYTES, inodes_free=LOW_INODES - 1).is_low


def test_no_room_is_held_back_where_little_is_left(small_disk: Path) -> None:
    found = Journal.open(small_disk, now_ms=NOW_MS)
    assert not found.journal.ballast.is_held
    found.journal.append([record(1)])


def test_full_disk_is_no_reason_not_to_start(small_disk: Path) -> None:
    written(small_disk, 3).journal.close(4, NOW_MS)
    fill(small_disk)
    found = reopen(small_disk)
    assert (seqs(found), found.clean) == ([1, 2, 3], True)
    found.journal.append([record(4)])  # into what was prepared


def test_snapshot_on_a_full_disk_leaves_nothing_behind(small_disk: Path) -> None:
    journal = written(small_disk, 3).journal
    filler = fill(small_disk)
    with pytest.raises(NoSpace):
        journal.write_snapshot(SnapshotHead(seq=4, at_ms=0), [b'"%s"' % (b"x" * 100_000)])
    assert not [path for path in small_disk.iterdir() if "snapshot" in path.name]
    journal.append([record(4)])
    filler.unlink()
    snapshot(journal, 5, b"5")
    assert snapshot_of(reopen(small_disk)) == [b"5"]


def test_without_a_free_inode_the_last_segment_takes_more(small_disk: Path) -> None:
    journal = reopen(small_disk, segment_bytes=300).journal
    journal.append([record(1)])
    takers = take_inodes(small_disk)
    for seq in range(2, 30):
        journal.append([record(seq)])
    assert len(log_files(small_disk)) == 1
    for taker in takers:
        taker.unlink()
    journal.append([record(30)])
    assert len(log_files(small_disk)) == 2
    assert seqs(reopen(small_disk)) == list(range(1, 31))


def test_damage_on_a_full_disk_is_reported_and_waits_for_room(small_disk: Path) -> None:
    written(small_disk, 2000)
    [path] = log_files(small_disk)
    patch(path, content_of(path).rindex(b"Demo/J1900"), b"#")
    before = path.read_bytes()
    filler = fill(small_disk)
    with pytest.raises(NoSpace):
        reopen(small_disk)
    assert path.read_bytes() == before
    filler.unlink()
    assert seqs(reopen(small_disk))[-1] == 1899


# -- a sync that really fails ----------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from bus.errors import StorageFailed
from tests.journal_fixture import record, reopen
found = reopen(Path(sys.argv[1]))
seq = found.next_seq
try:
    while seq < 30:
        found.journal.append([record(seq)])
        print(seq, flush=True)
        seq += 1
except StorageFailed as error:
    print("failed", error, flush=True)
    sys.exit(3)
"""


@pytest.mark.parametrize("when", [2, 7])
def test_process_that_meets_a_failed_sync_stops_and_the_next_one_goes_on(
    tmp_path: Path, when: int
) -> None:
    strace = needs("strace")
    directory = tmp_path / "Journal"
    directory.mkdir()
    command = [sys.executable, "-c", WRITER, str(directory)]
    inject = ["-f", "-qq", "-o", str(tmp_path / "trace"), "-e", "trace=fdatasync"]
    inject += ["-e", f"inject=fdatasync:error=EIO:when={when}"]
    run = subprocess.run([strace, *inject, *command], capture_output=True, text=True, check=False)
    if run.returncode == 1 and "ptrace" in run.stderr:
        missing(f"strace may not trace: {run.stderr.strip()}")
    *acknowledged, last = run.stdout.splitlines()
    assert (run.returncode, last.split()[0]) == (3, "failed")
    assert [int(seq) for seq in acknowledged] == list(range(1, when))
    assert (tmp_path / "trace").read_text().count("fdatasync(") == when
    after = subprocess.run(command, capture_output=True, text=True, check=True)
    found = reopen(directory)
    assert (seqs(found), found.continuous) == (list(range(1, 30)), True)
    assert int(after.stdout.split()[0]) in (when, when + 1)
