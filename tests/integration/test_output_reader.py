"""The reader of output files, over files that are written as the format says."""

import asyncio
import os
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.layout import DataLayout
from bus.ports import OutputChunk, OutputLine, OutputLineReader, OutputNotice
from handlers.output import search as output_search
from handlers.output import store as output
from handlers.output.lines import LINE_MAX
from handlers.output.output_files import OutputFiles, open_output
from handlers.output.search import offset_of_tail, page_of, search
from handlers.output.store import OutputStore
from handlers.shim.files import Folder
from handlers.shim.output import OutputWriter

ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
OTHER_ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c"
KIB = 1024
MIB = 1024 * KIB


async def lines_of(store: OutputStore, id_: str, start: int, size: int) -> tuple[OutputLine, ...]:
    return (await store.page(id_, start, size)).lines


async def grep(
    store: OutputStore, id_: str, needle: str, limit: int, *, stream: str | None = None
) -> tuple[OutputLine, ...]:
    return (await store.search(id_, needle, limit, stream=stream)).lines


class Writer:
    """The smallest thing that writes the format: one record a write, nothing merged."""

    def __init__(self, folder: Path, *, max_bytes: int = 256 * MIB) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.head = max_bytes // 2
        self.segment = max(64 * KIB, -(-(max_bytes - self.head) // 8))
        self.kept = (max_bytes - self.head) // self.segment
        self.end = 0
        self.line = 1
        self.time_ms = 1000
        header = struct.pack("<8sQQQ", b"JBIDX001", self.head, self.segment, 0)
        (folder / "output.idx").write_bytes(header)
        (folder / "output.log").touch()

    def write(self, data: bytes, stream: int = 1, *, index: bool = True) -> None:
        record = struct.pack("<QQQII", self.end, self.time_ms, self.line, len(data), stream)
        self.line += data.count(b"\n")
        self.time_ms += 1
        while data:
            number, room = self._place()
            name = f"output.{number}" if number else "output.log"
            with (self.folder / name).open("ab") as file:
                file.write(data[:room])
                if not number and room <= len(data):
                    file.write(b"\n[marker without offsets]\n")
            self.end += min(room, len(data))
            data = data[room:]
            (self.folder / f"output.{number - self.kept - 1}").unlink(missing_ok=True)
        if index:
            self.append_to_index(record)

    def append_to_index(self, data: bytes) -> None:
        with (self.folder / "output.idx").open("ab") as file:
            file.write(data)

    def _place(self) -> tuple[int, int]:
        """The segment that takes the next byte, and how many it takes."""
        if self.end < self.head:
            return 0, self.head - self.end
        number, held = divmod(self.end - self.head, self.segment)
        return number + 1, self.segment - held


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    return DataLayout(tmp_path)


@pytest.fixture
def writer(layout: DataLayout) -> Writer:
    return Writer(layout.execution(ID).root)


@pytest.fixture
def live() -> set[str]:
    """The executions that may still print."""
    return set()


@pytest.fixture
def store(layout: DataLayout, live: set[str]) -> OutputStore:
    return OutputStore(layout, live.__contains__)


def texts(lines: tuple[OutputLine, ...]) -> list[str]:
    return [line.text for line in lines]


def write_numbered_lines(writer: Writer, count: int) -> None:
    """`line 1` to `line count`, in writes that end anywhere."""
    output = b"".join(b"line %d\n" % number for number in range(1, count + 1))
    for at in range(0, len(output), 777):
        writer.write(output[at : at + 777])


async def whole(store: OutputStore, step: int = MIB) -> tuple[bytes, list[tuple[int, int]]]:
    """All that can be read, and the gaps on the way: piece by piece the same as at one go."""
    data, at, gaps = b"", 0, []
    while True:
        chunk = await store.read(ID, at, step)
        if chunk.gap is not None:
            gaps.append(chunk.gap)
        if not chunk.data:
            break
        assert chunk.end - chunk.start == len(chunk.data) <= step
        data, at = data + chunk.data, chunk.end
    assert await in_pieces(store, step) == (data, gaps)
    return data, gaps


async def in_pieces(store: OutputStore, step: int) -> tuple[bytes, list[tuple[int, int]]]:
    data, gaps = b"", []
    async with aclosing(store.pieces(ID, 0, await store.size(ID), step)) as chunks:
        async for chunk in chunks:
            assert chunk.end - chunk.start == len(chunk.data) <= step
            gaps += [chunk.gap] if chunk.gap is not None else []
            data += chunk.data
    return data, gaps


def test_the_store_is_what_the_others_ask_for(store: OutputStore) -> None:
    reader: OutputLineReader = store
    notice: OutputNotice = store
    assert (reader, notice) == (store, store)


# Bytes


async def test_an_execution_without_output_is_empty(store: OutputStore) -> None:
    assert await store.size(ID) == 0
    chunk = await store.read(ID, 0, 100)
    assert (chunk.start, chunk.end, chunk.data, chunk.gap) == (0, 0, b"", None)
    assert await store.offset_of_tail(ID, 10) == 0
    assert await store.offset_of_line(ID, 10) == 0
    assert (await store.page(ID, 0, 1000)).lines == ()
    assert await grep(store, ID, "a", 10) == ()


async def test_an_id_that_is_no_uuid_becomes_no_path(store: OutputStore) -> None:
    with pytest.raises(ValueError, match="not a UUID"):
        await store.size("../JobStatus")


async def test_reading_goes_over_the_seams_and_stops_at_the_marker(
    store: OutputStore, layout: DataLayout
) -> None:
    writer = Writer(layout.execution(ID).root, max_bytes=20)
    writer.kept = 100
    data = os.urandom(3 * writer.segment + 17)
    writer.write(data)

    assert await store.size(ID) == len(data)
    assert await whole(store) == (data, [])
    assert await whole(store, step=777) == (data, [])
    chunk = await store.read(ID, 8, 10)
    assert chunk.data == data[8:18]


async def test_a_dropped_middle_is_a_gap(store: OutputStore, layout: DataLayout) -> None:
    writer = Writer(layout.execution(ID).root, max_bytes=400 * KIB)
    data = os.urandom(900 * KIB)
    for at in range(0, len(data), 10_000):
        writer.write(data[at : at + 10_000])

    read, gaps = await whole(store)

    ((lost_from, lost_to),) = gaps
    assert lost_from == writer.head
    assert read == data[:lost_from] + data[lost_to:]
    assert len(data) - lost_to >= 400 * KIB - writer.head - writer.segment
    inside = await store.read(ID, lost_from + 5, 10)
    assert inside.gap == (lost_from + 5, lost_to)
    assert inside.data == data[lost_to : lost_to + 10]


async def test_a_gap_with_nothing_behind_it_yet_is_reported(
    store: OutputStore, layout: DataLayout
) -> None:
    writer = Writer(layout.execution(ID).root, max_bytes=20)
    writer.write(b"0123456789")
    (writer.folder / "output.3").touch()
    end = 10 + 2 * writer.segment

    chunk = await store.read(ID, 10, 100)

    assert await store.size(ID) == end
    assert (chunk.start, chunk.end, chunk.data, chunk.gap) == (end, end, b"", (10, end))


async def test_reading_behind_the_end_is_empty(store: OutputStore, writer: Writer) -> None:
    writer.write(b"abc")
    chunk = await store.read(ID, 10, 5)
    assert (chunk.start, chunk.data, chunk.gap) == (10, b"", None)


def test_a_segment_that_is_removed_while_reading_becomes_a_gap(tmp_path: Path) -> None:
    writer = Writer(tmp_path, max_bytes=20)
    writer.kept = 100
    writer.write(b"x" * (10 + 2 * writer.segment))
    with open_output(tmp_path) as files:
        (tmp_path / "output.1").unlink()
        chunk = files.read(10, 100)
        assert chunk.gap == (10, 10 + writer.segment)
        assert chunk.data == b"x" * 100


async def test_a_file_that_is_removed_while_it_is_sent_is_sent_to_its_end(
    store: OutputStore, layout: DataLayout
) -> None:
    writer = Writer(layout.execution(ID).root, max_bytes=MIB)
    write_numbered_lines(writer, 100_000)
    data, _ = await whole(store)
    taken: list[OutputChunk] = []
    async with aclosing(store.pieces(ID, writer.head, writer.end, 10 * KIB)) as chunks:
        async for chunk in chunks:
            if not taken:
                for name in os.listdir(writer.folder):
                    (writer.folder / name).unlink()
            taken.append(chunk)
    assert len(taken) == -(-writer.segment // (10 * KIB))
    sent = b"".join(chunk.data for chunk in taken)
    assert sent == data[writer.head :][: writer.segment]


async def test_more_readers_than_may_keep_a_file_open_get_the_same(
    store: OutputStore, layout: DataLayout
) -> None:
    """And who leaves in the middle leaves no file open."""
    writer = Writer(layout.execution(ID).root, max_bytes=MIB)
    write_numbered_lines(writer, 150_000)
    before = len(os.listdir("/proc/self/fd"))
    async with AsyncExitStack() as leaving:
        for _ in range(output.STREAMS_MAX):
            reader = store.pieces(ID, 0, writer.end, KIB)
            await leaving.enter_async_context(aclosing(reader))
            assert (await anext(reader)).end == KIB
        held = len(os.listdir("/proc/self/fd")) - before
        assert await whole(store, 100 * KIB) == await whole(store)
        assert held == output.STREAMS_MAX
        assert len(os.listdir("/proc/self/fd")) - before == held
    assert len(os.listdir("/proc/self/fd")) == before
    assert await whole(store, 100 * KIB) == await whole(store)


@pytest.mark.parametrize("name", ["output.log", "output.1", "output.idx"])
async def test_links_and_pipes_in_place_of_files_are_not_followed(
    store: OutputStore, layout: DataLayout, tmp_path: Path, name: str
) -> None:
    writer = Writer(layout.execution(ID).root, max_bytes=20)
    writer.write(b"x" * 100)
    (tmp_path / "secret").write_bytes(b"y" * 100)
    for make in (lambda p: p.symlink_to(tmp_path / "secret"), os.mkfifo):
        (writer.folder / name).unlink()
        make(writer.folder / name)
        data, _ = await whole(store)
        assert b"y" not in data
        assert await store.offset_of_tail(ID, 1) >= 0
        await lines_of(store, ID, 0, 1000)


async def test_a_folder_that_is_a_link_is_not_followed(
    store: OutputStore, layout: DataLayout, writer: Writer
) -> None:
    writer.write(b"abc")
    layout.execution(OTHER_ID).root.symlink_to(writer.folder)
    assert await store.size(ID) == 3
    assert await store.size(OTHER_ID) == 0


# The tail


@pytest.mark.parametrize(
    ("data", "lines", "offset"),
    [
        (b"a\nb\nc\n", 1, 4),
        (b"a\nb\nc", 1, 4),
        (b"a\nb\nc\n", 2, 2),
        (b"a\nb\nc\n", 3, 0),
        (b"a\nb\nc\n", 99, 0),
        (b"a\nb\nc\n", 0, 6),
        (b"\n\n\n", 2, 1),
    ],
)
async def test_the_tail_begins_at_the_right_line(
    store: OutputStore, writer: Writer, data: bytes, lines: int, offset: int
) -> None:
    writer.write(data)
    assert await store.offset_of_tail(ID, lines) == offset


async def test_the_tail_of_two_gigabytes_is_found_without_reading_them(
    store: OutputStore, layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2 * 1024 * MIB
    writer = Writer(layout.execution(ID).root, max_bytes=2 * size)
    os.truncate(writer.folder / "output.log", size)  # zeros, sparse
    writer.end = size
    writer.write(b"".join(b"line %d\n" % n for n in range(1000)))
    read = 0
    pread = os.pread

    def counting(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        read += length
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", counting)
    start = await store.offset_of_tail(ID, 10)
    chunk = await store.read(ID, start, MIB)

    assert chunk.data.decode().split("\n")[:2] == ["line 990", "line 991"]
    assert read < 2 * MIB


async def test_the_tail_of_an_endless_line_is_not_searched_for_ever(
    store: OutputStore, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_search, "TAIL_BYTES_MAX", 128 * KIB)
    writer.write(b"first\n" + b"x" * MIB)
    assert await store.offset_of_tail(ID, 1) == writer.end - 128 * KIB


async def test_the_tail_does_not_reach_over_a_gap(store: OutputStore, layout: DataLayout) -> None:
    writer = Writer(layout.execution(ID).root, max_bytes=400 * KIB)
    for _ in range(90):
        writer.write((b"x" * 99 + b"\n") * 100)
    (_, behind_gap), *_ = (await whole(store))[1]
    assert await store.offset_of_tail(ID, 10_000) == behind_gap


# Lines


async def test_lines_have_numbers_places_streams_and_times(
    store: OutputStore, writer: Writer
) -> None:
    writer.write(b"one\ntw")
    writer.write(b"o\n")
    writer.write(b"bad\n", stream=2)

    assert await lines_of(store, ID, 0, 1000) == (
        OutputLine(number=1, at=0, end=4, text="one", time_ms=1000),
        OutputLine(number=2, at=4, end=8, text="two", time_ms=1000),
        OutputLine(number=3, at=8, end=12, text="bad", stream="err", time_ms=1002),
    )


async def test_lines_read_on_where_the_page_ended(store: OutputStore, writer: Writer) -> None:
    for number in range(1, 5001):
        writer.write(b"line %d\n" % number)
    seen: list[OutputLine] = []
    at = 0
    while True:
        page = await store.page(ID, at, 1000)
        if not page.lines:
            break
        assert page.next - at <= 1000 + len("line 5000\n")
        seen.extend(page.lines)
        at = page.next
    assert [(line.number, line.text) for line in seen] == [
        (number, f"line {number}") for number in range(1, 5001)
    ]
    assert not any(line.continued or line.partial for line in seen)


async def test_an_open_line_is_partial_while_more_may_come(
    store: OutputStore, writer: Writer, live: set[str]
) -> None:
    live.add(ID)
    writer.write(b"done\nPassword: ")
    page = await store.page(ID, 0, 1000)
    assert [(x.number, x.text, x.partial) for x in page.lines] == [
        (1, "done", False),
        (2, "Password: ", True),
    ]
    assert page.next == 5

    writer.write(b"thanks\n")
    page = await store.page(ID, page.next, 1000)
    assert [(x.number, x.text, x.partial, x.continued) for x in page.lines] == [
        (2, "Password: thanks", False, False)
    ]


async def test_a_last_line_without_an_end_is_whole_when_nothing_more_comes(
    store: OutputStore, writer: Writer
) -> None:
    writer.write(b"done\nbye")
    page = await store.page(ID, 0, 1000)
    assert [(x.text, x.partial) for x in page.lines] == [("done", False), ("bye", False)]
    assert page.next == page.end == 8


async def test_redraws_are_one_line_that_is_replaced(
    store: OutputStore, writer: Writer, live: set[str]
) -> None:
    live.add(ID)
    writer.write(b"start\n 1%\r 2%\r 3%\r")
    page = await store.page(ID, 0, 1000)
    assert [(x.number, x.text, x.partial) for x in page.lines] == [
        (1, "start", False),
        (2, " 3%", True),
    ]
    writer.write(b"done\r\nnext\r\n")
    page = await store.page(ID, page.next, 1000)
    assert [(x.number, x.text, x.partial, x.continued) for x in page.lines] == [
        (2, "done", False, False),
        (3, "next", False, False),
    ]


async def test_a_bar_that_is_redrawn_for_ever_costs_one_line_a_page(
    store: OutputStore, writer: Writer, live: set[str]
) -> None:
    live.add(ID)
    for percent in range(20_000):
        writer.write(b"%06d%%\r" % percent, index=percent % 1000 == 0)
    at, pages, last = 0, 0, ""
    while True:
        page = await store.page(ID, at, 64 * KIB)
        assert {(x.number, x.continued) for x in page.lines} == {(1, False)}
        pages, last = pages + 1, page.lines[-1].text
        if page.next == at:
            break
        at = page.next
    assert last == "019999%"
    assert pages < 10


async def test_a_long_line_comes_in_pieces_that_cut_no_character(
    store: OutputStore, writer: Writer
) -> None:
    text = "é" * 50_000
    writer.write(b"a" + text.encode() + b"\nnext\n")
    seen: list[OutputLine] = []
    at = 0
    while (page := await store.page(ID, at, 1)).lines:
        seen.extend(page.lines)
        at = page.next
    long = [line for line in seen if line.number == 1]
    assert "".join(texts(tuple(long))) == "a" + text
    assert [line.continued for line in long] == [False] + [True] * (len(long) - 1)
    assert all(line.end - line.at <= LINE_MAX + 1 for line in long)
    assert seen[-1].text == "next"
    assert seen[-1].number == 2


async def test_what_is_no_utf8_is_replaced_and_a_character_on_its_way_waits(
    store: OutputStore, writer: Writer, live: set[str]
) -> None:
    live.add(ID)
    writer.write(b"caf\xe9!\nna\xc3")
    assert texts(await lines_of(store, ID, 0, 1000)) == ["caf\ufffd!", "na"]
    writer.write(b"\xaf")
    assert texts(await lines_of(store, ID, 6, 1000)) == ["na\u00ef"]


async def test_streams_that_share_a_line_are_kept_apart(store: OutputStore, writer: Writer) -> None:
    writer.write(b"asking: ")
    writer.write(b"error\n", stream=2)
    writer.write(b"more\n")

    assert [
        (x.number, x.text, x.stream, x.continued) for x in await lines_of(store, ID, 0, 1000)
    ] == [
        (1, "asking: ", "out", False),
        (1, "error", "err", True),
        (2, "more", "out", False),
    ]
    page = await store.page(ID, 0, 1000, stream="err")
    assert texts(page.lines) == ["error"]
    assert page.next == page.end


async def test_a_page_whose_lines_are_all_of_the_other_stream_goes_on(
    store: OutputStore, writer: Writer
) -> None:
    for _ in range(3000):
        writer.write(b"x" * 99 + b"\n")
    writer.write(b"late\n", stream=2)
    at, found = 0, []
    while (page := await store.page(ID, at, 64 * KIB, stream="err")).next > at:
        found.extend(texts(page.lines))
        at = page.next
    assert found == ["late"]


async def test_what_the_index_does_not_cover_yet_is_partial(
    store: OutputStore, writer: Writer, live: set[str]
) -> None:
    live.add(ID)
    writer.write(b"known\n")
    record = struct.pack("<QQQII", 6, 5000, 2, 5, 2)
    writer.write(b"late\n", stream=2, index=False)
    page = await store.page(ID, 0, 1000)
    assert [(x.text, x.partial) for x in page.lines] == [("known", False), ("late", True)]
    assert page.next == 6

    writer.append_to_index(record[:20])  # torn
    assert (await store.page(ID, 6, 1000)).lines[0].partial
    writer.append_to_index(record[20:])
    (line,) = (await store.page(ID, 6, 1000)).lines
    assert (line.text, line.stream, line.time_ms, line.partial) == ("late", "err", 5000, False)


async def test_lines_after_a_gap_keep_their_numbers(store: OutputStore, layout: DataLayout) -> None:
    writer = Writer(layout.execution(ID).root, max_bytes=400 * KIB)
    write_numbered_lines(writer, 60_000)
    page = await store.page(ID, writer.head, 64 * KIB)
    assert page.gap is not None
    assert page.gap[0] == writer.head
    assert page.lines[0].at == page.gap[1]
    assert page.lines[0].continued
    assert all(line.text == f"line {line.number}" for line in page.lines[1:])


async def test_a_page_ends_before_a_gap_with_what_was_left_of_the_line(
    store: OutputStore, layout: DataLayout, live: set[str]
) -> None:
    live.add(ID)
    writer = Writer(layout.execution(ID).root, max_bytes=20)
    writer.write(b"abc\ndefghi" + b"x" * 3 * 64 * KIB + b"\nend\n")
    page = await store.page(ID, 0, 1000)
    assert texts(page.lines) == ["abc", "defghi"]
    assert page.next == 10
    assert (await store.page(ID, 10, 1000)).gap is not None


async def test_empty_lines_without_number_fill_a_bounded_page(
    store: OutputStore, writer: Writer
) -> None:
    writer.write(b"\n" * 50_000)
    page = await store.page(ID, 0, MIB)
    assert len(page.lines) == page.next == output_search.PAGE_LINES_MAX


async def test_a_line_is_found_by_its_number(store: OutputStore, writer: Writer) -> None:
    lines = [b"line %d\n" % number for number in range(1, 3001)]
    offsets = [0, *accumulate(map(len, lines))]
    output = b"".join(lines)
    for at in range(0, len(output), 37):  # lines begin anywhere in a record
        writer.write(output[at : at + 37], stream=1 + at % 2)
    for number in (1, 2, 3, 4, 1500, 2999, 3000):
        at = await store.offset_of_line(ID, number)
        assert at == offsets[number - 1]
        assert (await lines_of(store, ID, at, 10))[0].number == number
    assert await store.offset_of_line(ID, 3001) == writer.end
    assert await store.offset_of_line(ID, 3002) == writer.end


async def test_a_line_whose_beginning_was_dropped_is_looked_for_in_the_gap(
    store: OutputStore, layout: DataLayout
) -> None:
    writer = Writer(layout.execution(ID).root, max_bytes=400 * KIB)
    write_numbered_lines(writer, 60_000)
    ((lost_from, lost_to),) = (await whole(store))[1]
    in_gap = (lost_from + lost_to) // 2 // 11
    assert lost_from <= await store.offset_of_line(ID, in_gap) < lost_to
    assert await store.offset_of_line(ID, 60_000) == writer.end - len("line 60000\n")


async def test_without_an_index_all_of_the_log_is_output(
    store: OutputStore, writer: Writer
) -> None:
    writer.write(b"one\ntwo\n")
    (writer.folder / "output.idx").unlink()
    assert await lines_of(store, ID, 4, 100) == (OutputLine(number=2, at=4, end=8, text="two"),)
    assert await store.offset_of_line(ID, 2) == 4


async def test_a_live_output_without_an_index_is_read_to_its_end(
    store: OutputStore, writer: Writer, live: set[str]
) -> None:
    live.add(ID)
    writer.write(b"line\n" * 20_000 + b"open")
    (writer.folder / "output.idx").unlink()
    at = 0
    while (page := await store.page(ID, at, 64 * KIB)).next > at:
        at = page.next
    assert [(line.number, line.text, line.partial) for line in page.lines] == [
        (20_001, "open", True)
    ]


async def test_zeros_that_a_power_cut_left_in_the_index_do_not_count(
    store: OutputStore, writer: Writer
) -> None:
    writer.write(b"one\n", stream=2)
    writer.write(b"two\n", index=False)
    writer.append_to_index(bytes(3200))
    lines = await lines_of(store, ID, 0, 100)
    assert [(x.number, x.stream, x.time_ms) for x in lines] == [(1, "err", 1000), (2, "out", None)]


@given(index=st.binary(max_size=400), log=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_no_index_however_broken_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, index: bytes, log: bytes
) -> None:
    folder = tmp_path_factory.mktemp("output")
    header = struct.pack("<8sQQQ", b"JBIDX001", 50, 64 * KIB, 0)
    (folder / "output.idx").write_bytes(header + index)
    (folder / "output.log").write_bytes(log)
    with open_output(folder) as files:
        page_of(files, 0, 1000, is_live=True, stream=None)
        page_of(files, 10, 1000, is_live=False, stream="err")
        files.offset_of_line(3)
        offset_of_tail(files, 3)
        search(files, "a", 5, start=0, stream="out", abandoned=threading.Event())


# Search


async def test_grep_finds_lines_literally_with_number_place_and_stream(
    store: OutputStore, writer: Writer
) -> None:
    writer.write(b"a.c\nabc a.c a.c\n")
    writer.write(b"xx a.c\n", stream=2)
    assert await grep(store, ID, "a.c", 10) == (
        OutputLine(number=1, at=0, end=4, text="a.c", time_ms=1000),
        OutputLine(number=2, at=4, end=16, text="abc a.c a.c", time_ms=1000),
        OutputLine(number=3, at=16, end=23, text="xx a.c", stream="err", time_ms=1001),
    )
    assert [x.number for x in await grep(store, ID, "a.c", 2)] == [1, 2]
    assert [x.number for x in await grep(store, ID, "a.c", 2, stream="err")] == [3]
    assert await grep(store, ID, "", 10) == ()
    assert await grep(store, ID, "c\na", 10) == ()


async def test_grep_finds_what_lies_over_the_edges_of_blocks_and_files(
    store: OutputStore, layout: DataLayout
) -> None:
    writer = Writer(layout.execution(ID).root, max_bytes=2 * 200_000)
    writer.kept = 100
    expected = []
    for number in range(1, 20_001):
        text = b"needle" if number % 500 == 0 else b"straw"
        expected += [number] if number % 500 == 0 else []
        writer.write(text * 5 + b" %d\n" % number)
    found = await grep(store, ID, "needleneedle", 1000)
    assert [line.number for line in found] == expected
    for line in found:
        assert (await store.read(ID, line.at, line.end - line.at)).data.startswith(b"needle")


async def test_a_search_without_any_time_gets_on(store: OutputStore, writer: Writer) -> None:
    writer.write(b"straw\n" * 1_000_000 + b"needle\n")
    at, found, turns = 0, 0, 0
    while at < 6_000_007:
        hits = await store.search(ID, "needle", 10, start=at, time_s=0.0)
        assert hits.next > at
        at, found, turns = hits.next, found + len(hits.lines), turns + 1
    assert found == 1
    assert turns < 100


async def test_grep_shows_the_place_in_an_endless_line(store: OutputStore, writer: Writer) -> None:
    writer.write(b"first\n" + b"x" * 3 * MIB + b"needle" + b"y" * 3 * MIB + b"\nneedle\n")
    long, short = await grep(store, ID, "needle", 10)
    assert "needle" in long.text
    assert len(long.text) <= LINE_MAX
    assert long.number == 2
    assert long.continued
    assert (short.number, short.text) == (3, "needle")


async def test_grep_shows_the_redraw_that_matched(store: OutputStore, writer: Writer) -> None:
    writer.write(b"10% a\r20% b\r30% c\n")
    (line,) = await grep(store, ID, "20%", 10)
    assert line.text == "20% b"


async def test_an_abandoned_grep_stops(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for _ in range(10):
        writer.write(b"needle\n" * 50_000)
    abandoned = threading.Event()
    abandoned.set()
    with open_output(tmp_path) as files:
        hits = search(files, "needle", 10**9, start=0, stream=None, abandoned=abandoned)
    assert 0 < hits.next < hits.end, "one block, for it has to get on"


# Growth


async def follow(ticks: AsyncIterator[None]) -> None:
    async with asyncio.timeout(20):
        await anext(ticks)


async def test_growth_yields_at_once_and_at_every_hint(
    store: OutputStore, live: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live.add(ID)
    monkeypatch.setattr(output, "LIVE_LOOK_S", 3600.0)
    async with aclosing(store.growth(ID)) as ticks:
        await follow(ticks)
        store.grown(ID)  # while the reader reads
        await follow(ticks)
        waiting = asyncio.create_task(follow(ticks), name="follower")
        await asyncio.sleep(0)
        store.grown(OTHER_ID)
        assert not waiting.done()
        store.grown(ID)
        await waiting


async def test_growth_looks_without_a_hint(
    store: OutputStore, live: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live.add(ID)
    monkeypatch.setattr(output, "LIVE_LOOK_S", 0.01)
    async with aclosing(store.growth(ID)) as ticks:
        for _ in range(3):
            await follow(ticks)


async def test_followers_that_left_leave_nothing_behind(store: OutputStore) -> None:
    async with aclosing(store.growth(ID)) as first, aclosing(store.growth(ID)) as second:
        await follow(first)
        await follow(second)
    assert store._followers == {}


async def test_following_a_writer_misses_and_repeats_nothing(
    store: OutputStore, layout: DataLayout, live: set[str]
) -> None:
    live.add(ID)
    writer = Writer(layout.execution(ID).root, max_bytes=MIB)
    data = b"".join(b"%d," % n for n in range(100_000))
    assert len(data) < MIB

    async def write() -> None:
        for at in range(0, len(data), 5000):
            await asyncio.to_thread(writer.write, data[at : at + 5000])
            store.grown(ID)

    seen = b""
    async with (
        asyncio.TaskGroup() as group,
        asyncio.timeout(20),
        aclosing(store.growth(ID)) as ticks,
    ):
        group.create_task(write(), name="writer")
        async for _ in ticks:
            while (chunk := await store.read(ID, len(seen), 10_000)).data:
                assert chunk.start == len(seen)
                seen += chunk.data
            if len(seen) == len(data):
                break
    assert seen == data


# The writer of the house


async def test_what_the_shim_writes_is_what_is_read(store: OutputStore, layout: DataLayout) -> None:
    layout.output.mkdir()
    folder = Folder(str(layout.execution(ID).root))
    shim = OutputWriter(folder, 512 * KIB)
    written = b""
    for number in range(1, 30_001):
        data, stream = b"line %d of many that do not fit\n" % number, 1 + number % 2
        shim.write(data, stream, 1_000_000 + number // 7)
        written += data
    shim.close(2_000_000)
    os.close(folder.descriptor)

    read, ((lost_from, lost_to),) = await whole(store)
    assert read == written[:lost_from] + written[lost_to:]
    assert await store.size(ID) == shim.end == len(written)
    for wanted in (1, 5_000, 29_000):
        (line, *_) = await lines_of(store, ID, await store.offset_of_line(ID, wanted), 1)
        assert (line.number, line.text) == (wanted, f"line {wanted} of many that do not fit")
        assert line.stream == ("out", "err")[wanted % 2]
        assert line.time_ms == 1_000_000 + wanted // 7


async def test_lines_behind_a_small_cap_keep_their_numbers(
    store: OutputStore, layout: DataLayout
) -> None:
    """One read fills a file, whose beginning goes at once, and reaches into the next."""
    layout.output.mkdir()
    folder = Folder(str(layout.execution(ID).root))
    shim = OutputWriter(folder, 1000)
    shim.write(b"12345678\n" * 10_000, 1, 1_000)
    shim.close(2_000)
    os.close(folder.descriptor)
    (line, *_) = await lines_of(store, ID, 80_000, 1)
    assert (line.number, line.at) == (80_000 // 9 + 1, 80_000)


# Properties

words = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"bc\n", b"\n", b"\xc3", b"\xa9\n", b"d" * 9000]), st.integers(1, 2)
    ),
    max_size=40,
)


def pages(files: OutputFiles, limit: int, stream: str | None = None) -> list[OutputLine]:
    lines: list[OutputLine] = []
    at = 0
    while at < files.end:
        page = page_of(files, at, limit, is_live=False, stream=stream)
        assert page.next > at
        lines.extend(page.lines)
        at = page.next
    return lines


@given(writes=words, limit=st.integers(1, 100_000))
@settings(max_examples=60, deadline=None)
def test_lines_cover_the_output_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[bytes, int]], limit: int
) -> None:
    writer = Writer(tmp_path_factory.mktemp("output"))
    for data, stream in writes:
        writer.write(data, stream)
    everything = b"".join(data for data, _ in writes)
    with open_output(writer.folder) as files:
        lines = pages(files, limit)
        apart = pages(files, limit, "out") + pages(files, limit, "err")
    edges = [0] + [line.end for line in lines]
    assert [line.at for line in lines] == edges[:-1]
    assert edges[-1] == len(everything)
    for line in lines:
        assert line.number == everything[: line.at].count(b"\n") + 1
        starts_line = line.at == 0 or everything[line.at - 1 : line.at] == b"\n"
        assert line.continued == (not starts_line)
    assert sorted(apart, key=lambda line: line.at) == lines
