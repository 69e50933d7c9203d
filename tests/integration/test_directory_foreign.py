"""Files that others drop into the queue, as the origin's writers really leave them."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bus.clock import TIME_MS_MAX
from bus.commands import StartJob, StopJob
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
from transports.directory import foreign_commands

ALICE = Principal(user_id="alice", roles=("operator",), via="http")


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    return DataLayout(tmp_path)


async def test_the_origins_start_is_received_with_its_user(layout: DataLayout) -> None:
    async with running(layout.root) as transport:
        fields = origins_fields()
        drop(layout, fields)
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]
    assert got.command == StartJob(job_id=fields["JobID"], variables={"Interval": 30})
    assert got.principal == Principal(user_id="alice", roles=("operator",), via="directory")
    assert got.submitted_text == fields["SubmittedAt"]
    assert got.accepted_ns > 0


@pytest.mark.parametrize("word", ["start", "stop", "restart", "status"])
async def test_each_word_of_the_origin_is_understood(layout: DataLayout, word: str) -> None:
    async with running(layout.root) as transport:
        drop(layout, origins_fields(Command=word, Variables=None))
        [got] = await received(transport, 1)
    assert getattr(got.command, "job_id", None) == "WebHostMetrics/CollectMetrics"


async def test_a_file_without_roles_has_the_default_ones(layout: DataLayout) -> None:
    fields = origins_fields()
    del fields["Roles"]
    async with running(layout.root) as transport:
        drop(layout, fields)
        [got] = await received(transport, 1)
    assert got.principal.roles == ("operator",)


@pytest.mark.parametrize("at_s", [-(2**31), 2**33 + 2**32 - 1])
async def test_a_file_from_before_or_long_after_our_time_is_received(
    layout: DataLayout, at_s: int
) -> None:
    """Its owner may set its time to anything that the file system can keep."""
    fields = origins_fields()
    del fields["SubmittedAt"]
    async with running(layout.root) as transport:
        path = layout.queue / ".later"
        path.write_text(json.dumps(fields), encoding="utf-8")
        os.utime(path, (at_s, at_s))
        path.rename(layout.queue / f"{fields['CommandID']}.json")
        [got] = await received(transport, 1)
    assert 0 <= got.submitted_ms <= TIME_MS_MAX


async def test_a_file_that_our_own_code_breaks_on_is_set_aside_and_others_go_on(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: foreign_commands.ForeignFile) -> StopJob:
        raise OverflowError

    monkeypatch.setitem(foreign_commands._COMMANDS, "stop", broken)
    async with running(layout.root) as transport:
        bad = drop(layout, origins_fields(Command="stop"))
        drop(layout, fields := origins_fields())
        [got] = await received(transport, 1)
        await until(lambda: not bad.exists())
    assert got.id == fields["CommandID"]
    assert "OverflowError" in next(iter(reasons(layout).values()))
    assert "could not be judged" in caplog.text


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
async def test_a_file_written_in_pieces_is_received_once_it_is_whole(
    layout: DataLayout, mark: bytes
) -> None:
    fields = origins_fields()
    data = mark + json.dumps(fields, indent=2).replace("\n", "\r\n").encode() + b"\r\n"
    patient = msgspec.structs.replace(QUICK, settle_s=30)
    async with running(layout.root, settings=patient) as transport:
        path = layout.queue / f"{fields['CommandID']}.json"
        with path.open("wb", buffering=0) as file:
            for begin in range(0, len(data), len(data) // 3):
                assert transport.waiting == 0
                file.write(data[begin : begin + len(data) // 3])
                await asyncio.sleep(0.3)  # the writer is slow; this is what the test is about
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]
    assert reasons(layout) == {}


async def test_utf16_as_older_shells_write_it_is_received(layout: DataLayout) -> None:
    fields = origins_fields(UserID="Zoë")
    data = b"\xff\xfe" + (json.dumps(fields, ensure_ascii=False) + "\r\n").encode("utf-16-le")
    async with running(layout.root) as transport:
        drop(layout, fields, data)
        [got] = await received(transport, 1)
    assert got.principal.user_id == "Zoë"


@pytest.mark.parametrize("way", ["rename", "hard link", "other process"])
async def test_whatever_way_a_file_appears_it_is_received(layout: DataLayout, way: str) -> None:
    fields = origins_fields()
    name = f"{fields['CommandID']}.json"
    outside = layout.root / "outside.json"
    outside.write_text(json.dumps(fields))
    async with running(layout.root) as transport:
        match way:
            case "rename":
                outside.rename(layout.queue / name)
            case "hard link":
                os.link(outside, layout.queue / name)
                outside.unlink()
            case _:
                copy = "import shutil, sys; shutil.copyfile(*sys.argv[1:])"
                target = str(layout.queue / name)
                command = [sys.executable, "-S", "-c", copy, str(outside), target]
                await asyncio.to_thread(subprocess.run, command, check=True)
        [got] = await received(transport, 1)
    assert got.id == fields["CommandID"]


async def test_an_upper_case_guid_is_one_command_under_one_id(layout: DataLayout) -> None:
    fields = origins_fields()
    upper = {**fields, "CommandID": fields["CommandID"].upper()}
    async with running(layout.root) as transport:
        path = drop(layout, upper)
        [got] = await received(transport, 1)
        assert (got.id, got.id_text) == (fields["CommandID"], upper["CommandID"])
        drop(layout, fields)  # the same command once more, in lower case
        await until(lambda: len(names(layout.queue)) == 2)
        marker = seal(StartJob(job_id="A/B"), ALICE, now_ms=0)
        await transport.publish(marker)
        assert [one.id for one in await transport.receive(9)] == [marker.id]
        transport.settle(got.id)
        await until(lambda: not path.exists())


async def test_files_that_waited_are_received_in_the_order_of_their_writers(
    layout: DataLayout,
) -> None:
    times = [f"2026-01-26T10:00:{second:02d}.0000000-08:00" for second in range(30)]
    written = [origins_fields(SubmittedAt=time) for time in times]
    for fields in reversed(written):
        drop(layout, fields)
    async with running(layout.root) as transport:
        got = await received(transport, len(written))
    assert [one.id for one in got] == [fields["CommandID"] for fields in written]


async def test_ours_come_before_foreign_files_after_a_restart(layout: DataLayout) -> None:
    sent = [seal(StartJob(job_id="A/B"), ALICE, now_ms=1_000) for _ in range(20)]
    async with running(layout.root) as transport:
        for one in reversed(sent):
            await transport.publish(one)
    foreign = origins_fields(SubmittedAt="2001-01-01T00:00:00Z")
    drop(layout, foreign)
    async with running(layout.root) as transport:
        got = await received(transport, 21)
    assert [one.id for one in got] == [*(one.id for one in reversed(sent)), foreign["CommandID"]]
    assert got[0].principal == ALICE
    numbers = [one.accepted_ns for one in got]
    assert numbers == sorted(set(numbers))


async def test_a_foreign_stop_overtakes_what_waits(layout: DataLayout) -> None:
    for _ in range(50):
        drop(layout, origins_fields())
    async with running(layout.root) as transport:
        assert transport.waiting == 50
        stop = origins_fields(Command="Stop")
        drop(layout, stop)
        await until(lambda: transport.waiting == 51)
        [got] = await transport.receive(1)
    assert got.id == stop["CommandID"]
    assert isinstance(got.command, StopJob)


async def test_a_stream_of_ours_does_not_starve_a_foreign_file(layout: DataLayout) -> None:
    fields = origins_fields()
    drop(layout, fields)
    async with running(layout.root) as transport:
        got: list[str] = []
        for _ in range(100):
            await transport.publish(seal(StartJob(job_id="A/B"), ALICE, now_ms=0))
            await transport.publish(seal(StartJob(job_id="A/B"), ALICE, now_ms=0))
            got.extend(one.id for one in await transport.receive(1))
    assert fields["CommandID"] in got


async def test_a_command_that_makes_no_sense_is_answered_with_a_rejected_result(
    layout: DataLayout,
) -> None:
    refused: list[CommandRecord] = []
    fields = origins_fields(Command="explode")
    fields["CommandID"] = fields["CommandID"].upper()
    async with running(layout.root, refused=refused.append) as transport:
        path = drop(layout, fields)
        receiving = asyncio.create_task(transport.receive(1))
        await until(lambda: not path.exists())
        receiving.cancel()
        await asyncio.wait([receiving])
    result = json.loads((layout.results / path.name).read_bytes())
    kept = {name: result[name] for name in ("CommandID", "Command", "UserID", "SubmittedAt")}
    assert kept == {name: fields[name] for name in kept}
    assert (result["Status"], result["ErrorCode"]) == ("Rejected", "unknown_command")
    assert "SessionID" not in result
    assert [record.error_code for record in refused] == ["unknown_command"]
    assert reasons(layout) == {}


async def test_a_known_id_that_ended_is_unlinked_silently(layout: DataLayout) -> None:
    known: dict[str, CommandRecord] = {}
    fields = origins_fields()
    async with running(layout.root, known=known.get) as transport:
        path = drop(layout, fields)
        [got] = await received(transport, 1)
    known[got.id] = record_of(got, CommandStatus.COMPLETED)
    async with running(layout.root, known=known.get) as transport:
        assert not path.exists()
        assert transport.waiting == 0
        drop(layout, fields)
        await until(lambda: not path.exists())
    assert reasons(layout) == {}


async def test_a_known_id_that_runs_keeps_its_file_until_it_ends(layout: DataLayout) -> None:
    known: dict[str, CommandRecord] = {}
    fields = origins_fields()
    path = drop(layout, fields)
    async with running(layout.root) as transport:
        [got] = await received(transport, 1)
    known[got.id] = record_of(got, CommandStatus.RUNNING)
    async with running(layout.root, known=known.get) as transport:
        assert transport.waiting == 0
        assert path.exists()
        transport.settle(got.id)
        await until(lambda: not path.exists())


@pytest.mark.parametrize("change", [{"JobID": "A/Other"}, {"UserID": "bob"}], ids=["body", "user"])
async def test_another_command_under_a_known_id_goes_to_rejects(
    layout: DataLayout, change: dict[str, str]
) -> None:
    known: dict[str, CommandRecord] = {}
    fields = origins_fields()
    path = drop(layout, fields)
    async with running(layout.root) as transport:
        [got] = await received(transport, 1)
    known[got.id] = record_of(got, CommandStatus.COMPLETED)
    drop(layout, {**fields, **change})
    async with running(layout.root, known=known.get):
        assert "another command" in reasons(layout)[path.name]
    assert not path.exists()
    assert names(layout.results) == []


async def test_a_file_that_was_removed_while_it_waited_is_never_received(
    layout: DataLayout,
) -> None:
    gone = drop(layout, origins_fields(SubmittedAt="2001-01-01T00:00:00Z"))
    stays = origins_fields()
    drop(layout, stays)
    async with running(layout.root) as transport:
        gone.unlink()
        got = await received(transport, 1)
        assert transport.waiting == 0
    assert [one.id for one in got] == [stays["CommandID"]]


async def test_a_publisher_meets_its_own_command_as_a_foreign_file(layout: DataLayout) -> None:
    fields = origins_fields()
    drop(layout, fields)
    async with running(layout.root) as transport:
        [got] = await received(transport, 1)
        same = seal(got.command, got.principal, now_ms=0, command_id=got.id)  # type: ignore[arg-type]
        await transport.publish(same)
        marker = seal(StartJob(job_id="A/B"), ALICE, now_ms=0)
        await transport.publish(marker)
        assert [one.id for one in await transport.receive(9)] == [marker.id]


async def test_no_session_of_the_host_is_written_anywhere(layout: DataLayout) -> None:
    async with running(layout.root) as transport:
        path = drop(layout, origins_fields(SessionID="live-cookie", Command="nonsense"))
        receiving = asyncio.create_task(transport.receive(1))
        await until(lambda: not path.exists())
        receiving.cancel()
        await asyncio.wait([receiving])
    for file in layout.root.rglob("*"):
        assert file.is_dir() or b"live-cookie" not in file.read_bytes()
