"""Where a journal cannot go on: torn ends, damage, copies. Nothing readable is lost or made up."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.file_marks import FileMark
from handlers.ambiguity import are_files_doubted
from handlers.journal.disk import EVIDENCE, SALVAGE
from handlers.journal.journal import Recovered
from handlers.journal.opening import NEW_EPOCH_FILE
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


def salvaged(found: Recovered) -> list[int]:
    return [each.seq for each in found.salvaged if each.events]


def evidence(directory: Path) -> list[Path]:
    names = (EVIDENCE, SALVAGE)
    return sorted(p for p in directory.iterdir() if any(name in p.name for name in names))


def damage(path: Path, word: bytes) -> None:
    patch(path, path.read_bytes().index(word), b"#")


@pytest.fixture
def batches(tmp_path: Path) -> tuple[Path, int, bytes]:
    """A journal of three writes; the size without the last one, and all its lines."""
    journal = reopen(tmp_path).journal
    journal.append([record(1), record(2)])
    journal.append([record(3, size=3)])
    [path] = log_files(tmp_path)
    kept = len(content_of(path))
    journal.append([record(6), record(7), record(8)])
    return tmp_path, kept, content_of(path)


# -- the end -------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_prefix_recovers_exactly_the_decisions_that_are_whole_in_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    written(directory, 5)
    [path] = log_files(directory)
    content = content_of(path)
    end = data.draw(st.integers(0, len(content)))
    prepared = data.draw(st.sampled_from([0, 1, 5000]))
    patch(path, end, bytes(len(content) - end))
    with path.open("r+b") as file:
        file.truncate(end + prepared)
    again = reopen(directory)
    whole = content[:end].count(b"\n")
    assert seqs(again) == list(range(1, whole + 1))
    assert again.continuous
    assert again.torn_bytes == end - len(b"".join(content.splitlines(keepends=True)[:whole]))
    again.journal.append([record(10)])
    third = reopen(directory)
    assert (seqs(third), third.torn_bytes) == ([*range(1, whole + 1), 10], 0)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_change_in_the_last_write_leaves_a_prefix_with_all_that_was_synced_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = reopen(directory).journal
    journal.append([record(1), record(2)])
    [path] = log_files(directory)
    kept = len(content_of(path))
    journal.append([record(3), record(4), record(5)])
    whole = content_of(path)
    start = data.draw(st.integers(kept, len(whole) - 2))
    size = data.draw(st.integers(1, len(whole) - 1 - start))
    old = whole[start : start + size]
    # Zeros are pages that never reached the disk.
    new = data.draw(st.just(bytes(size)) | st.binary(min_size=size, max_size=size))
    patch(path, start, new)
    again = reopen(directory)
    found = seqs(again)
    assert found == [1, 2, 3, 4, 5][: len(found)]
    assert len(found) == 2 + whole[kept:start].count(b"\n") if new != old else 5
    assert again.continuous
    again.journal.append([record(10)])
    assert seqs(reopen(directory)) == [*found, 10]


def damaged_byte_is_noticed(directory: Path, position: int, flip: int) -> None:
    first = written(directory, 5)
    [path] = log_files(directory)
    content = content_of(path)
    patch(path, position, bytes([content[position] ^ flip]))
    good = content[:position].count(b"\n")
    lost = 2 if content[position] == 10 else 1  # without the LF between them two lines are lost
    again = reopen(directory)
    assert seqs(again) == list(range(1, good + 1))
    assert salvaged(again) == list(range(good + lost + 1, 6))
    is_end = good + lost >= 5
    assert again.continuous is is_end
    assert (again.epoch == first.epoch) is is_end
    assert again.notes
    assert again.next_seq >= (good + 1 if is_end else 6)
    third = reopen(directory)
    assert (third.epoch, third.continuous, seqs(third)) == (again.epoch, True, seqs(again))


LINES_SIZE = 5 * 79


@settings(max_examples=20, deadline=None)
@given(position=st.integers(0, LINES_SIZE - 1), flip=st.integers(1, 255))
def test_any_changed_byte_anywhere_is_cut_or_reported_and_never_trusted(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    damaged_byte_is_noticed(tmp_path_factory.mktemp("journal"), position, flip)


@pytest.mark.exhaustive
@pytest.mark.parametrize("position", range(LINES_SIZE))
def test_each_changed_byte_is_cut_or_reported_and_never_trusted(
    tmp_path: Path, position: int, tally: Tally
) -> None:
    with tally.trial(Kind.FUZZ_INPUTS, "changed bytes in a journal"):
        damaged_byte_is_noticed(tmp_path, position, 1)


def test_whole_lines_behind_a_hole_in_the_last_write_prove_nothing(
    batches: tuple[Path, int, bytes],
) -> None:
    directory, kept, content = batches
    [path] = log_files(directory)
    patch(path, kept, bytes(content.index(b"\n", kept) - kept))
    again = reopen(directory)
    assert (seqs(again), again.continuous, again.torn_bytes > 0) == ([1, 2, 3], True, True)
    assert content_of(path) == content[:kept]


# -- damage before the end -----------------------------------------------------------------------


def test_damage_before_the_end_begins_a_new_epoch_and_keeps_the_evidence(tmp_path: Path) -> None:
    first = written(tmp_path, 5)
    first.journal.append([record(6, reserved=900)])
    [path] = log_files(tmp_path)
    damage(path, b"Demo/J3")
    before = path.read_bytes()
    again = reopen(tmp_path)
    assert (seqs(again), salvaged(again)) == ([1, 2], [4, 5, 6])
    assert (again.continuous, again.clean) == (False, False)
    assert again.epoch != first.epoch
    assert any("damaged at byte" in note for note in again.notes)
    assert any("is replayed" in note for note in again.notes)
    assert [file.read_bytes() for file in evidence(tmp_path)] == [before]
    assert again.next_seq >= 7
    again.journal.append([record(again.next_seq)])
    third = reopen(tmp_path)
    assert (third.continuous, third.epoch) == (True, again.epoch)
    assert seqs(third) == [1, 2, again.next_seq]
    assert salvaged(third)[-3:] == [4, 5, 6], "until they have been replayed"
    third.journal.close_salvage()
    assert salvaged(reopen(tmp_path)) == []
    assert [file.read_bytes() for file in evidence(tmp_path)] == [before]
    assert are_files_doubted(tmp_path), "until somebody has looked at them"


def test_segments_behind_the_damage_are_set_aside_too(tmp_path: Path) -> None:
    written(tmp_path, 20, segment_bytes=300)
    files = log_files(tmp_path)
    damage(files[1], b"Demo/J")
    again = reopen(tmp_path)
    assert seqs(again) == list(range(1, int(files[1].stem)))
    assert salvaged(again) == list(range(int(files[1].stem) + 1, 21))
    assert len(evidence(tmp_path)) == len(files) - 1
    again.journal.append([record(21)])
    assert seqs(reopen(tmp_path)) == [*seqs(again), 21]


def test_a_torn_end_of_a_segment_that_has_a_successor_is_damage(tmp_path: Path) -> None:
    written(tmp_path, 20, segment_bytes=300)
    path = log_files(tmp_path)[0]
    patch(path, len(content_of(path)) - 3, b"###")
    again = reopen(tmp_path)
    assert (again.continuous, again.torn_bytes) == (False, 0)
    assert seqs(again) == list(range(1, len(seqs(again)) + 1))


def test_evidence_never_replaces_evidence(tmp_path: Path) -> None:
    for round_ in (1, 2, 3):
        found = reopen(tmp_path)
        for _ in range(3):
            found.journal.append([record(found.next_seq)])
            found = reopen(tmp_path)
        [path] = log_files(tmp_path)
        damage(path, b"Demo/J")
        reopen(tmp_path)
        assert len(evidence(tmp_path)) == round_


def test_damage_that_a_snapshot_covers_is_no_damage(tmp_path: Path) -> None:
    journal = written(tmp_path, 9, segment_bytes=300).journal
    snapshot(journal, 10, b'"table"')
    journal.append([record(10)])
    damage(log_files(tmp_path)[0], b"Demo/J")
    again = reopen(tmp_path)
    assert (snapshot_of(again), seqs(again), again.continuous) == ([b'"table"'], [10], True)


# -- missing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, -1], ids=["first", "middle", "last"])
def test_a_missing_segment_is_reported(tmp_path: Path, index: int) -> None:
    written(tmp_path, 20, segment_bytes=300)
    files = log_files(tmp_path)
    files[index].unlink()
    again = reopen(tmp_path)
    assert not again.continuous
    assert seqs(again) == list(range(1, int(files[index].stem)))
    assert any(f"{files[index].name} is missing" in note for note in again.notes)
    again.journal.append([record(100)])
    third = reopen(tmp_path)
    assert (third.continuous, seqs(third)) == (True, [*seqs(again), 100])


def test_a_segment_that_a_snapshot_covers_may_be_missing(tmp_path: Path) -> None:
    journal = written(tmp_path, 9, segment_bytes=300).journal
    snapshot(journal, 10, b'"table"')
    log_files(tmp_path)[0].unlink()
    assert reopen(tmp_path).continuous


def test_without_any_usable_snapshot_the_rest_is_salvage(tmp_path: Path) -> None:
    journal = written(tmp_path, 9, segment_bytes=300).journal
    snapshot(journal, 10, b'"table"')
    journal.append([record(10)])
    log_files(tmp_path)[0].unlink()
    [only] = tmp_path.glob("*.snapshot")
    damage(only, b"table")
    again = reopen(tmp_path)
    assert (again.continuous, again.snapshot, seqs(again)) == (False, None, [])
    assert salvaged(again)[-1] == 10
    assert again.next_seq == 11
    assert {".log.salvage", ".snapshot.damaged"} == {p.name[20:] for p in evidence(tmp_path)}
    again.journal.append([record(11)])
    assert seqs(reopen(tmp_path)) == [11]


# -- copies --------------------------------------------------------------------------------------


def test_copied_journal_begins_a_new_epoch_with_all_its_records(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = written(tmp_path / "a", 3)
    first.journal.append([record(4, reserved=70)])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = reopen(tmp_path / "b")
    assert (copy.continuous, seqs(copy), copy.next_seq) == (False, [1, 2, 3, 4], 70)
    assert copy.epoch != first.epoch
    assert any("copied or restored" in note for note in copy.notes)
    copy.journal.append([record(70)])
    again = reopen(tmp_path / "b")
    assert (again.epoch, again.continuous, seqs(again)) == (copy.epoch, True, [1, 2, 3, 4, 70])
    assert reopen(tmp_path / "a").epoch == first.epoch


def test_copy_of_a_journal_that_only_ended_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    reopen(tmp_path / "a").journal.close(1, NOW_MS)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = reopen(tmp_path / "b")
    copy.journal.append([record(copy.next_seq)])
    assert seqs(reopen(tmp_path / "b")) == [1]


def test_copy_with_a_torn_end_is_continuous_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    written(tmp_path / "a", 3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    [path] = log_files(tmp_path / "b")
    patch(path, len(content_of(path)) - 4, b"####")
    copy = reopen(tmp_path / "b")
    copy.journal.append([record(50)])
    again = reopen(tmp_path / "b")
    assert (again.continuous, again.epoch, seqs(again)) == (True, copy.epoch, [1, 2, 50])


def test_moved_journal_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = written(tmp_path / "a", 3)
    (tmp_path / "a").rename(tmp_path / "b")
    moved = reopen(tmp_path / "b")
    assert (moved.continuous, moved.epoch) == (True, first.epoch)


def test_a_file_differs_from_its_copy_by_inode_and_generation() -> None:
    known = FileMark(inode=7, generation=5)
    assert known.may_be(FileMark(inode=7, generation=5))
    assert known.may_be(FileMark(inode=7))  # a file system that stopped giving it
    assert not known.may_be(FileMark(inode=7, generation=6))
    assert not known.may_be(FileMark(inode=8, generation=5))


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b'{"epoch":"../../x"}', b'{"epoch":5}', b"\xff"]
)
def test_journal_whose_epoch_is_unknown_begins_a_new_one(
    tmp_path: Path, content: bytes | None
) -> None:
    first = written(tmp_path, 3)
    path = tmp_path / "epoch.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    again = reopen(tmp_path)
    assert (again.continuous, seqs(again)) == (False, [1, 2, 3])
    assert again.epoch != first.epoch
    kept = [] if content is None else [content]
    assert [file.read_bytes() for file in evidence(tmp_path)] == kept
    third = reopen(tmp_path)
    assert (third.continuous, third.epoch) == (True, again.epoch)


def test_new_epoch_that_was_asked_for_begins_once(tmp_path: Path) -> None:
    first = written(tmp_path, 3)
    (tmp_path / NEW_EPOCH_FILE).touch()
    again = reopen(tmp_path)
    assert (again.continuous, seqs(again)) == (False, [1, 2, 3])
    assert again.epoch != first.epoch
    assert reopen(tmp_path).epoch == again.epoch


def test_older_snapshot_is_not_used_over_records_that_are_gone(tmp_path: Path) -> None:
    journal = written(tmp_path, 9, segment_bytes=300).journal
    snapshot(journal, 5, b'"old"')
    snapshot(journal, 10, b'"new"', NOW_MS)
    files = log_files(tmp_path)
    between = next(path for path in files if int(path.stem) > 3)
    between.unlink()
    again = reopen(tmp_path)
    assert (snapshot_of(again), seqs(again), again.continuous) == ([b'"new"'], [], True)


@pytest.mark.parametrize("fault", ["damaged", "missing"])
def test_fault_that_the_newest_snapshot_covers_loses_nothing(tmp_path: Path, fault: str) -> None:
    journal = reopen(tmp_path, segment_bytes=300).journal
    journal.append([record(1)])
    snapshot(journal, 2, b'"old"')
    for seq in range(2, 12):
        journal.append([record(seq)])
    snapshot(journal, 12, b'"new"', NOW_MS)
    journal.append([record(12)])
    assert snapshot_of(reopen(tmp_path)) == [b'"old"']
    victim = log_files(tmp_path)[1]
    if fault == "damaged":
        damage(victim, b"Demo/J")
    else:
        victim.unlink()
    again = reopen(tmp_path)
    assert (snapshot_of(again), seqs(again), again.continuous) == ([b'"new"'], [12], True)
    assert salvaged(again) == []
    again.journal.append([record(13)])
    assert seqs(reopen(tmp_path)) == [12, 13]
