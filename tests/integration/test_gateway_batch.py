"""Many commands in one request: each line has its answer, in order, and none hurts another."""

import json
from typing import Any

import aiohttp

from bus.errors import ErrorCode, NoSpace, Refused
from tests.gateway_fixture import ADMIN, ALICE, Backend, bearer, serving
from transports.http.settings import GatewaySettings

PATH = "/api/v1/commands"
NDJSON = {"Content-Type": "application/x-ndjson"}


def line(**fields: Any) -> str:
    return json.dumps({"command": "start", "jobId": "App/Job"} | fields)


async def send(
    session: aiohttp.ClientSession, *lines: str, **headers: str
) -> tuple[int, list[Any], Any]:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    body = "\n".join(lines) + "\n"
    async with session.post(
        PATH, data=body.encode(), headers=bearer(ALICE) | NDJSON | spelled
    ) as response:
        raw = await response.read()
        if response.content_type != "application/x-ndjson":
            return response.status, [], json.loads(raw)
        return response.status, [json.loads(one) for one in raw.splitlines()], None


async def test_each_line_has_its_answer_in_order_and_a_bad_one_hurts_no_other() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        status, answered, _ = await send(
            session,
            line(variables={"N": 1}),
            "{broken",
            line(colour="red"),
            line(command="strat"),
            "",
            line(variables={"N": 2}),
        )
    assert status == 200
    assert [each.get("problem", {}).get("status") for each in answered] == [
        None,
        400,
        422,
        422,
        None,
    ]
    assert answered[2]["problem"]["errors"][0]["pointer"] == "/colour"
    assert "start" in answered[3]["problem"]["detail"]
    accepted = [each["commandId"] for each in answered if "commandId" in each]
    assert accepted == [envelope.id for envelope in backend.published]
    assert answered[0]["links"]["self"] == f"{PATH}/{accepted[0]}"
    assert [e.command.variables for e in backend.published] == [{"N": 1}, {"N": 2}]  # type: ignore[union-attr]


async def test_refusals_and_a_full_disk_are_reported_in_their_lines() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        backend.refuse_with = Refused(ErrorCode.UNKNOWN_JOB, "there is no job App/Job")
        _, refused, _ = await send(session, line(), line())
        backend.refuse_with = None
        backend.break_transport_with = NoSpace("no room")
        _, full, _ = await send(session, line())
    assert [each["problem"]["code"] for each in refused] == ["unknown_job"] * 2
    assert full[0]["problem"]["status"] == 507


async def test_a_repeated_key_makes_the_same_commands() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        first = await send(session, line(), line(), Idempotency_Key="night-1")
        again = await send(session, line(), line(), Idempotency_Key="night-1")
        other = await send(session, line(), line(variables={"N": 1}), Idempotency_Key="night-1")
    assert len(backend.published) == 2
    assert [e["commandId"] for e in again[1]] == [e["commandId"] for e in first[1]]
    assert all(each["replayed"] for each in again[1])
    assert other[1][1]["problem"]["code"] == "idempotency_mismatch"
    assert 'the key "night-1" was sent with another' in other[1][1]["problem"]["detail"]


async def test_an_id_may_stand_in_one_line_only() -> None:
    backend = Backend()
    own = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
    async with serving(backend) as (_, session):
        _, answered, _ = await send(session, line(commandId=own), line(commandId=own.upper()))
    assert answered[0]["commandId"] == own
    assert answered[1]["problem"]["errors"][0]["pointer"] == "/commandId"


async def test_what_is_no_batch_is_refused_as_a_whole() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        many = await send(session, *[line()] * 1001)
        none = await send(session, "")
        waits = await send(session, line(), Prefer="wait=5")
        latin = await send(session, line(), Content_Type="application/x-ndjson; charset=latin-1")
    assert (many[0], none[0], waits[0], latin[0]) == (413, 422, 400, 415)
    assert not backend.published


async def test_a_thousand_lines_are_taken_at_once() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        status, answered, _ = await send(session, *[line()] * 1000)
    assert (status, len(answered)) == (200, 1000)
    assert [each["commandId"] for each in answered] == [
        envelope.id for envelope in backend.published
    ]


async def test_retry_and_delete_name_the_execution_of_the_path() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    path = f"/api/v1/executions/{execution}"
    async with serving(backend) as (_, session):
        retried = await session.post(f"{path}/retry", headers=bearer(ALICE))
        deleted = await session.delete(path, headers=bearer(ADMIN))
        wrong = await session.post(f"{path}/retry", json={"n": 1}, headers=bearer(ALICE))
        absent = await session.delete(path[:-4] + "0000", headers=bearer(ADMIN))
    assert [r.status for r in (retried, deleted, wrong, absent)] == [202, 202, 422, 404]
    tags = [type(e.command).__struct_config__.tag for e in backend.published]
    assert tags == ["retry", "delete"]
    assert {e.command.execution_id for e in backend.published} == {execution}  # type: ignore[union-attr]


async def test_each_line_counts_for_how_much_its_sender_may_send() -> None:
    backend = Backend()
    settings = GatewaySettings(posts_per_s=0.001, post_burst=10)
    async with serving(backend, settings) as (_, session):
        status, answered, _ = await send(session, *[line()] * 1000)
        again = await session.post("/api/v1/commands", json={}, headers=bearer(ALICE))
    assert (status, len(answered), len(backend.published)) == (200, 1000, 10)
    refused = [each["problem"] for each in answered if "problem" in each]
    assert {(each["status"], each["code"]) for each in refused} == {(429, "too_many_requests")}
    assert len(refused) == 990
    assert again.status == 429
