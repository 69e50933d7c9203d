"""Publishing over HTTP: what is accepted, repeated, waited for and refused."""

import asyncio
import io
import uuid
from typing import Any

import aiohttp
import pytest

from bus.errors import ErrorCode, IdInUse, NoSpace, Refused, TransportBusy
from tests.gateway_fixture import ADMIN, ALICE, ROLELESS, Backend, bearer, serving
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

START = {"command": "start", "jobId": "App/Job", "variables": {"Interval": 30}}


async def post(
    session: aiohttp.ClientSession, path: str, body: Any, token: str = ALICE, **headers: str
) -> tuple[aiohttp.ClientResponse, Any]:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.post(path, json=body, headers=bearer(token) | spelled) as response:
        return response, await response.json(content_type=None)


async def test_start_is_accepted_with_location_and_links() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        response, body = await post(session, "/api/v1/commands", START)
    assert response.status == 202
    assert response.headers["Location"] == f"/api/v1/commands/{body['commandId']}"
    assert body["status"] == "Pending"
    assert body["links"]["self"] == response.headers["Location"]
    assert backend.published[0].principal.user_id == "alice"
    assert backend.published[0].id == body["commandId"]


async def test_prefer_wait_answers_with_the_ended_command() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        response, body = await post(session, "/api/v1/commands", START, Prefer="wait=90")
    assert response.status == 200
    assert response.headers["Preference-Applied"] == "wait=30"
    assert (body["status"], body["outcome"], body["jobId"]) == ("Completed", "done", "App/Job")


async def test_prefer_wait_falls_back_to_accepted_when_time_runs_out() -> None:
    backend = Backend()
    backend.handle_at_once = False
    async with serving(backend) as (_, session):
        response, _ = await post(session, "/api/v1/commands", START, Prefer="respond-async, wait=0")
    assert response.status == 202
    assert "Preference-Applied" not in response.headers


async def test_a_wait_ends_with_accepted_when_the_gateway_closes() -> None:
    backend = Backend()
    backend.handle_at_once = False
    gateway = Gateway(backend.ports())
    url = await gateway.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(base_url=url) as session, asyncio.timeout(20):
        waiting = asyncio.create_task(post(session, "/api/v1/commands", START, Prefer="wait=30"))
        while not backend.published:
            await asyncio.sleep(0.01)
        await gateway.aclose()
        response, body = await waiting
    assert (response.status, body["status"]) == (202, "Pending")


async def test_same_idempotency_key_is_the_same_command() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        first, one = await post(session, "/api/v1/commands", START, Idempotency_Key="k-1")
        second, two = await post(session, "/api/v1/commands", START, Idempotency_Key='"k-1"')
        other, three = await post(session, "/api/v1/commands", START, ADMIN, Idempotency_Key="k-1")
    assert (first.status, second.status, other.status) == (202, 202, 202)
    assert one == two
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert three["commandId"] != one["commandId"]
    assert len(backend.published) == 2


async def test_same_key_with_another_body_is_refused() -> None:
    async with serving(Backend()) as (_, session):
        await post(session, "/api/v1/commands", START, Idempotency_Key="k-1")
        other = START | {"jobId": "App/Other"}
        response, body = await post(session, "/api/v1/commands", other, Idempotency_Key="k-1")
    assert response.status == 422
    assert body["code"] == "idempotency_mismatch"
    assert body["detail"] == 'the key "k-1" was sent with another command before; take a new one'


async def test_own_id_is_used_in_lower_case_and_not_revealed_to_others() -> None:
    command_id = str(uuid.uuid4())
    async with serving(Backend()) as (_, session):
        body = START | {"commandId": command_id.upper()}
        mine, answer = await post(session, "/api/v1/commands", body)
        again, _ = await post(session, "/api/v1/commands", START | {"commandId": command_id})
        squatted, problem = await post(session, "/api/v1/commands", body, ADMIN)
    assert (mine.status, answer["commandId"]) == (202, command_id)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert squatted.status == 409
    assert "alice" not in str(problem)


