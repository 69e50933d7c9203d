"""Clients that others wrote, on the real service: they receive what was sent."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiohttp import web
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from httpx_sse import EventSource, aconnect_sse
from playwright.async_api import Browser, Page
from prometheus_client.parser import text_string_to_metric_families

from jobbus.client.sse import SseParser
from tests.browser import chromium
from tests.counterparts import needs
from tests.jobs import Apps
from tests.node_programs import ParsedEvent, node
from tests.raw_stream import changes
from tests.recorded_stream import GOLDEN, KINDS, define, record, shape
from tests.service import PATIENCE_S, Service, eventually_answered, running_service

LISTEN = """
async ([url, kinds]) => {
  const received = []
  const source = new EventSource(url)
  for (const kind of ["message", ...kinds]) {
    source.addEventListener(kind, ({ type, lastEventId, data }) =>
      received.push([type, lastEventId, data]))
  }
  return await new Promise((resolve) => {
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve(received) }
  })
}
"""
FOLLOW = """
([url]) => {
  window.ids = []
  window.troubles = 0
  window.ended = []
  const source = new EventSource(url)
  source.onerror = () => { window.troubles += 1 }
  source.addEventListener("change", ({ lastEventId, data }) => {
    const change = JSON.parse(data)
    window.ids.push(lastEventId)
    if (change.type === "command.ended") window.ended.push(change.data.commandId)
  })
  source.addEventListener("reset", () => { window.ids.push("reset") })
  return new Promise((resolve) => source.addEventListener("bookmark", () => resolve(true)))
}
"""
SIGN_IN = """
async (token) => (await fetch("/api/v1/session", {
  method: "POST", headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ token }) })).status
