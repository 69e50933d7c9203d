"""The progress file while its program appends to it, rewrites, cuts or replaces it."""

import asyncio
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.shim.files import Folder
from handlers.shim.masking import Masking
from handlers.shim.progress_file import FILE_BYTES_MAX, QUIET_S, ProgressFile
from handlers.supervision.progress_watch import ProgressWatch

SECRET = "correct horse battery"


class Program:
    """Writes progress as programs do; `said` are the percents it has said so far, in order.

    `between` is called wherever somebody might look.
    """

    def __init__(self, path: Path, between: Callable[[], None]) -> None:
        self._path = path
        self._between = between
        self.said: list[float] = []

    def append(self, percent: int, cuts: list[int], how: str) -> None:
        """Whatever stood there, a line is added."""
        starts_line = self._path.exists() and self._path.read_bytes()[-1:] not in (b"", b"\n")
        record = encoded(percent, how if how.startswith("json") else "line")
        with self._path.open("ab", buffering=0) as file:
            if starts_line:
                file.write(b"\n")
            self._write(file, percent, record + b"\n", cuts)

    def rewrite(self, percent: int, cuts: list[int], how: str) -> None:
        """As `echo 42 > file` and `write_text` do."""
        with self._path.open("wb", buffering=0) as file:
            self._between()
            self._write(file, percent, encoded(percent, how), cuts)

    def replace(self, percent: int, cuts: list[int], how: str) -> None:
        """A new file, renamed over."""
        fresh = self._path.with_name("fresh")
        with fresh.open("wb", buffering=0) as file:
            for piece in pieces(encoded(percent, how), cuts):
                file.write(piece)
                self._between()
        self.said.append(percent)
        fresh.rename(self._path)

    def recreate(self, percent: int, cuts: list[int], how: str) -> None:
        """A new file, often with the inode number of the old one."""
        self._path.unlink()
        self._between()
        self.rewrite(percent, cuts, how)

    def _write(self, file: BinaryIO, percent: int, record: bytes, cuts: list[int]) -> None:
        *first, last = pieces(record, cuts)
        for piece in first:
            file.write(piece)
            if b"\r" in piece or (record.startswith(b"{") and piece.endswith(b"}")):
                self.said.append(percent)  # only a line end is still to come
            self._between()
        self.said.append(percent)
        file.write(last)
        self._between()


def pieces(record: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(record), *(cut % len(record) for cut in cuts)})
    return [record[a:b] for a, b in pairwise(places)]


def encoded(percent: int, how: str) -> bytes:
    """One value as the whole of a file."""
    content = {"data": {"list": [17, 18]}, "percent": percent}
    return {
        "line": f"{percent}",
        "echo": f"{percent}\n",
        "json": json.dumps(content),
        "json-lines": json.dumps(content, indent=1),
        "utf-8-sig": f"\ufeff{percent}\r\n",
        "utf-16": f"{percent}\r\n",
    }[how].encode("utf-16" if how == "utf-16" else "utf-8")


STEP = st.tuples(
    st.sampled_from(["append", "rewrite", "replace", "recreate"]),
    st.integers(0, 100),
    st.lists(st.integers(0, 60), max_size=3),
    st.sampled_from(["line", "echo", "json", "json-lines", "utf-8-sig", "utf-16"]),
)


@settings(max_examples=300)
@given(st.lists(STEP, min_size=1, max_size=12), st.lists(st.booleans(), max_size=60))
def test_only_what_was_said_is_read_and_the_last_word_in_the_end(
    steps: list[tuple[str, int, list[int], str]], looks: list[bool]
) -> None:
    turns = iter(looks)
    with TemporaryDirectory() as folder:
        file = ProgressFile(Folder(folder))
        shown: list[float] = []

        def look(*, is_last: bool = False) -> None:
            found = file.read(0.0, is_last=is_last)
            if found is not None:
                assert found["percent"] in program.said
                shown.append(found["percent"])

        program = Program(Path(folder) / "progress", lambda: look() if next(turns, False) else None)
        is_wide = False
        for act, percent, cuts, how in steps:
            if act == "append" and is_wide:
                continue  # a line of bytes in a file of UTF-16 is not one of the program's words
            is_wide = how == "utf-16" and act != "append"
            getattr(program, act)(percent, cuts, how)
            if next(turns, False):
                look()
                assert shown[-1:] == [percent]
        look(is_last=True)
        assert shown[-1:] == [program.said[-1]]
        assert file.miss is None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "progress"


