"""Real proxies in front of a real service: streams live, idle, cut and resumed; POST; sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    aclosing,
    asynccontextmanager,
)
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from jobbus.client.client import Client
from jobbus.client.frames import Change, Frame, Reset
from jobbus.client.stream import StreamTiming
from tests import proxies
from tests.browser import EVIL, SITE, chromium
from tests.gateway_fixture import ALICE, Backend, serving
from tests.jobs import WAITING, Apps
from tests.proxies import Certificate, Proxy
from tests.service import Http, Service
from tests.socket_client import SocketClient, open_socket
from tests.stream_reader import StreamReader, open_stream
from transports.http.settings import GatewaySettings

STEPS = "; ".join(
    (
        *("echo first", WAITING.format(name="one-$JOBBUS_VAR_Tag")),
        *("echo second", WAITING.format(name="two-$JOBBUS_VAR_Tag")),
        "echo third",
    )
)
GZIP = "gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;"
FAST = StreamTiming(backoff_s=0.05, backoff_s_max=0.2)

A = TypeVar("A")
B = TypeVar("B")

MANY_STREAMS = """
async ([token, count]) => {
  const { status } = await fetch("/api/v1/session", {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }) })
  const open = () => new Promise((resolve) => {
    const source = new EventSource("/api/v1/events?start=now")
    source.addEventListener("bookmark", () => resolve(source))
  })
  await Promise.all(Array.from({ length: count }, open))
  const socket = new WebSocket(`wss://${location.host}/api/v1/ws`, "jobbus.v1")
  const hello = await new Promise((resolve) => { socket.onmessage = (e) => resolve(e.data) })
  const jobs = await fetch("/api/v1/jobs")
  const [page] = performance.getEntriesByType("navigation")
  return [status, JSON.parse(hello).op, jobs.status, page.nextHopProtocol]
}
"""

PLAIN: dict[str, Callable[[Path, int], AbstractContextManager[Proxy]]] = {
    "stock nginx": proxies.nginx,
    "nginx that compresses": lambda folder, port: proxies.nginx(folder, port, extra=GZIP),
    "stock haproxy": proxies.haproxy,
}
DOCUMENTED: dict[str, Callable[[Path, int, Certificate], AbstractContextManager[Proxy]]] = {
    "documented nginx": proxies.documented_nginx,
    "documented haproxy": proxies.documented_haproxy,
    "documented caddy": proxies.documented_caddy,
}


def define(apps: Apps) -> None:
    apps.shell("T/Hello", "echo hello", max_running=4)
    apps.shell("T/Steps", STEPS, max_running=8, variables={"Tag": {"type": "string"}})


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    """`plain` knows of no proxy; `fronted` has the settings that the page names."""
    made = {name: Service(tmp_path_factory.mktemp(name)) for name in ("plain", "fronted")}
    settings = made["fronted"].root / "jobbus.toml"
    settings.write_text(proxies.documented("toml"), encoding="utf-8")
    for service in made.values():
        define(service.apps)
    try:
        _at_once(_start, made.values())
        yield made
        for service in made.values():
            assert not service.complaints()
    finally:
        for service in made.values():
            service.clear_away()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return proxies.make_certificate(tmp_path_factory.mktemp("tls"))


class Front:
    """A service and the proxy in front of it."""

    def __init__(self, service: Service, proxy: Proxy) -> None:
        self.service = service
        self.proxy = proxy

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        async with self.proxy.session(self.service.token) as session:
            yield session

    @asynccontextmanager
    async def stream(self, path: str, **headers: str) -> AsyncIterator[StreamReader]:
        async with self.session() as session:
            stream = await open_stream(session, path, self.service.token, **headers)
            yield stream
            _cut(stream)

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[SocketClient]:
        async with open_socket(
            self.proxy.url, self.service.token, trust=self.proxy.trust
        ) as socket:
            yield socket

    def client(self, retries: list[str]) -> Client:
        """Our own client; what it says when it lost the stream goes to `retries`."""
        return Client(
            self.proxy.url,
            self.service.token,
            self.proxy.certificate.cert if self.proxy.certificate else None,
            timing=FAST,
            on_retry=lambda reason, _: retries.append(reason),
        )


@pytest.fixture(scope="module")
def fronts(
    services: dict[str, Service],
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Front]]:
    """All proxies, side by side."""

    def opened(kind: str) -> Front:
        folder = tmp_path_factory.mktemp("proxy")
        if (plain := PLAIN.get(kind)) is not None:
            service, proxy = services["plain"], plain(folder, services["plain"].port)
        else:
            service = services["fronted"]
            proxy = DOCUMENTED[kind](folder, service.port, certificate)
        return Front(service, stack.enter_context(proxy))

    with ExitStack() as stack:
        kinds = (*PLAIN, *DOCUMENTED)
        yield dict(zip(kinds, _at_once(opened, kinds), strict=True))


@pytest.fixture(params=[*PLAIN, *DOCUMENTED])
def front(request: pytest.FixtureRequest, fronts: dict[str, Front]) -> Front:
    return fronts[request.param]


async def test_each_change_arrives_before_the_next_command_is_published(front: Front) -> None:
    async with (
        front.session() as session,
        front.stream("/api/v1/events?type=command.ended") as stream,
    ):
        http = Http(session)
        await stream.until("snapshot_end")
        for _ in range(4):
            accepted = await http.publish(command="start", jobId="T/Hello")
            change = await stream.next_change()
            assert change.data["data"]["commandId"] == accepted["commandId"]
    assert stream.response.headers["Content-Type"] == "text/event-stream"


async def test_output_arrives_before_the_job_goes_on(front: Front) -> None:
    async with front.session() as session:
        http, tag = Http(session), f"o{front.proxy.port}"
        execution_id = await http.start("T/Steps", Tag=tag)
        async with front.stream(f"/api/v1/executions/{execution_id}/stream") as stream:
            texts = []
            for step in ("one", "two"):
                texts.append((await stream.until("output"))[-1].data["text"])
                front.service.apps.put(f"{step}-{tag}")
            texts.append((await stream.until("output"))[-1].data["text"])
            end = (await stream.rest())[-1]
        assert await http.output(execution_id) == b"first\nsecond\nthird\n"
    assert texts == ["first\n", "second\n", "third\n"]
    assert (end.kind, end.data["reason"]) == ("end", "terminal")


async def test_an_answer_that_waits_comes_when_the_command_has_ended(front: Front) -> None:
    async with front.session() as session:
        answer = await Http(session).publish(20, command="start", jobId="T/Hello")
    assert (answer["status"], answer["outcome"]) == ("Completed", "done")


async def test_clients_go_on_where_they_were_after_a_service_that_died(
    services: dict[str, Service], fronts: dict[str, Front]
) -> None:
    """While it is down the proxy answers 502 or 503: browsers give up then, our client does not."""
    behind = [fronts[kind] for kind in ("stock nginx", *DOCUMENTED)]
    async with asyncio.timeout(60), AsyncExitStack() as opened, asyncio.TaskGroup() as group:
        readers = [await opened.enter_async_context(Reader.of(front)) for front in behind]
        following = [group.create_task(each.follow(), name="following") for each in readers]
        for each in readers:
            await _until(lambda each=each: each.seen)  # type: ignore[misc]
            await each.run_a_job()
        for service in services.values():
            await asyncio.to_thread(service.kill9)
        for each in readers:
            await _until(lambda each=each: each.was_refused())  # type: ignore[misc]
        await asyncio.to_thread(_at_once, _start, services.values())
        for each in readers:
            await each.run_a_job()
        for task in following:
            task.cancel()
    for each in readers:
        assert not [frame for frame in each.seen if isinstance(frame, Reset)]
        ids = [frame.id for frame in each.seen if isinstance(frame, Change)]
        async with each.front.service.http() as http:
            assert ids == await http.ids_between(ids[0], ids[-1])


class Reader:
    """Our own client behind a proxy, and what it received."""

    def __init__(self, front: Front, client: Client, retries: list[str]) -> None:
        self.front = front
        self.seen: list[Frame] = []
        self._client = client
        self._retries = retries

    @classmethod
    @asynccontextmanager
    async def of(cls, front: Front) -> AsyncIterator["Reader"]:
        retries: list[str] = []
        async with front.client(retries) as client:
            yield cls(front, client, retries)

    async def follow(self) -> None:
        await _collect(self._client, self.seen)

    async def run_a_job(self) -> None:
        """A job was started and its command's end was received."""
        accepted = await self._client.start("T/Hello")
        await _until(lambda: any(_is_end_of(accepted.command_id, each) for each in self.seen))

    def was_refused(self) -> bool:
        return any("502" in each or "503" in each for each in self._retries)


