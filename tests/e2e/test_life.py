"""A service from its start to its end: what it refuses, how it ends, what it leaves behind."""

import asyncio
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.jobs import Apps
from tests.raw_stream import RawStream
from tests.service import (
    PATIENCE_S,
    Http,
    Service,
    eventually,
    eventually_answered,
    is_alive,
    running_service,
)

TICK = 'n=0; until [ -e "$BOARD/go" ]; do n=$((n + 1)); echo $n; sleep 0.1; done; exit 4'
POOL_MAX = 50
"""Threads that a service may have at most: asyncio's pool has up to 32, made as they are needed."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def define(apps: Apps) -> None:
    apps.shell("T/Tick", TICK, max_running=4)
    apps.shell("T/Waiting", 'until [ -e "$BOARD/go" ]; do sleep 0.1; done', overlap="queue")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


def refusal(service: Service, *arguments: str) -> tuple[int, str]:
    """Exit code and words of a `serve` that does not come up."""
    process = service.spawn(*arguments)
    try:
        out, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert b"jobbus ready" not in out
    return process.returncode, service.log.read_text()


def test_second_service_on_a_directory_ends_and_names_the_first(service: Service) -> None:
    code, words = refusal(service, "--listen", "127.0.0.1:0")
    assert code == 1
    assert str(service.pid) in words
    assert str(service.data) in words
    assert is_alive(service.pid)


def test_taken_address_is_an_error_that_names_it(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, words = refusal(service, "--listen", f"127.0.0.1:{port}")
    assert code == 1
    assert str(port) in words
    assert "Traceback" not in words


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_directory_that_others_may_write_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    service = Service(tmp_path)
    service.data.mkdir()
    service.data.chmod(mode)
    code, words = refusal(service, "--listen", "127.0.0.1:0")
    assert code == 1
    assert "chmod" in words
    assert str(service.data) in words
    assert list(service.data.iterdir()) == []


def test_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.data.write_text("mine")
    code, words = refusal(service, "--listen", "127.0.0.1:0")
    assert code == 1
    assert str(service.data) in words
    assert "Traceback" not in words
    assert service.data.read_text() == "mine"


async def test_term_ends_with_zero_while_jobs_go_on(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("T/Tick")
        pid = (await http.execution(execution_id))["pid"]
    async with await service.stream() as stream:
        await stream.until_kind("snapshot_end")
        assert await asyncio.to_thread(service.end) == 0
        assert (await stream.rest())[-1].data["reason"] == "shutdown"
    assert is_alive(pid)
    log = service.data / "JobOutput" / execution_id / "output.log"
    size = log.stat().st_size
    service.start()
    async with service.http() as http:
        assert (await http.execution(execution_id))["status"] == "Running"
        await eventually(lambda: log.stat().st_size > size, "output goes on")
        service.apps.put("go")
        assert (await http.ended(execution_id))["exitCode"] == 4


async def test_interrupt_with_twenty_open_streams_ends_within_five_seconds(
    service: Service,
) -> None:
    async with AsyncExitStack() as opened:
        async with service.http() as http:
            execution_id = await http.start("T/Tick")
        targets = ["/api/v1/events", f"/api/v1/executions/{execution_id}/stream"] * 10
        streams = [await opened.enter_async_context(await service.stream(t)) for t in targets]
        for stream in streams[:10]:  # the others never read: a suspended laptop, a stuck proxy
            await stream.next()
        began_s = time.monotonic()
        assert await asyncio.to_thread(service.end, signal.SIGINT) == 0
        assert time.monotonic() - began_s < 5
        for stream in streams:
            end = (await stream.rest())[-1]
            assert (end.kind, end.data["reason"]) == ("end", "shutdown")
            assert 500 <= end.data["retryMs"] <= 3000


async def test_waiting_calls_are_answered_when_the_service_ends(service: Service) -> None:
    async with service.http() as http:
        await http.start("T/Waiting")
        body = {"command": "start", "jobId": "T/Waiting"}
        calls = [
            asyncio.create_task(http.call("POST", "/commands", body, Prefer="wait=30"), name="call")
            for _ in range(5)
        ]
        await eventually_answered(lambda: queued(http, 5), "all wait")
        assert await asyncio.to_thread(service.end) == 0
        assert [(await call).status for call in calls] == [202] * 5
    service.start()
    async with service.http() as http:
        assert await queued(http, 5)
        service.apps.put("go")
        await eventually_answered(lambda: queued(http, 0), "all have had their turn")


async def queued(http: Http, count: int) -> bool:
    return len((await http.get("/executions?status=Queued"))["items"]) == count


async def test_everything_on_disk_is_closed_to_others(service: Service) -> None:
    async with service.http() as http:
        service.apps.put("go")
        await http.ended(await http.start("T/Tick"))
        await http.publish(20, command="stop", jobId="T/Tick")
    assert service.end() == 0
    paths = [service.data, *service.data.rglob("*")]
    assert len(paths) > 15
    assert [path for path in paths if path.lstat().st_mode & OTHERS] == []
    service.start()


async def test_nothing_of_the_service_is_in_the_environment_of_jobs(tmp_path: Path) -> None:
    with running_service(
        tmp_path, lambda apps: apps.shell("T/Env", "env; ls -l /proc/self/fd")
    ) as service:
        async with service.http() as http:
            execution_id = await http.start("T/Env")
            await http.ended(execution_id)
            output = (await http.output(execution_id)).decode()
    names = {line.partition("=")[0] for line in output.splitlines() if "=" in line}
    own = {name for name in names if name.startswith("JOBBUS_")}
    assert own >= {
        "JOBBUS_EXECUTION_ID", "JOBBUS_JOB_ID", "JOBBUS_COMMAND_ID", "JOBBUS_USER_ID",
        "JOBBUS_ATTEMPT", "JOBBUS_PROGRESS",
    }  # fmt: skip
    assert "NOTIFY_SOCKET" in names
    assert "PYTHONPATH" not in names
    assert service.token not in output
    descriptors = [line.split()[-1] for line in output.splitlines() if " -> " in line]
    assert len(descriptors) == 4  # three of its own, and the folder that `ls` reads


async def one_stream(service: Service, target: str, *, abort: bool) -> None:
    stream = await RawStream.open(service.port, target, service.token)
    async with stream:
        assert stream.status == 200
        await stream.next()
        if abort:
            stream.abort()


async def test_streams_that_came_and_went_leave_nothing_behind(
    service: Service,
) -> None:
    async with service.http() as http:
        execution_id = await http.start("T/Tick")
    output = f"/api/v1/executions/{execution_id}/stream"
    await eventually_answered(lambda: no_streams(service), "no streams")
    # The first round is not counted: what is opened once comes with it.
    await twenty_streams(service, output)
    before = descriptors(service.pid)
    for _ in range(2):
        await twenty_streams(service, output)
    await eventually(lambda: descriptors(service.pid) <= before, f"at most {before} descriptors")
    assert threads(service.pid) <= POOL_MAX
    service.apps.put("go")


async def test_reader_that_lost_all_its_streams_may_open_as_many_at_once(service: Service) -> None:
    async with AsyncExitStack() as opened:
        for _ in range(2):
            streams = [await opened.enter_async_context(await service.stream()) for _ in range(20)]
            assert [stream.status for stream in streams] == [200] * 20
            one_more = await opened.enter_async_context(await service.stream())
            assert (one_more.status, one_more.headers["retry-after"]) == (429, "5")
            for stream in streams:
                stream.abort()


async def twenty_streams(service: Service, output: str) -> None:
    targets = ["/api/v1/events", output] * 10
    async with asyncio.TaskGroup() as group:
        for number, target in enumerate(targets):
            group.create_task(one_stream(service, target, abort=number % 4 == 0), name=target)
    await eventually_answered(lambda: no_streams(service), "all streams are noticed to be gone")


async def no_streams(service: Service) -> bool:
    async with service.http() as http:
        return bool((await http.get("/system"))["streams"]["open"] == 0)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))
