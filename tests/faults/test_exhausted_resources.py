"""A system that lacks something, one thing after the other: at the start of the service and in the
middle. It starts or says in one sentence what it needs; it lives on; a stop works; what was missing
is used again as soon as it is there; and nothing of that is a trace in the log, or many lines.
"""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.jobs import Apps
from tests.scarce_resources import (
    ProcessGroup,
    in_own_namespace,
    without_descriptors,
    without_memory,
)
from tests.service import (
    PATIENCE_S,
    READY_S,
    ROOT,
    Http,
    Service,
    children_of,
    eventually,
    eventually_answered,
    is_alive,
    jobs_of,
    running_service,
)
from tests.tally import Kind, Tally

LINES_MAX = 12
"""What a service may log about one lack, its end included: sentences, not floods."""

SLEEP, QUICK, SAYS = "Scarce/Sleep", "Scarce/Quick", "Scarce/Says"


def define(apps: Apps) -> None:
    apps.shell(SLEEP, "exec sleep 1000", max_running=50)
    apps.shell(QUICK, "echo done", max_running=50)


def started(root: Path) -> AbstractContextManager[Service]:
    return running_service(root, define)


# -- in the middle


Lack = Callable[[Service], AbstractContextManager[object]]


def of_descriptors(service: Service) -> AbstractContextManager[object]:
    return without_descriptors(service.pid)


def of_memory(service: Service) -> AbstractContextManager[object]:
    return without_memory(service.pid)


@contextmanager
def of_processes(service: Service) -> Iterator[None]:
    """Of threads, too: they are counted together."""
    with ProcessGroup() as group:
        group.take(service.pid, *children_of(service.pid))
        group.give_no_more()
        yield
        group.give_back()


@contextmanager
def of_a_spawner(service: Service) -> Iterator[None]:
    """No processes, and the one that starts programs has just died."""
    with ProcessGroup() as group:
        spawner, *_ = children_of(service.pid)
        group.take(service.pid)
        group.give_no_more()
        os.kill(spawner, signal.SIGKILL)
        yield
        group.give_back()


IN_THE_MIDDLE = (of_descriptors, of_memory, of_processes, of_a_spawner)


async def stops_over_http(service: Service, http: Http, execution_id: str) -> None:
    await http.publish(command="stop", executionId=execution_id)


async def stops_by_file(service: Service, http: Http, execution_id: str) -> None:
    command_id = str(uuid.uuid4())
    fields = {
        "CommandID": command_id,
        "Command": "stop",
        "ExecutionID": execution_id,
        "UserID": "alice",
        "Roles": ["operator"],
    }
    draft = service.root / "draft"
    draft.write_text(json.dumps(fields), encoding="utf-8")
    draft.rename(service.data / "JobCommandQueue" / f"{command_id}.json")


async def asks_a_lot(service: Service, http: Http) -> None:
    """What eats whatever is left: starts, reads, definitions, each of which may fail."""
    calls: list[Awaitable[object]] = [
        http.call("POST", "/commands", {"command": "start", "jobId": QUICK}) for _ in range(8)
    ]
    calls += [http.call("GET", "/jobs") for _ in range(8)]
    service.apps.shell(f"Scarce/New{uuid.uuid4().hex[:6]}", "true")
    await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("stop", [stops_over_http, stops_by_file])
@pytest.mark.parametrize("lack", IN_THE_MIDDLE)
async def test_a_running_job_can_be_stopped_whatever_is_missing(
    tmp_path: Path, tally: Tally, lack: Lack, stop: Callable[..., Awaitable[None]]
) -> None:
    for _ in range(3):
        with tally.trial(Kind.EXHAUSTED, f"{lack.__name__[3:]} in the middle"):
            await a_job_is_stopped_meanwhile(tmp_path / uuid.uuid4().hex, lack, stop)