IMPATIENT = ("nginx", "haproxy")
BOOKMARKS = 6


async def test_bookmarks_keep_an_idle_stream_open_beyond_the_proxys_timeout(tmp_path: Path) -> None:
    """Six of them take a second and a half; a stream without them is cut after one (below)."""

    async def listen(kind: str, url: str) -> list[str]:
        with _impatient(kind, tmp_path, url) as proxy:
            async with proxy.session(ALICE) as session:
                stream = await open_stream(session, "/api/v1/events?start=now")
                received = [(await stream.next()).kind for _ in range(1 + BOOKMARKS)]
                _cut(stream)
        return received

    async with serving(Backend(), GatewaySettings(heartbeat_s=0.25)) as (url, _):
        received = await asyncio.gather(*(listen(kind, url) for kind in IMPATIENT))
    assert received == [["hello", *["bookmark"] * BOOKMARKS]] * len(IMPATIENT)


async def test_a_stream_that_a_proxy_cuts_is_taken_up_without_a_gap(tmp_path: Path) -> None:
    backend = Backend()

    async def listen(url: str, lost: list[str], seen: list[Frame]) -> None:
        client = Client(url, ALICE, timing=FAST, on_retry=lambda why, _: lost.append(why))
        async with client:
            await _collect(client, seen)

    async with serving(backend) as (url, _), asyncio.timeout(30), asyncio.TaskGroup() as group:
        with ExitStack() as running:
            lost, seen, following = [], [], []
            for kind in IMPATIENT:
                proxy = running.enter_context(_impatient(kind, tmp_path, url))
                lost.append(list[str]())
                seen.append(list[Frame]())
                reading = listen(proxy.url, lost[-1], seen[-1])
                following.append(group.create_task(reading, name="following"))
            await _until(lambda: all(lost))
            backend.define("App/One")
            await _until(lambda: all(_subjects(each) for each in seen))
            backend.define("App/Two")
            await _until(lambda: all(len(_subjects(each)) > 1 for each in seen))
            for task in following:
                task.cancel()
    assert [_subjects(each) for each in seen] == [["jobs/App/One", "jobs/App/Two"]] * 2


