"""One command stays one command, however often and through whatever door it is repeated."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from uuid import uuid4

import aiohttp
import pytest

from tests.jobs import Apps
from tests.service import Answer, Http, Service, eventually, running_service

START: dict[str, object] = {"command": "start", "jobId": "T/Once", "variables": {"N": 1}}


def define(apps: Apps) -> None:
    number = {"type": "integer", "default": 0}
    apps.shell(
        "T/Once",
        'echo "$JOBBUS_COMMAND_ID" >> "$BOARD/starts"; sleep 0.1',
        max_running=100,
        variables={"N": number},
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("once"), define) as running:
        yield running


async def post(http: Http, body: Mapping[str, object], **headers: str) -> Answer:
    return await http.call("POST", "/commands", body, **headers)


async def started_once(service: Service, http: Http, command_id: str) -> None:
    """The command has made exactly one execution, and that ran exactly once."""
    execution_id = (await http.get(f"/commands/{command_id}"))["executionId"]
    await http.ended(execution_id)
    made = [each for each in await http.executions("T/Once") if each["commandId"] == command_id]
    assert [each["executionId"] for each in made] == [execution_id]
    assert service.apps.lines("starts").count(command_id) == 1


async def test_key_used_fifty_times_at_once_starts_one_execution(service: Service) -> None:
    async with service.http() as http:
        answers = await asyncio.gather(
            *(post(http, START, Idempotency_Key="fifty") for _ in range(50))
        )
        assert {each.status for each in answers} == {202}
        [command_id] = {each.json["commandId"] for each in answers}
        replayed = [each for each in answers if each.headers.get("Idempotency-Replayed") == "true"]
        assert len(replayed) == 49
        assert {each.headers["Location"] for each in answers} == {f"/api/v1/commands/{command_id}"}
        await post(http, START, Idempotency_Key="fifty", Prefer="wait=20")
        await started_once(service, http, command_id)


async def test_key_means_the_same_command_after_a_restart_and_after_a_kill(
    service: Service,
) -> None:
    async with service.http() as http:
        first = await post(http, START, Idempotency_Key="kept", Prefer="wait=20")
    for go_away in (service.restart, service.kill9):
        go_away()
        if go_away == service.kill9:
            service.start()
        async with service.http() as http:
            again = await post(http, START, Idempotency_Key="kept", Prefer="wait=20")
            assert (again.status, again.headers["Idempotency-Replayed"]) == (200, "true")
            assert again.json["commandId"] == first.json["commandId"]
            assert again.json["executionId"] == first.json["executionId"]
            await started_once(service, http, first.json["commandId"])


@pytest.mark.exhaustive
@pytest.mark.timeout(300)
async def test_thousand_repeats_at_once_through_a_kill_are_one_execution(service: Service) -> None:
    many = 1000
    accepted: list[str] = []
    halfway = asyncio.Event()

    async def until_accepted(http: Http) -> None:
        while True:
            try:
                answer = await post(http, START, Idempotency_Key="thousand")
            except aiohttp.ClientError:
                answer = None  # no service runs at the moment
            if answer is not None and answer.status == 202:
                break
            await asyncio.sleep(0.05)
        accepted.append(answer.json["commandId"])
        if len(accepted) >= many // 3:
            halfway.set()

    async with service.http() as http, asyncio.TaskGroup() as group:
        for _ in range(many):
            group.create_task(until_accepted(http))
        await halfway.wait()
        await asyncio.to_thread(service.kill9)
        await asyncio.to_thread(service.start)
    assert len(accepted) == many
    [command_id] = set(accepted)
    async with service.http() as http:
        await post(http, START, Idempotency_Key="thousand", Prefer="wait=20")
        await started_once(service, http, command_id)


async def test_key_with_another_body_is_refused_and_starts_nothing(service: Service) -> None:
    async with service.http() as http:
        first = await post(http, START, Idempotency_Key="other", Prefer="wait=20")
        before = len(await http.executions("T/Once"))
        stop: dict[str, object] = {"command": "stop", "jobId": "T/Once"}
        for body in (START | {"variables": {"N": 2}}, stop):
            refused = await post(http, body, Idempotency_Key="other")
            assert (refused.status, refused.json["code"]) == (422, "idempotency_mismatch")
        assert len(await http.executions("T/Once")) == before
        same = await post(http, START, Idempotency_Key='"other"')
        assert same.json["commandId"] == first.json["commandId"]
        await started_once(service, http, first.json["commandId"])


async def test_own_command_id_is_one_command_in_any_spelling(service: Service) -> None:
    command_id = str(uuid4())
    async with service.http() as http:
        spellings = (command_id, command_id.upper(), command_id)
        answers = [await post(http, START | {"commandId": each}) for each in spellings]
        assert {each.status for each in answers} == {202}
        assert {each.json["commandId"] for each in answers} == {command_id}
        assert [each.headers.get("Idempotency-Replayed") for each in answers] == [
            None,
            "true",
            "true",
        ]
        other = await post(http, START | {"commandId": command_id, "variables": {}})
        assert (other.status, other.json["code"]) == (422, "idempotency_mismatch")
        await post(http, START | {"commandId": command_id}, Prefer="wait=20")
        await started_once(service, http, command_id)


async def test_id_of_another_principal_is_taken_without_details(service: Service) -> None:
    command_id = str(uuid4())
    file = {
        "CommandID": command_id,
        "Command": "start",
        "JobID": "T/Once",
        "UserID": "alice",
        "Variables": {"N": 1},
        "SubmittedAt": "2026-11-24T10:00:00Z",
        "Status": "Pending",
    }
    place = service.data / "JobCommandQueue" / f"{command_id}.json"
    place.write_text(json.dumps(file))
    await eventually(lambda: service.result(command_id), "the file's result")
    async with service.http() as http:
        taken = await post(http, START | {"commandId": command_id})
        assert (taken.status, taken.json["code"]) == (409, "id_in_use")
        assert "alice" not in taken.body.decode()
        await started_once(service, http, command_id)
        # The same file again is the same command; another one under its id is no command.
        place.write_text(json.dumps(file))
        await eventually(lambda: not place.exists(), "the repeat is taken away")
        place.write_text(json.dumps(file | {"JobID": "T/Other"}))
        await eventually(lambda: not place.exists(), "the other body is taken away")
        rejects = service.data / "JobCommandRejects"
        assert any("T/Other" in path.read_text() for path in rejects.iterdir())
        result = service.result(command_id)
        assert result is not None
        assert (result["JobID"], result["Status"]) == ("T/Once", "Completed")
        await started_once(service, http, command_id)
