"""The WebSocket with an independent client: subscriptions, commands, grants, limits, ends."""

import asyncio
import json
from collections.abc import Callable

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from bus.errors import ErrorCode, Refused
from bus.feed import Feed
from bus.job_definition import RolesSpec
from bus.model import Principal
from tests.gateway_fixture import ADMIN, ALICE, EPOCH, ROLELESS, VIEWER, Backend, bearer, serving
from tests.sign_in import Browser
from tests.socket_client import PATH, PROTOCOL, ReceivedFrame, SocketClient, ids, kinds, open_socket
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

EXECUTION = "0190a1b2-c3d4-4e5f-8a9b-0c1d2e3f4a5b"


async def refused(url: str, protocols: list[str], **headers: str) -> tuple[int, str, str]:
    """Status, code and Retry-After of a handshake that is answered with a problem."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(
            url.replace("http", "ws", 1) + PATH,
            subprotocols=[Subprotocol(name) for name in protocols] or None,
            additional_headers=headers,
            proxy=None,
        ):
            pass
    response = caught.value.response
    problem = json.loads(response.body or b"{}")
    return response.status_code, problem["code"], response.headers.get("Retry-After", "")


# the handshake


async def test_a_socket_says_hello_and_speaks_our_protocol_only() -> None:
    async with serving(Backend()) as (url, session):
        async with open_socket(url) as socket:
            protocol = socket.connection.subprotocol
            extensions = socket.connection.response
        none = await refused(url, [], **bearer(ALICE))
        other = await refused(url, ["graphql-ws"], **bearer(ALICE))
        plain = await session.get(PATH, headers=bearer(ALICE))
    assert protocol == PROTOCOL
    assert extensions is not None
    assert "Sec-WebSocket-Extensions" not in extensions.headers
    assert none[:2] == other[:2] == (400, "unknown_subprotocol")
    assert (plain.status, plain.headers["Upgrade"]) == (426, "websocket")


async def test_ours_is_chosen_among_many() -> None:
    async with serving(Backend()) as (url, _), open_socket(url, others=["chat"]) as socket:
        assert socket.connection.subprotocol == PROTOCOL


async def test_a_bad_credential_is_refused_with_the_handshake() -> None:
    async with serving(Backend()) as (url, _):
        wrong = await refused(url, [PROTOCOL], Authorization="Bearer nonsense")
    assert wrong[:2] == (401, "unauthenticated")


async def test_a_host_that_is_not_served_is_refused() -> None:
    async with serving(Backend()) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: rebound.example\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Sec-WebSocket-Protocol: {PROTOCOL}\r\nAuthorization: Bearer {ALICE}\r\n\r\n".encode()
        )
        async with asyncio.timeout(20):
            status = (await reader.readline()).split()[1]
        writer.close()
        await writer.wait_closed()
    assert status == b"421"


async def test_a_cookie_opens_a_socket_for_pages_of_this_service_only() -> None:
    backend = Backend()
    async with serving(backend) as (url, session):
        browser = Browser(session, url)
        assert await browser.sign_in(token=ALICE) == 204
        cookie = browser.headers["Cookie"]
        async with open_socket(url, None, Origin=url, Cookie=cookie) as socket:
            hello = await socket.next()
        without = await refused(url, [PROTOCOL], Cookie=cookie)
        foreign = await refused(url, [PROTOCOL], Origin="http://127.0.0.1:1", Cookie=cookie)
    assert hello.data["user"] == "alice"
    assert without[:2] == foreign[:2] == (403, "origin_refused")


async def test_a_ticket_opens_a_socket() -> None:
    async with serving(Backend()) as (url, session):
        made = await session.post("/api/v1/tickets", json={"path": PATH}, headers=bearer(ALICE))
        ticket = (await made.json())["ticket"]
        async with open_socket(url, None, f"{PATH}?ticket={ticket}") as socket:
            hello = await socket.next()
    assert (made.status, hello.data["user"]) == (201, "alice")


async def test_the_first_frame_may_prove_who_it_is() -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (url, _), open_socket(url, None) as socket:
        await socket.say("auth", token=ALICE)
        hello = await socket.next()
        sent = await socket.subscribe("a")
        await socket.say("auth", token=ALICE)
        again = (await socket.until("problem"))[-1]
    assert (hello.op, hello.sub, hello.data["user"]) == ("hello", None, "alice")
    assert kinds(sent) == ["subscribed", "hello"]
    assert again.data["status"] == 409


@pytest.mark.parametrize(
    "first",
    [
        '{"op":"auth","token":"wrong"}',
        '{"op":"auth","token":"jb_\\u00e9_\\n"}',
        '{"op":"subscribe","sub":"a","topic":"events"}',
        "nonsense",
        None,
    ],
)
async def test_a_client_without_proof_in_time_gets_a_problem_and_is_closed_for_good(
    first: str | None,
) -> None:
    settings = GatewaySettings(socket_auth_s=5.0 if first else 0.1)
    async with serving(Backend(), settings) as (url, _), open_socket(url, None) as socket:
        if first is not None:
            await socket.connection.send(first)
        problem = await socket.next()
        code = await socket.code()
    assert (problem.op, problem.data["status"]) == ("problem", 401)
    assert code == (4501, "unauthenticated")


async def test_sockets_without_a_credential_are_few_and_take_no_place_of_others() -> None:
    settings = GatewaySettings(sockets_unproven_max=2, streams_max=1)
    async with (
        serving(Backend(), settings) as (url, _),
        open_socket(url, None) as first,
        open_socket(url, None),
    ):
        third = await refused(url, [PROTOCOL])
        await first.say("auth", token=ALICE)
        assert (await first.next()).op == "hello"
        async with open_socket(url, None):
            pass  # the place of the first is free since it is somebody
    assert third == (503, "too_many_streams", "5")


async def test_a_full_service_refuses_before_the_handshake_and_after_a_late_proof() -> None:
    settings = GatewaySettings(streams_max=2, streams_per_principal=1)
    async with serving(Backend(), settings) as (url, session), open_socket(url, ALICE):
        mine = await refused(url, [PROTOCOL], **bearer(ALICE))
        async with open_socket(url, None) as late:
            await late.say("auth", token=ALICE)
            late_mine = await late.code()
        stream = await session.get("/api/v1/events?start=now", headers=bearer(ADMIN))
        anybodys = await refused(url, [PROTOCOL], **bearer(VIEWER))
        async with open_socket(url, None) as late:
            await late.say("auth", token=VIEWER)
            late_anybodys = await late.code()
        system = await session.get("/api/v1/system", headers=bearer(ADMIN))
        counts = (await system.json())["streams"]
        stream.close()
    assert mine == (429, "too_many_streams", "5")
    assert anybodys == (503, "too_many_streams", "5")
    assert (late_mine[0], late_anybodys[0]) == (4029, 4013)
    assert counts["byUser"] == {"alice": 1, "root": 1}


# subscriptions to events


async def test_a_subscription_gets_its_snapshot_and_then_each_change_with_an_id() -> None:
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.say("subscribe", sub="all", topic="events")
        begin = await socket.until("snapshot_end")
        backend.queue("App/Job", execution_id=EXECUTION)
        change = (await socket.until("change"))[-1]
    assert kinds(begin) == ["subscribed", "hello", "snapshot", "snapshot_end"]
    assert {each.sub for each in begin} == {"all"}
    assert begin[0].whole == {"op": "subscribed", "sub": "all", "resumed": False}
    assert begin[1].data["head"] == begin[3].id == "abc123-1"
    assert list(change.whole) == ["op", "sub", "id", "data"]
    assert (change.id, change.data["id"], change.data["type"]) == (
        "abc123-2",
        "abc123-2",
        "execution.queued",
    )


async def test_each_subscription_has_its_own_filter_and_cursor() -> None:
    backend = Backend()
    one = backend.queue("A/One")
    two = backend.queue("A/Two", "bob")
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.subscribe("one", filter={"job": "A/One"}, start="now")
        await socket.subscribe("bobs", filter={"user": ["bob", "eve"]}, after="abc123-0")
        await socket.subscribe("runs", filter={"type": ["execution.running"]}, start="now")
        await socket.subscribe("late", filter={"execution": two}, after="abc123-2")
        backend.run(one)
        backend.run(two)
        received: list[ReceivedFrame] = []
        while not {"one", "bobs", "runs", "late"} <= {
            each.sub for each in received if each.id == "abc123-4"
        } | {each.sub for each in received if each.sub == "one" and each.id == "abc123-3"}:
            received.append(await socket.next())
    assert ids(received, "one") == ["abc123-3"]
    assert ids(received, "bobs")[-1:] == ["abc123-4"]
    assert ids(received, "runs") == ["abc123-3", "abc123-4"]
    assert ids(received, "late") == ["abc123-4"]


async def test_a_subscription_goes_on_after_its_cursor() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    for percent in range(5):
        backend.progress(execution, percent)
    async with serving(backend) as (url, _), open_socket(url) as socket:
        begin = await socket.subscribe("a", after="abc123-4")
        sent = [await socket.next(), await socket.next()]
    assert begin[0].whole["resumed"] is True
    assert ids(sent, "a") == ["abc123-5", "abc123-6"]


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("nothing", "cursor_invalid"),
        ("", "cursor_invalid"),
        ("other99-1", "epoch_changed"),
        ("abc123-99999", "cursor_ahead"),
        ("abc123-3", "history_gone"),
    ],
)
async def test_a_cursor_that_cannot_be_served_is_one_reset_of_its_subscription(
    cursor: str, reason: str
) -> None:
    backend = Backend()
    backend.feed = Feed(EPOCH, 10, backend.clock)
    backend.queue("App/Job")
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.subscribe("still", start="now")
        await socket.say("subscribe", sub="lost", topic="events", after=cursor)
        received = await socket.until("snapshot_end")
    lost = [each for each in received if each.sub == "lost"]
    assert kinds(lost) == ["subscribed", "hello", "reset", "snapshot", "snapshot_end"]
    assert (lost[0].whole["resumed"], lost[2].data["reason"]) == (False, reason)
    assert kinds([each for each in received if each.sub == "still"]) == ["bookmark"]


async def test_earliest_sends_the_journal_beside_a_neighbour_that_begins_now() -> None:
    backend = Backend()
    for _ in range(20):
        backend.queue("App/Job")
    held = Feed(EPOCH, 20, backend.clock)
    held.refill([frame for frame in backend.history.frames if frame.seq > 12], 12)
    backend.feed = held
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.subscribe("now", start="now")
        await socket.say("subscribe", sub="all", topic="events", start="earliest")
        received = await socket.until_it(
            lambda each: each.id == "abc123-20" and each.op == "change"
        )
        backend.queue("App/Job")
        received += await socket.until("change", "all")
        if not ids(received, "now"):
            received += await socket.until("change", "now")
    assert ids(received, "all") == [f"abc123-{seq}" for seq in range(1, 22)]
    assert ids(received, "now") == ["abc123-21"]


async def test_unsubscribing_ends_one_and_frees_its_name() -> None:
    backend = Backend()
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.subscribe("a", start="now")
        await socket.subscribe("b", start="now")
        await socket.say("unsubscribe", sub="a")
        end = (await socket.until("end", "a"))[-1]
        backend.queue("App/Job")
        change = (await socket.until("change"))[-1]
        again = await socket.subscribe("a", after=end.id)
        missed = (await socket.until("change", "a"))[-1]
    assert (end.data["reason"], end.id) == ("unsubscribed", "abc123-0")
    assert (change.sub, change.id) == ("b", "abc123-1")
    assert again[0].whole["resumed"] is True
    assert missed.id == "abc123-1"


async def test_in_silence_each_subscription_gets_bookmarks() -> None:
    backend = Backend()
    settings = GatewaySettings(heartbeat_s=0.15)
    async with serving(backend, settings) as (url, _), open_socket(url) as socket:
        await socket.subscribe("a", filter={"job": "App/Job"}, start="now")
        await socket.subscribe("b", filter={"job": "App/Job"}, start="now")
        backend.queue("Other/Job")
        first = (await socket.until_it(lambda h: h.op == "bookmark" and h.id == "abc123-1"))[-1]
        second = (await socket.until("bookmark", "b" if first.sub == "a" else "a"))[-1]
    assert second.id == "abc123-1"


async def test_a_burst_reaches_all_subscriptions_of_all_sockets_whole() -> None:
    backend = Backend()
    async with serving(backend, GatewaySettings(streams_per_principal=50)) as (url, _):
        sockets = [open_socket(url) for _ in range(5)]
        clients = [await each.__aenter__() for each in sockets]
        for client in clients:
            for name in ("a", "b", "c"):
                await client.subscribe(name, start="now")
                await client.until("bookmark", name)
        execution = backend.queue("App/Job")
        for step in range(500):
            backend.progress(execution, step % 100)

        async def received_by(client: SocketClient) -> dict[str, list[str]]:
            received = [await client.next() for _ in range(3 * 501)]
            return {name: ids(received, name) for name in ("a", "b", "c")}

        everything = await asyncio.gather(*(received_by(client) for client in clients))
        for each in sockets:
            await each.__aexit__(None, None, None)
    expected = [f"abc123-{seq}" for seq in range(1, 502)]
    assert all(got == expected for each in everything for got in each.values())


# subscriptions to outputs


async def test_output_is_sent_live_and_ends_with_the_execution() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.subscribe("changes", start="now")
        await socket.say("subscribe", sub="out", topic="output", execution=execution)
        begin = await socket.until("snapshot_end", "out")
        await backend.output.append(execution, b"one\n")
        first = (await socket.until("output"))[-1]
        await backend.output.append(execution, b"two\n")
        backend.end(execution)
        rest = await socket.until("end", "out")
        known = await socket.subscribe("out", "output", execution=execution, after=rest[-1].id)
        at_once = await socket.until("end", "out")
    mine = [each for each in begin if each.sub == "out"]
    assert kinds(mine) == ["subscribed", "hello", "snapshot", "snapshot_end"]
    assert (first.sub, first.id) == ("out", "abc123-1-4")
    assert "one" in json.dumps(first.data)
    tail = [each for each in rest if each.sub == "out"]
    assert kinds(tail) == ["output", "change", "end"]
    assert tail[1].data["type"] == "execution.ended"
    assert (tail[2].data["reason"], tail[2].id) == ("terminal", "abc123-2-8")
    assert known[0].whole["resumed"] is True
    assert kinds([each for each in at_once if each.sub == "out"]) == ["end"]


@pytest.mark.parametrize("where", [{"from": 9}, {"tail": 1}])
async def test_output_may_begin_later(where: dict[str, int]) -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    await backend.output.append(execution, b"line one\nline two\n")
    backend.end(execution)
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.say("subscribe", sub="out", topic="output", execution=execution, **where)
        received = await socket.until("end")
    sent = json.dumps([each.data for each in received if each.op == "output"])
    assert "line two" in sent
    assert "line one" not in sent


async def test_a_reader_that_wants_the_latest_gets_a_gap_for_what_was_left_out() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    await backend.output.append(execution, b"x" * 99 + b"\n")
    await backend.output.append(execution, (b"y" * 99 + b"\n") * 60_000)
    backend.end(execution)
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.say(
            "subscribe", sub="out", topic="output", execution=execution, follow="latest"
        )
        received = await socket.until("end")
    gaps = [each for each in received if each.op == "gap"]
    assert len(gaps) == 1
    assert gaps[0].sub == "out"
    assert gaps[0].data["to"] > gaps[0].data["from"]
    assert received[-1].id == f"abc123-2-{100 * 60_001}"


@pytest.mark.parametrize(
    ("members", "status", "says"),
    [
        ({"topic": "output"}, 422, "execution"),
        ({"topic": "output", "execution": "../x"}, 404, "UUID"),
        ({"topic": "output", "execution": EXECUTION}, 404, EXECUTION),
        ({"topic": "output", "execution": "{mine}", "from": 1, "tail": 1}, 422, "either"),
        ({"topic": "output", "execution": "{mine}", "from": -1}, 422, "at least 0"),
        ({"topic": "output", "execution": "{mine}", "filter": {}}, 422, "not for the topic"),
        ({"topic": "output", "execution": "{hidden}"}, 404, "no execution"),
        ({"topic": "output", "execution": "{closed}"}, 403, "output"),
        ({"topic": "events", "execution": "{mine}"}, 422, "not for the topic"),
        ({"topic": "events", "filter": {"jop": "A/B"}}, 422, "jop"),
        ({"topic": "events", "filter": {"job": 5}}, 422, "filter"),
        ({"topic": "events", "filter": {"job": [""]}}, 422, "1 to 256"),
        ({"topic": "events", "filter": {"job": ["A/B"] * 33}}, 422, "32"),
        ({"topic": "events", "filter": {"type": "everything"}}, 400, "execution.*"),
        ({"topic": "events", "filter": {"execution": "x"}}, 400, "UUID"),
        ({"topic": "events", "start": "later"}, 422, "later"),
        ({"topic": "events", "after": "x" * 200}, 422, "128"),
        ({"topic": "weather"}, 422, "weather"),
        ({"topic": "events", "colour": "red"}, 422, "colour"),
        ({}, 422, "topic"),
    ],
)
async def test_what_cannot_be_subscribed_to_is_a_problem_with_its_name_and_ends_nothing(
    members: dict[str, object], status: int, says: str
) -> None:
    backend = Backend()
    backend.define("Secret/Job", roles=RolesSpec(view=("insider",)))
    backend.define("Closed/Job", roles=RolesSpec(view=("viewer",), output=("insider",)))
    known = {
        "{mine}": backend.queue("App/Job", "vera"),
        "{hidden}": backend.queue("Secret/Job", "root"),
        "{closed}": backend.queue("Closed/Job", "root"),
    }
    spelled = {k: known.get(v, v) if isinstance(v, str) else v for k, v in members.items()}
    async with serving(backend) as (url, _), open_socket(url, VIEWER) as socket:
        await socket.say("subscribe", sub="x", **spelled)
        problem = await socket.next()
        await socket.say("ping", n=1)
        pong = await socket.next()
    assert (problem.op, problem.sub, problem.data["status"]) == ("problem", "x", status)
    assert says in problem.data["detail"]
    assert problem.data["type"].startswith("/problems/")
    assert pong.whole == {"op": "pong", "n": 1}


async def test_names_are_checked_and_not_given_twice() -> None:
    async with serving(Backend()) as (url, _), open_socket(url) as socket:
        await socket.subscribe("a", start="now")
        await socket.say("subscribe", sub="a", topic="events")
        twice = (await socket.until("problem"))[-1]
        await socket.say("unsubscribe", sub="b")
        unknown = await socket.next()
        await socket.say("subscribe", sub='"}', topic="events")
        odd = await socket.next()
        await socket.say("subscribe", sub="x" * 65, topic="events")
        long = await socket.next()
    assert (twice.sub, twice.data["status"]) == ("a", 409)
    assert (unknown.sub, unknown.data["status"]) == ("b", 404)
    assert (odd.sub, odd.data["status"]) == (None, 422)
    assert (long.sub, long.data["status"]) == (None, 422)


async def test_the_sixty_fifth_subscription_is_refused() -> None:
    async with serving(Backend()) as (url, _), open_socket(url) as socket:
        for number in range(64):
            await socket.subscribe(f"s{number}", start="now")
        await socket.say("subscribe", sub="more", topic="events", start="now")
        problem = (await socket.until("problem"))[-1]
        await socket.say("unsubscribe", sub="s7")
        await socket.until("end", "s7")
        again = await socket.subscribe("more", start="now")
    assert (problem.sub, problem.data["status"]) == ("more", 429)
    assert kinds(again)[-2:] == ["subscribed", "hello"]


# commands


async def test_commands_are_published_in_order_and_answered_by_their_ref() -> None:
    backend = Backend()
    async with serving(backend) as (url, _), open_socket(url) as socket:
        for number in range(5):
            command = {"command": "start", "jobId": f"App/Job{number}"}
            await socket.say("publish", ref=f"r{number}", command=command)
        results = [await socket.next() for _ in range(5)]
    assert [each.ref for each in results] == [f"r{number}" for number in range(5)]
    assert {each.whole["status"] for each in results} == {202}
    assert [envelope.id for envelope in backend.published] == [
        each.data["commandId"] for each in results
    ]
    assert [getattr(each.command, "job_id", "") for each in backend.published] == [
        f"App/Job{number}" for number in range(5)
    ]
    assert {each.principal.user_id for each in backend.published} == {"alice"}
    assert results[0].data["links"]["self"].endswith(results[0].data["commandId"])


async def test_a_command_may_be_waited_for_while_others_go_on() -> None:
    backend = Backend()
    backend.handle_at_once = False
    command = {"command": "start", "jobId": "App/Job"}
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.say("publish", ref="slow", command=command, wait=20)
        await socket.say("publish", ref="short", command=command, wait=0)
        await socket.say("ping", n=7)
        meanwhile = [await socket.next(), await socket.next()]
        backend.end_command(backend.published[0].id)
        ended = await socket.next()
    assert {(each.op, each.ref) for each in meanwhile} == {("pong", None), ("result", "short")}
    assert (ended.ref, ended.whole["status"]) == ("slow", 200)
    assert (ended.data["status"], ended.data["outcome"]) == ("Completed", "done")


async def test_a_key_makes_a_repeat_the_same_command() -> None:
    backend = Backend()
    command = {"command": "start", "jobId": "App/Job"}
    async with serving(backend) as (url, session), open_socket(url) as socket:
        await socket.say("publish", ref="1", command=command, idempotencyKey="key-1")
        first = await socket.next()
        await socket.say("publish", ref="2", command=command, idempotencyKey="key-1")
        second = await socket.next()
        other = command | {"jobId": "App/Other"}
        await socket.say("publish", ref="3", command=other, idempotencyKey="key-1")
        third = await socket.next()
        over_http = await session.post(
            "/api/v1/commands", json=command, headers=bearer(ALICE) | {"Idempotency-Key": "key-1"}
        )
        same = (await over_http.json())["commandId"]
    assert "replayed" not in first.whole
    assert second.whole["replayed"] is True
    assert first.data["commandId"] == second.data["commandId"] == same
    assert (third.op, third.ref, third.data["status"]) == ("problem", "3", 422)


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ({"command": "strat", "jobId": "App/Job"}, 422, "start"),
        ({"command": "start"}, 422, "jobId"),
        ({"command": "start", "jobId": "App/Job", "jbId": 1}, 422, "jobId"),
        ({"command": "stop"}, 422, "name a jobId"),
        ({"command": "start", "jobId": "App/Job", "commandId": "x"}, 422, "UUID"),
        ({"command": "start", "jobId": "App/Job", "expiresAt": "soon"}, 422, "RFC 3339"),
        (
            {"command": "start", "jobId": "App/Job", "expiresAt": "9999-12-31T23:59:59-01:00"},
            422,
            "RFC 3339",
        ),
        ([], 422, "object"),
        ({"command": "start", "jobId": "No/Job"}, 404, "no such job"),
    ],
)
async def test_a_refused_command_is_a_problem_with_its_ref(
    command: object, status: int, says: str
) -> None:
    backend = Backend()
    backend.refuse_with = Refused(ErrorCode.UNKNOWN_JOB, "no such job")
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.say("publish", ref="r", command=command)
        problem = await socket.next()
    assert (problem.op, problem.ref, problem.data["status"]) == ("problem", "r", status)
    assert says in problem.data["detail"]
    assert not backend.published


async def test_commands_over_sockets_count_against_the_pace_of_their_principal() -> None:
    settings = GatewaySettings(posts_per_s=0.001, post_burst=2)
    command = {"command": "start", "jobId": "App/Job"}
    async with serving(Backend(), settings) as (url, _), open_socket(url) as socket:
        for ref in ("1", "2", "3"):
            await socket.say("publish", ref=ref, command=command)
        sent = [await socket.next() for _ in range(3)]
    assert [(each.op, each.ref) for each in sent] == [
        ("result", "1"),
        ("result", "2"),
        ("problem", "3"),
    ]
    assert sent[2].data["status"] == 429


# who may, now


async def test_frames_are_given_by_the_current_grant_live_and_in_replay() -> None:
    backend = Backend()
    backend.define("Secret/Job", roles=RolesSpec(view=("insider",)))
    backend.define("Open/Job")
    hidden = backend.queue("Secret/Job", "root")
    own = backend.queue("Secret/Job", "vera")
    async with serving(backend) as (url, _), open_socket(url, VIEWER) as socket:
        await socket.say("subscribe", sub="live", topic="events")
        snapshot = await socket.until("snapshot_end")
        await socket.subscribe("replay", after="abc123-0")
        replayed = [await socket.next(), await socket.next()]
        backend.run(hidden)
        backend.run(own)
        live = await socket.until("change", "live")
        backend.define("Open/Job", roles=RolesSpec(view=("insider",)))
        backend.queue("Open/Job", "root")
        backend.progress(own, 5)
        after = await socket.until("change", "live")
    items = [i["subject"] for each in snapshot if each.op == "snapshot" for i in each.data["items"]]
    assert items == ["jobs/Open/Job", f"executions/{own}"]
    assert [each.data["subject"] for each in replayed] == ["jobs/Open/Job", f"executions/{own}"]
    sent = [each.data["subject"] for each in (*live, *after) if each.sub == "live"]
    assert sent == [f"executions/{own}"] * 2


async def test_a_revoked_token_closes_its_sockets_and_no_others() -> None:
    backend = Backend()
    gateway = Gateway(backend.ports())
    url = await gateway.start("127.0.0.1", 0)
    async with open_socket(url) as socket, open_socket(url, ADMIN) as other:
        await socket.subscribe("a", start="now")
        await other.subscribe("a", start="now")
        del backend.principals[ALICE]
        gateway.recheck()
        rest = await socket.rest()
        code = await socket.code()
        backend.define("App/Job")
        assert (await other.until("change"))[-1].data["type"] == "job.changed"
        await gateway.aclose()
    assert [(each.op, each.data["reason"]) for each in rest if each.op == "end"] == [
        ("end", "revoked")
    ]
    assert code == (4504, "revoked")


async def test_a_frame_of_a_token_that_is_over_does_nothing() -> None:
    """Not even in the moment until the timer finds the socket."""
    backend = Backend()
    backend.define("App/Job")
    async with serving(backend) as (url, _), open_socket(url) as socket:
        del backend.principals[ALICE]
        command = {"command": "start", "jobId": "App/Job"}
        await socket.say("publish", ref="r", command=command)
        code = await socket.code()
    assert code == (4504, "revoked")
    assert backend.published == []


async def test_a_token_is_asked_again_by_the_clock() -> None:
    backend = Backend()
    settings = GatewaySettings(recheck_s=0.1)
    async with serving(backend, settings) as (url, _), open_socket(url) as socket:
        del backend.principals[ALICE]
        assert await socket.code() == (4504, "revoked")


async def test_new_roles_count_for_subscriptions_that_are_open() -> None:
    backend = Backend()
    backend.define("App/Job")
    gateway = Gateway(backend.ports())
    url = await gateway.start("127.0.0.1", 0)
    async with open_socket(url, ROLELESS) as socket, open_socket(url, ADMIN) as control:
        await socket.subscribe("a", start="now")
        await socket.until("bookmark")
        await control.subscribe("a", start="now")
        backend.queue("App/Job", "root")
        await control.until("change")  # the flush that left `socket` out is over
        backend.principals[ROLELESS] = Principal(user_id="sam", roles=("viewer",), via="http")
        gateway.recheck()
        second = backend.queue("App/Job", "root")
        sent = await socket.next()
        await gateway.aclose()
    assert sent.data["execution"] == second


async def test_an_output_that_may_not_be_read_any_more_ends_alone() -> None:
    backend = Backend()
    backend.define("App/Job")
    execution = backend.queue("App/Job", "root")
    async with serving(backend) as (url, _), open_socket(url) as socket:
        await socket.subscribe("out", "output", execution=execution)
        await socket.until("snapshot_end")
        backend.define("App/Job", roles=RolesSpec(view=("operator",), output=("insider",)))
        backend.run(execution)
        await backend.output.append(execution, b"secret\n")
        received = await socket.until("end", "out")
        await socket.say("ping", n=1)
        assert (await socket.next()).op == "pong"
    assert received[-1].data["reason"] == "revoked"
    assert "secret" not in json.dumps([each.whole for each in received])


# limits and ends


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x00\x01", (4500, "protocol")),
        ("nonsense", (4500, "protocol")),
        ("[]", (4500, "protocol")),
        ("[" * 5_000, (4500, "protocol")),
        ('{"op":"shout","sub":' + "[" * 5_000 + "]" * 5_000 + "}", (4500, "protocol")),
        ('{"op":"ping","n":1}' * 2, (4500, "protocol")),
        (" " * (64 * 1024), (4500, "protocol")),
    ],
)
async def test_what_is_not_our_protocol_closes_the_socket_for_good(
    message: str | bytes, code: tuple[int, str]
) -> None:
    async with serving(Backend()) as (url, _), open_socket(url) as socket:
        await socket.subscribe("a", start="now")
        await socket.connection.send(message)
        assert await socket.code() == code


async def test_a_message_over_the_limit_is_too_big() -> None:
    async with serving(Backend()) as (url, _), open_socket(url) as socket:
        await socket.connection.send("x" * (64 * 1024 + 1))
        assert (await socket.code())[0] == 1009


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ('{"op":"shout","sub":"a"}', {"sub": "a"}),
        ('{"op":"ping","n":"x","ref":"r"}', {"ref": "r"}),
        ('{"op":"ping","n":1e400}', {}),
        ('{"n":1}', {}),
        ("{}", {}),
        ('{"op":"ping","n":1,"m":2}', {}),
        ('{"op":"unsubscribe","sub":null}', {}),
        ('{"op":"publish","ref":"r","command":{"command":"start","jobId":"\\ud800"}}', {}),
    ],
)
async def test_an_object_that_says_nothing_known_is_a_problem(
    text: str, about: dict[str, str]
) -> None:
    async with serving(Backend()) as (url, _), open_socket(url) as socket:
        await socket.connection.send(text)
        problem = await socket.next()
    assert problem.op == "problem"
    assert problem.data["status"] in (400, 422)
    assert about.items() <= problem.whole.items()


async def test_a_client_that_sends_too_fast_gets_a_position_to_resume_and_is_closed() -> None:
    settings = GatewaySettings(socket_frames_per_s=1.0, socket_frames_burst=30.0)
    async with serving(Backend(), settings) as (url, _), open_socket(url) as socket:
        await socket.subscribe("a", start="now")
        for number in range(40):
            await socket.say("ping", n=number)
        rest = await socket.rest()
        code = await socket.code()
    assert kinds(rest).count("pong") == 29
    assert [(each.sub, each.data["reason"]) for each in rest if each.op == "end"] == [("a", "rate")]
    assert code == (4029, "rate")


async def test_pings_of_the_protocol_are_answered_and_counted() -> None:
    settings = GatewaySettings(socket_frames_per_s=1.0, socket_frames_burst=5.0)
    async with serving(Backend(), settings) as (url, _), open_socket(url) as socket:
        async with asyncio.timeout(20):
            answered = await socket.connection.ping(b"\x00\xffdata")
            latency_s = await answered
        unanswered = [await socket.connection.ping() for _ in range(6)]
        assert await socket.code() == (4029, "rate")
        for each in unanswered:
            each.cancel()  # type: ignore[attr-defined]  # a future, sent as an awaitable
    assert latency_s >= 0


async def test_an_old_socket_is_asked_to_rotate_with_every_cursor() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    await backend.output.append(execution, b"text\n")
    settings = GatewaySettings(heartbeat_s=0.3, age_s=0.4)
    async with serving(backend, settings) as (url, _), open_socket(url) as socket:
        await socket.say("subscribe", sub="a", topic="events", start="now")
        await socket.say("subscribe", sub="o", topic="output", execution=execution)
        rest = await socket.rest()
        code = await socket.code()
    ends = {each.sub: each for each in rest if each.op == "end"}
    assert {name: end.data["reason"] for name, end in ends.items()} == {
        "a": "rotate",
        "o": "rotate",
    }
    assert (ends["a"].id, ends["o"].id) == ("abc123-1", "abc123-1-5")
    assert 500 <= ends["a"].data["retryMs"] <= 3000
    assert code == (4000, "rotate")


async def test_a_service_that_leaves_ends_all_sockets_in_order() -> None:
    backend = Backend()
    gateway = Gateway(backend.ports(), GatewaySettings(streams_per_principal=60))
    url = await gateway.start("127.0.0.1", 0)
    opened = [open_socket(url) for _ in range(50)]
    sockets = [await each.__aenter__() for each in opened]
    for socket in sockets:
        await socket.say("subscribe", sub="a", topic="events", start="now")
        await socket.until("bookmark")
    async with open_socket(url, None) as anonymous:
        readers = [asyncio.create_task(socket.rest()) for socket in sockets]
        async with asyncio.timeout(30):
            await gateway.aclose()
        ends = [(await reader)[-1] for reader in readers]
        codes = {await socket.code() for socket in sockets}
        await anonymous.rest()
    for each in opened:
        await each.__aexit__(None, None, None)
    assert {(end.op, end.data["reason"], end.id) for end in ends} == {
        ("end", "shutdown", "abc123-0")
    }
    assert codes == {(1001, "shutdown")}


@pytest.mark.parametrize("leave", [SocketClient.vanish, None])
async def test_who_left_makes_room(leave: Callable[[SocketClient], None] | None) -> None:
    settings = GatewaySettings(streams_per_principal=1, heartbeat_s=0.3)
    async with serving(Backend(), settings) as (url, _):
        async with open_socket(url) as socket:
            await socket.subscribe("a", start="now")
            if leave is not None:
                leave(socket)
        async with asyncio.timeout(20):
            while await is_full(url):
                await asyncio.sleep(0.02)


async def is_full(url: str) -> bool:
    try:
        async with open_socket(url):
            return False
    except InvalidStatus as refusal:
        return refusal.response.status_code == 429
