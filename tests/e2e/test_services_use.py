"""What services do with the API, against a whole one: batches, traces, past changes, numbers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.jobs import Apps
from tests.service import Http, Service, eventually, running_service

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NDJSON = "application/x-ndjson"


def define(apps: Apps) -> None:
    apps.shell("T/Trace", 'echo "$TRACEPARENT"; echo oops >&2')
    apps.shell("T/Many", "exit 0", max_running=20)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(Path(tmp_path_factory.mktemp("services")), define) as running:
        yield running


async def past(service: Service) -> list[dict[str, Any]]:
    """All changes that the service can still send."""
    items: list[dict[str, Any]] = []
    target = "/api/v1/events?limit=500"
    while True:
        page = (await service.raw("GET", target, headers={"Accept": "application/json"})).json
        items += page["items"]
        if page["next"] == page["asOf"]:
            return items
        target = f"/api/v1/events?limit=500&last_event_id={page['next']}"


async def test_a_trace_goes_from_the_request_to_the_program_and_the_changes(
    service: Service,
) -> None:
    async with service.http() as http:
        body = {"command": "start", "jobId": "T/Trace"}
        answer = await http.call("POST", "/commands", body, Prefer="wait=20", traceparent=TRACE)
        execution = answer.json["executionId"]
        await http.ended(execution)
        page = await http.get(f"/executions/{execution}/output?format=json")
        err = await http.call("GET", f"/executions/{execution}/output?stream=err")
        found = await http.get(f"/executions/{execution}/output?format=json&grep=oops")
        again = await http.call("POST", f"/executions/{execution}/retry", {}, Prefer="wait=20")
        second = await http.ended(again.json["executionId"])
        await http.call("DELETE", f"/executions/{execution}", Prefer="wait=20")
        gone = await http.call("GET", f"/executions/{execution}")
    version, trace, span, flags = page["lines"][0]["text"].split("-")
    assert f"{version}-{trace}-{flags}" == "00-4bf92f3577b34da6a3ce929d0e0e4736-01"
    assert span not in TRACE
    assert [line["stream"] for line in page["lines"]] == ["out", "err"]
    assert page["lines"][0]["time"].endswith("Z")
    assert (err.body, [line["number"] for line in found["lines"]]) == (b"oops\n", [2])
    assert (second["attempt"], second["previous"], gone.status) == (2, execution, 404)
    about = [change for change in await past(service) if change.get("execution") == execution]
    assert {change["type"] for change in about} >= {
        "command.accepted",
        "command.ended",
        "execution.queued",
        "execution.ended",
        "execution.deleted",
    }
    own = [c for c in about if c["type"] not in ("execution.deleted",) and "traceparent" in c]
    assert {change["traceparent"] for change in own} == {TRACE}
    assert {str(change["type"]).partition(".")[0] for change in own} == {"command", "execution"}


async def test_a_refused_file_keeps_its_trace_in_the_changes(service: Service) -> None:
    command_id = str(uuid4())
    file = {
        "CommandID": command_id,
        "Command": "start",
        "JobID": "T/Absent",
        "UserID": "files",
        "SubmittedAt": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "Traceparent": TRACE,
    }
    queue = service.data / "JobCommandQueue"
    written = queue / f".{command_id}"
    written.write_text(json.dumps(file), encoding="utf-8")
    written.rename(queue / f"{command_id}.json")
    await eventually(lambda: service.result(command_id) is not None)
    about = [c for c in await past(service) if c["subject"] == f"commands/{command_id}"]
    assert [change["type"] for change in about] == ["command.accepted", "command.ended"]
    assert about[-1]["data"]["status"] == "Rejected"
    assert [change.get("traceparent") for change in about] == [TRACE, TRACE]


async def test_a_batch_starts_each_of_its_jobs_once_even_if_repeated(service: Service) -> None:
    lines = [json.dumps({"command": "start", "jobId": "T/Many"}) for _ in range(8)]
    lines.insert(3, '{"command":"start","jobId":"T/Absent"}')
    headers = {"Content-Type": NDJSON, "Idempotency-Key": "batch-1"}
    body = "\n".join(lines).encode()
    first = await service.raw("POST", "/api/v1/commands", body, headers)
    again = await service.raw("POST", "/api/v1/commands", body, headers)
    answers = [json.loads(line) for line in first.body.splitlines()]
    repeated = [json.loads(line) for line in again.body.splitlines()]
    assert answers[3]["problem"]["status"] == 404
    ids = [line["commandId"] for line in answers if "commandId" in line]
    assert [line["commandId"] for line in repeated if "commandId" in line] == ids
    async with service.http() as http:
        for id_ in ids:
            ended = await http.call("GET", f"/commands/{id_}", Prefer="wait=20")
            assert ended.json["status"] == "Completed", ended.json
        assert len(await http.executions("T/Many")) == 8


async def test_a_reader_from_the_beginning_gets_what_pages_hold(service: Service) -> None:
    async with service.http() as http:
        await http.ended(await http.start("T/Many"))
    expected = [change["id"] for change in await past(service)]
    async with await service.stream("/api/v1/events?start=earliest") as stream:
        received = await stream.until(lambda each: each.id == expected[-1])
    assert [each.id for each in received if each.kind == "change"] == expected


async def test_metrics_count_what_was_done(service: Service) -> None:
    async with service.http() as http:
        await http.ended(await http.start("T/Many"))
        await counted(http, service)


async def counted(http: Http, service: Service) -> None:
    text = (await service.raw("GET", "/metrics")).body.decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['jobbus_commands_total{outcome="done",type="start"}']) >= 1
    assert float(values['jobbus_executions_ended_total{state="Succeeded"}']) >= 1
    assert float(values["jobbus_queue_depth"]) == 0
    anonymous = await service.raw("GET", "/metrics", headers={"Authorization": None})
    assert anonymous.status == 401
