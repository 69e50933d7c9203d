"""The journal on a real disk: what was appended comes back, the numbers never do."""

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.errors import DataDirectoryError
from bus.reserve import BALLAST_BYTES
from handlers.journal.format import Record, frame_line
from handlers.journal.journal import Journal
from handlers.journal.segments import AHEAD_BYTES
from handlers.journal.snapshots import SnapshotHead
from tests.journal_fixture import (
    LONG_AGO_MS,
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


def test_appended_records_come_back_in_the_same_epoch_after_an_orderly_end(
    tmp_path: Path,
) -> None:
    first = reopen(tmp_path)
    first.journal.append([record(1, reserved=1000), record(2)])
    first.journal.append([record(3, size=2)])
    first.journal.append([])
    first.journal.close(7, NOW_MS)
    again = reopen(tmp_path)
    assert (seqs(again), again.clean, again.next_seq) == ([1, 2, 3], True, 7)
    assert (again.epoch, again.continuous, again.notes) == (first.epoch, True, ())


def test_what_was_recovered_can_be_read_more_than_once(tmp_path: Path) -> None:
    snapshot(written(tmp_path, 2).journal, 3, b'"table"')
    found = reopen(tmp_path)
    found.journal.append([record(3)])
    found = reopen(tmp_path)
    assert [seqs(found), seqs(found)] == [[3], [3]]
    assert [snapshot_of(found), snapshot_of(found)] == [[b'"table"']] * 2


def test_numbers_go_on_behind_the_reserved_block_after_a_crash(tmp_path: Path) -> None:
    first = reopen(tmp_path)
    first.journal.append([record(1, reserved=1000)])
    first.journal.append([record(2)])
    again = reopen(tmp_path)
    assert (again.clean, again.next_seq, again.epoch) == (False, 1000, first.epoch)


def test_a_block_that_is_used_up_reserves_nothing(tmp_path: Path) -> None:
    first = reopen(tmp_path)
    first.journal.append([record(1, reserved=3)])
    first.journal.append([record(2, size=5)])
    assert reopen(tmp_path).next_seq == 7


def test_a_crash_right_after_a_snapshot_is_no_orderly_end(tmp_path: Path) -> None:
    first = reopen(tmp_path)
    first.journal.append([record(1, reserved=1000)])
    snapshot(first.journal, 2, b'"table"', NOW_MS)
    again = reopen(tmp_path)
    assert (again.clean, again.next_seq, seqs(again)) == (False, 1000, [])


def test_a_reservation_outlives_the_records_it_stood_in(tmp_path: Path) -> None:
    first = reopen(tmp_path, segment_bytes=200)
    first.journal.append([record(1, reserved=1000, projected=1)])
    for seq in range(2, 20):
        first.journal.append([record(seq)])
    drop_all_that_is_covered(first.journal, 20, tmp_path)
    again = reopen(tmp_path)
    assert (again.clean, again.next_seq, again.projected) == (False, 1000, 1)


def test_a_crash_behind_an_orderly_end_is_a_crash(tmp_path: Path) -> None:
    first = written(tmp_path, 2)
    first.journal.close(3, NOW_MS)
    second = reopen(tmp_path)
    assert second.clean
    second.journal.append([record(3, reserved=50)])
    third = reopen(tmp_path)
    assert (third.clean, third.next_seq, seqs(third)) == (False, 50, [1, 2, 3])


def test_a_start_that_recorded_nothing_leaves_the_orderly_end(tmp_path: Path) -> None:
    written(tmp_path, 2).journal.close(3, NOW_MS)
    reopen(tmp_path)
    assert reopen(tmp_path).clean


def test_a_crash_between_a_new_segment_and_its_first_line_is_a_crash(tmp_path: Path) -> None:
    first = reopen(tmp_path, segment_bytes=150)
    first.journal.append([record(1, reserved=500)])
    first.journal.append([record(2)])
    newest = log_files(tmp_path)[-1]
    patch(newest, 0, bytes(len(content_of(newest))))
    again = reopen(tmp_path)
    assert (seqs(again), again.clean, again.next_seq) == ([1], False, 500)
    again.journal.append([record(500)])
    assert seqs(reopen(tmp_path)) == [1, 500]


def test_a_segment_that_was_made_and_not_put_on_record_is_made_again(tmp_path: Path) -> None:
    first = written(tmp_path, 3)
    (tmp_path / f"{4:020d}.log").write_bytes(bytes(4096))
    again = reopen(tmp_path, segment_bytes=10)
    assert (again.continuous, again.epoch, seqs(again)) == (True, first.epoch, [1, 2, 3])
    again.journal.append([record(4)])
    third = reopen(tmp_path)
    assert (third.continuous, seqs(third)) == (True, [1, 2, 3, 4])


def test_the_watermark_of_the_projections_is_the_newest_one(tmp_path: Path) -> None:
    first = reopen(tmp_path)
    first.journal.append([record(1, projected=0)])
    first.journal.append([Record(seq=2, at_ms=NOW_MS, projected=1)])
    first.journal.append([record(2)])
    assert reopen(tmp_path).projected == 1


def test_segments_follow_one_another_and_are_read_in_order(tmp_path: Path) -> None:
    journal = written(tmp_path, 20, segment_bytes=300).journal
    assert len(journal.segments) > 3
    assert journal.size_bytes == sum(path.stat().st_size for path in log_files(tmp_path))
    found = reopen(tmp_path)
    assert (seqs(found), found.continuous) == (list(range(1, 21)), True)


def test_a_record_that_is_larger_than_a_segment_is_taken(tmp_path: Path) -> None:
    journal = reopen(tmp_path, segment_bytes=100).journal
    journal.append([record(1, size=200)])
    journal.append([record(201)])
    assert seqs(reopen(tmp_path)) == [1, 201]


def test_notes_without_numbers_never_begin_a_second_segment_of_one_name(tmp_path: Path) -> None:
    journal = reopen(tmp_path, segment_bytes=100).journal
    for _ in range(10):
        journal.append([Record(seq=1, at_ms=NOW_MS, projected=0)])
    journal.append([record(1)])
    assert (seqs(reopen(tmp_path)), len(log_files(tmp_path))) == ([1], 1)


def test_zeros_are_prepared_ahead_so_that_size_does_not_change_with_each_line(
    tmp_path: Path,
) -> None:
    journal = reopen(tmp_path).journal
    journal.append([record(1)])
    [path] = log_files(tmp_path)
    assert path.stat().st_size == AHEAD_BYTES
    assert path.stat().st_blocks * 512 >= AHEAD_BYTES
    journal.append([record(2)])
    assert path.stat().st_size == AHEAD_BYTES


def test_only_the_owner_of_the_files_may_read_them(tmp_path: Path) -> None:
    found = Journal.open(tmp_path, now_ms=NOW_MS)
    found.journal.append([record(1)])
    snapshot(found.journal, 2, b'"table"')
    names = {path.name for path in tmp_path.iterdir()}
    assert {"epoch.json", ".ballast"} < names
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_memory_does_not_grow_with_the_journal(tmp_path: Path) -> None:
    journal = reopen(tmp_path).journal
    for seq in range(1, 20_001, 1000):
        journal.append([record(n) for n in range(seq, seq + 1000)])
    journal.write_snapshot(SnapshotHead(seq=2, at_ms=0), (b'"%s"' % (b"x" * 999),) * 12_000)
    assert journal.size_bytes > 13_000_000
    tracemalloc.start()
    try:
        found = reopen(tmp_path)
        assert sum(1 for _ in found.records) == 19_999
        assert sum(1 for _ in found.snapshot or ()) == 12_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000  # a piece of zeros, and buffers


@pytest.mark.exhaustive
def test_hundred_thousand_decisions_are_recovered(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    journal = reopen(tmp_path).journal
    for seq in range(1, 100_001, 5000):
        journal.append([record(n) for n in range(seq, seq + 5000)])
    begun_s = time.perf_counter()
    found = reopen(tmp_path)
    opened_s = time.perf_counter()
    assert sum(1 for _ in found.records) == 100_000
    record_property("open_s", round(opened_s - begun_s, 3))
    record_property("replay_s", round(time.perf_counter() - opened_s, 3))


# -- snapshots ---------------------------------------------------------------------------------


def drop_all_that_is_covered(journal: Journal, upto: int, directory: Path) -> None:
    """Two snapshots at the same place, so that the older one needs nothing before it either."""
    for path in log_files(directory):
        os.utime(path, (0, 0))
    snapshot(journal, upto - 1, b'"before"')
    snapshot(journal, upto, b'"newest"')


def test_snapshot_replaces_what_it_covers(tmp_path: Path) -> None:
    journal = written(tmp_path, 20, segment_bytes=300).journal
    drop_all_that_is_covered(journal, 21, tmp_path)
    journal.append([record(21)])
    assert len(log_files(tmp_path)) <= 2
    again = reopen(tmp_path)
    assert (snapshot_of(again), again.snapshot_seq, seqs(again)) == ([b'"newest"'], 21, [21])
    assert again.continuous


def test_only_snapshot_drops_nothing_that_would_be_needed_without_it(tmp_path: Path) -> None:
    journal = written(tmp_path, 20, segment_bytes=300).journal
    for path in log_files(tmp_path):
        os.utime(path, (0, 0))
    snapshot(journal, 21, b'"only"')
    [only] = tmp_path.glob("*.snapshot")
    patch(only, 12, b"#")
    again = reopen(tmp_path)
    assert (again.snapshot, seqs(again), again.continuous) == (None, list(range(1, 21)), True)


def test_segments_of_the_feeds_window_are_kept(tmp_path: Path) -> None:
    journal = written(tmp_path, 20, segment_bytes=300).journal
    before = log_files(tmp_path)
    for seq in (20, 21):
        head = SnapshotHead(seq=seq, at_ms=0)  # all files are younger than this
        journal.write_snapshot(head, [b"1"])
    assert log_files(tmp_path) == before


def test_of_the_feeds_window_no_more_is_kept_than_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = written(tmp_path, 40, segment_bytes=300).journal
    sizes = [path.stat().st_size for path in log_files(tmp_path)]
    monkeypatch.setattr("handlers.journal.journal.REPLAY_BYTES_MAX", sum(sizes[-3:]))
    for seq in (40, 41):
        journal.write_snapshot(SnapshotHead(seq=seq, at_ms=0), [b"1"])  # all files are younger
    assert [path.stat().st_size for path in log_files(tmp_path)] == sizes[-3:]
    again = reopen(tmp_path)
    assert (again.continuous, again.snapshot_seq) == (True, 41)


def test_two_snapshots_are_kept(tmp_path: Path) -> None:
    journal = written(tmp_path, 1).journal
    for seq in (2, 3, 4):
        snapshot(journal, seq, b'"table"')
    assert [int(path.stem) for path in sorted(tmp_path.glob("*.snapshot"))] == [3, 4]


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-5], lambda c: b"", lambda c: c[:30] + b"#" + c[31:], lambda c: c[: c.index(10)]],
    ids=["end cut", "empty", "byte changed", "head cut"],
)
def test_damaged_snapshot_falls_back_to_the_one_before(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    journal = written(tmp_path, 1).journal
    snapshot(journal, 2, b'"first"')
    journal.append([record(2)])
    snapshot(journal, 3, b'"second"')
    newest = max(tmp_path.glob("*.snapshot"))
    newest.write_bytes(damage(newest.read_bytes()))
    again = reopen(tmp_path)
    assert (snapshot_of(again), again.snapshot_seq, seqs(again)) == ([b'"first"'], 2, [2])
    assert again.continuous
    assert any("set aside" in note for note in again.notes)
    assert newest.with_name(f"{newest.name}.damaged").exists()
    assert reopen(tmp_path).notes == ()


def test_snapshot_lines_may_be_many_and_hold_anything_json_can(tmp_path: Path) -> None:
    lines = [b'"%d \xc3\xa4 \\n"' % n for n in range(1000)]
    journal = written(tmp_path, 1).journal
    journal.write_snapshot(SnapshotHead(seq=2, at_ms=LONG_AGO_MS), iter(lines))
    assert snapshot_of(reopen(tmp_path)) == lines


def test_a_snapshot_that_could_not_be_encoded_leaves_all_as_it_was(tmp_path: Path) -> None:
    journal = written(tmp_path, 1).journal

    def lines() -> object:
        yield b"1"
        raise ValueError("cannot be encoded")

    with pytest.raises(ValueError, match="encoded"):
        journal.write_snapshot(SnapshotHead(seq=2, at_ms=0), lines())  # type: ignore[arg-type]
    assert not [path for path in tmp_path.iterdir() if "snapshot" in path.name]
    journal.append([record(2)])
    assert seqs(reopen(tmp_path)) == [1, 2]


def test_what_an_unfinished_snapshot_left_is_swept(tmp_path: Path) -> None:
    written(tmp_path, 1)
    left = tmp_path / f".{5:020d}.snapshot.tmp"
    left.write_bytes(b"half")
    reopen(tmp_path)
    assert not left.exists()


def test_window_of_the_feed_is_replayed_from_the_older_snapshot(tmp_path: Path) -> None:
    journal = written(tmp_path, 1).journal
    snapshot(journal, 2, b'"old"')
    journal.append([record(2)])
    snapshot(journal, 3, b'"new"', NOW_MS - 1000)
    journal.append([record(3)])
    again = reopen(tmp_path)
    assert (snapshot_of(again), seqs(again)) == ([b'"old"'], [2, 3])


def test_what_must_be_replayed_is_known_after_a_restart(tmp_path: Path) -> None:
    journal = written(tmp_path, 20, segment_bytes=300).journal
    assert journal.bytes_since_snapshot == sum(len(content_of(p)) for p in log_files(tmp_path))
    snapshot(journal, 21, b'"table"')
    assert journal.bytes_since_snapshot == 0
    journal.append([record(21)])
    again = reopen(tmp_path)
    assert 0 < again.journal.bytes_since_snapshot <= 300


# -- files that are none of ours -----------------------------------------------------------------


def test_files_with_other_names_are_left_alone(tmp_path: Path) -> None:
    written(tmp_path, 2)
    for name in ("notes.log", "1.log", f"{1:020d}.log.old", f"{9:021d}.log", "x.snapshot"):
        (tmp_path / name).write_text("mine")
    again = reopen(tmp_path)
    assert (seqs(again), again.continuous, again.notes) == ([1, 2], True, ())
    assert (tmp_path / "notes.log").read_text() == "mine"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_refused_with_its_name(tmp_path: Path, kind: str) -> None:
    journal = tmp_path / "Journal"
    journal.mkdir()
    written(journal, 2)
    [path] = log_files(journal)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    make = {"link": lambda: path.symlink_to(elsewhere), "pipe": lambda: os.mkfifo(path)}
    make.get(kind, path.mkdir)()
    with pytest.raises(DataDirectoryError, match=path.name):
        reopen(journal)
    assert content_of(elsewhere).count(b"\n") == 2


def test_a_link_in_the_place_of_a_new_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    journal = tmp_path / "Journal"
    journal.mkdir()
    for name in (".epoch.json.tmp", ".ballast", f".{2:020d}.snapshot.tmp"):
        (journal / name).symlink_to(victim)
    found = Journal.open(journal, now_ms=NOW_MS)
    found.journal.append([record(1)])
    snapshot(found.journal, 2, b"1")
    assert victim.read_text() == "precious"


def test_a_record_of_a_newer_version_is_refused_and_stays(tmp_path: Path) -> None:
    found = written(tmp_path, 1)
    [path] = log_files(tmp_path)
    newer = frame_line(b'{"seq":2,"at_ms":0,"events":[{"type":"moon.landed"}]}')
    patch(path, len(content_of(path)), newer)
    before = content_of(path)
    again = reopen(tmp_path)
    with pytest.raises(DataDirectoryError, match=r"moon\.landed.*newer version"):
        seqs(again)
    assert (content_of(path), again.epoch) == (before, found.epoch)


# -- room held back ------------------------------------------------------------------------------


def test_room_is_held_back_and_given_up_once(tmp_path: Path) -> None:
    ballast = Journal.open(tmp_path, now_ms=NOW_MS).journal.ballast
    held = tmp_path / ".ballast"
    assert ballast.is_held
    assert held.stat().st_blocks * 512 >= BALLAST_BYTES
    assert (ballast.release(), ballast.release(), ballast.is_held) == (True, False, False)
    assert (ballast.hold(), ballast.hold(), ballast.is_held) == (True, True, True)
