"""What a service says to systemd and takes from it: a real socket for its words, real listeners."""

import asyncio
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobbus.service.service_manager import ServiceManager
from tests.counterparts import needs
from tests.raw_stream import request
from tests.service import PATIENCE_S, READY_S, ROOT, Service, kill

UNITS = ROOT / "examples" / "systemd"
STAYS = 'until [ -e "$BOARD/go" ]; do sleep 0.05; done'
SHOW = """
import json, os
print(json.dumps({
    "names": sorted(n for n in os.environ if n.startswith(("LISTEN", "WATCHDOG", "NOTIFY"))),
    "open": [n for n in range(64) if os.path.exists(f"/proc/self/fd/{n}")],
}))
"""


class Manager:
    """The other side: what systemd holds of one service and receives from it."""

    def __init__(self, root: Path) -> None:
        self.service = Service(root)
        self.address = f"@jobbus-test-{os.getpid()}-{id(self):x}"
        self.words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.words.bind(self.address.replace("@", "\0", 1))
        self.words.settimeout(PATIENCE_S)
        self.listener: socket.socket | None = None
        self.received: list[dict[str, str]] = []
        self.pid = 0

    def start(self, *, wait: bool = True, **variables: str) -> str:
        """A service under this manager, and its ready line if that is waited for."""
        words = {"NOTIFY_SOCKET": self.address, **variables}
        if self.listener is not None:
            words |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "jobbus.socket"}
        code = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); "
        code += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        out, theirs = os.pipe() if wait else (0, os.open(os.devnull, os.O_WRONLY))
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, theirs, 1)]
        if self.listener is not None:
            actions.append((os.POSIX_SPAWN_DUP2, self.listener.fileno(), 3))
        with self.service.log.open("ab") as log:
            self.pid = os.posix_spawn(
                sys.executable,
                [
                    *(
                        sys.executable,
                        "-I",
                        "-S",
                        "-c",
                        code,
                        "-W",
                        "error",
                        "-m",
                        "jobbus",
                        "serve",
                    ),
                    *(*self.service.places(), "--listen", "127.0.0.1:0"),
                ],
                self.service.environment() | words,
                file_actions=[*actions, (os.POSIX_SPAWN_DUP2, log.fileno(), 2)],
            )
        os.close(theirs)
        if not wait:
            return ""
        with os.fdopen(out) as lines:
            assert select.select([lines], [], [], READY_S)[0], self.service.log.read_text()
            line = lines.readline().strip()
        assert line.startswith("jobbus ready http://"), self.service.log.read_text()
        self.service.port = int(line.rpartition(":")[2])
        self.service.token = (self.service.data / "admin.token").read_text().strip()
        return line

    def end(self) -> int:
        kill(self.pid, signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def receive(self, name: str, value: str = "") -> dict[str, str]:
        """The next words that say this, whatever came before them."""
        while True:
            text = self.words.recv(4096).decode()
            said = dict(line.split("=", 1) for line in text.splitlines())
            self.received.append(said)
            if name in said and value in said[name]:
                return said

    def silence(self) -> None:
        """What was said until now is dropped."""
        while select.select([self.words], [], [], 0)[0]:
            self.words.recv(4096)


@contextmanager
def managed(root: Path) -> Iterator[Manager]:
    manager = Manager(root)
    apps = manager.service.apps
    apps.shell("M/Stays", STAYS)
    apps.python("M/Shows", SHOW)
    try:
        yield manager
        assert not manager.service.complaints()
    finally:
        if manager.pid:
            kill(manager.pid, signal.SIGKILL)
            manager.wait()
        manager.words.close()
        if manager.listener is not None:
            manager.listener.close()
        manager.service.clear_away()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with managed(tmp_path) as made:
        yield made


async def test_each_state_is_sent_when_it_is_there(manager: Manager) -> None:
    manager.start()
    manager.receive("READY", "1")
    assert "EXTEND_TIMEOUT_USEC" in manager.received[0]
    async with manager.service.http() as http:
        execution_id = await http.start("M/Stays")
        manager.receive("STATUS", "1 running, 0 waiting")
        manager.service.apps.put("go")
        await http.ended(execution_id)
        manager.receive("STATUS", "0 running, 0 waiting")
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    kill(manager.pid, signal.SIGHUP)
    said = manager.receive("RELOADING", "1")
    assert before_us <= int(said["MONOTONIC_USEC"]) <= time.clock_gettime_ns(1) // 1000
    manager.receive("READY", "1")
    assert manager.end() == 0
    manager.receive("STOPPING", "1")


def test_ready_is_not_said_before_commands_are_accepted(manager: Manager) -> None:
    manager.start(wait=False)
    manager.receive("READY", "1")
    instance = (manager.service.data / "instance.json").read_text()
    port = int(re.search(r'"url":"http://127.0.0.1:(\d+)"', instance)[1])  # type: ignore[index]
    answer = asyncio.run(request(port, "GET", "/readyz", {}, b""))
    assert answer.status == 200


def test_watchdog_is_fed_while_the_service_lives(manager: Manager) -> None:
    manager.start(WATCHDOG_USEC="300000")
    manager.receive("READY", "1")
    for _ in range(3):
        manager.receive("WATCHDOG", "1")
    kill(manager.pid, signal.SIGHUP)
    manager.receive("RELOADING", "1")
    manager.receive("WATCHDOG", "1")


async def test_loop_that_hangs_feeds_no_watchdog() -> None:
    """The words are those of the loop itself, and of no thread beside it."""
    address = f"@jobbus-test-{os.getpid()}-hangs"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as words:
        words.bind(address.replace("@", "\0", 1))
        words.setblocking(False)
        manager = ServiceManager.from_environ(
            {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000", "WATCHDOG_PID": str(os.getpid())}
        )
        async with manager.attending():
            manager.ready()
            while b"WATCHDOG=1" not in words.recv(4096):
                await asyncio.sleep(0.02)
            _ = _all_of(words)
            time.sleep(0.2)  # noqa: ASYNC251 - the loop hangs
            assert _all_of(words) == []


def _all_of(words: socket.socket) -> list[bytes]:
    found = []
    while select.select([words], [], [], 0)[0]:
        found.append(words.recv(4096))
    return found


@pytest.mark.parametrize(
    "variables", [{"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}]
)
async def test_watchdog_of_another_process_is_none_of_ours(variables: dict[str, str]) -> None:
    manager = ServiceManager.from_environ(variables)
    async with manager.attending():
        pass
    assert variables == {}


async def test_restart_refuses_no_connection_where_systemd_holds_the_address(
    manager: Manager,
) -> None:
    manager.listener = socket.create_server(("127.0.0.1", 0))
    port = manager.listener.getsockname()[1]
    assert manager.start() == f"jobbus ready http://127.0.0.1:{port}"
    async with manager.service.http() as http:
        execution_id = await http.start("M/Stays")
    assert manager.end() == 0
    lines = (
        f"GET /api/v1/executions/{execution_id} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {manager.service.token}",
        "Connection: close",
        "\r\n",
    )
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as asks:  # no service runs now
        asks.sendall("\r\n".join(lines).encode())
        manager.start()
        answer = b"".join(iter(lambda: asks.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"Running"' in answer


async def test_nothing_of_it_reaches_programs(manager: Manager) -> None:
    manager.listener = socket.create_server(("127.0.0.1", 0))
    manager.start(WATCHDOG_USEC="5000000")
    async with manager.service.http() as http:
        execution_id = await http.start("M/Shows")
        await http.ended(execution_id)
        said = (await http.output(execution_id)).decode()
    assert '"names": ["NOTIFY_SOCKET"]' in said, said  # of its own shim, for its own words
    assert '"open": [0, 1, 2]' in said, said


@pytest.mark.parametrize("kind", ["udp", "unix", "outside"])
def test_what_cannot_be_served_is_refused_in_a_sentence(manager: Manager, kind: str) -> None:
    match kind:
        case "udp":
            manager.listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        case "unix":
            manager.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            manager.listener.bind(f"\0jobbus-test-{os.getpid()}-unix")
            manager.listener.listen()
        case _:
            manager.listener = socket.create_server(("0.0.0.0", 0))
    manager.start(wait=False)
    assert manager.wait() != 0
    words = manager.service.log.read_text()
    assert ("ListenStream" in words) or ("without encryption" in words)
    assert "Traceback" not in words


def test_units_are_what_systemd_understands(tmp_path: Path) -> None:
    service = (UNITS / "jobbus.service").read_text()
    for line in ("Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "KillMode=process"):
        assert line in service.splitlines()
    analyze = needs("systemd-analyze")
    for name in ("jobbus.service", "jobbus.socket"):
        text = (UNITS / name).read_text()
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    mine = [line for line in done.stderr.splitlines() if "jobbus" in line]
    assert not mine, mine
