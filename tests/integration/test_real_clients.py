"""What real clients add, leave out and spell in their own way, and is understood all the same."""

import asyncio
import json

import aiohttp
import pytest
from yarl import URL

from tests.gateway_fixture import ADMIN, ALICE, EPOCH, Backend, bearer, serving
from transports.http.access.proxy import networks
from transports.http.settings import GatewaySettings, ProxySettings

SSE, JSON, NDJSON, TEXT = (
    "text/event-stream",
    "application/json",
    "application/x-ndjson",
    "text/plain",
)


async def first_frame(session: aiohttp.ClientSession, target: str, **headers: str) -> str:
    """The `hello` of a stream."""
    async with (
        asyncio.timeout(20),
        session.get(target, headers={"Accept": SSE} | headers) as stream,
    ):
        assert stream.status == 200, await stream.text()
        async for line in stream.content:
            if line.startswith(b"data: "):
                return line.decode()
    raise AssertionError("the stream ended")


@pytest.mark.parametrize(
    "name",
    [
        *("lastEventId", "lasteventid", "LastEventId", "lastEventID", "last-event-id"),
        *("Last-Event-ID", "last_event_id", "evs_last_event_id", "lastEventId&_=1&r=0.5"),
    ],
)
async def test_a_stream_goes_on_however_its_position_is_spelled(name: str) -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        backend.queue("App/Job")
        name, _, rest = name.partition("&")
        target = f"/api/v1/events?{name}={EPOCH}-{backend.feed.head}&{rest}"
        hello = await first_frame(session, target.rstrip("&"), **bearer(ALICE))
    assert '"resumed":true' in hello


async def test_the_position_that_a_polyfill_adds_is_later_than_that_of_its_url() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        backend.queue("App/Job")
        at = f"{EPOCH}-{backend.feed.head}"
        for query in (f"last_event_id=gone-1&lastEventId={at}", f"last_event_id={at}&lastEventId="):
            hello = await first_frame(session, f"/api/v1/events?{query}", **bearer(ALICE))
            assert '"resumed":true' in hello, query
        header = {"Last-Event-ID": at, **bearer(ALICE)}
        assert '"resumed":true' in await first_frame(
            session, "/api/v1/events?lastEventId=gone-1", **header
        )


@pytest.mark.parametrize(
    "added",
    ["lastEventId={at}", "_=17", "r=0.1&lastEventId={at}", "evs_preamble=1&evs_last_event_id={at}"],
)
async def test_a_ticket_opens_its_stream_with_what_a_client_adds(added: str) -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        path = "/api/v1/events?job=App/Job"
        made = await session.post("/api/v1/tickets", json={"path": path}, headers=bearer(ALICE))
        ticket = (await made.json())["ticket"]
        at = f"{EPOCH}-{backend.feed.head}"
        target = f"{path}&ticket={ticket}&{added.format(at=at)}"
        for _ in range(2):  # the connection breaks, and the same URL comes again
            assert "heartbeat" in await first_frame(session, target)
        other = await session.get(f"{target}&user=bob", headers={"Accept": SSE})
        assert other.status == 401


async def test_a_ticket_is_for_the_stream_however_its_id_is_spelled() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend) as (_, session):
        path = f"/api/v1/executions/{execution.upper()}/stream"
        made = await session.post("/api/v1/tickets", json={"path": path}, headers=bearer(ALICE))
        assert made.status == 201, await made.text()
        ticket = (await made.json())["ticket"]
        spelled = path.replace(execution.upper(), execution)
        assert await first_frame(session, f"{spelled}?ticket={ticket}")


@pytest.mark.parametrize(
    "path", ["/api/v1/jobs", "/api/v1/executions", "/api/v1/commands", "/api/v1/session", "/livez"]
)
async def test_what_keeps_caches_away_means_nothing(path: str) -> None:
    async with serving(Backend()) as (_, session):
        for query in (
            "_=1764000000",
            "t=1764000000",
            "timestamp=1&rnd=.5",
            "dojo.preventCache=1",
            "_dc=1&cb=2&evs_buffer_size_limit=9",
            "nocache=x",
            "_=1&_=2",
        ):
            answer = await session.get(f"{path}?{query}", headers=bearer(ALICE))
            assert answer.status == 200, (query, await answer.text())
        wrong = await session.get(f"{path}?__=1", headers=bearer(ALICE))
        assert wrong.status == (400 if path != "/livez" else 200)


@pytest.mark.parametrize("query", ["verbose", "verbose=1&exclude=etcd", "x=1", "%zz", "a" * 5000])
async def test_a_probe_is_answered_whatever_it_adds(query: str) -> None:
    async with serving(Backend()) as (_, session):
        for path in ("/livez", "/readyz"):
            assert (await session.get(URL(f"{path}?{query}", encoded=True))).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    "host", ["10.1.2.3:8080", "pod-7.svc.cluster.local", "", "[fe80::1]:80", "a b", None]
)
async def test_a_probe_is_answered_whatever_host_it_names(
    path: str, behind: bool, host: str | None
) -> None:
    proxy = ProxySettings(trusted=networks(["10.9.9.9"]), user_header="X-User")
    settings = GatewaySettings(proxy=proxy if behind else None)
    async with serving(Backend(), settings) as (url, _):
        named = f"Host: {host}\r\n" if host is not None else ""
        version = "1.1" if host is not None else "1.0"
        probe = await raw(url, f"GET {path} HTTP/{version}\r\n{named}Connection: close\r\n\r\n")
        other = await raw(url, f"GET /version HTTP/{version}\r\n{named}Connection: close\r\n\r\n")
        post = await raw(url, f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert probe.split()[1] == "200", probe
    assert other.split()[1] == "421", other
    assert post.split()[1] in ("405", "421"), post


async def raw(url: str, request: str) -> str:
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.encode())
    try:
        async with asyncio.timeout(20):
            return (await reader.read()).decode()
    finally:
        writer.close()