@pytest.mark.parametrize(
    "body",
    [
        {"command": "start", "variables": None, "commandId": None, "expiresAt": None},
        {"command": "stop", "executionId": None, "graceS": None, "kill": None},
        {"command": "restart", "executionId": None, "variables": None, "kill": None},
    ],
)
async def test_null_is_as_absent(body: dict[str, Any]) -> None:
    backend = Backend()
    backend.define("App/Job")
    body["jobId"] = "App/Job"
    absent = {name: value for name, value in body.items() if value is not None}
    async with serving(backend) as (_, session):
        keyed = {"Idempotency-Key": "k", **bearer(ALICE)}
        given = await session.post("/api/v1/commands", json=body, headers=keyed)
        assert given.status == 202, await given.text()
        same = await session.post("/api/v1/commands", json=absent, headers=keyed)
    assert same.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({"command": "start", "jobId": None}, "/jobId", "must be text"),
        ({"command": "start", "jobId": "A/B", "jobID": "A/B"}, "/jobID", "jobId"),
        ({"command": "start", "jobId": "A/B", "varables": {}}, "/varables", "variables"),
        ({"command": "start"}, "/jobId", "missing"),
        ({"command": "strat", "jobId": "A/B"}, "/command", "start"),
        ({"jobId": "A/B"}, "/command", "missing"),
        ({"command": 7, "jobId": "A/B"}, "/command", "start"),
        ({"command": "start", "jobId": 7}, "/jobId", "must be text"),
        ({"command": "start", "jobId": "A/B", "variables": {"x/y": [1]}}, "/variables/x~1y", "num"),
        ({"command": "start", "jobId": "A/B", "variables": 7}, "/variables", "object"),
        ({"command": "stop"}, "/jobId", "executionId"),
        ({"command": "stop", "executionId": "../../etc/passwd"}, "/executionId", "UUID"),
        ({"command": "stop", "jobId": "A/B", "graceS": -1}, "/graceS", "0"),
        ({"command": "cancel", "targetId": "x"}, "/targetId", "UUID"),
        ({"command": "start", "jobId": "A/B", "commandId": "x"}, "/commandId", "UUID"),
        ({"command": "start", "jobId": "A/B", "commandId": 1}, "/commandId", "must be text"),
        ({"command": "start", "jobId": "A/B", "expiresAt": "soon"}, "/expiresAt", "RFC 3339"),
        ({"command": "report_ended", "executionId": "x"}, "/command", "unknown"),
        ([], "", "object"),
    ],
)
async def test_a_wrong_field_is_named_with_what_would_be_right(
    body: Any, pointer: str, says: str
) -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        response, problem = await post(session, "/api/v1/commands", body)
    assert response.status == 422
    assert response.content_type == "application/problem+json"
    assert problem["errors"][0]["pointer"] == pointer
    assert says in problem["errors"][0]["detail"]
    assert not backend.published


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"",
        b"\xff\xfe{}",
        b'{"command":"start","jobId":"\\ud800"}',
        b'{"a":' * 100_000,
        b'{"command":"start","jobId":"\xff"}',
        b'{"command":"start","jobId":"A/B","variables":' + b'{"a":' * 50_000,
    ],
    ids=["cut", "empty", "utf16", "surrogate", "deep", "not-utf8", "deep-inside"],
)
async def test_what_is_no_json_is_refused_and_the_service_goes_on(raw: bytes) -> None:
    backend = Backend()
    headers = bearer(ALICE) | {"Content-Type": "application/json"}
    async with serving(backend) as (_, session):
        async with session.post("/api/v1/commands", data=raw, headers=headers) as response:
            problem = await response.json(content_type="application/problem+json")
        again, _ = await post(session, "/api/v1/commands", START)
    assert response.status == 400
    assert problem["code"] == "malformed"
    assert again.status == 202
    assert len(backend.published) == 1