@pytest.mark.parametrize("front", ["stock haproxy", *DOCUMENTED], indirect=True)
async def test_a_websocket_passes_both_ways(front: Front) -> None:
    async with front.socket() as socket, front.session() as session:
        await socket.subscribe("a", filter={"type": ["command.ended"]}, start="now")
        for _ in range(2):
            accepted = await Http(session).publish(command="start", jobId="T/Hello")
            change = (await socket.until("change", "a"))[-1]
            assert change.data["data"]["commandId"] == accepted["commandId"]
        await socket.say("ping", n=7)
        assert (await socket.until("pong"))[-1].whole["n"] == 7


@pytest.mark.parametrize("front", ["stock nginx"], indirect=True)
async def test_a_websocket_through_a_proxy_without_its_settings_is_refused_in_words(
    front: Front,
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with front.socket():
            pass
    assert refused.value.response.status_code == 426
    assert b"upgrade" in (refused.value.response.body or b"").lower()


async def test_a_page_has_more_streams_than_browsers_open_connections(
    fronts: dict[str, Front],
) -> None:
    """Over HTTP/1.1 the seventh would hang, and all other requests with it."""
    async with chromium() as browser:
        for front in (fronts[kind] for kind in DOCUMENTED):
            page = await browser.new_page(ignore_https_errors=True)
            await page.goto(f"https://{SITE}:{front.proxy.port}/")
            outcome = await page.evaluate(MANY_STREAMS, [front.service.token, 8])
            (cookie,) = await page.context.cookies()
            await page.context.close()
            assert outcome == [204, "hello", 200, "h2"]
            assert cookie["secure"]


@pytest.mark.parametrize("front", list(DOCUMENTED), indirect=True)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": f"https://{SITE}"}, 204),
        ({"X-Forwarded-Host": EVIL, "X-Forwarded-For": "not an address"}, 204),
        ({"Forwarded": f"host={EVIL};proto=http", "X-Forwarded-Proto": "gopher"}, 204),
        ({"Origin": f"http://{SITE}"}, 403),
        ({"Origin": f"http://{SITE}", "X-Forwarded-Proto": "http"}, 403),
        ({"Origin": f"https://{EVIL}", "X-Forwarded-Host": EVIL}, 403),
    ],
)
async def test_the_proxy_says_under_which_name_and_how_it_was_asked_not_its_client(
    front: Front, headers: dict[str, str], status: int
) -> None:
    async with front.session() as session:
        answer = await session.post(
            "/api/v1/session", json={"token": front.service.token}, headers={"Host": SITE} | headers
        )
        text = await answer.text()
    assert answer.status == status, text


