"""What a program writes is kept under its cap, with its index, and never costs the program."""

import struct
from pathlib import Path

from bus.job_definition import OutputSpec
from handlers.shim.files import Folder
from handlers.shim.output import ERR, OUT, OutputWriter
from tests.processes import bench, ordered_to_stop, sh, starting

HEADER = struct.Struct("<8sQQQ")
RECORD = struct.Struct("<QQQII")


def index_of(path: Path) -> tuple[tuple[object, ...], list[tuple[int, ...]]]:
    data = path.read_bytes()
    records = [RECORD.unpack_from(data, at) for at in range(32, len(data) - 31, 32)]
    return HEADER.unpack_from(data), records


async def test_index_has_offset_stream_and_line_of_each_read(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("echo a; echo b; sleep 0.1; echo c >&2"))
        exit_ = await b.exit_of(execution)
        header, records = index_of(b.layout.execution(execution.id).output_index)
        assert header[:2] == (b"JBIDX001", 268_435_456 // 2)
        assert sum(record[3] for record in records) == exit_.output_end == 6
        offset, _, line, length, stream = records[-1]
        assert (offset, line, length, stream) == (4, 3, 2, 2)


async def test_output_over_the_cap_keeps_its_first_half_and_the_newest(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        cap = 1 << 20
        spec = sh("seq 1 1000000", output=OutputSpec(max_bytes=cap))
        b.supervisor.spawn(execution, spec)
        exit_ = await b.exit_of(execution)
        place = b.layout.execution(execution.id)
        whole = "".join(f"{n}\n" for n in range(1, 1_000_001)).encode()
        head = place.output.read_bytes()
        segments = {
            int(path.suffix[1:]): path.read_bytes() for path in place.root.glob("output.[0-9]*")
        }
        size = segment_bytes = cap // 2 // 8
        assert exit_.output_end == len(whole)
        assert head[: cap // 2] == whole[: cap // 2]
        assert b"[jobbus: " in head[cap // 2 :]
        assert sum(map(len, segments.values())) <= cap // 2 + segment_bytes
        for number, data in segments.items():
            start = cap // 2 + (number - 1) * size
            assert data == whole[start : start + size]
        assert max(segments) == (len(whole) - cap // 2 - 1) // size + 1


async def test_program_never_waits_for_a_reader(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(
            execution, sh("head -c 30000000 /dev/zero", output=OutputSpec(max_bytes=1 << 20))
        )
        assert (await b.exit_of(execution)).output_end == 30_000_000


async def test_pipe_held_by_a_stray_is_closed_with_a_marker(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    async with bench(tmp_path / "data") as b:
        stray, execution = starting(), starting()
        # The stray is of another execution's tree: it opens the first one's pipe by /proc.
        b.supervisor.spawn(
            execution, sh(f"echo $$ > {fifo}; while [ ! -e {fifo}.ok ]; do sleep 0.05; done")
        )
        await b.wait_for(lambda: fifo.exists() and fifo.read_text().endswith("\n"))
        pid = fifo.read_text().strip()
        b.supervisor.spawn(stray, sh(f"exec 9>/proc/{pid}/fd/1; touch {fifo}.ok; exec sleep 60"))
        exit_ = await b.exit_of(execution)
        assert exit_.exit_code == 0
        assert "held the pipe open" in b.output(execution)
        b.supervisor.stop(ordered_to_stop(stray, kill=True))
        await b.exit_of(stray)


def test_full_disk_costs_output_and_says_how_much(tmp_path: Path) -> None:
    writer = OutputWriter(Folder(str(tmp_path / "x")), 1000)
    # The next segment cannot be made: the folder refuses, as a full disk would.
    (tmp_path / "x" / "output.1").mkdir()
    writer.write(b"x" * 600, OUT, 1)
    assert (writer.end, writer.dropped) == (500, 100)
    (tmp_path / "x" / "output.1").rmdir()
    writer.note("back", 2)
    writer.write(b"more\n", ERR, 3)
    writer.close(4)
    content = (tmp_path / "x" / "output.1").read_bytes()
    assert content.startswith(b"[jobbus: 100 bytes of output were dropped")
    assert content.endswith(b"[jobbus: back]\nmore\n")
