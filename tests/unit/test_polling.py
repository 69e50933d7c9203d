"""When a folder is looked at often: by its type, or since something came that nothing announced."""

import pytest

from bus.polling import NAMES_MAX, FolderPolling, is_silent


def attention() -> FolderPolling:
    return FolderPolling("the queue", rare_s=5.0, often_s=0.25)


@pytest.mark.parametrize(
    "kind", ["fuse", "fuseblk", "fuse.bindfs", "9p", "virtiofs", "cifs", "smb3", "nfs4", "vboxsf"]
)
def test_shared_folders_are_looked_at_often_from_the_start(kind: str) -> None:
    one = attention()
    one.expect(kind)
    assert one.interval_s == 0.25
    assert one.why == (
        f"the queue is on {kind}, which may not announce what others change; it is looked at every "
        "250 ms"
    )


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "vfat", ""])
def test_others_are_not(kind: str) -> None:
    one = attention()
    one.expect(kind)
    assert not is_silent(kind)
    assert one.interval_s == 5.0


def test_a_find_that_stays_unannounced_turns_it_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = attention()
    one.found(["a"], 10.0)
    assert one.interval_s == 1.0
    one.found(["b"], 10.5)
    assert not caplog.records
    one.found([], 11.0)
    assert one.interval_s == 0.25
    one.found(["c"], 99.0)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("names", [["a"], []])
def test_a_find_that_is_announced_a_little_before_or_after_does_not(
    at: str, names: list[str]
) -> None:
    one = attention()
    if at == "before":
        one.announce(names)
    one.found(["a"], 10.0)
    if at == "after":
        one.announce(names)
    one.found([], 12.0)
    assert (one.why, one.interval_s) == (None, 5.0)


def test_announcements_of_other_names_excuse_nothing() -> None:
    one = attention()
    one.announce(["x"])
    one.found(["a", "x"], 10.0)
    one.announce(["y"])
    one.found([], 12.0)
    assert one.why is not None


def test_more_announcements_than_are_kept_stand_for_any() -> None:
    one = attention()
    one.announce([str(number) for number in range(NAMES_MAX + 1)])
    one.found(["a"], 10.0)
    one.found([], 12.0)
    assert one.why is None


def test_the_time_of_a_folder_is_not_believed_for_ever() -> None:
    one = attention()
    assert one.is_full_look_due(100.0)
    assert not one.is_full_look_due(130.0)
    assert one.is_full_look_due(161.0)
    one.expect("9p")
    assert one.is_full_look_due(161.1)


@pytest.mark.parametrize("names", [["a"], []])
def test_what_was_announced_before_a_look_that_it_caused_excuses_no_later_find(
    names: list[str],
) -> None:
    one = attention()
    one.announce(names)
    one.looks()
    one.found(["a"], 10.0)
    one.looks()
    one.found([], 12.0)
    assert one.interval_s == 0.25
