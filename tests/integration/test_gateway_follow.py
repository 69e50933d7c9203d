"""One execution followed live: its output byte by byte, its states, its end."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bus.job_definition import RolesSpec
from bus.ports import OutputPage
from tests.gateway_fixture import ALICE, VIEWER, Backend, BackendOutput, bearer, serving
from tests.stream_reader import SentFrame, open_stream
from transports.http.settings import GatewaySettings


def lines_of(sent: list[SentFrame]) -> list[Any]:
    return [line for frame in sent if frame.kind == "output" for line in frame.data["lines"]]


def text_of(sent: list[SentFrame]) -> str:
    """The text of all whole lines."""
    return "".join(frame.data["text"] for frame in sent if frame.kind == "output")


def kinds(sent: list[SentFrame]) -> list[str]:
    return [frame.kind for frame in sent]


async def test_output_arrives_while_the_job_runs_and_the_end_comes_last() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream")
        begin = await stream.until("snapshot_end")
        backend.run(execution)
        running = await stream.next_change()
        await backend.output.append(execution, b"one\n")
        first = await stream.until("output")
        backend.progress(execution, 50, "half")
        progress = await stream.next_change()
        await backend.output.append(execution, b"two\n")
        backend.end(execution)
        rest = await stream.rest()
        again = await session.get(
            f"/api/v1/executions/{execution}/stream",
            headers=bearer(ALICE) | {"Last-Event-ID": rest[-1].id or ""},
        )
    assert kinds(begin) == ["hello", "snapshot", "snapshot_end"]
    assert begin[1].data["items"][0]["executionId"] == execution
    assert (running.id, running.data["type"]) == (None, "execution.running")
    one = {"number": 1, "at": 0, "end": 4, "text": "one", "stream": "out"}
    sent = {"from": 0, "to": 4, "text": "one\n", "lines": [one]}
    assert (first[-1].data, first[-1].id) == (sent, "abc123-2-4")
    assert progress.data["data"]["progress"]["percent"] == 50
    assert kinds(rest) == ["output", "change", "end"]
    assert rest[1].data["data"]["outputEnd"] == 8
    assert (rest[2].data["reason"], rest[2].id) == ("terminal", "abc123-4-8")
    assert again.status == 204


async def test_an_ended_execution_is_sent_whole_then_ended() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    text = "".join(f"line {n}\n" for n in range(20_000))
    await backend.output.append(execution, text.encode())
    backend.end(execution)
    async with serving(backend) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream")
        sent = await stream.rest()
    assert text_of(sent) == text
    assert sent[-1].data["reason"] == "terminal"
    assert backend.output.largest_read <= 64 * 1024


@pytest.mark.parametrize("query", ["from=9", "tail=1"])
async def test_a_reader_may_begin_later(query: str) -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    await backend.output.append(execution, b"line one\nline two\n")
    backend.end(execution)
    async with serving(backend) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream?{query}")
        sent = await stream.rest()
    assert text_of(sent) == "line two\n"


async def test_resume_at_every_id_repeats_and_loses_nothing() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    backend.run(execution)
    await backend.output.append(execution, "grüße\n".encode() * 3)
    backend.end(execution)
    path = f"/api/v1/executions/{execution}/stream"
    settings = GatewaySettings(write_max=7, streams_per_principal=50)
    async with serving(backend, settings) as (_, session):
        whole = await (await open_stream(session, path)).rest()
        ids = [(at, frame.id) for at, frame in enumerate(whole) if frame.id is not None]
        for at, id in ids[:-1]:
            stream = await open_stream(session, path, Last_Event_ID=str(id))
            sent = await stream.rest()
            assert text_of(whole[: at + 1]) + text_of(sent) == "grüße\n" * 3
            if stream.response.status == 204:
                continue  # the last byte was known, and that it was the last
            assert sent[0].data["resumed"] is True
            assert sent[-1].id == whole[-1].id
    assert len(ids) >= 5
    assert text_of(whole) == "grüße\n" * 3


async def test_an_open_line_is_sent_after_a_moment_and_replaced_when_it_is_whole() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend, GatewaySettings(partial_s=0.05)) as (_, session):
        path = f"/api/v1/executions/{execution}/stream"
        stream = await open_stream(session, path)
        await stream.until("snapshot_end")
        await backend.output.append(execution, b"one\nName? \xe2\x82")
        sent = [await stream.next(), await stream.next()]
        again = await open_stream(session, path, Last_Event_ID=str(sent[1].id))
        repeated = (await again.until("output"))[-1]
        again.close()
        await backend.output.append(execution, b"\xac\n")
        backend.end(execution)
        rest = await stream.rest()
    assert [(x["number"], x["text"], x.get("partial")) for x in lines_of([*sent, *rest])] == [
        (1, "one", None),
        (2, "Name? ", True),
        (2, "Name? €", None),
    ]
    assert (sent[1].data["from"], sent[1].data["to"], sent[1].id) == (4, 4, "abc123-1-4")
    assert repeated.data == sent[1].data
    assert rest[0].data["lines"][0]["end"] == rest[0].data["to"] == 14


async def test_redraws_are_one_line_a_few_times_a_second() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend, GatewaySettings(partial_s=0.2)) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream")
        await stream.until("snapshot_end")
        for percent in range(100):
            await backend.output.append(execution, b"\r%d%%" % percent)
            await asyncio.sleep(0.005)
        await backend.output.append(execution, b"\rdone\n")
        backend.end(execution)
        sent = await stream.rest()
    lines = lines_of(sent)
    assert {line["number"] for line in lines} == {1}
    assert [line["text"] for line in lines if not line.get("partial")] == ["done"]
    assert 2 <= len(lines) <= 30


async def test_readers_of_one_execution_share_their_looks() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend, GatewaySettings(output_batch_s=0.01)) as (_, session):
        path = f"/api/v1/executions/{execution}/stream"
        streams = [await open_stream(session, path) for _ in range(15)]
        for stream in streams:
            await stream.until("snapshot_end")
        before = backend.output.pages_read
        await backend.output.append(execution, b"news\n")
        frames = [(await stream.until("output"))[-1] for stream in streams]
        read = backend.output.pages_read - before
        for stream in streams:
            stream.close()
    assert [frame.data["lines"][0]["text"] for frame in frames] == ["news"] * 15
    assert read < 15


async def test_a_reader_of_the_latest_skips_what_it_is_too_far_behind() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    text = b"".join(b"line %06d\n" % n for n in range(1, 20_001))
    await backend.output.append(execution, text)
    settings = GatewaySettings(latest_behind=100_000, latest_keep=10_000)
    async with serving(backend, settings) as (_, session):
        path = f"/api/v1/executions/{execution}/stream?follow=latest"
        stream = await open_stream(session, path)
        sent = await stream.until("output")
        backend.end(execution)
        sent += await stream.rest()
        all_frames = await (await open_stream(session, path.partition("?")[0])).rest()
    gap = next(frame for frame in sent if frame.kind == "gap")
    first = lines_of(sent)[0]
    assert gap.data == {"from": 0, "to": first["at"], "firstLine": first["number"]}
    assert (gap.id or "").endswith(f"-{first['at']}")
    assert first["text"] == f"line {first['number']:06d}"
    assert 0 < len(text) - first["at"] <= 10_000
    assert text_of(sent) == text[first["at"] :].decode()
    assert text_of(all_frames) == text.decode()


async def test_a_dropped_middle_is_sent_as_a_gap() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    await backend.output.append(execution, b"a" * 10 + b"-" * 80 + b"z" * 10)
    backend.output.dropped[execution] = (10, 90)
    backend.end(execution)
    async with serving(backend) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream")
        sent = (await stream.rest())[3:]
    assert kinds(sent) == ["output", "gap", "output", "end"]
    assert sent[1].data == {"from": 10, "to": 90, "firstLine": 1}
    assert (sent[1].id or "").endswith("-90")
    assert sent[2].data["lines"][0]["text"] == "z" * 10


@pytest.mark.parametrize(
    ("cursor", "reason", "output_from"),
    [
        ("rubbish", "cursor_invalid", 0),
        ("abc123-1", "cursor_invalid", 0),
        ("other99-1-4", "epoch_changed", 0),
        ("abc123-77-4", "cursor_ahead", 0),
    ],
)
async def test_an_id_that_cannot_be_served_starts_again(
    cursor: str, reason: str, output_from: int
) -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    await backend.output.append(execution, b"text\n")
    async with serving(backend) as (_, session):
        stream = await open_stream(
            session, f"/api/v1/executions/{execution}/stream", Last_Event_ID=cursor
        )
        sent = await stream.until("output")
        stream.close()
    assert kinds(sent) == ["hello", "reset", "snapshot", "snapshot_end", "output"]
    assert sent[1].data["reason"] == reason
    assert sent[1].data["outputFrom"] == sent[-1].data["from"] == output_from


async def test_in_silence_a_position_to_come_back_to_is_sent() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend, GatewaySettings(heartbeat_s=0.15)) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream")
        sent = await stream.until("bookmark")
        backend.define("Other/Job")
        later = await stream.next()
        stream.close()
    assert sent[-1].id == "abc123-1-0"
    assert re.fullmatch(r"abc123-[12]-0", later.id or "")


async def test_a_viewer_who_may_not_read_output_is_refused() -> None:
    backend = Backend()
    backend.define("App/Job", roles=RolesSpec(view=("viewer",)))
    execution = backend.queue("App/Job")
    async with serving(backend) as (_, session):
        stream = await session.get(f"/api/v1/executions/{execution}/stream", headers=bearer(VIEWER))
        output = await session.get(f"/api/v1/executions/{execution}/output", headers=bearer(VIEWER))
    assert (stream.status, output.status) == (403, 403)


async def test_output_that_cannot_be_read_is_sent_as_a_problem() -> None:
    class BrokenOutput(BackendOutput):
        async def page(
            self, execution_id: str, start: int, limit_bytes: int, *, stream: str | None = None
        ) -> OutputPage:
            raise OSError(5, "Input/output error")

    backend = Backend()
    backend.output = BrokenOutput()
    execution = backend.queue("App/Job")
    async with serving(backend) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream")
        sent = await stream.rest()
    assert sent[-1].kind == "problem"
    assert sent[-1].data["status"] == 500
    assert "Input/output" not in str(sent[-1].data)


async def test_a_reader_that_leaves_lets_go_of_the_output() -> None:
    left = asyncio.Event()

    class WatchedOutput(BackendOutput):
        async def growth(self, execution_id: str) -> AsyncIterator[None]:
            try:
                async for _ in super().growth(execution_id):
                    yield
            finally:
                left.set()

    backend = Backend()
    backend.output = WatchedOutput()
    execution = backend.queue("App/Job")
    async with serving(backend, GatewaySettings(heartbeat_s=0.3)) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream")
        await stream.until("snapshot_end")
        stream.close()
        async with asyncio.timeout(20):
            await left.wait()


async def test_a_chatty_job_costs_few_frames() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream")
        await stream.until("snapshot_end")
        for number in range(500):
            await backend.output.append(execution, b"%d\n" % number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        backend.end(execution)
        sent = await stream.rest()
    assert text_of(sent) == "".join(f"{n}\n" for n in range(500))
    assert kinds(sent).count("output") < 100


class Outrunning(BackendOutput):
    """Grows by more than each look at it shows, until `growths` are over."""

    def __init__(self, growths: dict[int, Callable[[], None]], count: int) -> None:
        super().__init__()
        self._growths = growths
        self._count = count
        self._grown_times = 0

    async def page(
        self, execution_id: str, start: int, limit_bytes: int, *, stream: str | None = None
    ) -> OutputPage:
        if self._grown_times < self._count:
            self._grown_times += 1
            await self.append(execution_id, b"y\n" * limit_bytes)
            self._growths.get(self._grown_times, lambda: None)()
        return await super().page(execution_id, start, limit_bytes, stream=stream)


async def test_changes_do_not_wait_for_an_output_that_outruns_its_reader() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    backend.output = Outrunning(
        {10: lambda: backend.progress(execution, 42), 200: lambda: backend.end(execution)},
        count=200,
    )
    settings = GatewaySettings(version="test", write_max=64)
    async with serving(backend, settings) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream")
        sent = await stream.rest()
    progress = kinds(sent).index("change")
    assert sent[progress].data["type"] == "execution.progress"
    assert 10 < kinds(sent[:progress]).count("output") < 100
    assert text_of(sent) == "y\n" * 200 * 64
    assert kinds(sent)[-2:] == ["change", "end"]