@pytest.mark.parametrize("kind", ["documented nginx", "documented haproxy"])
async def test_names_that_are_not_among_the_hosts_are_not_served_through_a_proxy(
    kind: str,
    fronts: dict[str, Front],
    services: dict[str, Service],
    certificate: Certificate,
    tmp_path: Path,
) -> None:
    """Caddy answers other names by itself."""

    async def ask(front: Front, name: str) -> int:
        async with front.session() as session:
            return (await session.get("/api/v1/jobs", headers={"Host": name})).status

    statuses = [await ask(fronts[kind], name) for name in (SITE, EVIL)]
    unnamed = services["plain"]
    with DOCUMENTED[kind](tmp_path, unnamed.port, certificate) as proxy:
        statuses.append(await ask(Front(unnamed, proxy), SITE))
    assert statuses == [200, 421, 421]


async def _collect(client: Client, seen: list[Frame]) -> None:
    async with aclosing(client.events(start="now")) as frames:
        async for frame in frames:
            seen.append(frame)  # noqa: PERF401 - others look at it meanwhile


async def _until(look: Callable[[], object]) -> None:
    """Returns when it is so; the test as a whole has a time limit."""
    while not look():
        await asyncio.sleep(0.02)


def _is_end_of(command_id: str, frame: Frame) -> bool:
    return (
        isinstance(frame, Change)
        and frame.type == "command.ended"
        and f'"{command_id}"' in frame.raw
    )


def _subjects(seen: list[Frame]) -> list[str]:
    return [each.subject for each in seen if isinstance(each, Change)]


def _cut(stream: StreamReader) -> None:
    """The connection is gone at once: TLS would say goodbye for longer than the test lasts."""
    connection = stream.response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    stream.close()


def _impatient(kind: str, folder: Path, url: str) -> AbstractContextManager[Proxy]:
    """A proxy that cuts what is silent for a second."""
    port = int(url.rpartition(":")[2])
    if kind == "nginx":
        return proxies.nginx(folder, port, extra="proxy_read_timeout 1s;")
    return proxies.haproxy(folder, port, idle="1s")


def _start(service: Service) -> None:
    """Where there is a file of settings, the service stands behind a proxy that names the
    client it speaks for."""
    config = service.root / "jobbus.toml"
    service.start(*(("--behind-proxy", "--config", str(config)) if config.exists() else ()))


def _at_once(act: Callable[[A], B], on: Iterable[A]) -> list[B]:
    """What each came to; they mostly wait for processes."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(act, on))
