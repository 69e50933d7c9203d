"""The feed over HTTP: exact bytes, snapshot, resume, resets, filters, grants, ends."""

import asyncio
import json
import re
import socket
from typing import Any

import aiohttp
import msgspec
import pytest

from bus.feed import Feed
from bus.job_definition import JobSpec, RolesSpec
from bus.model import Principal
from tests.fakes import ManualClock
from tests.gateway_fixture import ADMIN, ALICE, EPOCH, ROLELESS, VIEWER, Backend, bearer, serving
from tests.stream_reader import SentFrame, StreamReader, open_stream
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

EXECUTION = "0190a1b2-c3d4-4e5f-8a9b-0c1d2e3f4a5b"
QUICK = GatewaySettings(version="test", heartbeat_s=0.15)


def kinds(sent: list[SentFrame]) -> list[str]:
    return [frame.kind for frame in sent]


async def test_a_whole_stream_has_exactly_these_bytes() -> None:
    backend = Backend(ManualClock(now_ms=1_769_450_400_000))
    backend.define("App/Job")
    gateway = Gateway(backend.ports(), GatewaySettings(version="test"))
    url = await gateway.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(base_url=url) as session:
        stream = await open_stream(session, "/api/v1/events?type=execution.*&type=job.*")
        await stream.until("snapshot_end")
        backend.queue("App/Job", execution_id=EXECUTION)
        queued = await stream.next_change()
        await gateway.aclose()
        await stream.rest()
    raw = re.sub(rb"retry: \d+", b"retry: R", stream.raw)
    raw = re.sub(rb'"retryMs":\d+', b'"retryMs":R', raw)
    raw = raw.replace(queued.data["data"]["commandId"].encode(), b"COMMAND")
    assert raw.decode() == GOLDEN


GOLDEN = (
    "retry: R\n"
    ":ok\n"
    "event: hello\n"
    'data: {"epoch":"abc123","head":"abc123-1","oldest":"abc123-0","resumed":false,'
    '"heartbeatS":15.0,"maxAgeS":900.0,"version":"test","user":"alice"}\n'
    "\n"
    "event: snapshot\n"
    'data: {"items":[{"subject":"jobs/App/Job","jobId":"App/Job","name":"App/Job",'
    '"description":"","tags":[],"revision":"r1","disabled":false,"overlap":"reject",'
    '"maxRunning":1,"timeoutS":0.0,"stopGraceS":10.0,"variables":{},"fault":null,"version":1,"attempts":1,"restart":"no","gaveUpAt":null,"origins":{},"groups":[],"priority":0,"startLimit":null,"paused":null}]}\n'
    "\n"
    "id: abc123-1\n"
    "event: snapshot_end\n"
    'data: {"count":1}\n'
    "\n"
    "id: abc123-2\n"
    "event: change\n"
    'data: {"specversion":"1.0","id":"abc123-2","source":"/jobbus/test",'
    f'"type":"execution.queued","subject":"executions/{EXECUTION}",'
    '"time":"2026-01-26T18:00:00.000Z","datacontenttype":"application/json",'
    f'"data":{{"executionId":"{EXECUTION}","jobId":"App/Job","commandId":"COMMAND",'
    '"userId":"alice","status":"Queued","reason":null,"attempt":1,"previous":null,'
    '"variables":{},"queuedAt":"2026-01-26T18:00:00.000Z","startTime":null,"endTime":null,'
    '"pid":null,"progress":null,"exitCode":null,"signal":null,"error":null,"contained":null,'
    '"survivors":[],"containment":"","stop":null,"outputEnd":null,"revision":"r1","version":2,"attempts":0,"cause":"","notBefore":null,"ending":"","waitingFor":"","usage":null,"coreDumped":false,"result":null,"resultNote":"","artifacts":0,"artifactBytes":0,"artifactsNote":"","causedBy":null,"caused":[],"scheduledAt":null,"health":null,"groups":[]},'
    f'"job":"App/Job","execution":"{EXECUTION}","user":"alice","version":2}}\n'
    "\n"
    "id: abc123-2\n"
    "event: end\n"
    'data: {"reason":"shutdown","retryMs":R}\n'
    "\n"
)


