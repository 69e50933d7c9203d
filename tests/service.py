"""A whole service in a process of its own, as an outside user has it: started, asked, killed.

Nothing here knows how it is built: it runs `serve`, waits for the ready line, reads `admin.token`
and speaks HTTP.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import aiohttp

from tests.jobs import Apps
from tests.preforked_service import fork_server, is_readable
from tests.raw_stream import RawAnswer, RawStream, request

ROOT = Path(__file__).parents[1]
READY_S = 60.0
PATIENCE_S = 30.0
FINAL = ("Succeeded", "Failed", "Stopped", "TimedOut", "Cancelled", "Skipped", "Lost")

T = TypeVar("T")


class Running(Protocol):
    """What is needed of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    @property
    def returncode(self) -> int | Any: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes, bytes]: ...


class Service:
    """One data directory with its service, which may come and go. The methods here block."""

    def __init__(self, root: Path, apps: Apps | None = None) -> None:
        self.root = root
        self.data = root / "data"
        self.log = root / "service.log"
        self.apps = apps or Apps(root)
        self.port = 0
        self.token = ""
        self._process: Running | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the service does not run"
        return self._process.pid

    @property
    def is_started(self) -> bool:
        """Whether there is a process of it to be waited for."""
        return self._process is not None

    def start(self, *flags: str) -> None:
        """The service has said that it is ready. Later starts listen on the port of the first."""
        assert self._process is None
        self._process = self._run("--listen", f"127.0.0.1:{self.port}", *flags)
        line = self._ready_line(self._process)
        assert line.startswith("jobbus ready http://127.0.0.1:"), self.log.read_text()
        self.port = int(line.rpartition(":")[2])
        self.token = (self.data / "admin.token").read_text(encoding="ascii").strip()

    def spawn(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """`python -m jobbus serve` in a new process; the caller waits for it."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-W", "error", "-m", "jobbus", "serve"),
                    *(*self.places(), *arguments),
                ],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def _run(self, *arguments: str) -> Running:
        """The same as `spawn` without its imports, for they are most of a start's CPU."""
        with self.log.open("ab") as log:
            return fork_server("-W", "error", "-m", "tests.preforked_service").fork(
                ["serve", *self.places(), *arguments], self.environment(), log.fileno()
            )

    def places(self) -> tuple[str, ...]:
        return "--data", str(self.data), "--apps", str(self.apps.root)

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return kept | {"PYTHONPATH": str(ROOT)}

    def kill9(self, *, spawner: bool = False) -> None:
        """The service is dead at once; with `spawner`, so is the process that forks the shims."""
        helpers = children_of(self.pid) if spawner else []
        for pid in (*helpers, self.pid):
            kill(pid, signal.SIGKILL)
        self._wait()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The service was asked to end and has; its exit code."""
        kill(self.pid, number)
        return self._wait()

    def wait(self) -> int:
        """The service has ended; its exit code."""
        return self._wait()

    def restart(self) -> None:
        """Ended in order, with 0, and started again."""
        assert self.end() == 0, self.log.read_text()
        self.start()

    def complaints(self) -> list[str]:
        """What in the log no run should have left there."""
        words = (
            "Traceback",
            '"level": "error"',
            '"level": "critical"',
            "never retrieved",
            "Warning:",
        )
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if any(word in line for word in words)]

    def clear_away(self) -> None:
        """Nothing is left of the service, its shims and its jobs."""
        if self._process is not None:
            kill(self.pid, signal.SIGKILL)
            self._wait()
        deadline_s = time.monotonic() + PATIENCE_S
        while left := processes_of(self.data):
            assert time.monotonic() < deadline_s, f"cannot be killed: {left}"
            for pid in left:
                kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self._remove_groups()

    def queue_files(self) -> list[str]:
        """The names of the commands in the queue, half-written ones too."""
        queue = self.data / "JobCommandQueue"
        return sorted(path.name for path in (*queue.glob("*.json"), *queue.glob(".tmp/*")))

    def result(self, command_id: str) -> dict[str, Any] | None:
        return read_json(self.data / "JobCommandResults" / f"{command_id}.json")

    def status(self, execution_id: str) -> dict[str, Any] | None:
        return read_json(self.data / "JobStatus" / f"{execution_id}.json")

    @asynccontextmanager
    async def http(self) -> AsyncIterator["Http"]:
        async with aiohttp.ClientSession(
            self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        ) as session:
            yield Http(session)

    async def stream(self, target: str = "/api/v1/events", **headers: str) -> RawStream:
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        return await RawStream.open(self.port, target, self.token, spelled)

    async def raw(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str | None] | None = None,
    ) -> RawAnswer:
        """The answer to a request with the token and a JSON type; a header of None is left out."""
        own: dict[str, str | None] = {"Authorization": f"Bearer {self.token}"}
        if body:
            own["Content-Type"] = "application/json"
        given = {k: v for k, v in (own | dict(headers or {})).items() if v is not None}
        return await request(self.port, method, target, given, body)

    def _ready_line(self, process: Running) -> str:
        assert process.stdout is not None
        is_there = is_readable(process.stdout.fileno(), READY_S)
        return process.stdout.readline().decode().strip() if is_there else ""

    def _remove_groups(self) -> None:
        """The control groups of shims that were killed and could not tidy up themselves."""
        for path in self.data.glob("JobOutput/*/process.json"):
            group = None
            with suppress(ValueError):  # torn by a power cut that was made up
                group = (read_json(path) or {}).get("cgroup")
            if group and Path(group).is_dir():
                with suppress(OSError):  # still draining: an empty group does no harm
                    Path(group).rmdir()

    def _wait(self) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        try:
            process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return process.returncode


@dataclass(frozen=True)
class Answer:
    """A whole answer to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """Calls of the API on one session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """The answer, whatever its status; `path` is below the base of the API."""
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method, f"/api/v1{path}", json=body, headers=spelled
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str) -> Any:
        """The JSON of a 200."""
        answer = await self.call("GET", path)
        assert answer.status == 200, answer.body
        return answer.json

    async def publish(self, wait_s: int = 0, **fields: object) -> dict[str, Any]:
        """The command as it was accepted, or with `wait_s` as it ended."""
        prefer = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        answer = await self.call("POST", "/commands", fields, **prefer)
        assert answer.status == (200 if wait_s else 202), answer.body
        command: dict[str, Any] = answer.json
        return command

    async def start(self, job_id: str, **variables: object) -> str:
        """The job runs; the id of its execution."""
        command = await self.publish(20, command="start", jobId=job_id, variables=variables)
        assert (command["status"], command["outcome"]) == ("Completed", "done"), command
        execution_id: str = command["executionId"]
        return execution_id

    async def execution(self, execution_id: str) -> dict[str, Any]:
        execution: dict[str, Any] = await self.get(f"/executions/{execution_id}")
        return execution

    async def ended(self, execution_id: str) -> dict[str, Any]:
        """The execution when it has ended: its stream ends with it."""
        while (found := await self.execution(execution_id))["status"] not in FINAL:
            stream = await self.call("GET", f"/executions/{execution_id}/stream")
            assert stream.status == 200, stream.body
        return found

    async def output(self, execution_id: str) -> bytes:
        return (await self.call("GET", f"/executions/{execution_id}/output")).body

    async def executions(self, job_id: str) -> list[dict[str, Any]]:
        """All executions of the job, newest first (as far as one page goes)."""
        items: list[dict[str, Any]] = (await self.get(f"/executions?job={job_id}&limit=500"))[
            "items"
        ]
        return items

    async def ids_between(self, first: str, last: str) -> list[str]:
        """The ids of all changes from one to another, both with them, as the service has them."""
        ids, cursor = [first], first
        while last not in ids:
            page = await self.call(
                "GET", f"/events?limit=500&last_event_id={cursor}", Accept="application/json"
            )
            assert page.status == 200, page.body
            assert page.json["items"], f"{last} is after all that there is"
            ids += [each["id"] for each in page.json["items"]]
            cursor = page.json["next"]
        return ids[: ids.index(last) + 1]


@contextmanager
def running_service(root: Path, define: Callable[[Apps], None]) -> Iterator[Service]:
    """A service with the jobs of `define`. After the block nothing of it is left, its log too holds
    no complaint."""
    service = Service(root)
    define(service.apps)
    try:
        service.start()
        yield service
        complaints = service.complaints()
        assert not complaints, "\n".join(complaints)
    finally:
        service.clear_away()


async def eventually(look: Callable[[], T | None], what: str = "") -> T:
    """What `look` gives, as soon as it is true: for what only files or /proc show."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (found := look()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never came: {what or look}") from None
    return found


