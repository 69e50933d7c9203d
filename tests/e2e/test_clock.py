"""The wall clock is wrong for a while and is set right: nothing is refused, lost or run twice."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from bus.clock import SystemClock, rfc3339
from bus.events import SystemForgotten
from handlers.journal.format import Record
from handlers.journal.recovery import recover
from tests.jobs import Apps
from tests.service import Http, Service, eventually, eventually_answered, running_service
from tests.shifted_clock import DAY_S, HOUR_S, YEAR_S, ShiftedService, run_shifted, shifted_service

LONG = "T/Long"
OTHER = "T/Other"
BRIEF = "T/Brief"


def define(apps: Apps) -> None:
    apps.shell(BRIEF, 'echo "$JOBBUS_COMMAND_ID" >> "$BOARD/starts"', max_running=20)
    apps.shell(LONG, "exec sleep 300")
    apps.shell(OTHER, "exec sleep 300")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ShiftedService]:
    # It keeps so little that all it did under the wrong clock is only remembered.
    with shifted_service(
        tmp_path, define, JOBBUS_KEEP_COMMANDS="1", JOBBUS_KEEP_IDS="10"
    ) as running:
        yield running


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


async def dropped(service: Service, command: str, job_id: str, submitted_ms: int) -> str:
    """The file of another program's command, with its own time; the final status."""
    command_id = str(uuid4())
    fields = {
        "CommandID": command_id,
        "Command": command,
        "JobID": job_id,
        "UserID": "alice",
        "Roles": ["operator"],
        "SubmittedAt": rfc3339(submitted_ms),
    }
    place = service.data / "JobCommandQueue" / f"{command_id}.json"
    place.write_text(json.dumps(fields), encoding="utf-8")
    result = await eventually(lambda: service.result(command_id), f"the result of the {command}")
    assert result["Status"] == "Completed", (result["Error"], result["SubmittedAt"])
    return str(result["Status"])


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def takes_everything(service: ShiftedService) -> None:
    """Starts and stops over HTTP and by file are carried out."""
    async with service.http() as http:
        for command in ("start", "stop"):
            record = await http.publish(wait_s=20, command=command, jobId=LONG)
            assert record["status"] == "Completed", record
            status = await dropped(service, command, OTHER, now_ms())
            assert status == "Completed"


async def takes_what_waited(service: ShiftedService) -> None:
    """What the command line put into the directory while no service ran is carried out."""
    assert service.end() == 0
    done = await asyncio.to_thread(run_shifted, service, "start", LONG, "--data", str(service.data))
    assert done.returncode == 0, done.stdout + done.stderr
    service.start()
    async with service.http() as http:

        async def runs() -> bool:
            made = await http.executions(LONG)
            return bool(made) and made[0]["status"] == "Running"

        await eventually_answered(runs, "the start that waited")
        stop = await http.publish(wait_s=20, command="stop", jobId=LONG)
        assert stop["status"] == "Completed", stop


async def is_forgotten(http: Http, command_id: str) -> bool:
    return (await http.call("GET", f"/commands/{command_id}")).status in (404, 410)


@pytest.mark.parametrize(
    "wrong_s",
    [
        10 * YEAR_S,
        pytest.param(3 * HOUR_S, marks=pytest.mark.exhaustive),
        pytest.param(2 * DAY_S, marks=pytest.mark.exhaustive),
        pytest.param(-YEAR_S, marks=pytest.mark.exhaustive),
    ],
)
async def test_a_clock_that_was_wrong_refuses_nothing_and_runs_nothing_twice(
    service: ShiftedService, wrong_s: int
) -> None:
    async with service.http() as http:
        start = {"command": "start", "jobId": BRIEF}
        first = await http.call("POST", "/commands", start, Idempotency_Key="k", Prefer="wait=20")
        assert first.json["status"] == "Completed"
    service.set_clock(wrong_s)
    await takes_everything(service)  # writers elsewhere have the right time
    async with service.http() as http:
        for _ in range(30):
            await http.publish(wait_s=20, command="status", jobId=BRIEF)
    service.set_clock(wrong_s + 120)
    service.restart()  # what was done under the wrong clock is forgotten, and its ids are kept
    async with service.http() as http:
        await eventually_answered(lambda: is_forgotten(http, first.json["commandId"]), "forgotten")
    service.set_clock(0)
    await takes_everything(service)
    await takes_what_waited(service)
    async with service.http() as http:
        again = await http.call("POST", "/commands", start, Idempotency_Key="k")
        assert again.headers.get("Idempotency-Replayed") == "true"
    assert service.apps.lines("starts") == [first.json["commandId"]]


@pytest.mark.parametrize("ahead_s", [3 * HOUR_S, 10 * YEAR_S])
async def test_a_journal_that_a_wrong_clock_has_spoilt_heals_at_the_start(
    plain: Service, ahead_s: int
) -> None:
    assert plain.end() == 0
    spoil(plain.data / "Journal", ahead_s)
    plain.start()
    async with plain.http() as http:
        for command in ("start", "stop"):
            record = await http.publish(wait_s=20, command=command, jobId=LONG)
            assert record["status"] == "Completed", record
    assert await dropped(plain, "start", BRIEF, now_ms() - 60_000) == "Completed"
    plain.kill9()
    plain.start()
    found = recover(plain.data / "Journal", "copy", SystemClock())  # only read: the service has it
    assert found.table.horizon_ms < now_ms()


def spoil(journal: Path, ahead_s: int) -> None:
    """As a service left it that forgot ids while its clock was ahead."""
    found = recover(journal, "instance", SystemClock())
    at_ms = now_ms() + ahead_s * 1000
    event = SystemForgotten(ids_dropped=1, horizon_ms=at_ms)
    found.journal.append([Record(seq=found.next_seq, at_ms=at_ms, events=(event,))])
    found.journal.close(found.next_seq + 1, at_ms)
