"""Files as the service and the shims write and read them, on real disks and against real limits."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.files import (
    NotRegular,
    create_file,
    created_once,
    made_once,
    open_directory,
    read_regular,
    replace_file,
    write_new,
)
from handlers.shim.files import Folder
from tests.small_disk import Filler, mounted

CONTENT = b'{"text":"' + b"x" * 5000 + b'"}'


def new_file(path: Path, content: bytes) -> None:
    with open_directory(path.parent) as folder:
        write_new(path.name, folder, content)


def of_the_shim(path: Path, content: bytes) -> None:
    """As a shim writes its records; `content` is JSON of one text."""
    folder = Folder(str(path.parent))
    try:
        text = content.decode().removeprefix('{"text":"').removesuffix('"}')
        folder.write_whole(path.name, {"text": text}, durable=True)
    finally:
        folder.close()


def of_the_shim_held(path: Path, content: bytes) -> None:
    """As a shim writes its exit record, into room that it has held since the start."""
    folder = Folder(str(path.parent))
    try:
        folder.hold_room()
        text = content.decode().removeprefix('{"text":"').removesuffix('"}')
        folder.write_held(path.name, {"text": text})
    finally:
        folder.drop_room()
        folder.close()


Write = Callable[[Path, bytes], object]

REPLACING: dict[str, Write] = {
    "replace_file": replace_file,
    "replace_file, one writer": lambda path, content: replace_file(path, content, one_writer=True),
    "the shim": of_the_shim,
    "the shim, held": of_the_shim_held,
}
WRITING: dict[str, Write] = REPLACING | {
    "create_file": create_file,
    "created_once": created_once,
    "made_once": lambda path, content: made_once(path, lambda: content),
}

writing = pytest.mark.parametrize("write", WRITING.values(), ids=WRITING)
replacing = pytest.mark.parametrize("write", REPLACING.values(), ids=REPLACING)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel takes so many bytes of any file: a write is short first, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@writing
def test_a_file_has_its_content_and_is_of_this_account_alone(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "file.json", CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
    assert (tmp_path / "file.json").read_bytes() == CONTENT
    assert (tmp_path / "file.json").stat().st_mode & 0o777 == 0o600


@writing
def test_of_a_file_that_is_written_in_part_nothing_is_left(tmp_path: Path, write: Write) -> None:
    with files_of_at_most(3000), pytest.raises(OSError, match="too large"):
        write(tmp_path / "file.json", CONTENT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inodes", [False, True], ids=["bytes", "inodes"])
@writing
def test_of_a_file_that_finds_no_room_nothing_is_left(
    tmp_path: Path, write: Write, inodes: bool
) -> None:
    with mounted(tmp_path, "size=1m,nr_inodes=40,mode=0700") as place:
        folder = place / "ours"
        folder.mkdir(mode=0o700)
        Filler(place / "others").fill(inodes=inodes)
        with pytest.raises(OSError, match="No space"):
            write(folder / "file.json", CONTENT)
        assert list(folder.iterdir()) == []


@replacing
def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "file.json"
    write(path, b'{"text":"old"}')
    with files_of_at_most(3000), pytest.raises(OSError, match="too large"):
        write(path, CONTENT)
    assert path.read_bytes() == b'{"text":"old"}'
    assert list(tmp_path.iterdir()) == [path]


@replacing
def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path, write: Write) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    path = tmp_path / "folder" / "file.json"
    path.parent.mkdir()
    path.symlink_to(elsewhere)
    write(path, CONTENT)
    assert (elsewhere.read_bytes(), path.read_bytes()) == (b"not ours", CONTENT)
    assert not path.is_symlink()


def test_of_a_record_whose_name_is_a_folder_no_room_stays_held(tmp_path: Path) -> None:
    (tmp_path / "exit.json" / "full").mkdir(parents=True)
    folder = Folder(str(tmp_path))
    folder.hold_room()
    with pytest.raises(IsADirectoryError):
        folder.write_held("exit.json", {"ended_ms": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["exit.json"]
    folder.close()


@pytest.mark.parametrize("write", [create_file, new_file])
def test_a_new_file_never_takes_the_place_of_another(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write(path, CONTENT)
    assert path.read_bytes() == b"old"


def test_the_first_of_two_writers_gives_a_file_its_content(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert created_once(path, b"first")
    assert not created_once(path, b"second")
    assert made_once(path, lambda: b"third") == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_death_left_half_written_goes_with_the_next_write(tmp_path: Path) -> None:
    (tmp_path / ".file.json.tmp").write_bytes(b"half")
    replace_file(tmp_path / "file.json", CONTENT, one_writer=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_only_regular_files_are_read_and_no_more_than_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert read_regular(path, 10) == CONTENT[:10]
    assert read_regular(path, 1 << 20) == CONTENT
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, why in (
        ("link", "a symbolic link"),
        ("pipe", "not a regular file"),
        ("folder", "not a regular file"),
        ("/dev/null", "not a regular file"),
    ):
        with pytest.raises(NotRegular, match=why):
            read_regular(tmp_path / name, 10)