async def eventually_answered(look: Callable[[], Awaitable[T | None]], what: str = "") -> T:
    """The same for what has to be asked for."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await look()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"never came: {what or look}") from None
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """The file's object, which is whole whenever the file is there."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return content


def kill(pid: int, number: signal.Signals) -> None:
    """Sends the signal; a process that is gone has what was wanted."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than as a zombie."""
    stat = _read(Path(f"/proc/{pid}/stat"))
    return bool(stat) and stat[stat.rfind(b")") + 2 :][:1] not in (b"Z", b"X")


def children_of(pid: int) -> list[int]:
    found = []
    for folder in _processes():
        stat = _read(folder / "stat")
        if stat and int(stat[stat.rfind(b")") + 2 :].split()[1]) == pid:
            found.append(int(folder.name))
    return found


def processes_of(data: Path) -> list[int]:
    """The living jobs and shims of a data directory: by their marker, or by the files they hold."""
    place = os.fsencode(data) + b"/"
    return [
        int(folder.name)
        for folder in _processes()
        if int(folder.name) != os.getpid()
        and is_alive(int(folder.name))
        and (_is_marked(folder, place) or _holds_below(folder, data))
    ]


def jobs_of(data: Path) -> list[int]:
    """The living processes that run in executions of a data directory."""
    place = os.fsencode(data) + b"/"
    return [
        int(folder.name)
        for folder in _processes()
        if is_alive(int(folder.name)) and _is_marked(folder, place)
    ]


def _processes() -> Iterator[Path]:
    return (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())


def _is_marked(folder: Path, place: bytes) -> bool:
    environment = _read(folder / "environ")
    return b"JOBBUS_EXECUTION_ID=" in environment and place in environment


def _holds_below(folder: Path, data: Path) -> bool:
    try:
        return any(str(fd.readlink()).startswith(f"{data}/") for fd in (folder / "fd").iterdir())
    except OSError:
        return False  # it ended meanwhile


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
