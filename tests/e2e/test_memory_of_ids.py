"""No user makes a start run twice by filling the memory of command ids, and none fills it alone."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from tests.jobs import Apps
from tests.service import Http, Service, eventually, eventually_answered, running_service
from tests.shifted_clock import ShiftedService, shifted_service

START: dict[str, object] = {"command": "start", "jobId": "T/Once"}
KEPT = 20
FLOOD = 1200
"""More than everything that is kept here, and enough for retention to look at once."""


def define(apps: Apps) -> None:
    apps.shell("T/Once", 'echo "$JOBBUS_COMMAND_ID" >> "$BOARD/starts"', max_running=20)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ShiftedService]:
    kept = str(KEPT)
    with shifted_service(
        tmp_path, define, JOBBUS_KEEP_COMMANDS=kept, JOBBUS_KEEP_IDS=kept
    ) as running:
        yield running


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that remembers three ids of each principal."""
    environment = Service.environment
    monkeypatch.setattr(
        Service, "environment", lambda self: environment(self) | {"JOBBUS_KEEP_IDS": "3"}
    )
    with running_service(tmp_path, define) as running:
        yield running


async def start_with_key(http: Http, key: str) -> tuple[str, str | None]:
    """The command, and whether the answer calls it a repeat."""
    answer = await http.call("POST", "/commands", START, Idempotency_Key=key)
    assert answer.status == 202, answer.body
    return answer.json["commandId"], answer.headers.get("Idempotency-Replayed")


async def reads_in_batches(http: Http) -> str:
    """A viewer asks for a status, again and again; the id of the first of these commands."""
    body = {"userId": "vera", "roles": ["viewer"]}
    token = (await http.call("POST", "/tokens", body)).json["token"]
    line = b'{"command":"status","jobId":"T/Once"}\n'
    ids: list[str] = []
    for _ in range(FLOOD // 400):
        answer = await http.session.post(
            "/api/v1/commands",
            data=line * 400,
            headers={
                "Content-Type": "application/x-ndjson",
                "Authorization": f"Bearer {token}",
            },
        )
        lines = (await answer.read()).splitlines()
        assert sum(b'"Pending"' in line for line in lines) == 400
        ids += [str(json.loads(line)["commandId"]) for line in lines]

    async def is_answered() -> bool:
        return bool((await http.get(f"/commands/{ids[-1]}"))["status"] == "Completed")

    await eventually_answered(is_answered, "all are answered")
    return ids[0]


async def files(service: Service, command: str) -> str:
    """Somebody who may only look drops as many files into the queue; the id of the first."""
    queue = service.data / "JobCommandQueue"
    ids = [str(uuid4()) for _ in range(FLOOD)]
    for id_ in ids:
        fields = {"CommandID": id_, "Command": command, "JobID": "T/Once", "UserID": "eve"}
        draft = queue / f".{id_}"
        draft.write_text(json.dumps(fields | {"Roles": ["viewer"]}), encoding="utf-8")
        draft.rename(queue / f"{id_}.json")
    await eventually(lambda: not service.queue_files(), "all are answered")
    return ids[0]


async def flood(service: Service, http: Http, how: str) -> str:
    match how:
        case "reads over HTTP":
            return await reads_in_batches(http)
        case "reads by file":
            return await files(service, "status")
        case _:
            return await files(service, "start")


@pytest.mark.parametrize(
    "how",
    [
        "refused files",
        pytest.param("reads over HTTP", marks=pytest.mark.exhaustive),
        pytest.param("reads by file", marks=pytest.mark.exhaustive),
    ],
)
async def test_a_start_repeated_behind_a_flood_of_others_runs_no_second_time(
    service: ShiftedService, how: str
) -> None:
    async with service.http() as http:
        first, _ = await start_with_key(http, "once")
        first_read = await flood(service, http, how)
        service.set_clock(120)  # all of it was a while ago: it may be forgotten
        await flood(service, http, how)

        async def is_forgotten() -> bool:
            return (await http.call("GET", f"/commands/{first_read}")).status in (404, 410)

        await eventually_answered(is_forgotten, "the flood is forgotten")
        assert await start_with_key(http, "once") == (first, "true")
    service.kill9()
    service.start()
    async with service.http() as http:
        assert await start_with_key(http, "once") == (first, "true")
        await eventually(lambda: service.apps.lines("starts"), "the first run")
    assert service.apps.lines("starts") == [first]


async def test_an_id_that_only_the_memory_knows_is_a_repeat_and_runs_no_second_time(
    service: ShiftedService,
) -> None:
    async with service.http() as http:
        first, _ = await start_with_key(http, "once")
        for number in range(KEPT // 2):
            await start_with_key(http, f"more{number}")
        service.set_clock(8 * 86_400)
    service.restart()  # the service was away for eight days: a day of running makes them too old
    async with service.http() as http:
        assert await start_with_key(http, "once") == (first, "true")
    assert service.apps.lines("starts").count(first) == 1


async def test_a_principal_with_all_ids_is_refused_and_others_start_and_stop_as_ever(
    narrow: Service,
) -> None:
    async with narrow.http() as http:
        for number in range(3):
            await start_with_key(http, f"key{number}")
        await eventually(lambda: len(narrow.apps.lines("starts")) == 3, "three runs")
        refused = await http.call("POST", "/commands", START)
        assert (refused.status, refused.json["code"]) == (429, "too_many_commands")
        assert int(refused.headers["Retry-After"]) > 0
        assert "[keep] ids" in refused.json["detail"]
        assert (await start_with_key(http, "key0"))[1] == "true"
        assert (await http.publish(command="stop", jobId="T/Once"))["status"] == "Pending"
        command_id = str(uuid4())
        fields = {
            "CommandID": command_id,
            "Command": "start",
            "JobID": "T/Once",
            "UserID": "otto",
            "Roles": ["operator"],
        }
        queue = narrow.data / "JobCommandQueue"
        (queue / f"{command_id}.json").write_text(json.dumps(fields), encoding="utf-8")
        done = await eventually(lambda: narrow.result(command_id), "otto's result")
        assert done["Status"] == "Completed"
        for number in range(3):
            await dropped(narrow, fields | {"UserID": "otto", "Number": number})
        result = await dropped(narrow, fields | {"UserID": "otto"})
        assert (result["Status"], result["ErrorCode"]) == ("Rejected", "too_many_commands")


async def dropped(service: Service, fields: Mapping[str, object]) -> dict[str, object]:
    """The result of the command in a file, under an id of its own."""
    command_id = str(uuid4())
    place = service.data / "JobCommandQueue" / f"{command_id}.json"
    place.write_text(json.dumps({**fields, "CommandID": command_id}), encoding="utf-8")
    return await eventually(lambda: service.result(command_id), f"result of {command_id}")
