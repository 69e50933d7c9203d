"""A service that goes away in the middle of a stream: who resumes gets all that changed, once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from jobbus.client.client import Client
from jobbus.client.frames import Change, Output, Reset
from jobbus.client.stream import StreamTiming
from tests.jobs import Apps
from tests.raw_stream import RawEvent, RawStream, state_changes
from tests.service import Service, eventually, eventually_answered, running_service

STATES = ("execution.queued", "execution.started", "execution.running", "execution.ended")
LIVE = "&".join(
    f"status={each}" for each in ("Queued", "Starting", "Running", "Stopping", "Unknown")
)
WHOLE_MIN = 6
"""Executions that must have been reported from their beginning to their end."""
QUICK = StreamTiming(backoff_s=0.05, backoff_s_max=0.2)


CHATTY = """
n=0
until [ -e "$BOARD/go" ]; do n=$((n + 1)); echo "line $n ÄÖ"; echo "more $n" >&2; sleep 0.05; done
echo end
"""


def define(apps: Apps) -> None:
    script = 'for n in 10 50 90; do echo $n >> "$JOBBUS_PROGRESS"; sleep 0.1; done'
    apps.shell("T/Busy", script, max_running=6, overlap="queue")
    apps.shell("T/Last", "exit 0")
    apps.shell("T/Chatty", CHATTY)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


def go_away(service: Service, how: str) -> None:
    if how == "SIGTERM":
        assert service.end() == 0
    else:
        service.kill9()


@asynccontextmanager
async def busy(service: Service) -> AsyncIterator[None]:
    """Jobs start and end all the time, as far as there is a service to start them."""
    enough = asyncio.Event()

    async def keep_starting() -> None:
        async with aiohttp.ClientSession() as session:
            while not enough.is_set():
                with suppress(aiohttp.ClientError):  # no service is there just now
                    await session.post(
                        f"{service.url}/api/v1/commands",
                        json={"command": "start", "jobId": "T/Busy"},
                        headers={"Authorization": f"Bearer {service.token}"},
                    )
                await asyncio.sleep(0.1)

    task = asyncio.create_task(keep_starting(), name="keep starting")
    try:
        yield
    finally:
        enough.set()  # and not cancelled: a start on its way would come after the last job
        await task


async def all_states_since(service: Service, first: str) -> list[str]:
    """The ids of all state changes after `first`, as the service's own pages have them."""
    ids: list[str] = []
    cursor = first
    async with service.http() as http:
        while True:
            page = await http.call(
                "GET",
                f"/events?limit=500&last_event_id={cursor}",
                Accept="application/json",
            )
            assert page.status == 200, page.body
            items = page.json["items"]
            ids += [each["id"] for each in items if each["type"] != "execution.progress"]
            if page.json["next"] == cursor:
                return ids
            cursor = page.json["next"]


async def last_job(service: Service) -> str:
    """An execution that begins and ends after all others; its end is the end of the test."""
    async with service.http() as http:
        await eventually_answered(lambda: none_lives(service), "all busy jobs have ended")
        return await http.start("T/Last")


async def none_lives(service: Service) -> bool:
    """Nothing that was accepted is still to come, and then nothing of it goes on."""
    async with service.http() as http:
        for each in ("/commands?status=Pending&status=Running", f"/executions?{LIVE}"):
            if (await http.get(each))["items"]:
                return False
    return True


async def read_until_gone(stream: RawStream, received: list[RawEvent]) -> None:
    received += await stream.rest()


async def read_until_whole(stream: RawStream, received: list[RawEvent]) -> None:
    while count_whole(states_in(received)) < WHOLE_MIN:
        received += await stream.until_change("execution.ended")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_reader_that_resumes_by_id_sees_each_state_once(service: Service, how: str) -> None:
    received: list[RawEvent] = []
    hellos = []
    async with busy(service):
        async with await service.stream() as stream:
            received += await stream.until_change("execution.ended")
            first = next(each.id for each in received if each.kind == "snapshot_end")
            reading = asyncio.create_task(read_until_gone(stream, received), name="reading")
            await asyncio.to_thread(go_away, service, how)
            await reading
        cursor = stream.last_id
        assert cursor is not None
        await asyncio.sleep(0.3)  # jobs end while no service reports it
        await asyncio.to_thread(service.start)
        async with await service.stream(Last_Event_ID=cursor) as again:
            hellos.append(await again.next())
            await read_until_whole(again, received)
            more = again.last_id
    assert more is not None
    execution_id = await last_job(service)
    async with await service.stream(Last_Event_ID=more) as end:
        hellos.append(await end.next())
        received += await end.until_change("execution.ended", executionId=execution_id)
    assert [(each.kind, each.data["resumed"]) for each in hellos] == [("hello", True)] * 2
    assert not [each for each in received if each.kind == "reset"]
    ids = [each.id for each in state_changes(received)]
    assert first is not None
    assert ids == await all_states_since(service, first)
    check_numbers([id for id in ids if id is not None], first)
    check_stories(states_in(received))


def has_ended(changes: list[Change], execution_id: str) -> bool:
    return any(
        each.type == "execution.ended" and each.execution == execution_id for each in changes
    )


