"""One `syncfs` for all, or each file for itself: whatever is sooner done on this disk, now."""

import pytest

from transports.directory.committer import Grouping
from transports.directory.settings import DirectorySettings

SETTINGS = DirectorySettings(group_from=4, syncfs_slow_s=0.05, syncfs_pause_s=5)


@pytest.fixture
def grouping() -> Grouping:
    made = Grouping(SETTINGS)
    made.can_group = True
    return made


def test_from_a_few_on_files_are_synced_together(grouping: Grouping) -> None:
    assert [grouping.pays(count, now_s=0) for count in (1, 3, 4, 64)] == [False, False, True, True]
    grouping.can_group = False
    assert not grouping.pays(64, now_s=0)


def test_a_slow_syncfs_is_left_alone_for_a_while(grouping: Grouping) -> None:
    assert grouping.took(64, 0.1, now_s=10, group=True)
    assert [grouping.pays(64, now_s) for now_s in (10, 14.9, 15)] == [False, False, True]


def test_a_slow_syncfs_is_taken_where_as_many_syncs_are_slower(grouping: Grouping) -> None:
    grouping.took(64, 0.1, now_s=10, group=True)
    grouping.took(10, 0.04, now_s=11, group=False)  # 4 ms a file
    assert [grouping.pays(count, now_s=12) for count in (20, 30)] == [False, True]


def test_a_syncfs_that_is_quick_again_is_used_again(grouping: Grouping) -> None:
    grouping.took(64, 0.1, now_s=10, group=True)
    grouping.took(64, 0.6, now_s=11, group=False)
    assert not grouping.took(64, 0.01, now_s=12, group=True)
    assert grouping.pays(4, now_s=12)
