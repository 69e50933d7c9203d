"""A job from its start over HTTP to its end, as reported while it happens."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from jobbus.client.client import Client
from jobbus.client.frames import Change, End, Output
from tests.jobs import WAITING, Apps
from tests.raw_stream import changes
from tests.service import Service, running_service

STEPS = "\n".join(
    (
        'echo 20 >> "$JOBBUS_PROGRESS"',
        'echo "first"',
        WAITING.format(name="one-$JOBBUS_VAR_Tag"),
        "echo '60% half way' >> \"$JOBBUS_PROGRESS\"",
        'echo "second" >&2',
        WAITING.format(name="two-$JOBBUS_VAR_Tag"),
        """echo '{"percent": 95, "message": "nearly", "data": {"n": 5}}' >> "$JOBBUS_PROGRESS\"""",
        'echo "third"',
        WAITING.format(name="three-$JOBBUS_VAR_Tag"),
        "exit 0",
    )
)


def define(apps: Apps) -> None:
    apps.shell(
        "T/Bytes",
        r"printf 'a\377b\rc\n\303'; printf 'er\376r' >&2; printf '\274|\n'; printf '\n' >&2; "
        r"yes $(printf '\375%0200d' 0) | head -c 600001",
    )
    apps.shell("T/Steps", STEPS, max_running=4, variables={"Tag": {"type": "string"}})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("live"), define) as running:
        yield running


async def test_events_show_each_step_with_rising_progress_while_it_happens(
    service: Service,
) -> None:
    async with service.http() as http, await service.stream() as events:
        await events.until_kind("snapshot_end")
        accepted = await http.publish(command="start", jobId="T/Steps", variables={"Tag": "e"})
        received = await events.until_change("execution.progress", jobId="T/Steps")
        for step in ("one", "two"):
            service.apps.put(f"{step}-e")
            received += await events.until_change("execution.progress", jobId="T/Steps")
        service.apps.put("three-e")
        received += await events.until_change("execution.ended", jobId="T/Steps")
    executions = [
        each.data for each in changes(received) if each.data["type"].startswith("execution.")
    ]
    types = [each["type"].removeprefix("execution.") for each in executions]
    assert types == ["queued", "started", "running", "progress", "progress", "progress", "ended"]
    states = [each["data"]["status"] for each in executions]
    assert states == ["Queued", "Starting", *["Running"] * 4, "Succeeded"]
    progress = [each["data"]["progress"] for each in executions if "progress" in each["type"]]
    assert [each["percent"] for each in progress] == [20, 60, 95]
    assert [each["message"] for each in progress] == ["", "half way", "nearly"]
    assert progress[2]["data"] == {"n": 5}
    end = executions[-1]["data"]
    assert (end["commandId"], end["exitCode"], end["reason"]) == (
        accepted["commandId"],
        0,
        "exit_code",
    )
    assert end["outputEnd"] == len(b"first\nsecond\nthird\n")
    commands = [each.data for each in changes(received) if each.data["type"].startswith("command.")]
    assert [each["type"] for each in commands] == ["command.accepted", "command.ended"]
    assert commands[1]["data"]["executionId"] == end["executionId"]
    assert [each.data["id"] for each in changes(received)] == [
        each.id for each in changes(received)
    ]


async def test_output_is_readable_before_the_job_goes_on(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("T/Steps", Tag="o")
        target = f"/api/v1/executions/{execution_id}/stream"
        async with await service.stream(target) as stream:
            first = (await stream.until_kind("output"))[-1]
            # The job waits for a file that does not exist yet: this came live or never.
            assert first.data == first.data | {"from": 0, "to": 6, "text": "first\n"}
            assert await http.output(execution_id) == b"first\n"
            service.apps.put("one-o")
            second = (await stream.until_kind("output"))[-1]
            assert second.data["text"] == "second\n"
            service.apps.put("two-o")
            third = (await stream.until_kind("output"))[-1]
            assert third.data["text"] == "third\n"
            service.apps.put("three-o")
            rest = await stream.rest()
        assert [each.kind for each in rest][-1] == "end"
        assert await http.output(execution_id) == b"first\nsecond\nthird\n"
        log = service.data / "JobOutput" / execution_id / "output.log"
        assert log.read_bytes() == b"first\nsecond\nthird\n"


async def test_client_follows_output_and_state_while_they_come(service: Service) -> None:
    seen: list[str] = []
    async with asyncio.timeout(30), Client(service.url, service.token) as client:
        accepted = await client.start("T/Steps", {"Tag": "c"})
        command = await client.wait_execution_id(accepted.command_id, timeout_s=20)
        assert command.execution_id is not None
        steps = iter(("one-c", "two-c", "three-c"))
        async with aclosing(client.follow(command.execution_id)) as frames:
            async for frame in frames:
                match frame:
                    case Output(text=text):
                        seen.append(text)
                        service.apps.put(next(steps))
                    case Change(type=type_) if type_ == "execution.ended":
                        seen.append(type_)
                    case End(reason=reason):
                        seen.append(reason)
                    case _:
                        pass
    assert seen[:3] == ["first\n", "second\n", "third\n"]
    assert seen[-1] == "terminal"


async def test_text_of_one_stream_is_the_bytes_that_were_written(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("T/Bytes")
        await http.ended(execution_id)
        path = f"/executions/{execution_id}/output?stream"
        out = (await http.call("GET", f"{path}=out")).body
        err = (await http.call("GET", f"{path}=err&format=text")).body
        part = (await http.call("GET", f"{path}=out&limit=5000")).body
    assert out == b"a\xffb\rc\n\xc3\xbc|\n" + ((b"\xfd" + b"0" * 200 + b"\n") * 3000)[:600_001]
    assert err == b"er\xfer\n"
    assert out.startswith(part)
    assert part.endswith(b"0\n")