async def test_the_head_of_a_stream_passes_proxies_unbuffered() -> None:
    async with serving(Backend()) as (_, session):
        stream = await open_stream(session, "/api/v1/events")
        headers = stream.response.headers
        head = await session.head("/api/v1/events", headers=bearer(ALICE))
        stream.close()
    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert "Content-Encoding" not in headers
    assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream")


async def test_http_1_0_gets_the_same_bytes_without_chunks() -> None:
    backend = Backend()
    async with serving(backend) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = f"GET /api/v1/events?start=now HTTP/1.0\r\nHost: {host}\r\n"
        writer.write(f"{request}Authorization: Bearer {ALICE}\r\n\r\n".encode())
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"event: bookmark\ndata: {}\n\n")
            backend.define("App/Job")
            change = await reader.readuntil(b"\n\n")
        writer.close()
        await writer.wait_closed()
    assert b"chunked" not in head.lower()
    assert change.startswith(b"id: abc123-1\nevent: change\ndata: {")


async def test_snapshot_holds_jobs_live_and_lately_ended_executions() -> None:
    clock = ManualClock()
    backend = Backend(clock)
    backend.define("App/Job")
    old = backend.queue("App/Job")
    backend.end(old)
    clock.advance_s(901)
    ended, live = backend.queue("App/Job"), backend.queue("App/Job")
    backend.end(ended)
    async with serving(backend) as (_, session):
        stream = await open_stream(session, "/api/v1/events")
        sent = await stream.until("snapshot_end")
        stream.close()
    subjects = [item["subject"] for f in sent if f.kind == "snapshot" for item in f.data["items"]]
    assert subjects == ["jobs/App/Job", f"executions/{live}", f"executions/{ended}"]
    assert sent[-1].id == backend.feed.position(backend.feed.head)
    assert all(frame.id is None for frame in sent[:-1])


async def test_snapshot_comes_in_frames_of_a_hundred() -> None:
    backend = Backend()
    for _ in range(250):
        backend.queue("App/Job")
    async with serving(backend) as (_, session):
        stream = await open_stream(session, "/api/v1/events")
        sent = await stream.until("snapshot_end")
        stream.close()
    sizes = [len(frame.data["items"]) for frame in sent if frame.kind == "snapshot"]
    assert sizes == [100, 100, 50]
    assert sent[-1].data == {"count": 250}


async def test_start_now_gives_a_bookmark_and_no_snapshot() -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (_, session):
        stream = await open_stream(session, "/api/v1/events?start=now")
        sent = [await stream.next(), await stream.next()]
        stream.close()
    assert kinds(sent) == ["hello", "bookmark"]
    assert sent[1].id == "abc123-1"


async def test_resume_sends_exactly_what_came_after_and_the_header_wins() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    for percent in range(5):
        backend.progress(execution, percent)
    async with serving(backend) as (_, session):
        stream = await open_stream(
            session, "/api/v1/events?last_event_id=abc123-1", Last_Event_ID="abc123-4"
        )
        sent = [await stream.next() for _ in range(3)]
        stream.close()
    assert sent[0].data["resumed"] is True
    assert [frame.id for frame in sent[1:]] == ["abc123-5", "abc123-6"]


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("nothing", "cursor_invalid"),
        ("ABC123-1", "cursor_invalid"),
        ("other99-1", "epoch_changed"),
        ("abc123-99999", "cursor_ahead"),
        ("abc123-3", "history_gone"),
        ("abc123-10", "gap_too_large"),
    ],
)
async def test_a_cursor_that_cannot_be_served_is_reset_or_gone(cursor: str, reason: str) -> None:
    backend = Backend()
    backend.feed = Feed(EPOCH, 10, backend.clock)
    execution = backend.queue("App/Job")
    for _ in range(5001):
        backend.progress(execution, 1)
    async with serving(backend) as (_, session):
        stream = await open_stream(session, "/api/v1/events", Last_Event_ID=cursor)
        sent = await stream.until("snapshot_end")
        stream.close()
        ndjson = await session.get(
            "/api/v1/events",
            headers=bearer(ALICE) | {"Last-Event-ID": cursor, "Accept": "application/x-ndjson"},
        )
        problem = await ndjson.json(content_type="application/problem+json")
    assert kinds(sent) == ["hello", "reset", "snapshot", "snapshot_end"]
    assert (sent[0].data["resumed"], sent[1].data["reason"]) == (False, reason)
    assert sent[-1].id == backend.feed.position(backend.feed.head)
    assert (ndjson.status, problem["code"], problem["reason"]) == (410, "cursor_gone", reason)