def read(file: ProgressFile, now_s: float = 0.0) -> float | None:
    return (file.read(now_s) or {}).get("percent")


def test_a_line_without_its_end_counts_when_it_has_been_quiet(path: Path) -> None:
    file = ProgressFile(Folder(str(path.parent)))
    with path.open("wb", buffering=0) as own:
        own.write(b"4")
        assert read(file, 0.0) is None
        assert file.is_open
        own.write(b"2")
        assert read(file, QUIET_S) is None
        assert read(file, 2 * QUIET_S) == 42
        assert read(file, 9 * QUIET_S) is None
        own.write(b"\n")
        assert read(file, 9 * QUIET_S) == 42


def test_an_open_line_that_its_writer_let_go_is_read_at_once_and_grows(path: Path) -> None:
    file = ProgressFile(Folder(str(path.parent)))
    path.write_text("4")
    assert read(file) == 4
    with path.open("a") as more:
        more.write("2\n")
    assert read(file) == 42


def test_a_rewritten_number_of_the_same_length_and_moment_is_seen(path: Path) -> None:
    file = ProgressFile(Folder(str(path.parent)))
    for percent in range(10, 100):
        path.write_text(f"{percent}\n")
        assert read(file) == percent
        assert read(file) is None


def test_a_cut_and_rewritten_file_says_nothing_in_between(path: Path) -> None:
    file = ProgressFile(Folder(str(path.parent)))
    path.write_text("100\n")
    assert read(file) == 100
    os.truncate(path, 0)
    assert read(file) is None
    path.write_text("7\n")
    assert read(file) == 7


def test_a_writer_that_goes_on_behind_a_cut_is_understood(path: Path) -> None:
    """As `logrotate` with `copytruncate` leaves it: zeros where the old lines were."""
    file = ProgressFile(Folder(str(path.parent)))
    with path.open("wb", buffering=0) as own:
        own.write(b"56\n")
        assert read(file) == 56
        os.truncate(path, 0)
        own.write(b"57\n")
        assert read(file) == 57


def test_a_long_file_is_cut_only_when_all_of_it_was_read(path: Path) -> None:
    file = ProgressFile(Folder(str(path.parent)))
    with path.open("ab", buffering=0) as own:
        own.write(b"1 x\n" * (FILE_BYTES_MAX // 4) + b"4")
        assert read(file) == 1
        assert path.stat().st_size > FILE_BYTES_MAX  # what follows would be read as 2
        own.write(b"2\n")
        assert read(file) == 42
        assert path.stat().st_size == 0
        own.write(b"43\n")
        assert read(file) == 43


def test_a_secret_is_cut_out_of_the_file_and_replaced_in_words_and_notes(path: Path) -> None:
    file = ProgressFile(Folder(str(path.parent)), Masking([SECRET]))
    path.write_text(f"42 {SECRET}\nabout {SECRET}\n")
    assert file.read(0.0) == {"percent": 42.0, "message": "***"}
    assert file.miss is not None
    assert file.miss.startswith('"about ***" was not understood')
    assert path.read_bytes() == b""


def test_a_window_that_begins_inside_an_object_says_nothing_of_its_lines(path: Path) -> None:
    file = ProgressFile(Folder(str(path.parent)))
    long = json.dumps({"percent": 5, "data": {"l": [17] * 30_000}}, indent=1)
    path.write_text(f"{long}\n")
    assert read(file) is None
    with path.open("a") as more:
        more.write('{"percent": 6}\n')
    assert read(file) == 6


async def test_each_file_renamed_over_or_made_again_is_noticed(path: Path) -> None:
    noticed = asyncio.Event()
    watch = ProgressWatch(lambda _: noticed.set())
    path.touch()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(watch.run(), name="progress watch")
        await asyncio.sleep(0)  # it has its instance now
        watch.add("e", path)
        for act in ("rename", "unlink", "write", "rename", "rename"):
            if act == "rename":
                path.with_name("fresh").write_text("1\n")
                path.with_name("fresh").rename(path)
            elif act == "unlink":
                path.unlink()
                path.touch()
            else:
                path.write_text("2\n")
            await noticed.wait()
            noticed.clear()
            await noticed.wait()  # the watch is on the file of that name again
            noticed.clear()
        task.cancel()