@pytest.mark.parametrize("how", [pytest.param("SIGTERM", marks=pytest.mark.exhaustive), "SIGKILL"])
async def test_client_resumes_by_itself_and_sees_each_state_once(
    service: Service, how: str
) -> None:
    changes: list[Change] = []
    resets: list[Reset] = []
    begun = asyncio.Event()

    async def follow(client: Client) -> None:
        async with aclosing(client.events(start="now")) as frames:
            async for frame in frames:
                match frame:
                    case Change():
                        changes.append(frame)
                        begun.set()
                    case Reset():
                        resets.append(frame)
                    case _:
                        begun.set()

    async with asyncio.timeout(45), Client(service.url, service.token, timing=QUICK) as client:
        following = asyncio.create_task(follow(client), name="following")
        await begun.wait()
        async with busy(service):
            await eventually(lambda: grown(changes), "changes")
            await asyncio.to_thread(go_away, service, how)
            await asyncio.to_thread(service.start)
            await eventually(
                lambda: count_whole((c.type, c.execution) for c in changes) >= WHOLE_MIN, "more"
            )
        last = await last_job(service)
        await eventually(lambda: has_ended(changes, last), "the last end was received")
        following.cancel()
        await asyncio.wait([following])
    states = [each for each in changes if each.type != "execution.progress"]
    assert resets == []
    ids = [each.id for each in states]
    sent = await all_states_since(service, states[0].id)
    assert ids == [states[0].id, *sent]
    check_numbers(ids[1:], ids[0])
    check_stories([(each.type, each.execution) for each in states])


async def test_output_that_is_followed_through_kills_comes_whole_and_once(
    service: Service,
) -> None:
    texts: list[str] = []
    ends: list[int] = []

    async def follow(client: Client, execution_id: str) -> None:
        async with aclosing(client.follow(execution_id)) as frames:
            async for frame in frames:
                if isinstance(frame, Output):
                    assert frame.start == (ends[-1] if ends else 0)
                    texts.append(frame.text)
                    ends.append(frame.end)

    async with asyncio.timeout(45), Client(service.url, service.token, timing=QUICK) as client:
        async with service.http() as http:
            execution_id = await http.start("T/Chatty")
        following = asyncio.create_task(follow(client, execution_id), name="following")
        for how in ("SIGKILL", "SIGTERM"):
            seen = len(texts)
            await eventually(lambda seen=seen: len(texts) > seen + 2)  # type: ignore[misc]
            await asyncio.to_thread(go_away, service, how)
            await asyncio.to_thread(service.start)
        service.apps.put("go")
        await following
    log = (service.data / "JobOutput" / execution_id / "output.log").read_bytes()
    assert "".join(texts).encode() == log
    assert log.endswith(b"end\n")


async def test_raw_reader_of_an_output_resumes_at_the_very_byte(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("T/Chatty")
    target = f"/api/v1/executions/{execution_id}/stream"
    received: list[RawEvent] = []
    async with await service.stream(target) as stream:
        received += await stream.until_kind("output")
        reading = asyncio.create_task(read_until_gone(stream, received), name="reading")
        await asyncio.to_thread(service.kill9)
        await reading
    assert stream.last_id is not None
    await asyncio.to_thread(service.start)
    async with await service.stream(target, Last_Event_ID=stream.last_id) as again:
        hello = await again.next()
        received += await again.until_kind("output")
        service.apps.put("go")
        received += await again.rest()
    assert (hello.kind, hello.data["resumed"]) == ("hello", True)
    assert received[-1].kind == "end"
    spans = [(each.data["from"], each.data["to"]) for each in received if each.kind == "output"]
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    text = "".join(each.data["text"] for each in received if each.kind == "output")
    log = (service.data / "JobOutput" / execution_id / "output.log").read_bytes()
    assert text.encode() == log
    async with await service.stream(target, Last_Event_ID=again.last_id or "") as over:
        assert over.status == 204


def grown(changes: list[Change]) -> bool:
    return sum(each.type == "execution.ended" for each in changes) >= 2


def check_numbers(ids: list[str], first: str) -> None:
    """All in the epoch of the first, and rising without a repeat."""
    epoch, _, start = first.rpartition("-")
    assert {id.rpartition("-")[0] for id in ids} == {epoch}
    numbers = [int(start), *(int(id.rpartition("-")[2]) for id in ids)]
    assert numbers == sorted(set(numbers))


State = tuple[str, str | None]
"""What happened, and to which execution."""


def check_stories(states: Iterable[State]) -> None:
    """Each execution that was reported from its beginning has each of its states once, in order."""
    whole = stories_of(states)
    assert len(whole) >= WHOLE_MIN
    assert Counter(map(tuple, whole)) == {STATES: len(whole)}


def count_whole(states: Iterable[State]) -> int:
    return sum(story[-1] == STATES[-1] for story in stories_of(states))


def stories_of(states: Iterable[State]) -> list[list[str]]:
    """What was reported of each execution that was reported from its beginning."""
    stories: dict[str | None, list[str]] = {}
    for type_, execution in states:
        if type_ in STATES:
            stories.setdefault(execution, []).append(type_)
    return [story for story in stories.values() if story[0] == STATES[0]]


def states_in(received: list[RawEvent]) -> list[State]:
    return [(each.data["type"], each.data["execution"]) for each in state_changes(received)]
