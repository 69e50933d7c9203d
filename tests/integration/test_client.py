"""The client against a scripted server: broken connections, refusals, silence, repeats."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from bus.envelope import canonical_uuid
from jobbus.client.client import Client
from jobbus.client.errors import ApiProblem, Unreachable, WaitTimeout
from jobbus.client.frames import (
    Bookmark,
    Change,
    End,
    Frame,
    Gap,
    Hello,
    Output,
    Reset,
    Snapshot,
    SnapshotEnd,
)
from jobbus.client.http import TRIES
from jobbus.client.stream import Backoff, StreamTiming

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

EXECUTION = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
STREAM = f"/api/v1/executions/{EXECUTION}/stream"
FAST = StreamTiming(backoff_s=0.01, backoff_s_max=0.02)


class Server:
    """Answers each request with the next step of its script; the last step answers the rest."""

    def __init__(self, *steps: Handler) -> None:
        self.steps = list(steps)
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return await step(request)


@asynccontextmanager
async def served(*steps: Handler) -> AsyncIterator[Server]:
    server = Server(*steps)
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(*steps: Handler) -> AsyncIterator[tuple[Server, Client]]:
    async with served(*steps) as server, Client(server.url, "t", timing=FAST) as client:
        yield server, client


def streaming(*frames: bytes, then: str = "close") -> Handler:
    """A stream with these bytes; then it is closed, cut, or silent."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for frame in frames:
            await response.write(frame)
        if then == "cut":
            assert request.transport is not None
            request.transport.abort()
        if then == "silence":
            await asyncio.Event().wait()
        return response

    return handler


def answering(status: int, body: Any = None, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        kind = "application/problem+json" if status >= 400 else "application/json"
        text = body if isinstance(body, str) else json.dumps(body or {})
        return web.Response(status=status, text=text, content_type=kind, headers=headers)

    return handler


def frame(kind: str, data: object = None, id: str | None = None) -> bytes:
    head = f"id: {id}\n" if id else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data or {})}\n\n".encode()


def change(seq: int) -> bytes:
    data = {
        "id": f"e-{seq}",
        "type": "job.removed",
        "subject": "jobs/A/B",
        "data": {"jobId": "A/B"},
    }
    return frame("change", data, f"e-{seq}")


async def some(frames: AsyncGenerator[Frame, None], count: int) -> list[Frame]:
    """The first `count` frames that are not talk about the connection; then it is closed."""
    found: list[Frame] = []
    async with asyncio.timeout(10), aclosing(frames):
        async for one in frames:
            if not isinstance(one, Hello | End | Bookmark):
                found.append(one)
            if len(found) == count:
                break
    return found


HELLO = b"retry: 5\n:ok\n" + frame("hello", {"epoch": "e", "heartbeatS": 15})
PROBLEM = {"type": "/problems/forbidden", "title": "No", "status": 403, "detail": "not you"}


async def test_lost_stream_goes_on_after_the_last_id_without_gap_or_repeat() -> None:
    lost: list[str] = []
    async with served(
        streaming(HELLO, change(1), change(2)[:-9], then="cut"),
        streaming(HELLO, change(2), frame("end", {"reason": "rotate", "retryMs": 1}, "e-2")),
        streaming(HELLO, change(3), then="silence"),
    ) as server:
        client = Client(server.url, "t", timing=FAST, on_retry=lambda why, _: lost.append(why))
        async with client:
            found = await some(client.events(job=["A/B", "A/C"], start="now"), 3)
    assert [one.id for one in found if isinstance(one, Change)] == ["e-1", "e-2", "e-3"]
    cursors = [request.headers.get("Last-Event-ID") for request in server.requests]
    assert cursors == [None, "e-1", "e-2"]
    assert server.requests[0].query_string == "job=A/B&job=A/C&start=now"
    assert len(lost) == 2