@pytest.mark.parametrize(
    ("lack", "stop"),
    [
        (of_descriptors, stops_over_http),
        (of_processes, stops_by_file),
        (of_a_spawner, stops_over_http),
    ],
)
async def test_a_running_job_can_be_stopped_without_descriptors_or_threads(
    tmp_path: Path, tally: Tally, lack: Lack, stop: Callable[..., Awaitable[None]]
) -> None:
    with tally.trial(Kind.EXHAUSTED, f"{lack.__name__[3:]} in the middle"):
        await a_job_is_stopped_meanwhile(tmp_path, lack, stop)


async def a_job_is_stopped_meanwhile(
    root: Path, lack: Lack, stop: Callable[..., Awaitable[None]]
) -> None:
    with started(root) as service:
        pid = service.pid
        async with service.http() as http:
            execution_id = await http.start(SLEEP)
        with lack(service):
            async with service.http() as http:  # new connections
                await asks_a_lot(service, http)
                await stop(service, http, execution_id)
            if lack is of_a_spawner:
                await eventually_answered(lambda: says_what_is_lacking(service), "what is lacking")
            await eventually(lambda: not programs_of(service), "the end of the program")
        async with service.http() as http:
            assert (await http.ended(execution_id))["status"] == "Stopped"
            again = await started_again(http)
            assert (await http.ended(again))["status"] == "Succeeded"
        assert service.pid == pid
        assert is_alive(pid)
        assert len(lines(service)) <= LINES_MAX, service.log.read_text()


async def says_what_is_lacking(service: Service) -> bool:
    ready = await service.raw("GET", "/readyz")
    return ready.status == 503 and b"allow more" in ready.body


