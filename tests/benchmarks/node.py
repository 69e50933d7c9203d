"""A whole service in its own process, as a user starts it, with jobs for measuring."""

import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders import ROOT, Failed

_READY_S = 60.0
UNLIMITED = {"JOBBUS_LIMITS_POSTS_PER_S": "1000000000", "JOBBUS_LIMITS_POST_BURST": "1000000000"}
"""What one principal may send is not what is measured."""

_STOP_S = 20.0


@dataclass(frozen=True)
class RunningNode:
    """Where a service answers. `ready_s`: from its start until it said that it is ready."""

    port: int
    token: str
    pid: int
    data: Path
    ready_s: float

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ended_commands(self, kind: str) -> dict[str, int]:
        """How many commands of that kind have ended, by outcome, as `/metrics` counts them."""
        connection = self.connection()
        try:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {self.token}"})
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        found = re.finditer(r"^jobbus_commands_total\{(.*)\} ([0-9.e+]+)$", text, re.MULTILINE)
        ended: dict[str, int] = {}
        for match in found:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
            if labels["type"] == kind:
                ended[labels["outcome"]] = int(float(match[2]))
        return ended

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of one answer.

        Raises:
            Failed: it is no success.
        """
        connection = self.connection()
        try:
            return call_on(connection, self.token, method, path, body)
        finally:
            connection.close()


def call_on(
    connection: http.client.HTTPConnection, token: str, method: str, path: str, body: object = None
) -> Any:
    """As `RunningNode.call`, on a connection that is kept."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body)
    connection.request(method, f"/api/v1{path}", data, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise Failed(f"{method} {path}: {answer.status} {content[:200].decode()}")
    return json.loads(content)


@contextmanager
def running_node(folder: Path, jobs: Mapping[str, str]) -> Iterator[RunningNode]:
    """A service with its data in `folder / "data"`; stopped in order after the block.

    jobs: the text of job.toml by job id.
    """
    for job_id, definition in jobs.items():
        app, name = job_id.split("/")
        place = folder / "apps" / app / "jobs" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "job.toml").write_text(definition)
    (folder / "apps").mkdir(exist_ok=True)
    data = folder / "data"
    argv = [sys.executable, "-m", "jobbus", "serve", "--data", str(data)]
    began = time.monotonic()
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*argv, "--apps", str(folder / "apps"), "--listen", "127.0.0.1:0"],
            cwd=ROOT,
            env=os.environ | UNLIMITED,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        port = _ready_port(process, folder)
        ready_s = time.monotonic() - began
        token = (data / "admin.token").read_text().strip()
        yield RunningNode(port, token, process.pid, data, ready_s)
    finally:
        _stop(process)


def _ready_port(process: "subprocess.Popen[bytes]", folder: Path) -> int:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], _READY_S)
    line = process.stdout.readline().decode() if readable else ""
    if not line.startswith("jobbus ready "):
        said = (folder / "stderr").read_text().strip().splitlines() or ["nothing"]
        raise Failed(f"the service did not get ready: {said[-1]}")
    return int(line.rpartition(":")[2])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def processes_of(data: Path, root: int) -> list[int]:
    """The service, its children, its shims and their jobs: all that hold a file below `data`, and
    all descendants."""
    parents: dict[int, int] = {}
    ours = {root}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text()
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            if any(_link(fd).startswith(str(data)) for fd in (entry / "fd").iterdir()):
                ours.add(int(entry.name))
        except OSError:
            continue  # it ended, or is not ours to look at
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours |= more
        grown = bool(more)
    return sorted(ours)


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