async def test_refused_connection_and_5xx_are_tried_again() -> None:
    async with connected(
        answering(503, {"type": "/problems/draining", "status": 503}, **{"Retry-After": "0"}),
        answering(502, "<html>Bad Gateway</html>"),
        streaming(HELLO, change(1), then="silence"),
    ) as (server, client):
        assert len(await some(client.events(), 1)) == 1
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_refusal_ends_the_stream_at_once(status: int) -> None:
    async with connected(answering(status, PROBLEM | {"status": status})) as (server, client):
        with pytest.raises(ApiProblem) as caught:
            await some(client.events(), 1)
    assert (caught.value.status, caught.value.slug, str(caught.value)) == (
        status,
        "forbidden",
        "not you",
    )
    assert len(server.requests) == 1


async def test_an_absent_service_is_reported_at_once_to_the_impatient(unused_tcp_port: int) -> None:
    timing = StreamTiming(patient=False)
    async with Client(f"http://127.0.0.1:{unused_tcp_port}", "t", timing=timing) as client:
        with pytest.raises(Unreachable):
            await some(client.events(), 1)
        with pytest.raises(Unreachable):
            await client.start("A/B")


async def test_lost_service_is_given_up_in_the_end() -> None:
    timing = StreamTiming(backoff_s=0.01, backoff_s_max=0.01, give_up_s=0.2)
    steps = (streaming(HELLO, change(1)), answering(503))
    async with served(*steps) as server, Client(server.url, "t", timing=timing) as client:
        with pytest.raises(ApiProblem):
            await some(client.events(), 2)
    assert len(server.requests) > 2


async def test_silent_server_counts_as_lost() -> None:
    hello = frame("hello", {"heartbeatS": 0.02})
    async with connected(
        streaming(b"retry: 1\n", hello, change(1), then="silence"), streaming(hello, change(2))
    ) as (server, client):
        assert len(await some(client.events(), 2)) == 2
    assert server.requests[1].headers["Last-Event-ID"] == "e-1"


async def test_snapshot_and_reset_come_as_records() -> None:
    items = [{"subject": "moons/1"}, {"subject": "commands/c", "commandId": "c", "status": "x"}]
    async with connected(
        streaming(
            HELLO,
            frame("reset", {"reason": "epoch_changed"}),
            frame("snapshot", {"items": items}),
            frame("snapshot_end", {"count": 2}, "e-7"),
            frame("a_kind_of_tomorrow", {"x": 1}),
            frame("change", {"id": "e-8", "type": "moon.rose", "data": 1}, "e-8"),
            then="silence",
        )
    ) as (_server, client):
        reset, snapshot, end, unknown = await some(client.events(), 4)
    assert isinstance(reset, Reset)
    assert reset.reason == "epoch_changed"
    assert isinstance(snapshot, Snapshot)
    assert len(snapshot.records) == 1
    assert end == SnapshotEnd(id="e-7", count=2)
    assert isinstance(unknown, Change)
    assert unknown.record is None


def output(start: int, text: str) -> bytes:
    end = start + len(text.encode())
    return frame("output", {"from": start, "to": end, "text": text}, f"e-1-{end}")


async def test_follower_gets_every_byte_once_even_after_a_reset() -> None:
    async with connected(
        streaming(HELLO, output(0, "ab"), output(2, "cdé"), then="cut"),
        streaming(
            HELLO,
            frame("reset", {"reason": "epoch_changed"}),
            output(0, "abcd"),
            output(4, "éf"),
            frame("gap", {"from": 7, "to": 9}, "f-1-9"),
            output(9, "g"),
            frame("end", {"reason": "terminal"}, "f-1-10"),
        ),
        answering(500),
    ) as (server, client):
        found = await some(client.follow(EXECUTION, tail=5), 1000)
    assert "".join(one.text for one in found if isinstance(one, Output)) == "abcdéfg"
    assert [one for one in found if isinstance(one, Gap)] == [Gap(start=7, end=9)]
    assert [request.query_string for request in server.requests] == ["tail=5", "from=6"]
    assert server.requests[0].path == STREAM


