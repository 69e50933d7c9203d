"""The journal on a real disk: what was acknowledged is there, whatever the end of the file says."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.errors import StorageFailed
from bus.events import JobRemoved
from handlers.journal import Journal, Recovered
from handlers.journal_format import Record, Torn, decode_line, encode_line
from handlers.segments import AHEAD_BYTES
from handlers.snapshots import SnapshotHead

NOW_MS = 1_800_000_000_000


def record(seq: int, reserved: int | None = None) -> Record:
    return Record(
        seq=seq, at_ms=NOW_MS, events=(JobRemoved(job_id=f"Demo/J{seq}"),), reserved=reserved
    )


def reopen(directory: Path, **options: int) -> Recovered:
    return Journal.open(directory, now_ms=NOW_MS, **options)


def seqs(found: Recovered) -> list[int]:
    return [r.seq for r in found.records if r.events]


def snapshot_of(found: Recovered) -> list[bytes] | None:
    return None if found.snapshot is None else list(found.snapshot)


def log_file(directory: Path) -> Path:
    return max(directory.glob("*.log"))


def test_line_survives_the_round_trip_and_no_other_line_passes_for_it() -> None:
    line = encode_line(record(7))
    assert decode_line(line) == record(7)
    for position in range(len(line) - 1):
        damaged = bytearray(line)
        damaged[position] ^= 0x01
        with pytest.raises(Torn):
            decode_line(bytes(damaged))


def test_appended_records_come_back_in_the_same_epoch_after_an_orderly_end(
    tmp_path: Path,
) -> None:
    first = reopen(tmp_path)
    first.journal.append([record(1, reserved=1000), record(2)])
    first.journal.append([record(3)])
    first.journal.close(4, NOW_MS)
    again = reopen(tmp_path)
    assert (seqs(again), again.clean, again.next_seq) == ([1, 2, 3], True, 4)
    assert again.epoch == first.epoch


def test_numbers_go_on_behind_the_reserved_block_after_a_crash(tmp_path: Path) -> None:
    first = reopen(tmp_path)
    first.journal.append([record(1, reserved=1000)])
    again = reopen(tmp_path)
    assert (again.clean, again.next_seq, again.epoch) == (False, 1000, first.epoch)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_cut_of_the_last_write_leaves_exactly_what_was_synced_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = reopen(directory).journal
    journal.append([record(1), record(2)])
    path = log_file(directory)
    kept = len(path.read_bytes().rstrip(b"\0"))
    journal.append([record(3), record(4), record(5)])
    whole = len(path.read_bytes().rstrip(b"\0"))
    # Some pages of the last write never reached the disk: zeros stand where they would be.
    start = data.draw(st.integers(kept, whole - 2))
    size = data.draw(st.integers(1, whole - start))
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))
    again = reopen(directory)
    found = seqs(again)
    assert found == [1, 2, 3, 4, 5][: len(found)]
    assert len(found) >= 2
    assert again.continuous
    again.journal.append([record(10)])
    assert seqs(reopen(directory)) == [*found, 10]


def test_damage_before_the_end_begins_a_new_epoch_and_keeps_the_evidence(tmp_path: Path) -> None:
    first = reopen(tmp_path)
    for seq in (1, 2, 3):
        first.journal.append([record(seq)])
    path = log_file(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Demo/J2", b"Demo/X2"))
    again = reopen(tmp_path)
    assert seqs(again) == [1]
    assert not again.continuous
    assert again.epoch != first.epoch
    assert any("damaged" in note for note in again.notes)
    evidence = path.with_name(f"{path.name}.damaged")
    assert b"Demo/J3" in evidence.read_bytes()
    again.journal.append([record(50)])
    third = reopen(tmp_path)
    assert third.continuous
    assert (seqs(third), third.epoch) == ([1, 50], again.epoch)


def test_copied_journal_begins_a_new_epoch(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = reopen(tmp_path / "a")
    first.journal.append([record(1)])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = reopen(tmp_path / "b")
    assert (copy.continuous, seqs(copy)) == (False, [1])
    assert copy.epoch != first.epoch
    copy.journal.append([record(copy.next_seq)])
    assert reopen(tmp_path / "b").epoch == copy.epoch


def test_segments_follow_one_another_and_are_read_in_order(tmp_path: Path) -> None:
    journal = reopen(tmp_path, segment_bytes=300).journal
    for seq in range(1, 21):
        journal.append([record(seq)])
    assert len(list(tmp_path.glob("*.log"))) > 3
    assert seqs(reopen(tmp_path)) == list(range(1, 21))


def test_snapshot_replaces_what_it_covers(tmp_path: Path) -> None:
    journal = reopen(tmp_path, segment_bytes=300).journal
    for seq in range(1, 21):
        journal.append([record(seq)])
    for path in tmp_path.glob("*.log"):
        os.utime(path, (0, 0))
    for upto in (11, 21):
        head = SnapshotHead(seq=upto, at_ms=NOW_MS - 3_600_000)
        journal.write_snapshot(head, [b'{"a":1}', b'{"b":2}'])
    journal.append([record(21)])
    assert min(int(p.stem) for p in tmp_path.glob("*.log")) > 1
    again = reopen(tmp_path)
    assert snapshot_of(again) == [b'{"a":1}', b'{"b":2}']
    assert (again.snapshot_seq, seqs(again)) == (21, [21])


def test_damaged_snapshot_falls_back_to_the_one_before(tmp_path: Path) -> None:
    journal = reopen(tmp_path).journal
    journal.append([record(1)])
    journal.write_snapshot(SnapshotHead(seq=2, at_ms=0), [b'"first"'])
    journal.append([record(2)])
    journal.write_snapshot(SnapshotHead(seq=3, at_ms=0), [b'"second"'])
    newest = max(tmp_path.glob("*.snapshot"))
    newest.write_bytes(newest.read_bytes()[:-5])
    again = reopen(tmp_path)
    assert (snapshot_of(again), again.snapshot_seq, seqs(again)) == ([b'"first"'], 2, [2])
    assert any("set aside" in note for note in again.notes)
    assert again.continuous


def test_window_of_the_feed_is_replayed_from_the_older_snapshot(tmp_path: Path) -> None:
    journal = reopen(tmp_path).journal
    journal.append([record(1)])
    journal.write_snapshot(SnapshotHead(seq=2, at_ms=NOW_MS - 3_600_000), [b'"old"'])
    journal.append([record(2)])
    journal.write_snapshot(SnapshotHead(seq=3, at_ms=NOW_MS - 1000), [b'"new"'])
    journal.append([record(3)])
    again = reopen(tmp_path)
    assert (snapshot_of(again), seqs(again)) == ([b'"old"'], [2, 3])


def test_journal_that_failed_to_sync_is_never_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = reopen(tmp_path).journal
    journal.append([record(1)])

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", broken)
        with pytest.raises(StorageFailed):
            journal.append([record(2)])
    with pytest.raises(StorageFailed):
        journal.append([record(3)])


def test_zeros_are_prepared_ahead_so_that_size_does_not_change_with_each_line(
    tmp_path: Path,
) -> None:
    journal = reopen(tmp_path).journal
    journal.append([record(1)])
    size = log_file(tmp_path).stat().st_size
    assert size == AHEAD_BYTES
    journal.append([record(2)])
    assert log_file(tmp_path).stat().st_size == size


APPENDER = """
import sys
from pathlib import Path
from bus.events import JobRemoved
from handlers.journal import Journal
from handlers.journal_format import Record
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
