"""What is no command, and what an attacker might leave in the queue: kept aside, never followed."""

import asyncio
import json
import os
import socket
import time
import uuid
from pathlib import Path

import msgspec
import pytest

from bus.commands import StartJob
from bus.envelope import seal
from bus.layout import DataLayout
from bus.model import Principal
from tests.directory_fixture import (
    QUICK,
    SECRET,
    drop,
    names,
    origins_fields,
    reasons,
    received,
    running,
    until,
)
from transports.directory.offline_publisher import publish_offline


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.queue.mkdir(parents=True)
    return layout


def new_name() -> str:
    return f"{uuid.uuid4()}.json"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"[]",
        b"42",
        b'{"CommandID":',
        b"\xff\xff\xff",
        b"\xff\xfe{",
        b"[" * 100_000,
        b'{"a":"\\ud800"}',
        b"{}",
        b'{"CommandID":"8f0d2a34-0000-4000-8000-000000000000"}',
    ],
    ids=range(11),
)
async def test_what_is_no_command_goes_to_rejects_with_its_reason(
    layout: DataLayout, data: bytes
) -> None:
    name = new_name()
    async with running(layout.root) as transport:
        (layout.queue / name).write_bytes(data)
        await until(lambda: name in reasons(layout))
        assert transport.waiting == 0
    assert names(layout.queue) == []
    [kept] = [one for one in names(layout.rejects) if not one.endswith(".reason.json")]
    assert (layout.rejects / kept).read_bytes() == data


async def test_a_bad_file_delays_no_good_one(layout: DataLayout) -> None:
    for _ in range(20):
        (layout.queue / new_name()).write_bytes(b'{"broken":')
    async with running(layout.root, settings=msgspec.structs.replace(QUICK, settle_s=60)) as one:
        fields = origins_fields()
        drop(layout, fields)
        [got] = await received(one, 1)
    assert got.id == fields["CommandID"]
    assert len(names(layout.queue)) == 21


async def test_a_symlink_is_never_followed(layout: DataLayout, tmp_path: Path) -> None:
    fields = origins_fields()
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(fields))
    name = f"{fields['CommandID']}.json"
    async with running(layout.root) as transport:
        (layout.queue / name).symlink_to(outside)
        await until(lambda: name in reasons(layout))
        assert transport.waiting == 0
    assert "symbolic link" in reasons(layout)[name]
    assert outside.exists()


async def test_a_hard_link_to_another_file_is_no_command(
    layout: DataLayout, tmp_path: Path
) -> None:
    fields = origins_fields()
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(fields))
    name = f"{fields['CommandID']}.json"
    async with running(layout.root) as transport:
        os.link(outside, layout.queue / name)
        await until(lambda: name in reasons(layout))
        assert transport.waiting == 0
    assert "hard link" in reasons(layout)[name]


async def test_fifos_and_sockets_hang_nothing(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo, sock = new_name(), new_name()
    async with running(layout.root) as transport:
        os.mkfifo(layout.queue / fifo)
        with socket.socket(socket.AF_UNIX) as server:
            monkeypatch.chdir(layout.queue)  # the name of a socket may not be long
            server.bind(sock)
            await until(lambda: {fifo, sock} <= reasons(layout).keys())
        fields = origins_fields()
        drop(layout, fields)
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]


async def test_a_huge_file_is_rejected_unread_and_cut(layout: DataLayout) -> None:
    name = new_name()
    async with running(layout.root):
        with (layout.queue / name).open("wb") as file:
            file.truncate(1 << 40)  # sparse: reading it would take for ever
        await until(lambda: name in reasons(layout))
    assert "may have 262144" in reasons(layout)[name]
    assert max(path.stat().st_size for path in layout.rejects.iterdir()) == 262_144


async def test_a_directory_in_the_queue_is_left_alone(layout: DataLayout) -> None:
    (layout.queue / new_name()).mkdir()
    async with running(layout.root) as transport:
        fields = origins_fields()
        drop(layout, fields)
        [got] = await received(transport, 1)
        assert got.id == fields["CommandID"]
    assert reasons(layout) == {}


async def test_a_name_that_is_not_utf8_harms_nothing(layout: DataLayout) -> None:
    async with running(layout.root) as transport:
        Path(os.fsdecode(os.fsencode(layout.queue) + b"/caf\xe9.json")).write_bytes(b"{}")
        fields = origins_fields()
        drop(layout, fields)
        [got] = await received(transport, 1)
        assert got.id == fields["CommandID"]
        await until(lambda: "caf\\udce9.json" in reasons(layout))


async def test_hidden_files_and_the_temporary_files_of_writers_are_left_alone(
    layout: DataLayout,
) -> None:
    fields = origins_fields()
    part = layout.queue / f"{fields['CommandID']}.json.part"
    (layout.queue / ".hidden.json").write_bytes(b"x")
    settings = msgspec.structs.replace(QUICK, stray_s=60)
    async with running(layout.root, settings=settings) as transport:
        part.write_text(json.dumps(fields))
        bad = new_name()
        (layout.queue / bad).write_bytes(b"x")
        await until(lambda: bad in reasons(layout))
        part.rename(part.with_suffix(""))
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]
    assert (layout.queue / ".hidden.json").exists()


async def test_a_stray_file_is_rejected_in_the_end(layout: DataLayout) -> None:
    async with running(layout.root):
        (layout.queue / "notes.txt").write_text("remember the milk")
        await until(lambda: "notes.txt" in reasons(layout))


