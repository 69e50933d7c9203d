"""The audit of a whole service: who did what stands there, whatever happened to the service."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobbus.cli.main import run
from tests.jobs import Apps
from tests.service import Http, Service, eventually_answered, running_service
from tests.socket_client import open_socket


def define(apps: Apps) -> None:
    apps.shell("A/Sleep", "exec sleep 60")
    apps.shell("A/Short", "true", overlap="queue")
    apps.shell("A/Slow", "exec sleep 60", timeout_s=0.3, stop_grace_s=0.5)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For what does not end it. Each test asks for jobs and users of its own."""
    with running_service(tmp_path_factory.mktemp("audit"), define) as service:
        yield service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    define(running.apps)
    try:
        running.start()
        yield running
        assert not running.complaints()
    finally:
        running.clear_away()


async def entries(http: Http, **wanted: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in wanted.items())
    found: list[dict[str, Any]] = (await http.get(f"/audit?limit=500&{query}"))["items"]
    return found


async def token(http: Http, user: str, *roles: str) -> str:
    answer = await http.call("POST", "/tokens", {"userId": user, "roles": list(roles)})
    assert answer.status == 201, answer.body
    made: str = answer.json["token"]
    return made


async def test_each_command_is_one_entry_with_its_states(shared: Service) -> None:
    async with shared.http() as http:
        execution = await http.start("A/Sleep")
        stopped = await http.publish(20, command="stop", executionId=execution)
        [start] = await entries(http, job="A/Sleep", action="start")
        [stop] = await entries(http, job="A/Sleep", action="stop")
        ending = (await http.execution(execution))["ending"]
    assert (start["kind"], start["status"], start["outcome"]) == ("command", "Completed", "done")
    assert (start["execution"], start["after"], start["via"]) == (execution, "Running", "http")
    assert "admin" in start["roles"]
    assert start["submittedAt"] <= start["processedAt"]
    assert (stop["before"], stop["after"]) == ("Running", "Stopped")
    assert stop["detail"] == {"ending": ending}
    assert ending.startswith("stopped by ")
    assert stop["command"] == stopped["commandId"]


async def test_what_the_service_does_by_itself_names_its_cause(shared: Service) -> None:
    async with shared.http() as http:
        execution = await http.start("A/Slow")
        await http.ended(execution)
        [limit] = await entries(http, actor="system:limits")
        changes = await entries(http, actor="system:catalog")
    assert (limit["kind"], limit["action"], limit["cause"]) == ("automatic", "stop", "run_timeout")
    assert (limit["execution"], limit["before"]) == (execution, "Running")
    assert {entry["job"] for entry in changes} == {"A/Sleep", "A/Short", "A/Slow"}


async def test_refused_attempts_have_one_entry_with_their_number(shared: Service) -> None:
    async with shared.http() as http:
        viewer = {"Authorization": f"Bearer {await token(http, 'eve', 'viewer')}"}
        body = {"command": "start", "jobId": "A/Short"}
        for _ in range(5):
            assert (await http.call("POST", "/commands", body, **viewer)).status == 403
        assert (await http.call("GET", "/audit", **viewer)).status == 403
        for path in ("/jobs", "/events?ticket=x"):
            await http.call("GET", path, Authorization="Bearer jb_x_wrong")
        await socket_with_a_wrong_token(shared)
        found = await entries(http, actor="eve", job="A/Short")
        forbidden = await entries(http, actor="eve", action="GET%20/api/v1/audit")
        unknown = await entries(http, actor="anonymous")
    assert {entry["errorCode"] for entry in found} == {"not_permitted"}
    assert {entry["kind"] for entry in found} == {"refused"}
    assert sum(entry.get("count", 1) for entry in found) == 5
    assert len(found) == 2
    assert [entry["errorCode"] for entry in forbidden] == ["forbidden"]
    assert {entry["errorCode"] for entry in unknown} == {"unauthenticated"}
    assert {entry["action"] for entry in unknown} == {
        f"GET /api/v1/{path}" for path in ("jobs", "events", "ws")
    }


async def socket_with_a_wrong_token(service: Service) -> None:
    async with open_socket(service.url, None) as socket:
        await socket.say("auth", token="jb_x_wrong")
        assert (await socket.code())[0] == 4501