async def test_a_reader_that_falls_out_of_the_ring_is_reset_in_the_stream() -> None:
    clock = ManualClock()
    backend = Backend(clock)
    execution = backend.queue("App/Job")
    async with serving(backend, GatewaySettings(age_s=100_000)) as (_, session):
        stream = await open_stream(session, "/api/v1/events")
        await stream.until("snapshot_end")
        # More than the ring may hold, in one step: nothing could be sent in between.
        backend.feed.publish([], backend.feed.head + 1)
        for _ in range(10_050):
            clock.advance_s(1)
            backend.progress(execution, 1)
        sent = await stream.until("snapshot_end")
        backend.progress(execution, 99)
        after = await stream.next_change()
        stream.close()
    assert kinds(sent)[0] == "reset"
    assert sent[0].data["reason"] == "history_gone"
    assert after.data["data"]["progress"]["percent"] == 99


async def test_filters_select_by_job_execution_user_and_type() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        streams = {
            query: await open_stream(session, f"/api/v1/events?start=now&{query}")
            for query in (
                "job=A/One",
                f"execution={EXECUTION}",
                "user=bob&user=carol",
                "type=execution.running",
                "type=execution.*&job=A/Two",
            )
        }
        for stream in streams.values():
            await stream.until("bookmark")
        one = backend.queue("A/One", "alice")
        backend.queue("A/Two", "bob", EXECUTION)
        backend.run(one)
        firsts = {query: (await s.next_change()).data for query, s in streams.items()}
        for stream in streams.values():
            stream.close()
    sent = [(d["type"], d["job"]) for d in firsts.values()]
    assert sent == [
        ("execution.queued", "A/One"),
        ("execution.queued", "A/Two"),
        ("execution.queued", "A/Two"),
        ("execution.running", "A/One"),
        ("execution.queued", "A/Two"),
    ]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("jop=A/B", "did you mean 'job'"),
        ("type=everything", "execution.*"),
        ("execution=../x", "UUID"),
        ("type=execution.endet", "did you mean 'execution.ended'"),
        ("type=task.*", "job.*"),
        ("start=later", "one of"),
        ("job=", "empty"),
        ("limit=5", "pages"),
        ("start=now&start=now", "once"),
        ("job=" + "x" * 5000, "longer"),
        ("&".join(f"job=A/J{n}" for n in range(33)), "32"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(query: str, says: str) -> None:
    async with serving(Backend()) as (_, session):
        response = await session.get(f"/api/v1/events?{query}", headers=bearer(ALICE))
        problem = await response.json(content_type="application/problem+json")
    assert response.status == 400
    assert says in problem["detail"]


async def test_frames_are_given_by_the_current_grant_live_and_in_replay() -> None:
    backend = Backend()
    backend.define("Secret/Job", roles=RolesSpec(view=("insider",)))
    backend.define("Open/Job")
    hidden = backend.queue("Secret/Job", "root")
    own = backend.queue("Secret/Job", "vera")
    async with serving(backend) as (_, session):
        stream = await open_stream(session, "/api/v1/events", VIEWER)
        snapshot = await stream.until("snapshot_end")
        replay = await open_stream(session, "/api/v1/events", VIEWER, Last_Event_ID="abc123-0")
        await replay.next()
        replayed = [await replay.next(), await replay.next()]
        backend.run(hidden)
        backend.run(own)
        live = await stream.next_change()
        # The grant changes: what was open is closed from the next frame on.
        backend.define("Open/Job", roles=RolesSpec(view=("insider",)))
        backend.queue("Open/Job", "root")
        backend.progress(own, 5)
        after = await stream.next_change()
        stream.close()
        replay.close()
    subjects = [i["subject"] for f in snapshot if f.kind == "snapshot" for i in f.data["items"]]
    assert subjects == ["jobs/Open/Job", f"executions/{own}"]
    assert [f.data["subject"] for f in replayed] == ["jobs/Open/Job", f"executions/{own}"]
    assert live.data["subject"] == f"executions/{own}"
    assert after.data["subject"] == f"executions/{own}"


async def test_in_silence_bookmarks_move_a_filtered_reader_on() -> None:
    backend = Backend()
    async with serving(backend, QUICK) as (_, session):
        stream = await open_stream(session, "/api/v1/events?job=A/B&start=now")
        first = (await stream.until("bookmark"))[-1]
        backend.queue("Other/Job")
        later = await stream.next()
        while later.id == first.id:
            later = await stream.next()
        stream.close()
    assert (first.id, later.kind, later.id) == ("abc123-0", "bookmark", "abc123-1")


async def test_an_old_stream_is_asked_to_rotate() -> None:
    async with serving(Backend(), GatewaySettings(heartbeat_s=0.3, age_s=0.2)) as (_, session):
        stream = await open_stream(session, "/api/v1/events?start=now")
        sent = await stream.rest()
    assert (sent[-1].kind, sent[-1].data["reason"], sent[-1].id) == ("end", "rotate", "abc123-0")


async def test_a_revoked_token_ends_its_streams_at_once() -> None:
    backend = Backend()
    gateway = Gateway(backend.ports())
    url = await gateway.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(base_url=url) as session:
        stream = await open_stream(session, "/api/v1/events?start=now")
        other = await open_stream(session, "/api/v1/events?start=now", ADMIN)
        await stream.until("bookmark")
        await other.until("bookmark")
        del backend.principals[ALICE]
        gateway.recheck()
        sent = await stream.rest()
        backend.define("App/Job")
        assert (await other.next_change()).data["type"] == "job.changed"
        other.close()
        await gateway.aclose()
    assert (sent[-1].kind, sent[-1].data["reason"]) == ("end", "revoked")


async def test_new_roles_count_in_an_open_stream() -> None:
    backend = Backend()
    backend.define("App/Job")
    gateway = Gateway(backend.ports())
    url = await gateway.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(base_url=url) as session:
        stream = await open_stream(session, "/api/v1/events?start=now", ROLELESS)
        control = await open_stream(session, "/api/v1/events?start=now", ADMIN)
        await stream.until("bookmark")
        await control.until("bookmark")
        backend.queue("App/Job", "root")
        await control.next_change()  # the flush that left `stream` out is over
        backend.principals[ROLELESS] = Principal(user_id="sam", roles=("viewer",), via="http")
        gateway.recheck()
        second = backend.queue("App/Job", "root")
        sent = await stream.next_change()
        stream.close()
        control.close()
        await gateway.aclose()
    assert sent.data["execution"] == second


async def test_new_roles_count_for_a_change_that_is_published_before_the_stream_woke() -> None:
    backend = Backend()
    backend.define("App/Job")
    gateway = Gateway(backend.ports())
    url = await gateway.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(base_url=url) as session:
        stream = await open_stream(session, "/api/v1/events?start=now", ROLELESS)
        await stream.until("bookmark")
        backend.principals[ROLELESS] = Principal(user_id="sam", roles=("viewer",), via="http")
        gateway.recheck()
        seen = backend.queue("App/Job", "root")
        with pytest.raises(StopIteration):  # a flush that comes first, and has nothing to wait for
            gateway._fanout._flush().send(None)
        sent = await stream.next_change()
        stream.close()
        await gateway.aclose()
    assert sent.data["execution"] == seen


async def test_limits_on_streams_are_reported_with_a_time_to_come_back() -> None:
    settings = GatewaySettings(streams_max=3, streams_per_principal=2)
    async with serving(Backend(), settings) as (_, session):
        streams = [await open_stream(session, "/api/v1/events?start=now") for _ in range(2)]
        mine = await session.get("/api/v1/events", headers=bearer(ALICE))
        streams.append(await open_stream(session, "/api/v1/events?start=now", ADMIN))
        anybodys = await session.get("/api/v1/events", headers=bearer(VIEWER))
        for stream in streams:
            stream.close()
    assert (mine.status, anybodys.status) == (429, 503)
    assert "Retry-After" in mine.headers
    assert "Retry-After" in anybodys.headers


async def test_a_vanished_reader_makes_room() -> None:
    settings = GatewaySettings(streams_per_principal=1, heartbeat_s=0.3)
    async with serving(Backend(), settings) as (_, session):
        stream = await open_stream(session, "/api/v1/events?start=now")
        await stream.until("bookmark")
        stream.close()
        async with asyncio.timeout(20):
            while True:
                again = await session.get("/api/v1/events", headers=bearer(ALICE))
                again.close()
                if again.status == 200:
                    break
                await asyncio.sleep(0.05)


async def test_a_reader_that_never_reads_is_cut_off_and_delays_no_other() -> None:
    backend = Backend()
    settings = GatewaySettings(write_timeout_s=1.0, send_buffer=8192)
    async with serving(backend, settings) as (url, session):
        host, port = url.removeprefix("http://").split(":")
        lazy = socket.socket()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((host, int(port)))
        request = f"GET /api/v1/events?start=now HTTP/1.1\r\nHost: {host}\r\n"
        lazy.sendall(f"{request}Authorization: Bearer {ALICE}\r\n\r\n".encode())
        eager = await open_stream(session, "/api/v1/events?start=now", ADMIN)
        await eager.until("bookmark")
        execution = backend.queue("App/Job")
        for step in range(2000):
            backend.progress(execution, step % 100, "x" * 500)
            if step % 100 == 0:
                await asyncio.sleep(0.001)
        seen = 0
        while seen < 2001:
            await eager.next_change()
            seen += 1
        async with asyncio.timeout(20):
            while True:
                system = await session.get("/api/v1/system", headers=bearer(ADMIN))
                streams = (await system.json())["streams"]
                if "slow" in streams["ended"]:
                    break
                await asyncio.sleep(0.05)
        eager.close()
        lazy.close()
    assert streams["open"] == 1


async def test_ndjson_has_the_same_frames_one_a_line() -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (_, session):
        response = await session.get(
            "/api/v1/events", headers=bearer(ALICE) | {"Accept": "application/x-ndjson"}
        )
        backend.queue("App/Job")
        lines: list[Any] = []
        async with asyncio.timeout(20):
            while len(lines) < 4:
                lines.append(json.loads(await response.content.readline()))
        response.close()
    assert response.content_type == "application/x-ndjson"
    assert [line["op"] for line in lines] == ["hello", "snapshot", "snapshot_end", "change"]
    assert ["id" in line for line in lines] == [False, False, True, True]
    assert lines[3]["data"]["id"] == lines[3]["id"] == "abc123-2"


async def test_json_pages_go_on_from_next() -> None:
    backend = Backend()
    for _ in range(5):
        backend.queue("App/Job")
    headers = bearer(ALICE) | {"Accept": "application/json"}
    async with serving(backend) as (_, session):
        pages = []
        cursor = "abc123-0"
        while True:
            response = await session.get(
                f"/api/v1/events?limit=2&last_event_id={cursor}", headers=headers
            )
            page = await response.json()
            if not page["items"]:
                break
            pages.append([item["id"] for item in page["items"]])
            cursor = page["next"]
        refused = await session.get("/api/v1/events", headers=headers | {"Accept": "image/png"})
    assert pages == [["abc123-1", "abc123-2"], ["abc123-3", "abc123-4"], ["abc123-5"]]
    assert page == {"items": [], "next": "abc123-5", "asOf": "abc123-5"}
    assert refused.status == 406


async def test_a_burst_comes_in_few_writes_and_loses_nothing() -> None:
    backend = Backend()
    async with serving(backend, GatewaySettings(streams_per_principal=50)) as (_, session):
        streams = [await open_stream(session, "/api/v1/events?start=now") for _ in range(15)]
        for stream in streams:
            await stream.until("bookmark")
        execution = backend.queue("App/Job")
        for step in range(500):
            backend.progress(execution, step % 100)

        async def ids(stream: StreamReader) -> list[str | None]:
            return [(await stream.next_change()).id for _ in range(501)]

        sent = await asyncio.gather(*(ids(stream) for stream in streams))
        for stream in streams:
            stream.close()
    expected = [f"abc123-{seq}" for seq in range(1, 502)]
    assert all(got == expected for got in sent)


async def test_open_streams_do_not_hold_up_the_end() -> None:
    backend = Backend()
    gateway = Gateway(backend.ports(), GatewaySettings(streams_per_principal=200))
    url = await gateway.start("127.0.0.1", 0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(base_url=url, connector=connector) as session:
        streams = [await open_stream(session, "/api/v1/events?start=now") for _ in range(100)]
        async with asyncio.timeout(30):
            await gateway.aclose()
        ends = [(await stream.rest())[-1] for stream in streams]
    assert {(end.kind, end.data["reason"]) for end in ends} == {("end", "shutdown")}


def test_the_backends_records_are_what_the_table_would_hold() -> None:
    """The fake stays honest: versions are positions and specs are real ones."""
    backend = Backend()
    job = backend.define("App/Job")
    execution = backend.table.execution(backend.queue("App/Job"))
    assert execution is not None
    assert (job.version, execution.version, backend.feed.head) == (1, 2, 2)
    assert isinstance(job.spec, JobSpec)
    assert msgspec.json.encode(execution)


async def behind_the_ring() -> Backend:
    """A backend whose ring holds the last changes only; the journal has all of them."""
    backend = Backend()
    for _ in range(20):
        backend.queue("App/Job")
    held = Feed(EPOCH, 20, backend.clock)
    held.refill([frame for frame in backend.history.frames if frame.seq > 12], 12)
    backend.feed = held
    return backend


async def test_a_stream_whose_beginning_takes_a_while_to_find_is_not_taken_for_gone() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    backend.history.is_found.clear()
    gateway = Gateway(backend.ports())
    url = await gateway.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(base_url=url) as session:
        opening = asyncio.create_task(
            open_stream(session, "/api/v1/events?start=earliest"), name="opening"
        )
        async with asyncio.timeout(20):
            await backend.history.is_sought.wait()
        gateway.recheck()  # looks at all streams, as the service does about once a second
        backend.history.is_found.set()
        stream = await opening
        sent = await stream.next_change()
        stream.close()
        await gateway.aclose()
    assert sent.data["execution"] == execution


async def test_earliest_sends_the_journal_and_then_what_is_new() -> None:
    backend = await behind_the_ring()
    async with serving(backend) as (_, session):
        stream = await open_stream(session, "/api/v1/events?start=earliest")
        sent = [await stream.next() for _ in range(21)]
        backend.queue("App/Job")
        sent.append(await stream.next_change())
        stream.close()
    assert sent[0].kind == "hello"
    assert [frame.id for frame in sent[1:]] == [f"abc123-{seq}" for seq in range(1, 22)]


async def test_who_reads_the_journal_goes_on_there_and_others_are_reset() -> None:
    backend = await behind_the_ring()
    async with serving(backend) as (_, session):
        deep = await open_stream(session, "/api/v1/events?start=earliest", Last_Event_ID="abc123-5")
        sent = [await deep.next() for _ in range(16)]
        deep.close()
        plain = await open_stream(session, "/api/v1/events", Last_Event_ID="abc123-5")
        reset = await plain.until("reset")
        plain.close()
        backend.history.floor = 8
        late = await open_stream(session, "/api/v1/events?start=earliest", Last_Event_ID="abc123-5")
        gone = await late.until("snapshot_end")
        late.close()
    assert sent[0].data["resumed"] is True
    assert [frame.id for frame in sent[1:]] == [f"abc123-{seq}" for seq in range(6, 21)]
    assert reset[-1].data["reason"] == "history_gone"
    assert [gone[1].kind, gone[1].data["reason"]] == ["reset", "history_gone"]


async def test_json_pages_reach_back_into_the_journal() -> None:
    backend = await behind_the_ring()
    backend.history.floor = 2
    headers = bearer(ALICE) | {"Accept": "application/json"}
    async with serving(backend) as (_, session):
        sent: list[str] = []
        path = "/api/v1/events?limit=3"
        while True:
            page = await (await session.get(path, headers=headers)).json()
            sent += [item["id"] for item in page["items"]]
            if page["next"] == page["asOf"]:
                break
            path = f"/api/v1/events?limit=3&last_event_id={page['next']}"
        gone = await session.get("/api/v1/events?last_event_id=abc123-1", headers=headers)
        problem = await gone.json(content_type="application/problem+json")
    assert sent == [f"abc123-{seq}" for seq in range(3, 21)]
    assert (gone.status, problem["reason"], problem["oldest"]) == (410, "history_gone", "abc123-2")


async def test_a_reader_of_the_journal_sees_only_what_it_may() -> None:
    backend = await behind_the_ring()
    backend.define("App/Job", roles=RolesSpec(view=("unassigned",)))
    async with serving(backend) as (_, session):
        headers = bearer(VIEWER) | {"Accept": "application/json"}
        page = await (await session.get("/api/v1/events", headers=headers)).json()
    assert page["items"] == []