async def test_a_rejected_file_that_is_repaired_comes_back(layout: DataLayout) -> None:
    fields = origins_fields()
    path = drop(layout, fields, b'{"CommandID":')
    async with running(layout.root) as transport:
        await until(lambda: path.name in reasons(layout))
        [kept] = [one for one in names(layout.rejects) if not one.endswith(".reason.json")]
        (layout.rejects / kept).write_text(json.dumps(fields))
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]
    assert names(layout.rejects) == []


async def test_a_file_repaired_while_the_service_was_down_comes_back(layout: DataLayout) -> None:
    fields = origins_fields()
    path = drop(layout, fields, b'{"CommandID":')
    async with running(layout.root):
        await until(lambda: path.name in reasons(layout))
    [kept] = [one for one in names(layout.rejects) if not one.endswith(".reason.json")]
    (layout.rejects / kept).write_text(json.dumps(fields))
    async with running(layout.root) as transport:
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]


async def test_what_is_written_on_after_the_rejection_is_still_read(
    layout: DataLayout,
) -> None:
    fields = origins_fields()
    data = json.dumps(fields).encode()
    async with running(layout.root) as transport:
        path = layout.queue / f"{fields['CommandID']}.json"
        with path.open("wb", buffering=0) as file:
            file.write(data[:40])
            await until(lambda: path.name in reasons(layout))
            file.write(data[40:])
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]


def size_of(rejects: Path) -> int:
    """In bytes, without the reasons."""
    return sum(p.stat().st_size for p in rejects.iterdir() if "reason" not in p.name)


async def test_rejects_stay_within_their_bounds(layout: DataLayout) -> None:
    settings = msgspec.structs.replace(QUICK, rejects_max=10, rejects_bytes_max=5_000)
    for _ in range(30):
        (layout.queue / new_name()).write_bytes(b"x" * 400)
    async with running(layout.root, settings=settings):
        await until(lambda: names(layout.queue) == [] and len(names(layout.rejects)) == 20)
    (layout.queue / new_name()).write_bytes(b"x" * 9_000)
    async with running(layout.root, settings=settings):
        await until(lambda: names(layout.queue) == [] and size_of(layout.rejects) <= 5_000)


async def test_what_was_rejected_under_a_clock_that_was_ahead_takes_no_place_of_others(
    layout: DataLayout,
) -> None:
    layout.rejects.mkdir(parents=True)
    ahead = [layout.rejects / f"20360101T000000000Z-{number:016x}.json" for number in range(3)]
    for path in ahead:
        path.write_bytes(b"{}")
    settings = msgspec.structs.replace(QUICK, rejects_max=3)
    async with running(layout.root, settings=settings):
        for number in range(3):
            (layout.queue / new_name()).write_bytes(b"no command %d" % number)
        await until(lambda: len(reasons(layout)) == 3 and not names(layout.queue))
    assert not any(path.exists() for path in ahead)


async def test_old_rejects_go_with_their_reasons(layout: DataLayout) -> None:
    (layout.queue / new_name()).write_text("old")
    async with running(layout.root) as transport:
        await until(lambda: len(names(layout.rejects)) == 2)
        old = set(names(layout.rejects))
        await asyncio.sleep(0.01)  # names differ by milliseconds
        between_ms = time.time_ns() // 1_000_000
        (layout.queue / new_name()).write_text("young")
        await until(lambda: len(names(layout.rejects)) == 4)
        transport.forget_rejects(between_ms)
        await until(lambda: len(names(layout.rejects)) == 2)
        assert not old & set(names(layout.rejects))


async def test_a_file_that_may_not_be_read_is_rejected_with_the_fix(layout: DataLayout) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    name = new_name()
    async with running(layout.root):
        (layout.queue / name).touch(mode=0)
        await until(lambda: name in reasons(layout))
    assert "read permission" in reasons(layout)[name]


async def test_the_file_of_another_account_acts_for_that_account(layout: DataLayout) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    fields = origins_fields(UserID="root", Roles=["admin"])
    async with running(layout.root) as transport:
        outside = layout.root / "outside.json"
        outside.write_text(json.dumps(fields))
        os.chown(outside, 4321, 4321)
        outside.rename(layout.queue / f"{fields['CommandID']}.json")
        [got] = await received(transport, 1)
    assert got.principal.user_id == "uid:4321"
    assert got.principal.roles == ()


async def test_a_good_seal_on_the_file_of_another_account_is_not_believed(
    layout: DataLayout,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    boss = Principal(user_id="boss", roles=("admin",), via="cli")
    sent = seal(StartJob(job_id="A/B"), boss, now_ms=1_769_450_400_000)
    publish_offline(layout, sent, SECRET)
    os.chown(layout.queue / f"{sent.id}.json", 4321, 4321)
    async with running(layout.root) as transport:
        [got] = await received(transport, 1)
    assert got.principal == Principal(user_id="uid:4321", roles=(), via="directory")


async def test_a_sealed_file_that_was_touched_up_is_a_foreign_one(layout: DataLayout) -> None:
    boss = Principal(user_id="boss", roles=("admin",), via="cli")
    sent = seal(StartJob(job_id="A/B"), boss, now_ms=1_769_450_400_000)
    publish_offline(layout, sent, SECRET)
    forged = seal(StartJob(job_id="A/B"), boss, now_ms=1_769_450_400_000)
    data = (layout.queue / f"{sent.id}.json").read_bytes()
    copy = data.replace(sent.id.encode(), forged.id.encode())
    (layout.queue / f"{forged.id}.json").write_bytes(copy)
    async with running(layout.root) as transport:
        got = {one.id: one.principal for one in await received(transport, 2)}
    assert got[sent.id] == boss
    assert got[forged.id] == Principal(user_id="boss", roles=(), via="directory")
