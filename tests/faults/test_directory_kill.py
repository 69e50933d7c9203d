"""kill -9 of publishers and of the service: nothing acknowledged is lost, nothing torn is taken."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bus.commands import StartJob
from bus.envelope import Envelope, seal
from bus.layout import DataLayout
from bus.model import CommandRecord, CommandStatus, Principal
from tests.directory_fixture import (
    SECRET,
    drop,
    origins_fields,
    reasons,
    record_of,
    running,
)
from transports.directory import command_format
from transports.directory.commit import Piece, commit
from transports.directory.offline_publisher import publish_offline

ALICE = Principal(user_id="alice", roles=("operator", "admin"), via="cli")
ROOT = Path(__file__).resolve().parents[2]

OFFLINE = """
import sys, time
from pathlib import Path
from bus.commands import StartJob
from bus.envelope import seal
from bus.layout import DataLayout
from bus.model import Principal
from transports.directory.offline_publisher import publish_offline

layout = DataLayout(Path(sys.argv[1]))
who = Principal(user_id="alice", roles=("operator", "admin"), via="cli")
while True:
    sent = seal(StartJob(job_id="A/B"), who, now_ms=time.time_ns() // 1_000_000)
    publish_offline(layout, sent, b"s" * 32)
    print(sent.id, flush=True)
"""

SERVICE = """
import asyncio, sys, time
from pathlib import Path
from bus.clock import SystemClock
from bus.commands import StartJob
from bus.envelope import seal
from bus.layout import DataLayout
from bus.model import Principal
from jobbus.service.logs import configure_logs
from transports.directory.transport import DirectoryTransport

who = Principal(user_id="alice", roles=("operator", "admin"), via="cli")

async def publish(transport):
    while True:
        sent = seal(StartJob(job_id="A/B"), who, now_ms=time.time_ns() // 1_000_000)
        await transport.publish(sent)
        print(sent.id, flush=True)

async def main():
    transport = DirectoryTransport(
        DataLayout(Path(sys.argv[1])), clock=SystemClock(), known=lambda _: None, secret=b"s" * 32
    )
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(transport.run(ready))
        await ready.wait()
        for _ in range(16):
            group.create_task(publish(transport))

configure_logs()  # to stderr: on stdout there are ids
asyncio.run(main())
"""

DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from bus.clock import SystemClock
from bus.layout import DataLayout
from tests.directory_fixture import record_of
from transports.directory.transport import DirectoryTransport

async def main():
    known = {}
    transport = DirectoryTransport(
        DataLayout(Path(sys.argv[1])), clock=SystemClock(), known=known.get, secret=b"s" * 32
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(transport.run())
        while True:
            for envelope in await transport.receive(100):
                if envelope.id == sys.argv[2]:
                    os.kill(os.getpid(), signal.SIGKILL)
                known[envelope.id] = record_of(envelope, "Running")

asyncio.run(main())
"""


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    return DataLayout(tmp_path)


def acknowledged_until_killed(script: str, root: Path, lines: int) -> list[str]:
    """Ids the process said it had published when it was killed in the middle of its work."""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        printed += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    return [line.decode().strip() for line in printed if line.endswith(b"\n")]


async def drained(layout: DataLayout, count: int) -> list[Envelope]:
    """What a service finds after the kill; each command is on record before the next is handed."""
    known: dict[str, CommandRecord] = {}
    got: list[Envelope] = []
    async with running(layout.root, known=known.get) as transport:
        while transport.waiting:
            for envelope in await transport.receive(256):
                known[envelope.id] = record_of(envelope, CommandStatus.RUNNING)
                got.append(envelope)
        assert len(got) >= count
    return got


@pytest.mark.parametrize("script", [OFFLINE, SERVICE], ids=["offline", "service"])
async def test_a_killed_publisher_has_lost_nothing_it_acknowledged(
    layout: DataLayout, script: str
) -> None:
    acknowledged: set[str] = set()
    for _ in range(4):
        lines = random.randint(1, 60)
        acknowledged.update(
            await asyncio.to_thread(acknowledged_until_killed, script, layout.root, lines)
        )
    for path in layout.queue.glob("*.json"):
        assert command_format.open_seal(path.read_bytes(), SECRET) is not None, "torn"
    got = await drained(layout, len(acknowledged))
    assert acknowledged <= {one.id for one in got}
    assert len(got) == len({one.id for one in got})
    assert {one.principal for one in got} == {ALICE}
    assert reasons(layout) == {}


async def test_a_publisher_killed_between_link_and_unlink_harms_nothing(
    layout: DataLayout,
) -> None:
    sent = seal(StartJob(job_id="A/B"), ALICE, now_ms=0)
    late = seal(StartJob(job_id="A/B"), ALICE, now_ms=0)
    publish_offline(layout, sent, SECRET)
    os.link(layout.queue / f"{sent.id}.json", layout.queue_tmp / f"{sent.id}.0")
    async with running(layout.root) as transport:
        assert [one.id for one in await transport.receive(9)] == [sent.id]
        publish_offline(layout, late, SECRET)
        os.link(layout.queue / f"{late.id}.json", layout.queue_tmp / f"{late.id}.0")
        assert [one.id for one in await transport.receive(9)] == [late.id]
    assert list(layout.queue_tmp.iterdir()) == []


async def test_half_written_files_of_the_dead_are_swept_and_those_of_the_living_are_not(
    layout: DataLayout,
) -> None:
    layout.queue_tmp.mkdir(parents=True)
    old, young = layout.queue_tmp / "old", layout.queue_tmp / "young"
    for path in (old, young):
        path.write_bytes(b"{")
    os.utime(old, (1, 1))
    async with running(layout.root):
        assert [path.name for path in layout.queue_tmp.iterdir()] == ["young"]


def test_a_commit_overwrites_nothing(layout: DataLayout) -> None:
    piece, again = Piece("one", b"1"), Piece("one", b"2")
    commit(layout, [piece], group=False)
    commit(layout, [again], group=True)
    assert (piece.taken, again.taken, again.error) == (False, True, None)
    assert (layout.queue / "one.json").read_bytes() == b"1"
    assert list(layout.queue_tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after"), [(2, 1), (3, 0), (0, 0)], ids=["among others", "last", "alone"]
)
async def test_the_command_that_two_starts_died_of_is_set_aside(
    layout: DataLayout, before: int, after: int
) -> None:
    innocent = [
        origins_fields(SubmittedAt=f"2026-01-26T10:00:{n if n < before else n + 9:02d}Z")
        for n in range(before + after)
    ]
    poison = origins_fields(SubmittedAt="2026-01-26T10:00:08Z")
    for fields in (*innocent, poison):
        drop(layout, fields)
    name = f"{poison['CommandID']}.json"
    for _ in range(3):  # the first death is put down to nothing yet; then two with this one in hand
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", DIES, str(layout.root), poison["CommandID"]],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
    known: dict[str, CommandRecord] = {}
    async with running(layout.root, known=known.get) as transport:
        got: list[str] = []
        while len(got) < before + after:
            [one] = await transport.receive(9)
            known[one.id] = record_of(one, CommandStatus.RUNNING)
            got.append(one.id)
    assert got == [fields["CommandID"] for fields in innocent]
    assert reasons(layout)[name].startswith("poison")
    result = json.loads((layout.results / name).read_bytes())
    assert (result["Status"], result["ErrorCode"]) == ("Rejected", "poison")


async def test_after_an_orderly_end_nothing_is_a_suspect(layout: DataLayout) -> None:
    sent = [seal(StartJob(job_id="A/B"), ALICE, now_ms=0) for _ in range(5)]
    known: dict[str, CommandRecord] = {}
    async with running(layout.root, known=known.get) as transport:
        for one in sent:
            await transport.publish(one)
        [first] = await transport.receive(1)
        known[first.id] = record_of(first, CommandStatus.RUNNING)
    assert not (layout.queue / ".handling").exists()
    async with running(layout.root, known=known.get) as transport:
        assert len(await transport.receive(9)) == 4


async def test_an_end_with_a_command_in_hand_makes_the_next_start_careful(
    layout: DataLayout,
) -> None:
    known: dict[str, CommandRecord] = {}
    for _ in range(5):
        drop(layout, origins_fields())
    async with running(layout.root) as transport:
        assert len(await transport.receive(9)) == 5
    async with running(layout.root, known=known.get) as transport:
        for _ in range(5):
            [one] = await transport.receive(9)
            known[one.id] = record_of(one, CommandStatus.RUNNING)
        sent = [seal(StartJob(job_id="A/B"), ALICE, now_ms=0) for _ in range(5)]
        await asyncio.gather(*(transport.publish(one) for one in sent))
        assert len(await transport.receive(9)) == 5
