"""`notBefore` by every way in, from the request to a program that began no sooner, over a kill -9.

What has to be seen waiting waits for days; what has to run is due a moment ahead, and asserted of
it is only that it did not begin sooner.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bus.clock import from_rfc3339, rfc3339
from jobbus.client.client import Client
from tests.jobs import Apps
from tests.service import (
    PATIENCE_S,
    ROOT,
    Http,
    Service,
    eventually,
    eventually_answered,
    running_service,
)
from tests.socket_client import open_socket

STAMP = 'echo "$JOBBUS_EXECUTION_ID $JOBBUS_VAR_Text" >> "$BOARD/runs"'
STAYS = STAMP + '; until [ -e "$BOARD/release" ]; do sleep 0.1; done'
TEXT = {"Text": {"type": "string", "default": "none"}}
SOON_S = 0.7
WAYS = ("http", "batch", "socket", "file", "cli", "client", "retry")


def define(apps: Apps) -> None:
    for name in (*WAYS, "Far", "Bad", "Cancelled", "Killed"):
        apps.shell(f"D/{name}", STAMP, variables=TEXT)
    apps.shell("D/Busy", STAYS, variables=TEXT)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Shared: each test has jobs of its own."""
    with running_service(tmp_path_factory.mktemp("later"), define) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncIterator[Http]:
    async with service.http() as session:
        yield session


