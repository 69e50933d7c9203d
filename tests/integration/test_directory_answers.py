"""Who asks by the id that a refused file is called after: an answer, within bounds, never over one
that is about a command."""

import asyncio
import json
import os
import uuid
from pathlib import Path

import msgspec
import pytest

from bus.commands import StartJob
from bus.envelope import seal
from bus.layout import DataLayout
from bus.model import CommandRecord, CommandStatus, Principal
from tests.directory_fixture import (
    QUICK,
    drop,
    names,
    origins_fields,
    reasons,
    received,
    record_of,
    running,
    until,
)
from transports.directory import disk
from transports.directory.refusals import RefusalResults, unreadable

ALICE = Principal(user_id="alice", roles=("operator",), via="http")


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.queue.mkdir(parents=True)
    return layout


def put(layout: DataLayout, content: bytes = b"{", name: str = "") -> str:
    name = name or f"{uuid.uuid4()}.json"
    (layout.queue / name).write_bytes(content)
    return name


def answer(layout: DataLayout, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((layout.results / name).read_bytes())
    return found


async def test_an_answer_stands_under_the_name_as_it_is_spelled(layout: DataLayout) -> None:
    name = f"{str(uuid.uuid4()).upper()}.json"
    async with running(layout.root):
        put(layout, b"<xml/>", name)
        await until(lambda: name in reasons(layout))
    found = answer(layout, name)
    assert (found["CommandID"], found["Status"]) == (name.removesuffix(".json"), "Rejected")
    assert "ConvertTo-Json" in str(found["Error"])
    assert found["UserID"] == f"uid:{os.geteuid()}"


@pytest.mark.parametrize("name", ["notes.json", "x.tmp", "8f0d2a34-0000-4000-8000-0.json"])
async def test_a_name_that_is_no_id_has_none(layout: DataLayout, name: str) -> None:
    async with running(layout.root):
        put(layout, name=name)
        await until(lambda: name in reasons(layout))
    assert names(layout.results) == []


async def test_a_known_command_is_not_answered_over(layout: DataLayout) -> None:
    envelope = seal(StartJob(job_id="A/B"), ALICE, now_ms=1)
    record = record_of(envelope, CommandStatus.RUNNING)
    known = {envelope.id: record}
    async with running(layout.root, known=known.get):
        name = put(layout, name=f"{envelope.id}.json")
        await until(lambda: name in reasons(layout))
    assert names(layout.results) == []


async def test_a_command_that_waits_is_not_answered_over(layout: DataLayout) -> None:
    fields = origins_fields()
    async with running(layout.root) as transport:
        drop(layout, fields)
        [got] = await received(transport, 1)
        name = put(layout, name=f"{fields['CommandID'].upper()}.json")
        await until(lambda: name in reasons(layout))
    assert got.id == fields["CommandID"]
    assert names(layout.results) == []


async def test_a_result_that_is_there_is_not_answered_over(layout: DataLayout) -> None:
    layout.results.mkdir()
    name = f"{uuid.uuid4()}.json"
    (layout.results / name).write_bytes(b'{"Status":"Completed"}')
    async with running(layout.root):
        put(layout, name=name)
        await until(lambda: name in reasons(layout))
    assert answer(layout, name) == {"Status": "Completed"}


async def test_the_reason_in_the_result_is_that_of_the_last_file(layout: DataLayout) -> None:
    name = f"{uuid.uuid4()}.json"
    async with running(layout.root):
        for content, word in ((b"<a/>", "XML"), (b"[{}]", "list"), (b"", "empty")):
            put(layout, content, name)
            await until(lambda: name not in names(layout.queue))
            assert word in str(answer(layout, name)["Error"])


async def test_a_file_that_was_put_right_is_received_and_its_answer_gives_way(
    layout: DataLayout,
) -> None:
    fields = origins_fields()
    async with running(layout.root) as transport:
        drop(layout, fields, b"{")
        await until(lambda: names(layout.results))
        drop(layout, fields)
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]


async def test_files_of_other_accounts_fill_nothing_and_push_out_no_other_answers(
    layout: DataLayout,
) -> None:
    few = msgspec.structs.replace(QUICK, refusals_max=10)
    async with running(layout.root, settings=few):
        ours = [put(layout) for _ in range(4)]
        await until(lambda: len(reasons(layout)) == 4)
        theirs = [put(layout) for _ in range(30)]
        for name in theirs:
            os.chown(layout.queue / name, 1001, 1001)
        await until(lambda: len(reasons(layout)) == 34)
    kept = names(layout.results)
    assert len(kept) == 10
    assert set(ours) <= set(kept)
    assert len(set(kept) & set(theirs)) == 6


def test_the_bound_holds_over_restarts_and_takes_no_result_of_a_command(layout: DataLayout) -> None:
    layout.results.mkdir()
    commands: set[str] = set()

    def refuse(store: RefusalResults) -> str:
        name = put(layout)
        with disk.open_directory(layout.queue) as queue_fd:
            record = unreadable(name, disk.mark_of(name, queue_fd), "no", 1)
        assert record is not None
        store.write([record])
        return record.id

    def store() -> RefusalResults:
        return RefusalResults(layout, 3, commands.__contains__)

    first = refuse(store())
    commands.add(first)
    for _ in range(5):
        refuse(store())
    assert len(names(layout.results)) == 4
    assert f"{first}.json" in names(layout.results)

    one = store()
    late = refuse(one)
    commands.add(late)
    for _ in range(5):
        refuse(one)
    assert {f"{first}.json", f"{late}.json"} < set(names(layout.results))


async def test_well_formed_files_that_make_no_sense_count_as_well(layout: DataLayout) -> None:
    few = msgspec.structs.replace(QUICK, refusals_max=5)
    refused: list[CommandRecord] = []
    async with running(layout.root, settings=few, refused=refused.append) as transport:
        for _ in range(12):
            drop(layout, origins_fields(Command="fly"))
        receiving = asyncio.create_task(received(transport, 1), name="receiver")
        await until(lambda: len(refused) == 12)
        good = drop(layout, origins_fields())
        [got] = await receiving
    assert f"{got.id}.json" == good.name
    assert len(names(layout.results)) == 5
