"""What scans remember: what is no command yet is examined again in time, and no more often."""

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.directory.disk import Mark
from transports.directory.scan_plan import AGAIN_S_MAX, ScanPlan, Step
from transports.directory.settings import DirectorySettings

SETTINGS = DirectorySettings(settle_s=5, stray_s=3600)
MARK = Mark(inode=1, size=10, mtime_ns=1, links=1, mode=0o100600, uid=0)
GROWN = Mark(inode=1, size=11, mtime_ns=2, links=1, mode=0o100600, uid=0)


@pytest.fixture
def plan() -> ScanPlan:
    return ScanPlan(SETTINGS)


def test_a_file_is_read_when_it_changed_and_given_up_when_it_stood_still(plan: ScanPlan) -> None:
    plan.note("a.json", MARK, "it is no JSON", 100)
    assert plan.due_in_s(101) == 4
    assert plan.step("a.json", MARK, 104.9) is Step.WAIT
    assert plan.step("a.json", GROWN, 104.9) is Step.READ
    assert plan.step("a.json", MARK, 105) is Step.GIVE_UP


def test_a_file_is_due_once_and_not_before_its_time(plan: ScanPlan) -> None:
    plan.note("a.json", MARK, "", 100)
    plan.note("a.txt", MARK, "", 100)
    assert plan.take_due(104.9) == []
    assert plan.take_due(105) == ["a.json"]
    assert plan.take_due(105) == []
    plan.put_back("a.json")
    assert plan.take_due(105) == ["a.json"]
    assert plan.take_due(3700) == ["a.txt"]


def test_a_file_that_was_forgotten_or_noted_later_is_not_due(plan: ScanPlan) -> None:
    plan.note("a.json", MARK, "", 100)
    plan.note("b.json", MARK, "", 100)
    plan.forget("a.json")
    plan.note("b.json", GROWN, "", 103)
    assert plan.take_due(105) == []
    assert plan.take_due(108) == ["b.json"]


def test_what_cannot_be_moved_away_is_left_alone_for_ever_longer(plan: ScanPlan) -> None:
    plan.note("a.json", MARK, "", 0)
    now_s, pauses = 5.0, []
    for _ in range(20):
        plan.take_due(now_s)
        plan.postpone("a.json", now_s)
        pause_s = plan.due_in_s(now_s)
        assert pause_s is not None
        pauses.append(pause_s)
        now_s += pause_s
    assert pauses == sorted(pauses)
    assert pauses[-1] == AGAIN_S_MAX


def test_what_is_not_in_a_listing_any_more_is_forgotten(plan: ScanPlan) -> None:
    for name in ("a.json", "b.json"):
        plan.note(name, MARK, "", 0)
    plan.begin_listing()
    plan.listed("b.json")
    plan.note("c.json", MARK, "", 0)
    plan.end_listing()
    assert [plan.get(f"{name}.json") is not None for name in "abc"] == [False, True, True]


@given(st.sets(st.text(min_size=1, max_size=4), min_size=1, max_size=40), st.integers(1, 7))
def test_files_that_stay_hide_none_of_those_behind_them(names: set[str], limit: int) -> None:
    plan = ScanPlan(SETTINGS)
    seen: set[str] = set()
    more = True
    while more:
        chosen, more = plan.next_of(list(names), limit)
        assert len(chosen) <= limit
        assert seen.isdisjoint(chosen)
        seen.update(chosen)
    assert seen == names


def test_a_file_that_is_noted_while_a_listing_ends_does_no_harm(plan: ScanPlan) -> None:
    """Whole commands are read in other threads than the one that scans."""
    there = [f"{number}.json" for number in range(2000)]
    for name in there:
        plan.note(name, MARK, "", 0)
    before_s = sys.getswitchinterval()
    is_over = threading.Event()

    def note() -> None:
        count = 0
        while not is_over.is_set():
            count += 1
            plan.note(f"new-{count % 500}.json", MARK, "", 0)
            plan.forget(f"new-{(count + 250) % 500}.json")

    thread = threading.Thread(target=note)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(50):
            plan.begin_listing()
            for name in there:
                plan.listed(name)
            plan.end_listing()
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(before_s)