async def test_tokens_maintenance_and_dropped_files_leave_entries(shared: Service) -> None:
    async with shared.http() as http:
        made = await http.call("POST", "/tokens", {"userId": "bob", "roles": ["viewer"]})
        await http.call("DELETE", f"/tokens/{made.json['id']}")
        await http.call("POST", "/system/maintenance", {"on": True, "reason": "disk"})
        await http.call("POST", "/system/maintenance", {"on": False})
        for command in ("frobnicate", "start"):
            drop(shared, command, "A/None")
        found = await eventually_answered(lambda: _two(http), "both files")
        notes = {entry["action"] for entry in await entries(http)}
        [on] = await entries(http, action="maintenance.on")
    assert {"token.create", "token.revoke", "maintenance.on", "maintenance.off"} <= notes
    assert on["cause"] == "disk"
    assert {(entry["action"], entry["errorCode"]) for entry in found} == {
        ("frobnicate", "unknown_command"),
        ("start", "unknown_job"),
    }
    text = b"".join(path.read_bytes() for path in (shared.data / "Journal/Audit").glob("*"))
    assert made.json["token"].encode() not in text


async def _two(http: Http) -> list[dict[str, Any]] | None:
    found = await entries(http, actor="alice")
    return found if len(found) == 2 else None


async def test_after_a_kill_no_entry_is_missing(service: Service) -> None:
    async with service.http() as http:
        ids = []
        for _ in range(20):
            answer = await http.publish(20, command="start", jobId="A/Short")
            ids.append(answer["commandId"])
        live = await http.start("A/Sleep")
    service.kill9()
    audit = service.data / "Journal" / "Audit"
    [segment] = audit.glob("*.log")
    lines = segment.read_bytes().splitlines(keepends=True)
    # As a power cut may leave it: most of what was written is gone, a line is torn.
    segment.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    service.start()
    async with service.http() as http:
        found = await entries(http, action="start")
        assert {entry["command"] for entry in found} >= set(ids)
        numbers = [entry["n"] for entry in await entries(http)]
        assert numbers == sorted(set(numbers), reverse=True)
        assert len([entry for entry in found if entry["command"] == ids[3]]) == 1
        assert live in {entry.get("execution") for entry in found}
    service.kill9()
    service.start()
    async with service.http() as http:
        again = await entries(http, action="start")
        assert [entry["command"] for entry in again] == [entry["command"] for entry in found]


async def test_pages_go_on_and_the_export_has_everything_in_order(shared: Service) -> None:
    async with shared.http() as http:
        for _ in range(6):
            await http.publish(20, command="start", jobId="A/Short")
        everything = await entries(http)
        paged: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await http.get(f"/audit?limit=2{cursor}")
            paged += page["items"]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        answer = await http.call("GET", "/audit", Accept="application/x-ndjson")
        lines = [json.loads(line) for line in answer.body.splitlines()]
        none = await entries(http, since="2999-01-01T00:00:00Z")
        before = await entries(http, until="2999-01-01T00:00:00Z")
        wrong = await http.call("GET", "/audit?since=yesterday")
    assert paged == everything == lines[::-1] == before
    assert none == []
    assert (answer.headers["Content-Type"], wrong.status) == ("application/x-ndjson", 400)


def drop(service: Service, command: str, job: str) -> None:
    command_id = str(uuid.uuid4())
    content = {
        "CommandID": command_id,
        "Command": command,
        "JobID": job,
        "UserID": "alice",
        "Roles": ["operator"],
    }
    draft = service.data / "JobCommandQueue" / ".tmp" / f"{command_id}.json"
    draft.write_text(json.dumps(content))
    draft.rename(service.data / "JobCommandQueue" / f"{command_id}.json")


async def test_the_command_line_shows_it_and_leaves_entries_without_a_service(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    async def jobbus(*words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the command line on this data directory."""
        capsys.readouterr()
        code = await asyncio.to_thread(run, (*words, "--data", str(service.data)))
        return code, *capsys.readouterr()

    async with service.http() as http:
        answer = await http.publish(20, command="start", jobId="A/Short")
    code, table, _ = await jobbus("audit", "--job", "A/Short")
    assert code == 0
    assert table.splitlines()[0].startswith("TIME")
    assert "Running" in table
    since = ("--since", "2020-01-01T00:00:00Z")
    code, found, _ = await jobbus("audit", "--action", "start", *since, "--json")
    assert (code, [entry["job"] for entry in json.loads(found)["items"]]) == (0, ["A/Short"])
    code, _, words = await jobbus("audit", "--since", "yesterday")
    assert code == 2
    assert "2026-01-26T18:00:00Z" in words
    assert service.end() == 0
    synced = b"".join(p.read_bytes() for p in (service.data / "Journal/Audit").glob("*.log"))
    assert answer["commandId"].encode() in synced
    code, made, _ = await jobbus("token", "create", "--user", "zoe", "--role", "viewer")
    assert code == 0
    service.start()
    async with service.http() as http:
        [entry] = await entries(http, action="token.create")
    assert (entry["via"], entry["detail"]["user"]) == ("cli", "zoe")
    assert made.strip() not in json.dumps(entry)
