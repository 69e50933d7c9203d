"""Commands that are not kept any more, over HTTP: a repeat is one, its record is gone."""

import aiohttp

from bus.commands import StartJob, body_hash
from bus.model import ForgottenCommand
from tests.gateway_fixture import ADMIN, ALICE, VIEWER, Backend, bearer, serving

ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
BODY = {"command": "start", "jobId": "Demo/Job", "commandId": ID}


def backend() -> Backend:
    made = Backend()
    made.define("Demo/Job")
    made.table.by_forgotten[ID] = ForgottenCommand(
        id=ID, body_hash=body_hash(StartJob(job_id="Demo/Job")), user_id="alice"
    )
    return made


async def post(session: aiohttp.ClientSession, token: str, **changes: object) -> tuple[int, bool]:
    headers = bearer(token) | {"Prefer": "wait=20"}
    async with session.post("/api/v1/commands", json=BODY | changes, headers=headers) as answer:
        return answer.status, "Idempotency-Replayed" in answer.headers


async def test_a_repeat_gets_its_answer_at_once_and_is_not_published_again() -> None:
    made = backend()
    async with serving(made) as (_, session):
        assert await post(session, ALICE) == (202, True)
        assert await post(session, ALICE, commandId=ID.upper()) == (202, True)
    assert made.published == []


async def test_another_body_or_another_user_under_a_forgotten_id_is_refused() -> None:
    async with serving(backend()) as (_, session):
        assert await post(session, ALICE, variables={"Day": "x"}) == (422, False)
        assert await post(session, ADMIN) == (409, False)


async def test_only_its_sender_learns_that_a_command_was_forgotten() -> None:
    async with serving(backend()) as (_, session):
        for token, status, code in (
            (ALICE, 410, "forgotten"),
            (ADMIN, 410, "forgotten"),
            (VIEWER, 404, "not_found"),
        ):
            for method, path in (("GET", ID), ("POST", f"{ID}/cancel")):
                async with session.request(
                    method, f"/api/v1/commands/{path}", headers=bearer(token)
                ) as answer:
                    problem = await answer.json(content_type=None)
                assert (answer.status, problem["code"]) == (status, code)
