"""A long queue: no step costs more than with a short one, and no command waits for all of it."""

import asyncio
import json
import shutil
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bus.commands import StartJob, StopJob
from bus.envelope import Envelope, seal, waiting_record
from bus.errors import TransportBusy
from bus.layout import DataLayout
from bus.model import CommandRecord, CommandStatus, Principal
from tests.directory_fixture import (
    QUICK,
    drop,
    names,
    origins_fields,
    received,
    running,
    until,
)

MANY = 6_000
ALICE = Principal(user_id="alice", roles=("operator",), via="http")

_counted: Counter[str] = Counter()
_counting: list[str] = []


def _audit(event: str, args: tuple[object, ...]) -> None:
    """Counts what the process asks of the kernel, between two marks. Hooks stay for ever."""
    if _counting and event in ("os.listdir", "os.scandir", "open", "os.remove", "os.link"):
        _counted[event] += 1


sys.addaudithook(_audit)


@pytest.fixture
def counted() -> Iterator[Counter[str]]:
    _counted.clear()
    _counting.append("on")
    yield _counted
    _counting.clear()


@pytest.fixture
def fast_root(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a file system: the files are not what is tested."""
    shm = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=shm)) if shm.is_dir() else tmp_path
    yield root
    shutil.rmtree(root, ignore_errors=True)


def fill(layout: DataLayout, count: int) -> None:
    layout.queue.mkdir(parents=True)
    template = json.dumps(origins_fields(CommandID="@"))
    for _ in range(count):
        command_id = str(uuid.uuid4())
        (layout.queue / f"{command_id}.json").write_text(template.replace("@", command_id))


async def work_off(root: Path, count: int) -> set[str]:
    done: set[str] = set()
    async with running(root) as transport:
        while len(done) < count:
            batch = await transport.receive(256)
            done.update(one.id for one in batch)
            for one in batch:
                transport.settle(one.id)
        await until(lambda: names(DataLayout(root).queue) == [])
    return done


async def test_a_long_queue_is_listed_a_few_times_and_not_for_each_command(
    fast_root: Path, counted: Counter[str]
) -> None:
    await asyncio.to_thread(fill, DataLayout(fast_root), MANY)
    counted.clear()
    done = await work_off(fast_root, MANY)
    assert len(done) == MANY
    assert counted["os.remove"] >= MANY
    # Each file is opened once for its place and once for its command, never again.
    assert counted["open"] < 2.2 * MANY
    assert counted["os.listdir"] < MANY / 20


async def test_a_stop_passes_a_long_queue(fast_root: Path) -> None:
    layout = DataLayout(fast_root)
    await asyncio.to_thread(fill, layout, 3_000)
    async with running(fast_root) as transport:
        await transport.receive(10)
        stop = origins_fields(Command="stop")
        drop(layout, stop)
        await until(lambda: transport.waiting == 2_991)
        assert (await transport.receive(1))[0].id == stop["CommandID"]
        ours = seal(StopJob(job_id="A/B"), ALICE, now_ms=0)
        await transport.publish(ours)
        assert (await transport.receive(1))[0].id == ours.id


async def test_new_commands_go_through_while_a_long_queue_of_files_waits(fast_root: Path) -> None:
    await asyncio.to_thread(fill, DataLayout(fast_root), 3_000)
    sent = seal(StartJob(job_id="A/B"), ALICE, now_ms=0)
    async with running(fast_root) as transport:
        await transport.publish(sent)
        [got] = await transport.receive(1)
    assert got.id == sent.id


async def test_commands_that_were_too_many_for_memory_are_read_again(
    fast_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transports.directory.pending.CACHED_MAX", 10)
    sent = [seal(StartJob(job_id="A/B", variables={"n": n}), ALICE, now_ms=7) for n in range(50)]
    async with running(fast_root) as transport:
        await asyncio.gather(*(transport.publish(one) for one in sent))
        got = await received(transport, len(sent))
    assert [msgspec.structs.replace(one, accepted_ns=0) for one in got] == sent


async def test_a_full_inbox_refuses_starts_and_still_takes_stops(fast_root: Path) -> None:
    settings = msgspec.structs.replace(QUICK, inbox_max=5)
    async with running(fast_root, settings=settings) as transport:
        for _ in range(5):
            await transport.publish(seal(StartJob(job_id="A/B"), ALICE, now_ms=0))
        with pytest.raises(TransportBusy):
            await transport.publish(seal(StartJob(job_id="A/B"), ALICE, now_ms=0))
        await transport.publish(seal(StopJob(job_id="A/B"), ALICE, now_ms=0))
        await transport.receive(6)
        await transport.publish(seal(StartJob(job_id="A/B"), ALICE, now_ms=0))


async def test_a_receiver_that_gives_up_loses_no_file(fast_root: Path) -> None:
    await asyncio.to_thread(fill, DataLayout(fast_root), 500)
    got: list[Envelope] = []
    async with running(fast_root) as transport:
        for turns in range(40):  # cancelled at every step of its way
            receiving = asyncio.create_task(transport.receive(20))
            for _ in range(turns):
                await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving])
            if not receiving.cancelled():
                got.extend(receiving.result())
        got.extend(await received(transport, 500 - len(got)))
        assert transport.waiting == 0
    assert len({one.id for one in got}) == 500


async def test_the_age_of_the_oldest_is_known(fast_root: Path) -> None:
    async with running(fast_root) as transport:
        assert (transport.waiting, transport.oldest_age_s) == (0, 0.0)
        await transport.publish(seal(StartJob(job_id="A/B"), ALICE, now_ms=0))
        assert transport.waiting == 1
        await until(lambda: transport.oldest_age_s > 0.01)


async def test_a_command_that_ended_while_it_waited_is_not_received_and_its_file_goes(
    tmp_path: Path,
) -> None:
    ended: dict[str, CommandRecord] = {}
    layout = DataLayout(tmp_path)
    first, second = (seal(StartJob(job_id="A/B"), ALICE, now_ms=1) for _ in range(2))
    async with running(tmp_path, known=ended.get) as transport:
        await transport.publish(first)
        await transport.publish(second)
        record = waiting_record(first)
        ended[first.id] = msgspec.structs.replace(record, status=CommandStatus.CANCELLED)
        [got] = await received(transport, 1)
        assert got.id == second.id
        await until(lambda: names(layout.queue) == [f"{second.id}.json"])