"""
ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}\Z")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("conformance"), _jobs) as running:
        yield running


def _jobs(apps: Apps) -> None:
    define(apps)
    apps.shell("T/Hello", "echo hello", max_running=4)
    apps.shell("T/Sleep", "exec sleep 600", stop_grace_s=1)
    apps.shell("T/Fails", "exit 3")


in_browser = pytest.mark.asyncio(loop_scope="module")
"""For tests with the browser: they share its event loop, too."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@asynccontextmanager
async def browser_page(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A page of a profile of its own."""
    page = await browser.new_page()
    try:
        await page.goto(url)
        yield page
    finally:
        await page.context.close()


# One recorded stream through all parsers.


@pytest.fixture(scope="module")
def expected() -> list[ParsedEvent]:
    """The recorded stream as our own parser reads it, byte by byte."""
    parser, data = SseParser(), GOLDEN.read_bytes()
    return [(e.event, e.id, e.data) for byte in data for e in parser.feed(bytes([byte]))]


@asynccontextmanager
async def recording() -> AsyncIterator[str]:
    """Serves the recorded stream once; a client that comes again gets a 204, so this was all."""
    visits: list[str] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        visits.append(request.headers.get("Last-Event-ID", ""))
        if len(visits) > 1:
            return web.Response(status=204)
        return web.Response(body=GOLDEN.read_bytes(), content_type="text/event-stream")

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>page</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/stream", stream)
    app.router.add_get("/", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        *_, last = re.findall(rb"^id: (.*)$", GOLDEN.read_bytes(), re.M)
        assert visits == ["", last.decode()]
    finally:
        await runner.cleanup()


def test_our_own_parser_gets_each_event_that_was_written(expected: list[ParsedEvent]) -> None:
    written = re.findall(rb"^event: (.*)\ndata: (.*)$", GOLDEN.read_bytes(), re.M)
    assert [(kind, data) for kind, _, data in expected] == [
        (kind.decode(), data.decode()) for kind, data in written
    ]
    assert {kind for kind, _, _ in expected} == set(KINDS) - {"gap", "problem"}


def test_httpx_sse_gets_the_same(expected: list[ParsedEvent]) -> None:
    answer = httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, content=GOLDEN.read_bytes()
    )
    assert [(e.event, e.id, e.data) for e in EventSource(answer).iter_sse()] == expected


async def test_npm_eventsource_parser_gets_the_same_and_minds_nothing(
    expected: list[ParsedEvent],
) -> None:
    async with node("parse.cjs") as program:
        assert await program.feed(GOLDEN.read_bytes()) == expected


async def test_npm_eventsource_gets_the_same_and_comes_back_after_the_last_id(
    expected: list[ParsedEvent],
) -> None:
    async with recording() as url, node("follow.cjs", f"{url}/stream", "", *KINDS) as program:
        received = await program.rest()
    assert [each for each in received if each[0] != "error"] == expected
    assert received[-1] == ("error", "204", "closed")


@in_browser
async def test_chromium_gets_the_same_and_comes_back_after_the_last_id(
    expected: list[ParsedEvent], browser: Browser
) -> None:
    async with recording() as url, browser_page(browser, url) as page:
        received = await page.evaluate(LISTEN, [f"{url}/stream", list(KINDS)])
    assert [tuple(each) for each in received] == expected


async def test_the_service_still_writes_frames_like_those_recorded(
    tmp_path_factory: pytest.TempPathFactory, expected: list[ParsedEvent]
) -> None:
    """Otherwise: `python -m tests.recorded_stream`, and look at what changed for clients."""
    with running_service(tmp_path_factory.mktemp("again"), define) as service:
        raw = await record(service)
    now = [(event.event, event.data) for event in SseParser().feed(raw)]
    assert shape(now) == shape([(kind, data) for kind, _, data in expected])


# Live, on the service itself.


async def test_every_change_is_a_cloud_event_to_their_own_library(service: Service) -> None:
    async with service.http() as http, await service.stream() as stream:
        await stream.until_kind("snapshot_end")
        sleeping = await http.start("T/Sleep")
        await http.publish(20, command="stop", executionId=sleeping)
        for job in ("T/Fails", "T/Say"):
            await http.ended(await http.start(job))
        service.apps.shell("T/New", "true")
        received = await stream.until_change("job.defined", jobId="T/New")
        service.apps.definition("T/New").write_text("command = 7\n")
        received += await stream.until_change("job.invalid")
        service.apps.definition("T/New").unlink()
        received += await stream.until_change("job.removed")
    types = {each.data["type"] for each in changes(received)}
    assert len(types) > 9, types
    for each in changes(received):
        assert {"specversion", "id", "source", "type", "time", "subject"} <= each.data.keys()
        event = JSONFormat().read(CloudEvent, json.dumps(each.data))
        assert event.get_id() == each.id
        assert event.get_datacontenttype() == "application/json"
        _check_attributes(each.data)


def _check_attributes(data: dict[str, Any]) -> None:
    """What their library lets pass: CloudEvents 1.0 §3.1 (names, null, 32-bit integers)."""
    for name, value in data.items():
        if name == "data":
            continue
        assert ATTRIBUTE.match(name), name
        assert isinstance(value, str | int), (name, value)
        assert isinstance(value, str) or -(2**31) <= value < 2**31, (name, value)


async def test_httpx_sse_gets_each_change_before_the_next_command(service: Service) -> None:
    headers = {"Authorization": f"Bearer {service.token}"}
    target = f"{service.url}/api/v1/events?type=command.ended&start=now"
    client = httpx.AsyncClient(headers=headers, timeout=30)
    async with service.http() as http, client, aconnect_sse(client, "GET", target) as source:
        events = source.aiter_sse()
        first = [(await anext(events)).event for _ in range(2)]
        for _ in range(3):
            accepted = await http.publish(command="start", jobId="T/Hello")
            change = await anext(events)
            while change.event == "bookmark":
                change = await anext(events)
            assert change.json()["data"]["commandId"] == accepted["commandId"]
            assert change.json()["id"] == change.id
    assert first == ["hello", "bookmark"]


async def test_npm_eventsource_is_refused_and_stops(service: Service) -> None:
    async with node("follow.cjs", f"{service.url}/api/v1/events", "", *KINDS) as program:
        assert await program.rest() == [("error", "401", "closed")]


@in_browser
async def test_eventsources_go_on_without_a_gap_over_a_restart(
    service: Service, browser: Browser
) -> None:
    """Chromium's own and npm's."""
    target = "/api/v1/events?start=now"
    async with (
        browser_page(browser, service.url) as page,
        node("follow.cjs", service.url + target, service.token, *KINDS) as program,
    ):
        assert await page.evaluate(SIGN_IN, service.token) == 204
        await page.evaluate(FOLLOW, [target])
        await program.until("bookmark")
        first = await _publish(service)
        await page.wait_for_function("(id) => window.ended.includes(id)", arg=first)
        received = await program.until("change", f'"{first}"')
        await asyncio.to_thread(service.restart)
        second = await _publish(service)
        await page.wait_for_function("(id) => window.ended.includes(id)", arg=second)
        while not _has_end(received, second):
            received.append(await program.next())
        chromiums, troubles = await page.evaluate("[window.ids, window.troubles]")
    assert troubles > 0
    assert not [each for each in received if each[0] == "reset"]
    npms = [id for kind, id, _ in received if kind == "change"]
    async with service.http() as http:
        for ids in (chromiums, npms):
            assert ids == await http.ids_between(ids[0], ids[-1])


async def test_a_polyfill_goes_on_without_a_gap_over_a_restart(service: Service) -> None:
    target = f"{service.url}/api/v1/events?start=now&last_event_id="
    async with node("polyfill.cjs", target, service.token, *KINDS) as program:
        await program.until("bookmark")
        first = await _publish(service)
        received = await program.until("change", f'"{first}"')
        await asyncio.to_thread(service.restart)
        second = await _publish(service)
        while not _has_end(received, second):
            received.append(await program.next())
    assert not [each for each in received if each[0] == "reset" or each[2] == "closed"]
    ids = [id for kind, id, _ in received if kind == "change"]
    async with service.http() as http:
        assert ids == await http.ids_between(ids[0], ids[-1])


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
async def test_curl_shows_each_change_before_the_next_command(
    service: Service, version: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(needs("curl"), "-sNi", version, "-H", f"Authorization: Bearer {service.token}"),
        f"{service.url}/api/v1/events?start=now&type=command.ended",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            head = await process.stdout.readuntil(b"\r\n\r\n")
            for _ in range(3):
                accepted = await _publish(service)
                await process.stdout.readuntil(accepted.encode())
    finally:
        process.kill()
        await process.communicate()
    assert b" 200 OK\r\n" in head
    # HTTP/1.0 knows no chunks: its end is the end of the connection.
    assert (b"transfer-encoding: chunked" in head.lower()) == (version == "--http1.1")


METRICS: dict[str, set[str]] = {
    "http_requests": {"method", "route", "code"},
    "http_request_duration_seconds": {"method", "route", "le"},
    "streams_open": {"transport"},
    "stream_frames": {"transport", "kind"},
    "stream_bytes": set(),
    "stream_lag_frames": {"le"},
    "stream_resets": {"reason"},
    "stream_disconnects": {"reason"},
    "log_head_seq": set(),
    "ring_frames": set(),
    "commands": {"type", "outcome"},
    "command_handle_seconds": {"type", "le"},
    "executions": {"state"},
    "queue_depth": set(),
    "queue_oldest_age_seconds": set(),
    "build_info": {"version"},
}


async def test_prometheus_own_parser_reads_all_that_the_page_names(service: Service) -> None:
    async with service.http() as http, await service.stream(Last_Event_ID="zzzzzz-1") as stream:
        await stream.until_kind("reset")
        await http.ended(await http.start("T/Hello"))
    await eventually_answered(lambda: _has_metrics(service), "that the stream ended, too")


async def _has_metrics(service: Service) -> bool:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {service.token}"}) as client:
        answer = await client.get(f"{service.url}/metrics")
    labels: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(answer.text):
        name = family.name.removeprefix("jobbus_")
        labels[name].update(label for sample in family.samples for label in sample.labels)
    assert labels.keys() >= METRICS.keys()
    return {name: labels[name] for name in METRICS} == METRICS


async def _publish(service: Service) -> str:
    async with service.http() as http:
        accepted = await http.publish(command="start", jobId="T/Hello")
    return str(accepted["commandId"])


def _has_end(received: list[ParsedEvent], command_id: str) -> bool:
    """Whether the end of the command is among the changes."""
    ends = (json.loads(data) for kind, _, data in received if kind == "change")
    return any(
        each["type"] == "command.ended" and each["data"]["commandId"] == command_id for each in ends
    )
