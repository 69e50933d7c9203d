"""`/metrics`: Prometheus can read it, the numbers are those of what happened, no user is named."""

from collections.abc import Iterable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bus.model import Principal
from tests.gateway_fixture import ADMIN, ALICE, Backend, bearer, serving
from tests.socket_client import open_socket
from tests.stream_reader import open_stream
from transports.http.api.exposition import histogram, text_of
from transports.http.app import Gateway
from transports.http.web.tallies import Histogram

START = {"command": "start", "jobId": "App/Job"}


async def samples(session: aiohttp.ClientSession) -> dict[tuple[str, frozenset[str]], float]:
    """The values by name and label values."""
    async with session.get("/metrics", headers=bearer(ADMIN)) as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        families = text_string_to_metric_families(await response.text())
        return {
            (sample.name, frozenset(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }


def key(name: str, labels: Iterable[str] = ()) -> tuple[str, frozenset[str]]:
    return f"jobbus_{name}", frozenset(labels)


async def test_what_happened_is_counted() -> None:
    backend = Backend()
    backend.queue("App/Job")
    running = backend.queue("App/Job")
    backend.run(running)
    async with serving(backend) as (_, session):
        stream = await open_stream(session, "/api/v1/events?start=now")
        await stream.until("bookmark")
        await session.post("/api/v1/commands", json=START, headers=bearer(ALICE))
        await session.get("/api/v1/nowhere", headers=bearer(ALICE))
        await stream.next_change()
        sent = await samples(session)
        stream.close()
    posted = ("POST", "/api/v1/commands", "202")
    assert sent[key("http_requests_total", posted)] == 1
    assert sent[key("http_requests_total", ("GET", "-", "404"))] == 1
    assert sent[key("http_request_duration_seconds_count", posted[:2])] == 1
    assert sent[key("http_request_duration_seconds_bucket", (*posted[:2], "+Inf"))] == 1
    assert sent[key("streams_open", ("sse",))] == 1
    assert sent[key("log_head_seq")] == backend.feed.head
    assert sent[key("executions", ("Running",))] == 1
    assert sent[key("executions", ("Stopping",))] == 0
    assert not any("alice" in label or "App/Job" in label for _, labels in sent for label in labels)


FRAMES = "jobbus_stream_frames_total"


async def test_frames_are_counted_by_transport_and_kind_and_how_far_readers_were_behind() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend) as (url, session):
        stream = await open_stream(session, "/api/v1/events?start=now")
        await stream.until("bookmark")
        resumed = await open_stream(session, "/api/v1/events", Last_Event_ID="zzzzzz-1")
        await resumed.until("snapshot_end")
        for percent in range(3):
            backend.progress(execution, percent)
        for _ in range(3):
            await stream.next_change()
            await resumed.next_change()
        async with open_socket(url) as socket:
            await socket.subscribe("o", "output", execution=execution)
            await backend.output.append(execution, b"line\n")
            await socket.until("output")
        sent = await samples(session)
        stream.close()
        resumed.close()
    assert {labels: count for (name, labels), count in sent.items() if name == FRAMES} == {
        frozenset(("sse", "hello")): 2,
        frozenset(("sse", "bookmark")): 1,
        frozenset(("sse", "reset")): 1,
        frozenset(("sse", "snapshot")): 1,
        frozenset(("sse", "snapshot_end")): 1,
        frozenset(("sse", "change")): 6,
        frozenset(("websocket", "hello")): 1,
        frozenset(("websocket", "snapshot")): 1,
        frozenset(("websocket", "snapshot_end")): 1,
        frozenset(("websocket", "output")): 1,
    }
    assert sent[key("stream_resets_total", ("epoch_changed",))] == 1
    assert sent[key("stream_bytes_total")] > 1_000
    # Three changes at once, or one after the other: to each reader they were three writes at most.
    writes = sent[key("stream_lag_frames_count")]
    assert 2 <= writes <= 6
    assert sent[key("stream_lag_frames_sum")] == 6
    assert sent[key("stream_lag_frames_bucket", ("5.0",))] == writes
    assert sent[key("stream_lag_frames_bucket", ("+Inf",))] == writes


async def test_ended_commands_and_executions_are_counted_by_what_came_of_them() -> None:
    backend = Backend()
    gateway = Gateway(backend.ports())
    backend.listeners.append(gateway.metrics)
    execution = backend.queue("App/Job")
    backend.run(execution)
    backend.end(execution)
    url = await gateway.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(base_url=url) as session:
            await session.post("/api/v1/commands", json=START, headers=bearer(ALICE))
            sent = await samples(session)
    finally:
        await gateway.aclose()
    assert sent[key("executions_ended_total", ("Succeeded",))] == 1
    assert sent[key("commands_total", ("start", "done"))] == 1
    assert sent[key("command_handle_seconds_count", ("start",))] == 1


def test_a_bucket_holds_what_took_as_long_as_its_bound_and_all_that_was_shorter() -> None:
    took = Histogram("took_seconds", "How long.", ("what",), (0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 7):
        took.add(seconds, "it")
    [family] = text_string_to_metric_families(text_of([histogram(took)]).decode())
    sent = {s.labels.get("le", s.name): s.value for s in family.samples}
    assert sent == {
        **{"0.1": 2, "1.0": 3, "+Inf": 4},
        **{"jobbus_took_seconds_count": 4, "jobbus_took_seconds_sum": 7.65},
    }


async def test_metrics_need_the_role() -> None:
    backend = Backend()
    scraper = "jb_scraper_secret"
    backend.principals[scraper] = Principal(user_id="prom", roles=("metrics",), via="http")
    async with serving(backend) as (_, session):
        anonymous = await session.get("/metrics")
        operator = await session.get("/metrics", headers=bearer(ALICE))
        scrape = await session.get("/metrics", headers=bearer(scraper))
        events = await session.get("/api/v1/jobs", headers=bearer(scraper))
    assert [r.status for r in (anonymous, operator, scrape, events)] == [401, 403, 200, 200]