NEGOTIATED = [
    ("*/*", SSE),
    ("*", SSE),
    ("text/*", SSE),
    ("application/*", NDJSON),
    ("application/json", JSON),
    ("APPLICATION/JSON", JSON),
    ("application/json; charset=utf-8", JSON),
    ('application/json;charset="UTF-8"', JSON),
    ("application/json;charset=latin-1", None),
    ("application/json;v=2", JSON),
    ("application/json;v=2;q=0, application/json", JSON),
    ("text/event-stream;q=0.1, application/json;q=0.9", JSON),
    ("text/event-stream;q=0, */*", NDJSON),
    ("text/event-stream;q=0, application/x-ndjson;q=0, */*;q=0.1", JSON),
    ("*/*;q=0", None),
    ("text/html", None),
    ("text/html, */*;q=0.1", SSE),
    ("text/html, image/gif, *; q=.2, */*; q=.2", SSE),
    ("application/json;q=2", None),
    ("application/json;q=nan, text/event-stream;q=0.001", SSE),
    ("application/json;q=1.000;ext=1", JSON),
    ('text/html;x="a,application/json"', None),
    ("application/json , ", JSON),
    (",,application/json,", JSON),
    ("json", None),
    ("application/json nonsense", None),
    ("text/event-stream;q=0.5,application/x-ndjson;q=0.500", SSE),
    ("", SSE),
    ("application/json, text/plain, */*", JSON),  # axios
    ("*/*, application/x-ndjson", NDJSON),
    ("application/*, */*", NDJSON),
    ("text/*, application/json", JSON),
    ("application/json;q=0.9, */*", SSE),
    ("application/json, text/event-stream", SSE),
]


@pytest.mark.parametrize(("accept", "expected"), NEGOTIATED)
async def test_a_stream_has_the_type_that_weighs_most(accept: str, expected: str | None) -> None:
    async with serving(Backend()) as (_, session):
        headers = {"Accept": accept, **bearer(ALICE)}
        answer = await session.head("/api/v1/events?start=now", headers=headers)
        if expected == JSON:
            answer = await session.get("/api/v1/events?start=now", headers=headers)
        if expected is None:
            assert answer.status == 406
            sent = await (await session.get("/api/v1/events", headers=headers)).json()
            assert all(kind in sent["detail"] for kind in (SSE, NDJSON, JSON))
        else:
            assert answer.status == 200
            assert answer.headers["Content-Type"].partition(";")[0] == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [(TEXT, TEXT), ("*/*", TEXT), (JSON, JSON), (NDJSON, NDJSON), ("application/*", JSON),
     ("text/plain;q=0.1, application/json", JSON), ("image/png", None)],
)  # fmt: skip
async def test_output_has_the_type_that_weighs_most(accept: str, expected: str | None) -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    await backend.output.append(execution, b"one\ntwo\n")
    async with serving(backend) as (_, session):
        path = f"/api/v1/executions/{execution}/output"
        answer = await session.get(path, headers={"Accept": accept, **bearer(ALICE)})
        chosen = await session.get(
            f"{path}?format=json", headers={"Accept": accept} | bearer(ALICE)
        )
    assert (answer.status, chosen.status) == (200 if expected else 406, 200)
    if expected:
        assert answer.headers["Content-Type"].partition(";")[0] == expected


async def test_a_mark_of_byte_order_is_left_out() -> None:
    backend = Backend()
    body = json.dumps({"command": "start", "jobId": "App/Job"}).encode()
    async with serving(backend) as (_, session):
        one = await session.post(
            "/api/v1/commands",
            data=b"\xef\xbb\xbf" + body,
            headers={"Content-Type": 'application/json; charset="UTF-8"', **bearer(ALICE)},
        )
        many = await session.post(
            "/api/v1/commands",
            data=b"\xef\xbb\xbf" + body + b"\r\n" + body,
            headers={"Content-Type": "application/x-ndjson", **bearer(ALICE)},
        )
        signed = await session.post(
            "/api/v1/session",
            data=b"\xef\xbb\xbf" + json.dumps({"token": ALICE}).encode(),
            headers={"Content-Type": "application/json"},
        )
        sent = (await many.text()).splitlines()
    assert (one.status, many.status, signed.status) == (202, 200, 204)
    assert all("commandId" in json.loads(each) for each in sent)


@pytest.mark.parametrize("path", ["App/Job", "App%2FJob", "App%2fJob", "%41pp%2FJob"])
async def test_a_job_is_found_with_its_slash_encoded(path: str) -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (url, session):
        target = URL(f"{url}/api/v1/jobs/{path}", encoded=True)
        found = await session.get(target, headers=bearer(ALICE))
        hidden = await session.get(
            URL(f"{url}/api/v1/jobs/App%2FNone", encoded=True), headers=bearer(ALICE)
        )
        sent = await found.json()
    assert (found.status, hidden.status) == (200, 404)
    assert sent["jobId"] == "App/Job"


async def test_a_slash_too_many_is_named() -> None:
    async with serving(Backend()) as (_, session):
        answer = await session.get("/api/v1/jobs/", headers=bearer(ADMIN))
        sent = await answer.json()
    assert answer.status == 404
    assert "slash" in sent["detail"]
