"""The ring of changes: bounded, numbered, never served in part."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.feed import (
    AGE_MAX_S,
    BYTES_MAX,
    FRAME_BYTES,
    FRAMES_MAX,
    Feed,
    FellBehind,
    Frame,
    ResetReason,
)
from tests.fakes import ManualClock


def frame(seq: int, job_id: str = "Demo/A", size: int = 10) -> Frame:
    return Frame(seq=seq, type="execution.running", data=b"x" * size, job_id=job_id)


def everything(_: Frame) -> bool:
    return True


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def feed(clock: ManualClock) -> Feed:
    return Feed("abc123", 10, clock)


def test_after_gives_what_came_since_and_where_that_ends(feed: Feed) -> None:
    feed.publish([frame(11), frame(13)], head=15)
    batch = feed.after(10, 100, 1000, everything)
    assert [f.seq for f in batch.frames] == [11, 13]
    assert batch.seq == 15


def test_after_stops_at_the_limit_and_goes_on_from_there(feed: Feed) -> None:
    feed.publish([frame(11), frame(12), frame(13)], head=13)
    batch = feed.after(10, 2, 1000, everything)
    assert batch.seq == 12
    assert [f.seq for f in feed.after(batch.seq, 2, 1000, everything).frames] == [13]


def test_filtered_reader_moves_on_past_what_is_not_for_it(feed: Feed) -> None:
    feed.publish([frame(11, "Demo/B"), frame(12, "Demo/B")], head=12)
    batch = feed.after(10, 100, 1000, lambda f: f.job_id == "Demo/A")
    assert (batch.frames, batch.seq) == ([], 12)


def test_ring_keeps_ten_thousand_however_old_and_more_while_they_are_young(
    feed: Feed, clock: ManualClock
) -> None:
    feed.publish([frame(n) for n in range(11, 11 + FRAMES_MAX + 500)], head=FRAMES_MAX + 510)
    assert len(feed) == FRAMES_MAX + 500
    clock.advance_s(AGE_MAX_S + 1)
    feed.publish([frame(FRAMES_MAX + 511)], head=FRAMES_MAX + 511)
    assert len(feed) == FRAMES_MAX


def test_ring_never_holds_more_than_its_bytes(feed: Feed) -> None:
    for n in range(40):
        feed.publish([frame(11 + n, size=1024 * 1024)], head=11 + n)
    assert len(feed) == 31  # and what the frames themselves take


def test_ring_counts_what_small_frames_take_beside_their_data(feed: Feed) -> None:
    count = BYTES_MAX // FRAME_BYTES + 1000
    feed.publish([frame(11 + n, size=0) for n in range(count)], head=10 + count)
    assert len(feed) == BYTES_MAX // FRAME_BYTES


def test_reader_behind_the_ring_is_reset_and_not_served(feed: Feed) -> None:
    for n in range(40):
        feed.publish([frame(11 + n, size=1024 * 1024)], head=11 + n)
    with pytest.raises(FellBehind):
        feed.after(10, 100, 1000, everything)
    assert feed.after(feed.oldest, 100, 10**9, everything).seq == 50


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("", ResetReason.CURSOR_INVALID),
        ("abc123-007", ResetReason.CURSOR_INVALID),
        ("abc123-1\n", ResetReason.CURSOR_INVALID),
        ("abc123--1", ResetReason.CURSOR_INVALID),
        ("other9-11", ResetReason.EPOCH_CHANGED),
        ("abc123-12", ResetReason.CURSOR_AHEAD),
        ("abc123-9", ResetReason.HISTORY_GONE),
    ],
)
def test_resume_says_why_not(feed: Feed, cursor: str, reason: ResetReason) -> None:
    feed.publish([frame(11)], head=11)
    assert feed.resume(cursor, everything) is reason


def test_resume_counts_only_what_matches(feed: Feed) -> None:
    others = [frame(n, "Demo/B") for n in range(11, 6011)]
    feed.publish(others, head=6010)
    assert feed.resume("abc123-10", everything) is ResetReason.GAP_TOO_LARGE
    assert feed.resume("abc123-10", lambda f: f.job_id == "Demo/A") == 10


def test_refilled_ring_serves_cursors_from_before_the_start(clock: ManualClock) -> None:
    feed = Feed("abc123", 100, clock)
    feed.refill([frame(50), frame(60)], floor=49)
    assert feed.resume("abc123-49", everything) == 49
    assert feed.resume("abc123-48", everything) is ResetReason.HISTORY_GONE
    assert feed.resume("abc123-75", everything) == 75
    assert [f.seq for f in feed.after(50, 10, 1000, everything).frames] == [60]


async def test_changed_returns_when_a_number_was_given(feed: Feed) -> None:
    waiting = asyncio.ensure_future(feed.changed(10))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.publish([], head=11)
    async with asyncio.timeout(5):
        await waiting
        await feed.changed(10)


@given(
    steps=st.lists(st.integers(1, 5), min_size=1, max_size=60),
    limit=st.integers(1, 7),
    keep=st.integers(0, 1),
)
def test_reader_sees_every_match_once_in_order(steps: list[int], limit: int, keep: int) -> None:
    feed = Feed("abc123", 0, ManualClock())
    published: list[int] = []
    seen: list[int] = []
    position = 0
    for step in steps:
        frames = [frame(feed.head + n, f"Demo/{n % 2}") for n in range(1, step + 1)]
        published += [f.seq for f in frames if f.job_id == f"Demo/{keep}"]
        feed.publish(frames, head=feed.head + step)
        batch = feed.after(position, limit, 10**6, lambda f: f.job_id == f"Demo/{keep}")
        seen += [f.seq for f in batch.frames]
        position = batch.seq
    while position < feed.head:
        batch = feed.after(position, limit, 10**6, lambda f: f.job_id == f"Demo/{keep}")
        seen += [f.seq for f in batch.frames]
        position = batch.seq
    assert seen == published
