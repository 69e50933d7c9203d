"""The client as a program imports it, against a whole service: run, wait, follow, and what is said
when it is used wrongly."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobbus import (
    ApiProblem,
    BadAddress,
    BadToken,
    Client,
    CommandFailed,
    JobbusError,
    NotOpen,
    WaitTimeout,
)
from tests.jobs import WAITING, Apps
from tests.service import ROOT, Service, eventually_answered, running_service

EXAMPLES = ROOT / "examples" / "client"


def define(apps: Apps) -> None:
    apps.shell("C/Good", 'echo "in $JOBBUS_VAR_Day"', variables={"Day": {"type": "string"}})
    apps.shell("C/Bad", "echo why >&2; exit 3")
    apps.shell("C/Waits", WAITING.format(name="go"), overlap="reject")
    apps.shell(
        "C/Second",
        'test -e "$BOARD/tried" && exit 0; touch "$BOARD/tried"; exit 9',
        retry={"attempts": 2, "delay_s": 0.1},
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("client"), define) as running:
        yield running


async def test_run_returns_the_execution_that_ended(service: Service) -> None:
    async with Client(service.url, service.token) as client:
        good = await client.run("C/Good", {"Day": "Fri"})
        bad = await client.run("C/Bad")
        output = b"".join([piece async for piece in client.output(good.execution_id)])
    assert (good.status, good.ending, good.has_ended) == ("Succeeded", "succeeded", True)
    assert (bad.status, bad.exit_code, bad.ending) == ("Failed", 3, "failed: exit code 3")
    assert output == b"in Fri\n"


async def test_run_waits_for_the_retries_of_the_job(service: Service) -> None:
    async with Client(service.url, service.token) as client:
        execution = await client.run("C/Second", timeout_s=30)
    assert (execution.status, execution.attempt, execution.attempts) == ("Succeeded", 2, 2)


async def test_a_start_that_leads_to_no_execution_says_why(service: Service) -> None:
    async with Client(service.url, service.token) as client:
        first = await client.start("C/Waits")
        running = await client.wait_execution_id(first.command_id)
        assert running.execution_id is not None
        with pytest.raises(JobbusError) as refused:
            await client.run("C/Waits")
        assert isinstance(refused.value, ApiProblem | CommandFailed)
        assert "running" in str(refused.value)
        with pytest.raises(WaitTimeout, match=r"has not ended within 0\.2 s"):
            await client.wait_execution(running.execution_id, timeout_s=0.2)
        service.apps.put("go")
        ended = await client.wait_execution(running.execution_id, timeout_s=30)
        assert ended == await client.wait_execution(running.execution_id)
    assert ended.status == "Succeeded"
    assert ended.output_end == 0


async def test_waiting_for_an_execution_outlives_a_restart_of_the_service(service: Service) -> None:
    async def is_followed() -> bool:
        async with service.http() as http:
            return bool((await http.get("/system"))["streams"]["open"])

    (service.apps.board / "go").unlink(missing_ok=True)
    async with Client(service.url, service.token) as client:
        accepted = await client.start("C/Waits")
        command = await client.wait_execution_id(accepted.command_id)
        assert command.execution_id is not None
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(client.wait_execution(command.execution_id, timeout_s=30))
            await eventually_answered(is_followed, "the first request was answered")
            await asyncio.to_thread(service.restart)
            service.apps.put("go")
            ended = await waiting
    assert ended.status == "Succeeded"


async def test_an_execution_that_is_not_there_is_a_problem_at_once(service: Service) -> None:
    async with Client(service.url, service.token) as client:
        with pytest.raises(ApiProblem) as caught:
            await client.wait_execution("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
    assert caught.value.status == 404


async def test_a_token_may_end_with_the_line_end_of_its_file(service: Service) -> None:
    async with Client(f" {service.url}/ ", f"{service.token}\n") as client:
        assert {job.job_id for job in (await client.jobs()).items} >= {"C/Good", "C/Bad"}


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("127.0.0.1:8765", "does not begin with http:// or https://; write e.g. http://127.0.0.1:"),
        ("localhost:8765", "write e.g. http://localhost:8765"),
        (":8765", "write e.g. http://127.0.0.1:8765"),
        ("", "write e.g. http://127.0.0.1:8765"),
        ("ftp://host", "write e.g. http://host"),
        ("http://", "names no host"),
        ("http://host:port", "is no address"),
        ("http://host:99999", "is no address"),
        ("http://[::1", "is no address"),
    ],
)
def test_an_address_that_is_none_says_what_one_looks_like(address: str, hint: str) -> None:
    with pytest.raises(BadAddress) as caught:
        Client(address)
    assert hint in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "naïve", "a\nb", "\x00"])
def test_a_token_that_no_header_can_hold_is_refused_at_once(token: str) -> None:
    with pytest.raises(BadToken, match="one word of visible ASCII"):
        Client("http://127.0.0.1:1", token)


async def test_a_client_outside_of_its_block_says_how_it_is_used() -> None:
    client = Client("http://127.0.0.1:1")
    with pytest.raises(NotOpen, match="async with Client"):
        await client.jobs()


async def test_a_certificate_that_is_none_is_said_with_its_path(tmp_path: Path) -> None:
    missing = tmp_path / "cert.pem"
    with pytest.raises(BadAddress, match=r"cert\.pem cannot be read as a certificate"):
        async with Client("https://127.0.0.1:1", certificate=missing):
            pass


def test_the_example_that_runs_a_job_does_and_says_how_it_ended(service: Service) -> None:
    done = example(service, "run_job.py", "C/Good", "Day=Sun")
    failed = example(service, "run_job.py", "C/Bad")
    unknown = example(service, "run_job.py", "C/Nothing")
    assert (done.returncode, done.stdout) == (0, "in Sun\nC/Good succeeded\n")
    assert (failed.returncode, failed.stdout) == (1, "why\nC/Bad failed: exit code 3\n")
    assert unknown.returncode == 1
    assert "C/Nothing" in unknown.stderr + unknown.stdout
    assert "Traceback" not in unknown.stderr


def test_the_example_that_follows_a_job_prints_each_frame(service: Service) -> None:
    with subprocess.Popen(
        command("follow_job.py", service.url, "C/Good"),
        env=environment(service),
        stdout=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        begun: list[str] = []
        while "that was the state" not in (line := follower.stdout.readline()):
            assert line, begun
            begun.append(line)
        example(service, "run_job.py", "C/Good", "Day=Mon")
        rest = follower.stdout.read()
    assert follower.returncode == 0
    assert begun[0] == "connected as admin\n"
    assert "job C/Good" in "".join(begun)
    assert rest.splitlines()[-1].startswith("execution.ended: execution ")
    assert rest.endswith(" succeeded\n")


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]


def environment(service: Service) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"JOBBUS_TOKEN": service.token, "PYTHONPATH": str(ROOT)}


def example(service: Service, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(name, service.url, *arguments),
        env=environment(service),
        capture_output=True,
        text=True,
        check=False,
    )
