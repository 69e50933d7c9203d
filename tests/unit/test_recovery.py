"""From a journal to the feed: a reader finds after a restart what it would have received."""

from pathlib import Path

import msgspec
import pytest

from bus.events import AnyEvent, ExecutionEnded, ExecutionQueued, ExecutionRunning, ExecutionStarted
from bus.model import ExecutionStatus, Reason
from handlers.journal import recovery
from handlers.journal.format import Record
from handlers.journal.journal import Journal
from handlers.journal.recovery import RecoveredTable, recover
from tests.fakes import ManualClock

HOUR_MS = 3_600_000


def story(execution_id: str) -> tuple[AnyEvent, ...]:
    return (
        ExecutionQueued(
            execution_id=execution_id,
            job_id="App/Job",
            command_id="00000000-0000-7000-8000-00000000000c",
            user_id="alice",
            revision="r1",
        ),
        ExecutionStarted(execution_id=execution_id),
        ExecutionRunning(execution_id=execution_id, started_ms=1, pid=7),
        ExecutionEnded(
            execution_id=execution_id,
            status=ExecutionStatus.SUCCEEDED,
            reason=Reason.EXIT_CODE,
            ended_ms=2,
            exit_code=0,
            output_end=0,
        ),
    )


def restarted_after(directory: Path, clock: ManualClock, *ages_ms: int) -> RecoveredTable:
    """A node whose journal holds one ended execution for each age, four events each."""
    directory.mkdir()
    journal = Journal.open(directory, now_ms=clock.now_ms()).journal
    for number, age_ms in enumerate(ages_ms):
        execution_id = f"00000000-0000-7000-8000-{number:012d}"
        at_ms = clock.now_ms() - age_ms
        journal.append([Record(seq=1 + 4 * number, at_ms=at_ms, events=story(execution_id))])
    journal.close(1 + 4 * len(ages_ms), clock.now_ms())
    return recover(directory, "test", clock)


def changes(found: RecoveredTable) -> list[tuple[int, str]]:
    """Number and status of each frame the feed holds."""
    batch = found.feed.after(found.feed.oldest, 1000, 2**30, lambda _: True)
    return [(f.seq, msgspec.json.decode(f.data)["data"]["status"]) for f in batch.frames]


def test_each_frame_has_the_record_as_it_was_then(tmp_path: Path) -> None:
    found = restarted_after(tmp_path / "Journal", ManualClock(), 1000)

    assert changes(found) == [(1, "Queued"), (2, "Starting"), (3, "Running"), (4, "Succeeded")]


def test_old_changes_are_held_only_up_to_the_rings_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "FRAMES_MAX", 6)

    found = restarted_after(tmp_path / "Journal", ManualClock(), HOUR_MS, HOUR_MS, HOUR_MS)

    assert [seq for seq, _ in changes(found)] == [7, 8, 9, 10, 11, 12]
    assert found.feed.oldest == 6


def test_young_changes_are_held_beyond_the_rings_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "FRAMES_MAX", 2)

    found = restarted_after(tmp_path / "Journal", ManualClock(), HOUR_MS, 1000, 1000)

    assert [seq for seq, _ in changes(found)] == [5, 6, 7, 8, 9, 10, 11, 12]


def test_frames_beyond_the_rings_bytes_are_missing_from_the_old_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = restarted_after(tmp_path / "whole", ManualClock(), 1000, 1000)
    last_two = sum(f.size_bytes for f in whole.feed.after(6, 9, 2**30, lambda _: True).frames)
    monkeypatch.setattr(recovery, "BYTES_MAX", last_two)

    found = restarted_after(tmp_path / "Journal", ManualClock(), 1000, 1000)

    assert [seq for seq, _ in changes(found)] == [7, 8]
    assert found.feed.oldest == 6