async def test_a_huge_body_is_refused() -> None:
    async with serving(Backend()) as (_, session):
        headers = bearer(ALICE) | {"Content-Type": "application/json"}
        body = io.BytesIO(b'{"command":"' + b"x" * 10_000_000 + b'"}')
        async with session.post("/api/v1/commands", data=body, headers=headers) as response:
            problem = await response.json(content_type="application/problem+json")
    assert response.status == 413
    assert problem["code"] == "too_large"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_only_json_types_are_taken(content_type: str | None) -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        headers = bearer(ALICE) | ({"Content-Type": content_type} if content_type else {})
        async with session.post(
            "/api/v1/commands",
            data=b'{"command":"start","jobId":"A/B"}',
            headers=headers,
            skip_auto_headers=["Content-Type"],
        ) as response:
            await response.read()
    assert response.status == 415
    assert not backend.published


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "rubbish"])
async def test_an_encoded_body_is_refused_and_not_looked_at(encoding: str) -> None:
    """Who decodes before asking who sent it can be made to work for anybody."""
    headers = bearer(ALICE) | {"Content-Type": "application/json", "Content-Encoding": encoding}
    backend = Backend()
    async with serving(backend) as (_, session):
        body = b'{"command":"start","jobId":"A/B"}'
        async with session.post("/api/v1/commands", data=body, headers=headers) as response:
            problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["code"]) == (415, "unsupported_type")
    assert "Content-Encoding" in problem["detail"]
    assert not backend.published


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused(ErrorCode.UNKNOWN_JOB, "there is no job", pointer="/jobId"), 404, "unknown_job"),
        (Refused(ErrorCode.NOT_PERMITTED, "you may not"), 403, "not_permitted"),
        (Refused(ErrorCode.ALREADY_RUNNING, "runs"), 409, "already_running"),
        (Refused(ErrorCode.QUEUE_FULL, "full"), 409, "queue_full"),
        (Refused(ErrorCode.DISABLED, "disabled"), 409, "disabled"),
        (Refused(ErrorCode.EXECUTION_REQUIRED, "which"), 409, "execution_required"),
        (Refused(ErrorCode.BAD_VARIABLES, "x", pointer="/variables/x"), 422, "bad_variables"),
        (Refused(ErrorCode.SECRET_BY_VALUE, "by name"), 422, "secret_by_value"),
        (Refused(ErrorCode.INVALID_JOB, "faulty"), 422, "invalid_job"),
        (Refused(ErrorCode.MAINTENANCE, "later"), 503, "maintenance"),
        (TransportBusy("full inbox", retry_after_s=3), 503, "transport_busy"),
        (NoSpace("disk full"), 507, "no_space"),
        (IdInUse("taken", same_principal=False), 409, "id_in_use"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_refusal_has_its_status_and_code(error: Any, status: int, code: str) -> None:
    backend = Backend()
    backend.refuse_with = error
    async with serving(backend) as (_, session):
        response, problem = await post(session, "/api/v1/commands", START)
    assert (response.status, problem["code"], problem["status"]) == (status, code, status)
    assert problem["type"] == f"/problems/{code.replace('_', '-')}"
    assert ("Retry-After" in response.headers) == (status in (503, 507))


@pytest.mark.parametrize("spelling", ["jobId", "JobID", "jobID", "JobId", "job_id"])
@pytest.mark.parametrize("verb", ["start", "stop", "restart", "status"])
async def test_the_origins_calls_work_in_the_origins_spelling(verb: str, spelling: str) -> None:
    backend = Backend()
    body = {spelling: "App/Job", "variables": None, "UserID": "mallory", "extra": [1]}
    async with serving(backend) as (_, session):
        response, answer = await post(session, f"/api/v1/jobs/{verb}", body)
    assert response.status == 200
    assert answer["success"] is True
    assert answer["commandId"] == backend.published[0].id
    assert answer["message"] == f"Job {verb} command queued"
    assert ("status" in answer) == (verb == "status")
    assert backend.published[0].principal.user_id == "alice"


async def test_the_origins_calls_say_success_false_when_refused() -> None:
    backend = Backend()
    backend.refuse_with = Refused(ErrorCode.UNKNOWN_JOB, "there is no job 'A/B'")
    async with serving(backend) as (_, session):
        refused, one = await post(session, "/api/v1/jobs/start", {"jobId": "A/B"})
        wrong, two = await post(session, "/api/v1/jobs/start", {"job": "A/B"})
    assert (refused.status, one["success"]) == (404, False)
    assert (wrong.status, two["success"]) == (422, False)


async def test_cancel_and_stop_become_commands_on_what_the_path_names() -> None:
    backend = Backend()
    execution_id = backend.queue("App/Job")
    async with serving(backend) as (_, session):
        _, started = await post(session, "/api/v1/commands", START)
        cancel, _ = await post(session, f"/api/v1/commands/{started['commandId']}/cancel", {})
        stop, _ = await post(
            session, f"/api/v1/executions/{execution_id.upper()}/stop", {"graceS": 2, "kill": True}
        )
        wrong, problem = await post(
            session, f"/api/v1/executions/{execution_id}/stop", {"grace": 1}
        )
        bare = await session.post(f"/api/v1/executions/{execution_id}/stop", headers=bearer(ALICE))
        hidden, _ = await post(session, f"/api/v1/executions/{execution_id}/stop", {}, ROLELESS)
    assert (cancel.status, stop.status, bare.status, hidden.status) == (202, 202, 202, 404)
    assert (wrong.status, problem["errors"][0]["pointer"]) == (422, "/grace")
    assert getattr(backend.published[1].command, "target_id") == started["commandId"]  # noqa: B009
    assert getattr(backend.published[2].command, "execution_id") == execution_id  # noqa: B009


async def test_command_that_waits_for_its_decision_is_shown_as_pending_and_may_be_cancelled() -> (
    None
):
    backend = Backend()
    backend.decide_at_once = False
    async with serving(backend) as (_, session):
        accepted, started = await post(session, "/api/v1/commands", START)
        place = accepted.headers["Location"]
        shown = await session.get(place, headers=bearer(ALICE))
        hidden = await session.get(place, headers=bearer(ROLELESS))
        cancel, _ = await post(session, f"{place}/cancel", {})
        body = await shown.json()
    assert (shown.status, hidden.status, cancel.status) == (200, 404, 202)
    assert (body["commandId"], body["status"]) == (started["commandId"], "Pending")
    assert (body["jobId"], body["processedAt"]) == (started.get("jobId", "App/Job"), None)
    assert getattr(backend.published[1].command, "target_id") == started["commandId"]  # noqa: B009


async def test_traceparent_travels_with_the_command_if_it_is_well_formed() -> None:
    backend = Backend()
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(backend) as (_, session):
        await post(session, "/api/v1/commands", START, traceparent=good)
        await post(session, "/api/v1/commands", START, traceparent="00-zz")
    assert [envelope.traceparent for envelope in backend.published] == [good, None]


async def test_limits_are_settings() -> None:
    async with serving(Backend(), GatewaySettings(body_max=64)) as (_, session):
        response, _ = await post(session, "/api/v1/commands", START | {"x": "y" * 100})
    assert response.status == 413
