"""What a data directory needs of its file system is tried before anything is done there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bus.errors import DataDirectoryError
from jobbus.service.directory_hold import held_data_directory
from jobbus.service.trial import try_out
from tests.counterparts import missing, needs
from tests.limited_disk import lacking
from tests.service import ROOT
from tests.small_disk import mounted


@contextmanager
def through_bindfs(place: Path, *options: str) -> Iterator[Path]:
    behind, seen = place / "behind", place / "seen"
    behind.mkdir(mode=0o700)
    seen.mkdir()
    command = [needs("bindfs"), *options, str(behind), str(seen)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        missing(f"bindfs mounts nothing here: {done.stderr.strip()}")
    try:
        yield seen
    finally:
        subprocess.run(["umount", "--lazy", str(seen)], check=True)


def refusal_of(root: Path) -> str:
    with pytest.raises(DataDirectoryError) as caught, held_data_directory(root):
        pass
    assert [name for name in os.listdir(root) if name.startswith(".trial")] == []
    return str(caught.value)


def test_nothing_is_left_where_all_can_be_done(tmp_path: Path) -> None:
    try_out(tmp_path, "ext4")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_modes_as_ntfs_is_distinguished_from_wrong_modes(tmp_path: Path) -> None:
    with through_bindfs(tmp_path, "--perms=0777", "--chmod-ignore") as seen:
        refusal = refusal_of(seen)
    assert "keeps no modes" in refusal
    assert f"mount it with umask=077 and uid={os.geteuid()}" in refusal
    assert "run: chmod" not in refusal


def test_wrong_modes_of_a_disk_that_keeps_them_are_still_put_right_by_chmod(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert f"run: chmod go-w {tmp_path}" in refusal_of(tmp_path)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("links", ["no hard links (as FAT and exFAT)", "ext4, XFS or btrfs"]),
        ("rename", ["no file in another's place", "ext4, XFS or btrfs"]),
        ("sync", ["syncs no folders", "power cut"]),
        ("locks", ["without exclusive locks", "two services"]),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(
    tmp_path: Path, what: str, words: list[str]
) -> None:
    with lacking(what, tmp_path) as seen:
        refusal = refusal_of(seen / "data")
    assert [word for word in words if word not in refusal] == [], refusal
    assert "Errno" not in refusal


def test_a_disk_that_is_mounted_read_only_is_named_so(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=1m") as place:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with pytest.raises(DataDirectoryError, match="mounted read-only"):
            try_out(place, "tmpfs")


def test_a_full_disk_is_for_others_to_judge(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=64k") as place:
        filler = os.open(place / "filler", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):  # until there is no room
            while os.write(filler, bytes(4096)):
                pass
        os.close(filler)
        try_out(place, "tmpfs")


def test_the_command_line_says_it_too_and_leaves_nothing(tmp_path: Path) -> None:
    with lacking("links", tmp_path) as seen:
        (seen / "data").mkdir(mode=0o700)
        for command in (["serve"], ["start", "A/B"]):
            done = subprocess.run(
                [sys.executable, "-m", "jobbus", *command, "--data", str(seen / "data")],
                cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 1
            *logged, line = done.stderr.splitlines()
            assert all("no jobbus.toml was found" in each for each in logged)
            assert "no hard links (as FAT and exFAT)" in line
        assert os.listdir(seen / "data") == []