def ahead(seconds: float) -> str:
    return rfc3339(time.time_ns() // 1_000_000 + int(seconds * 1000))


def cli(service: Service, *arguments: str, url: bool = True) -> tuple[int, str, str]:
    where = {"JOBBUS_URL": service.url, "JOBBUS_TOKEN": service.token} if url else {}
    done = subprocess.run(
        (sys.executable, "-W", "error", "-m", "jobbus", *arguments),
        cwd=ROOT,
        env=service.environment() | where | {"JOBBUS_DATA": str(service.data)},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def send(service: Service, http: Http, way: str, job_id: str, at: str) -> None:
    """A start of the job that is due at `at`, sent by this way in."""
    body: dict[str, Any] = {"command": "start", "jobId": job_id, "notBefore": at}
    match way:
        case "http":
            await http.publish(**body)
        case "batch":
            answer = await http.session.post(
                "/api/v1/commands",
                data=json.dumps(body) + "\n",
                headers={"Content-Type": "application/x-ndjson"},
            )
            assert answer.status == 200, await answer.text()
            assert "problem" not in await answer.text()
        case "socket":
            async with open_socket(service.url, service.token) as socket:
                await socket.say("publish", ref="a", command=body)
                await socket.until("result")
        case "file":
            id_ = str(uuid4())
            fields = {"CommandID": id_, "Command": "start", "JobID": job_id, "NotBefore": at}
            draft = service.data / "JobCommandQueue" / ".tmp" / f"{id_}.draft"
            draft.write_text(json.dumps(fields | {"Status": "Pending", "UserID": "alice"}))
            draft.rename(service.data / "JobCommandQueue" / f"{id_}.json")
        case "cli":
            code, _, words = await asyncio.to_thread(cli, service, "start", job_id, "--at", at)
            assert code == 0, words
        case "client":
            async with Client(service.url, service.token) as client:
                moment = datetime.fromtimestamp(from_rfc3339(at) / 1000, tz=UTC)
                await client.start(job_id, not_before=moment)
        case _:
            first = await http.start(job_id)
            await http.ended(first)
            answer2 = await http.call("POST", f"/executions/{first}/retry", {"notBefore": at})
            assert answer2.status == 202, answer2.body


@pytest.mark.parametrize("way", WAYS)
async def test_delayed_start_runs_at_its_moment_by_every_way_in(
    service: Service, http: Http, way: str
) -> None:
    at = ahead(SOON_S + (2.0 if way in ("cli", "retry") else 0.0))
    await send(service, http, way, f"D/{way}", at)

    async def waiting() -> dict[str, Any] | None:
        found = await http.executions(f"D/{way}")
        return found[0] if found and (way != "retry" or len(found) == 2) else None

    execution = await eventually_answered(waiting)
    if execution["status"] == "Queued":
        assert execution["notBefore"] == at
    ended = await http.ended(execution["executionId"])
    assert (ended["status"], ended["cause"]) == ("Succeeded", "")
    assert from_rfc3339(ended["startTime"]) >= from_rfc3339(at)


async def test_moment_is_shown_wherever_people_look(service: Service, http: Http) -> None:
    at = (datetime.now().astimezone() + timedelta(days=3)).replace(microsecond=0)
    command = await http.publish(command="start", jobId="D/Far", notBefore=at.isoformat())

    async def queued() -> dict[str, Any] | None:
        found = await http.executions("D/Far")
        return found[0] if found else None

    execution = await eventually_answered(queued)
    id_ = execution["executionId"]
    assert from_rfc3339(execution["notBefore"]) == int(at.timestamp()) * 1000
    assert (await http.get(f"/commands/{command['commandId']}"))["status"] == "Running"
    file = await eventually(lambda: service.status(id_))
    assert (file["Status"], file["NotBefore"]) == ("Queued", execution["notBefore"])
    words = f"not before {at:%Y-%m-%d %H:%M:%S}, in 2 d 23 h"
    for arguments in (("ps", "--job", "D/Far", "--wide"), ("status", id_)):
        code, out, err = await asyncio.to_thread(cli, service, *arguments)
        assert (code, words in out) == (0, True), (out, err)
    # A person's start is one of its own; the other still waits.
    now = await http.start("D/Far")
    assert now != id_
    assert (await http.execution(id_))["status"] == "Queued"


@pytest.mark.parametrize(
    ("fields", "place", "words"),
    [
        ({"notBefore": "2026-01-26T18:00:00"}, "/notBefore", "with its zone"),
        ({"notBefore": "tomorrow"}, "/notBefore", "must be a time with its zone"),
        ({"notBefore": 5}, "/notBefore", "must be text"),
        (
            {"notBefore": "2126-01-26T18:00:00Z", "expiresAt": "2126-01-26T18:00:00+00:00"},
            "/expiresAt",
            "it would never start",
        ),
    ],
)
async def test_wrong_moment_is_refused_with_its_place(
    http: Http, fields: dict[str, object], place: str, words: str
) -> None:
    body = {"command": "start", "jobId": "D/Bad", **fields}
    answer = await http.call("POST", "/commands", body)
    assert answer.status == 422, answer.body
    problem = answer.json
    shown = problem["detail"] + json.dumps(problem.get("errors", []))
    assert words in shown, problem
    assert place in json.dumps(problem), problem
    assert await http.executions("D/Bad") == []


async def test_file_with_a_wrong_moment_gets_a_result_that_says_so(service: Service) -> None:
    id_ = str(uuid4())
    fields = {"CommandID": id_, "Command": "start", "JobID": "D/Bad", "NotBefore": "18:00"}
    path = service.data / "JobCommandQueue" / f"{id_}.json"
    path.write_text(json.dumps(fields))
    result = await eventually(lambda: service.result(id_))
    assert (result["Status"], result["ErrorCode"]) == ("Rejected", "malformed")
    assert "NotBefore must be a time with its zone" in result["Error"]


async def test_cancel_takes_it_back_and_a_busy_job_skips_it(service: Service, http: Http) -> None:
    command = await http.publish(command="start", jobId="D/Cancelled", notBefore=ahead(3600))
    code, _, err = await asyncio.to_thread(cli, service, "cancel", "D/Cancelled")
    assert code == 0, err
    assert (await http.get(f"/commands/{command['commandId']}"))["status"] == "Cancelled"
    first = await http.start("D/Busy")
    late = await http.publish(command="start", jobId="D/Busy", notBefore=ahead(SOON_S))
    ended = (await http.call("GET", f"/commands/{late['commandId']}", Prefer="wait=20")).json
    assert (ended["status"], ended["errorCode"]) == ("Cancelled", "already_running")
    execution = await http.execution(ended["executionId"])
    assert (execution["status"], execution["reason"]) == ("Skipped", "overlap")
    assert first in execution["ending"]
    service.apps.put("release")
    await http.ended(first)


async def test_delayed_start_survives_a_kill_and_runs_once_though_its_moment_passed_meanwhile(
    tmp_path: Path,
) -> None:
    service = Service(tmp_path)
    define(service.apps)
    try:
        service.start()
        at = ahead(1.5)
        async with service.http() as http:
            for name in ("Killed", "Far"):
                moment = at if name == "Killed" else ahead(86_400)
                await http.publish(command="start", jobId=f"D/{name}", notBefore=moment)
            await eventually_answered(lambda: http.executions("D/Far"))
        service.kill9()
        while ahead(0) < at:
            await asyncio.sleep(0.05)
        # A service that is away takes delayed starts, too.
        code, offline, err = cli(service, "start", "D/http", "--at", "+1s", url=False)
        assert code == 0, err
        service.start()
        async with service.http() as http:
            [execution] = await http.executions("D/Killed")
            assert (await http.ended(execution["executionId"]))["status"] == "Succeeded"
            command = await http.call("GET", f"/commands/{offline.strip()}", Prefer="wait=20")
            await http.ended(command.json["executionId"])
            [far] = await http.executions("D/Far")
            assert (far["status"], far["notBefore"] is None) == ("Queued", False)
        runs = [line.split()[0] for line in service.apps.lines("runs")]
        assert sorted(runs) == sorted([execution["executionId"], command.json["executionId"]])
        assert not service.complaints()
    finally:
        service.clear_away()


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("yesterday", "write when, such as 18:00"),
        ("25:00", "write when, such as 18:00"),
        ("2030-01-01", "write when, such as 18:00"),
        ("2020-01-01 10:00", "has passed"),
    ],
)
def test_cli_says_what_a_moment_looks_like(service: Service, at: str, words: str) -> None:
    code, _, err = cli(service, "start", "D/Bad", "--at", at)
    assert (code, words in err) == (2, True), err
    assert os.linesep in err