async def test_open_lines_come_as_often_as_they_change_and_whole_ones_once() -> None:
    def lines(start: int, end: int, text: str, *found: dict[str, object]) -> bytes:
        data = {"from": start, "to": end, "text": text, "lines": found}
        return frame("output", data, f"e-1-{end}")

    one = {"number": 1, "at": 0, "end": 2, "text": "a"}
    ask = {"number": 2, "at": 2, "end": 7, "text": "name?", "partial": True}
    name = {"number": 2, "at": 2, "end": 10, "text": "name? x"}
    async with connected(
        streaming(HELLO, lines(0, 2, "a\n", one), lines(2, 2, "", ask), then="cut"),
        streaming(
            HELLO,
            lines(0, 2, "a\n", one, ask),
            lines(2, 10, "name? x\n", name),
            frame("end", {"reason": "terminal"}, "e-9-10"),
        ),
    ) as (_, client):
        found = [f for f in await some(client.follow(EXECUTION), 1000) if isinstance(f, Output)]
    assert "".join(output.text for output in found) == "a\nname? x\n"
    assert [(line.number, line.partial) for output in found for line in output.lines] == [
        (1, False),
        (2, True),
        (2, True),
        (2, False),
    ]


async def test_follower_that_knows_the_end_is_sent_home() -> None:
    async def nothing(_: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    async with connected(streaming(HELLO, output(0, "a")), nothing) as (_server, client):
        found = await some(client.follow(EXECUTION), 1000)
    assert [one.text for one in found if isinstance(one, Output)] == ["a"]


async def test_stream_that_says_it_is_broken_is_not_opened_again() -> None:
    problem = {"type": "/problems/internal", "status": 500, "detail": "the disk is gone"}
    async with connected(streaming(HELLO, frame("problem", problem))) as (server, client):
        with pytest.raises(ApiProblem, match="the disk is gone"):
            await some(client.follow(EXECUTION), 1)
    assert len(server.requests) == 1


async def test_page_that_is_no_stream_is_a_clear_error() -> None:
    async with connected(answering(200, "hello")) as (_server, client):
        with pytest.raises(ApiProblem, match="URL of jobbus"):
            await some(client.events(), 1)


async def test_publish_repeats_the_same_id_when_the_answer_was_lost() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    pending = answering(202, {"commandId": EXECUTION, "status": "Pending"})
    async with connected(cut, answering(503, **{"Retry-After": "0"}), pending) as (server, client):
        answer = await client.start("A/B", {"N": 1})
    bodies = [json.loads(body) for body in server.bodies]
    assert len(bodies) == 3
    assert bodies[0] == bodies[1] == bodies[2]
    assert canonical_uuid(bodies[0].pop("commandId"))
    assert bodies[0] == {"command": "start", "jobId": "A/B", "variables": {"N": 1}}
    assert (answer.command, answer.job_id, answer.status) == ("start", "A/B", "Pending")
    assert server.requests[0].headers["Authorization"] == "Bearer t"


async def test_refused_command_is_not_repeated_and_says_where_the_fault_is() -> None:
    body = PROBLEM | {
        "type": "/problems/bad-variables",
        "status": 422,
        "errors": [{"pointer": "/variables/N", "detail": "must be a number"}],
    }
    async with connected(answering(422, body)) as (server, client):
        with pytest.raises(ApiProblem) as caught:
            await client.stop(execution_id=EXECUTION, kill=True)
    assert caught.value.code == "bad_variables"
    assert caught.value.errors[0].pointer == "/variables/N"
    assert len(server.requests) == 1


async def test_a_maintenance_is_reported_at_once() -> None:
    body = PROBLEM | {"type": "/problems/maintenance", "status": 503}
    async with connected(answering(503, body, **{"Retry-After": "5"})) as (server, client):
        with pytest.raises(ApiProblem) as caught:
            await client.start("App/Job")
    assert (caught.value.code, len(server.requests)) == ("maintenance", 1)


async def test_redirect_is_not_followed_with_the_token() -> None:
    async with served(answering(200, {"items": []})) as elsewhere:
        moved = answering(307, **{"Location": elsewhere.url})
        async with connected(moved) as (_, client):
            with pytest.raises(ApiProblem):
                await client.jobs()
            with pytest.raises(ApiProblem):
                await some(client.events(), 1)
    assert elsewhere.requests == []


async def test_wait_outlives_the_moment_before_a_command_is_on_record() -> None:
    pending = {"commandId": EXECUTION, "status": "Pending"}
    async with connected(
        answering(404, {"type": "/problems/not-found", "status": 404}),
        answering(200, pending),
        answering(200, pending | {"executionId": EXECUTION}),
        answering(200, pending | {"status": "Completed", "outcome": "done"}),
    ) as (_server, client):
        made = await client.wait_execution_id(EXECUTION, timeout_s=10)
        ended = await client.wait_command(EXECUTION, timeout_s=10)
    assert made.execution_id == EXECUTION
    assert ended.outcome == "done"


async def test_wait_outlives_a_restart_of_a_service_that_was_there() -> None:
    running = {"commandId": EXECUTION, "status": "Running"}
    starting = answering(503, {"type": "/problems/not-ready", "status": 503})
    steps = [answering(200, running), *[starting] * 9]
    async with connected(*steps, answering(200, running | {"status": "Completed"}), starting) as (
        _,
        client,
    ):
        ended = await client.wait_command(EXECUTION)
        with pytest.raises(WaitTimeout):
            await client.wait_command(EXECUTION, timeout_s=0.1)
    async with connected(starting) as (server, newcomer):
        with pytest.raises(ApiProblem):
            await newcomer.wait_command(EXECUTION)
    assert ended.status == "Completed"
    assert len(server.requests) == TRIES


async def test_wait_ends_with_its_time() -> None:
    running = answering(200, {"commandId": EXECUTION, "status": "Running"})
    async with connected(running) as (_, client):
        with pytest.raises(WaitTimeout):
            await client.wait_command(EXECUTION, timeout_s=0.1)


@pytest.mark.parametrize("bad", ["../jobs", "x", "", EXECUTION + "/stream", "a" * 300])
async def test_what_is_no_id_never_becomes_a_path(bad: str) -> None:
    async with served(answering(200)) as server, Client(server.url, "t", timing=FAST) as client:
        with pytest.raises(ApiProblem, match="is no id"):
            await client.execution(bad)
        with pytest.raises(ApiProblem, match="is no id"):
            await client.wait_command(bad)
    assert server.requests == []


async def test_broken_output_goes_on_at_its_offset() -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Output-From": "3", "Content-Length": "9"})
        await response.prepare(request)
        await response.write(b"abc")
        assert request.transport is not None
        request.transport.close()
        return response

    async def rest(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"def", headers={"Output-From": "6"})

    async with served(half, rest) as server, Client(server.url, "t", timing=FAST) as client:
        pieces = [piece async for piece in client.output(EXECUTION, tail=2)]
    assert b"".join(pieces) == b"abcdef"
    assert [request.query_string for request in server.requests] == ["tail=2", "from=6"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>Sign in</html>", "no JSON, or not all of it"),
        (b"", "no JSON, or not all of it"),
        (b"\xff\xfe", "no JSON, or not all of it"),
        (b'{"items":[', "no JSON, or not all of it"),
        (b'"<html>"', "JSON with other fields"),
        (b"[]", "JSON with other fields"),
        (b'{"status":"up"}', "JSON with other fields"),
        (b'{"items":[{"jobId":7}]}', "JSON with other fields"),
    ],
)
async def test_answer_that_is_not_ours_is_a_clear_error_in_our_words(body: bytes, why: str) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    async with connected(answer) as (_server, client):
        with pytest.raises(ApiProblem) as caught:
            await client.jobs()
    assert caught.value.code == "bad_answer"
    assert str(caught.value) == (
        f"the server's answer is not what jobbus sends ({why}); is this the right URL?"
    )


def test_backoff_doubles_with_full_jitter_up_to_its_limit() -> None:
    backoff = Backoff(StreamTiming(), lambda low, high: high + low)
    assert [backoff.pause_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.worked()
    assert backoff.pause_s(at_least_s=7) == 7
    backoff.worked()
    backoff.retry_s = 2.5
    assert [backoff.pause_s(), backoff.pause_s()] == [2.5, 1]


async def test_leaving_a_stream_closes_its_connection() -> None:
    gone = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(HELLO + change(1))
        try:
            await asyncio.Event().wait()
        finally:  # the server cancels it when its connection is lost
            gone.set()
        return response

    async with served(handler) as server, Client(server.url, "t", timing=FAST) as client:
        await some(client.events(), 1)
        await asyncio.wait_for(gone.wait(), 10)