def programs_of(service: Service) -> list[int]:
    return [pid for pid in jobs_of(service.data) if b"sleep" in command_of(pid)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def started_again(http: Http) -> str:
    """What was missing is there again: a start works as soon as that is noticed."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await http.call(
                "POST", "/commands", {"command": "start", "jobId": QUICK}, Prefer="wait=20"
            )
            if answer.status == 200 and answer.json["status"] == "Completed":
                found: str = answer.json["executionId"]
                return found
            await asyncio.sleep(0.2)


# -- at the start


@dataclass(frozen=True)
class Start:
    """How a service is started that lacks something: by a prefix of its command line, by what is
    done in its process before it is executed, in a group that allows so many processes."""

    name: str
    prefix: tuple[str, ...] = ()
    limits: tuple[tuple[int, int], ...] = ()
    processes: int | None = None
    streams: str = ""
    must_start: bool = False
    said: tuple[str, ...] = field(default=())

    @property
    def kind(self) -> str:
        return "streams" if self.streams else self.name.split(" ", 1)[-1]


def files(most: int, *, must_start: bool = False) -> Start:
    limits = ((resource.RLIMIT_NOFILE, most),)
    return Start(f"{most} files", limits=limits, must_start=must_start)


def memory(mib: int) -> Start:
    return Start(f"{mib} MiB of addresses", limits=((resource.RLIMIT_AS, mib << 20),))


def processes(most: int) -> Start:
    return Start(f"{most} processes", processes=most)


def inotify(instances: int | None, watches: int | None) -> Start:
    name = f"{instances} inotify instances" if watches is None else f"{watches} inotify watches"
    prefix = tuple(in_own_namespace(instances, watches))
    return Start(name, prefix=prefix, must_start=True, said=("inotify",))


def streams(how: str) -> Start:
    return Start(f"streams {how}", streams=how, must_start=True)


STREAMS = (">/dev/full 2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-", "2>&-", "> >(exec true) 2>&1")


def all_starts() -> list[Start]:
    return [
        *[files(n) for n in (12, 16, 20, 24, 28)],
        *[files(n, must_start=True) for n in (32, 40, 48, 64, 65, 100, 128)],
        *[memory(n) for n in (60, 100, 150, 200, 300, 400, 600, 800, 1000, 1200, 1600)],
        *[processes(n) for n in (1, 2, 5, 10, 15, 16, 17, 18, 19, 20, 21, 22, 24, 30)],
        *[inotify(n, None) for n in (0, 1, 2)],
        *[inotify(None, n) for n in (0, 1, 2, 3)],
        *[streams(how) for how in STREAMS],
    ]


@pytest.mark.exhaustive
@pytest.mark.parametrize("start", all_starts(), ids=lambda start: start.name)
async def test_it_starts_or_says_what_it_needs_whatever_is_missing(
    tmp_path: Path, tally: Tally, start: Start
) -> None:
    with tally.trial(Kind.EXHAUSTED, f"{start.kind} at the start"):
        await starts_or_says_why(tmp_path, start)


@pytest.mark.parametrize(
    "start",
    [
        files(16),
        files(40, must_start=True),
        processes(6),
        inotify(0, None),
        inotify(None, 0),
        streams(">/dev/full 2>/dev/full"),
        streams("<&- >&- 2>&-"),
    ],
    ids=lambda start: start.name,
)
async def test_it_starts_or_says_what_it_needs_without(
    tmp_path: Path, tally: Tally, start: Start
) -> None:
    with tally.trial(Kind.EXHAUSTED, f"{start.kind} at the start"):
        await starts_or_says_why(tmp_path, start)


async def starts_or_says_why(root: Path, start: Start) -> None:
    service = Service(root)
    define(service.apps)
    with ExitStack() as stack:
        group = None
        if start.processes is not None:
            group = stack.enter_context(ProcessGroup())
            group.allow(start.processes)
        process = spawned(service, start, group)
        stack.callback(service.clear_away)
        service._process = process
        url = await ready_url(service, process)
        if url is None:
            assert not start.must_start, f"did not start: {service.log.read_text()}"
            assert process.wait(PATIENCE_S) == 1
            said = service.log.read_text().splitlines()
            assert [line for line in said if line.startswith("jobbus: ")] == said[-1:], said
            assert "Errno" not in said[-1]
            assert not service.complaints(), said
            return
        service.port = int(url.rpartition(":")[2])
        service.token = (service.data / "admin.token").read_text(encoding="ascii").strip()
        async with service.http() as http:
            for job_id, end in ((QUICK, "Succeeded"), (SLEEP, "Stopped")):
                answer = await http.publish(20, command="start", jobId=job_id)
                if answer["status"] == "Failed" and not start.must_start:
                    assert "allow more processes" in answer["error"], answer
                    continue
                if end == "Stopped":
                    await stops_by_file(service, http, answer["executionId"])
                assert (await http.ended(answer["executionId"]))["status"] == end, answer
        assert not service.complaints(), service.log.read_text()
        assert len(lines(service)) <= LINES_MAX, service.log.read_text()
        for word in start.said:
            assert word in service.log.read_text()
        assert service.end() == 0, service.log.read_text()


def spawned(
    service: Service, start: Start, group: ProcessGroup | None
) -> "subprocess.Popen[bytes]":
    def prepare() -> None:
        if group is not None:
            group.take(os.getpid())
        for what, most in start.limits:
            resource.setrlimit(what, (most, most))

    serve = [sys.executable, "-m", "jobbus", "serve", *service.places()]
    command = [*start.prefix, *serve, "--listen", "127.0.0.1:0"]
    if start.streams:
        command = ["bash", "-c", f'exec "$@" {start.streams}', "-", *command]
    with service.log.open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=service.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            preexec_fn=prepare,
        )


async def ready_url(service: Service, process: "subprocess.Popen[bytes]") -> str | None:
    """Where it answers, as its data directory says; None once it has ended."""
    place = service.data / "instance.json"
    async with asyncio.timeout(READY_S):
        while process.poll() is None:
            if place.exists() and (url := json.loads(place.read_bytes()).get("url")):
                return str(url)
            await asyncio.sleep(0.05)
    return None


def lines(service: Service) -> list[str]:
    """What the log holds beside the link of the start and the two lines of each execution."""
    text = service.log.read_text(encoding="utf-8").splitlines()
    ours = ("sign in once", '{"method"')
    of_jobs = '"logger": "jobbus.jobs"'
    return [line for line in text if not line.startswith(ours) and of_jobs not in line]
