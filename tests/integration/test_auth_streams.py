"""Open streams: who may not read any more is cut off."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest

from bus.job_definition import Job, RolesSpec
from tests.fakes import ManualClock
from tests.gateway_fixture import ADMIN, ALICE, VIEWER, Backend, bearer, serving
from tests.sign_in import Browser
from tests.stream_reader import SentFrame, StreamReader, open_stream
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

EVENTS = "/api/v1/events?start=now"
NEVER = GatewaySettings(recheck_s=86_400.0)
"""The timer stays out of it: what ends a stream here is the revocation itself."""


async def test_revoking_a_token_ends_its_streams_and_no_others() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    backend.run(execution)
    async with serving(backend, NEVER) as (_, session):
        record, token = await backend.tokens.create(
            "carol", ("operator",), expires_ms=None, created_by="root"
        )
        events = await open_stream(session, EVENTS, token)
        follower = await open_stream(session, f"/api/v1/executions/{execution}/stream", token)
        other = await open_stream(session, EVENTS, ALICE)
        await events.until("bookmark")
        await follower.until("snapshot_end")
        await other.until("bookmark")
        await session.delete(f"/api/v1/tokens/{record.id}", headers=bearer(ADMIN))
        backend.progress(execution, 50)
        assert _last_words(await events.rest()) == ("end", "revoked")
        assert _last_words(await follower.rest()) == ("end", "revoked")
        assert (await other.next_change()).data["type"] == "execution.progress"
        other.close()


async def test_what_was_not_sent_when_the_access_ended_never_is() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    gateway = Gateway(backend.ports(), NEVER)
    url = await gateway.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(base_url=url) as session:
            stream = await open_stream(session, EVENTS, ALICE)
            await stream.until("bookmark")
            # In one step of the loop: the change was not announced yet.
            backend.run(execution)
            del backend.principals[ALICE]
            gateway.recheck()
            answered = await stream.rest()
    finally:
        await gateway.aclose()
    assert [frame.kind for frame in answered] == ["end"]


async def test_signing_out_ends_the_streams_of_that_session_only() -> None:
    backend = Backend()
    async with serving(backend, NEVER) as (url, session):
        leaving, staying = Browser(session, url), Browser(session, url)
        await leaving.sign_in(token=ALICE)
        await staying.sign_in(token=ALICE)
        first, second = await _opened(session, leaving), await _opened(session, staying)
        await leaving.sign_out()
        assert _last_words(await first.rest()) == ("end", "revoked")
        backend.queue("App/Job")
        assert (await second.next_change()).data["type"] == "execution.queued"
        second.close()


async def test_replacing_the_token_of_a_session_ends_its_streams() -> None:
    backend = Backend()
    async with serving(backend, NEVER) as (url, session):
        record, token = await backend.tokens.create(
            "carol", ("viewer",), expires_ms=None, created_by="root"
        )
        browser = Browser(session, url)
        await browser.sign_in(token=token)
        stream = await _opened(session, browser)
        await session.delete(f"/api/v1/tokens/{record.id}", headers=bearer(ADMIN))
        assert _last_words(await stream.rest()) == ("end", "revoked")


async def test_streams_end_when_their_token_expires() -> None:
    clock = ManualClock()
    backend = Backend(clock=clock)
    async with serving(backend, NEVER) as (_, session):
        _, token = await backend.tokens.create(
            "carol", ("viewer",), expires_ms=clock.now_ms() + 5_000, created_by="root"
        )
        stream = await open_stream(session, EVENTS, token)
        await stream.until("bookmark")
        clock.advance_s(5)
        assert _last_words(await stream.rest()) == ("end", "revoked")


async def test_streams_of_a_ticket_end_with_what_gave_it() -> None:
    backend = Backend()
    async with serving(backend, NEVER) as (_, session):
        record, token = await backend.tokens.create(
            "carol", ("viewer",), expires_ms=None, created_by="root"
        )
        answer = await session.post("/api/v1/tickets", json={"path": EVENTS}, headers=bearer(token))
        ticket = (await answer.json())["ticket"]
        stream = StreamReader(
            await session.get(f"{EVENTS}&ticket={ticket}", headers={"Accept": "text/event-stream"})
        )
        await stream.until("bookmark")
        await session.delete(f"/api/v1/tokens/{record.id}", headers=bearer(ADMIN))
        assert _last_words(await stream.rest()) == ("end", "revoked")


async def test_the_timer_finds_what_was_not_announced() -> None:
    clock = ManualClock()
    backend = Backend(clock=clock)
    async with serving(backend) as (_, session):
        stream = await open_stream(session, EVENTS, ALICE)
        await stream.until("bookmark")
        del backend.principals[ALICE]
        clock.advance_s(15)
        assert _last_words(await stream.rest()) == ("end", "revoked")


async def test_a_job_whose_roles_change_is_hidden_from_its_next_frame_on() -> None:
    backend = Backend()
    job = backend.define("App/Job")
    execution = backend.queue("App/Job", user_id="bob")
    seen = backend.define("App/Seen")
    async with serving(backend, NEVER) as (_, session):
        stream = await open_stream(session, EVENTS, ALICE)
        await stream.until("bookmark")
        backend.run(execution)
        before = await stream.next_change()
        _restrict(backend, job, RolesSpec(view=("secret-keepers",)))
        backend.progress(execution, 10)
        backend.queue(seen.id, user_id="bob")
        after = await stream.next_change()
        replay = await open_stream(session, EVENTS, ALICE, Last_Event_ID=str(before.id))
        replayed = await replay.next_change()
        stream.close()
        replay.close()
        found = await session.get(f"/api/v1/executions/{execution}", headers=bearer(ALICE))
    assert before.data["job"] == "App/Job"
    assert after.data["job"] == replayed.data["job"] == "App/Seen"
    assert found.status == 404


async def test_a_reader_that_loses_the_right_to_output_gets_the_end() -> None:
    backend = Backend()
    job = backend.define("App/Job")
    execution = backend.queue("App/Job", user_id="bob")
    backend.run(execution)
    async with serving(backend, NEVER) as (_, session):
        stream = await open_stream(session, f"/api/v1/executions/{execution}/stream", ALICE)
        await stream.until("snapshot_end")
        _restrict(backend, job, RolesSpec(output=("secret-keepers",)))
        await backend.output.append(execution, b"the secret\n")
        answered = await stream.rest()
    assert _last_words(answered) == ("end", "revoked")
    assert b"secret" not in stream.raw


async def test_a_waiting_request_gets_nothing_after_a_revocation() -> None:
    backend = Backend()
    backend.define("App/Job")
    backend.handle_at_once = False
    async with serving(backend) as (_, session):
        waiting = asyncio.create_task(
            session.post(
                "/api/v1/commands",
                json={"command": "start", "jobId": "App/Job"},
                headers=bearer(ALICE) | {"Prefer": "wait=20"},
            )
        )
        while not backend.published:
            await asyncio.sleep(0.01)
        del backend.principals[ALICE]
        backend.end_command(backend.published[0].id)
        response = await waiting
    assert response.status == 401


@pytest.mark.parametrize("waits", [0, 1])
async def test_without_a_place_to_wait_the_answer_comes_at_once(waits: int) -> None:
    backend = Backend()
    backend.define("App/Job")
    backend.handle_at_once = False
    body = {"command": "start", "jobId": "App/Job"}
    settings = GatewaySettings(waits_per_principal=waits)
    async with (
        serving(backend, settings) as (_, session),
        asyncio.timeout(10),
        _waiting(session, backend, body, waits),
    ):
        response = await session.post(
            "/api/v1/commands", json=body, headers=bearer(ALICE) | {"Prefer": "wait=30"}
        )
    assert response.status == 202
    assert "Preference-Applied" not in response.headers


async def test_a_principal_keeps_to_its_pace_and_holds_up_no_other() -> None:
    clock = ManualClock()
    backend = Backend(clock=clock)
    backend.define("App/Job")
    settings = GatewaySettings(posts_per_s=2.0, post_burst=5.0)
    body = {"command": "start", "jobId": "App/Job"}
    async with serving(backend, settings) as (_, session):
        sent = [
            await session.post("/api/v1/commands", json=body, headers=bearer(ALICE))
            for _ in range(7)
        ]
        reads = await session.get("/api/v1/jobs", headers=bearer(ALICE))
        other = await session.post("/api/v1/commands", json=body, headers=bearer(ADMIN))
        clock.advance_s(float(sent[-1].headers["Retry-After"]))
        later = await session.post("/api/v1/commands", json=body, headers=bearer(ALICE))
    assert [response.status for response in sent] == [202] * 5 + [429] * 2
    assert (reads.status, other.status, later.status) == (200, 202, 202)
    assert len(backend.published) == 7


@contextlib.asynccontextmanager
async def _waiting(
    session: aiohttp.ClientSession, backend: Backend, body: dict[str, str], count: int
) -> AsyncIterator[None]:
    """`count` requests of Alice wait inside the block."""
    headers = bearer(ALICE) | {"Prefer": "wait=30"}
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(_ignored(session, body, headers))
        while len(backend.published) < count:
            await asyncio.sleep(0.01)
        yield
        for envelope in backend.published:
            backend.end_command(envelope.id)


async def _ignored(
    session: aiohttp.ClientSession, body: dict[str, str], headers: dict[str, str]
) -> None:
    async with session.post("/api/v1/commands", json=body, headers=headers):
        pass


async def _opened(session: aiohttp.ClientSession, browser: Browser) -> StreamReader:
    accept = {"Accept": "text/event-stream"}
    stream = StreamReader(await session.get(EVENTS, headers=browser.headers | accept))
    await stream.until("bookmark")
    return stream


def _restrict(backend: Backend, job: Job, roles: RolesSpec) -> None:
    assert job.spec is not None
    spec = msgspec.structs.replace(job.spec, roles=roles)
    backend.table.by_job[job.id] = msgspec.structs.replace(job, spec=spec)


def _last_words(answered: list[SentFrame]) -> tuple[str, str]:
    return answered[-1].kind, answered[-1].data["reason"]


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("output", {}),
        ("output?stream=out", {}),
        ("output", {"Range": "bytes=0-"}),
    ],
)
@pytest.mark.parametrize("how", ["token", "lists"])
async def test_a_long_output_is_not_sent_to_its_end_once_the_right_is_gone(
    target: str, headers: dict[str, str], how: str
) -> None:
    """Its reader is slow, or the output so long that it takes an hour."""
    backend = Backend()
    backend.define("App/Job")
    execution = backend.queue("App/Job")
    line = b"x" * 999 + b"\n"
    await backend.output.append(execution, line * (24 * 1024))
    async with serving(backend) as (_, session):
        asked = bearer(VIEWER if how == "lists" else ALICE) | headers
        if how == "lists":
            _let_view(backend, "App/Job", "viewer")
        path = f"/api/v1/executions/{execution}/{target}"
        async with session.get(path, headers=asked) as answer:
            assert answer.status in (200, 206)
            await answer.content.readexactly(1000)
            if how == "lists":
                _let_view(backend, "App/Job", "outsider")
            else:
                del backend.principals[ALICE]
            answered, is_whole = await _rest(answer)
    assert not is_whole
    assert answered < 24 * 1024 * 1000


async def _rest(answer: aiohttp.ClientResponse) -> tuple[int, bool]:
    """How many bytes came yet, and whether they were all."""
    answered = 0
    try:
        while piece := await answer.content.readany():
            answered += len(piece)
    except aiohttp.ClientError:
        return answered, False
    return answered, True


def _let_view(backend: Backend, job_id: str, role: str) -> None:
    job = backend.table.by_job[job_id]
    assert job.spec is not None
    roles = RolesSpec(view=(role,), output=(role,))
    spec = msgspec.structs.replace(job.spec, roles=roles)
    backend.table.by_job[job_id] = msgspec.structs.replace(job, spec=spec)
