"""SSE to many subscribers: as fast as it goes, and paced; beside C, NATS and aiohttp-sse."""

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import native
from tests.benchmarks.contenders import ROOT, Contender, Failed, Figures, child, measure
from tests.benchmarks.tables import Column, Goal, Ratio, render

EVENT_BYTES = 900
"""About what a progress change of ours takes on the wire; the others send as many."""
PACED_DELIVERIES = 20_000
PRINCIPAL_STREAMS = 20
C, OURS, ONE, NATS, PEER = (
    "C, one send an event",
    "jobbus",
    "jobbus, one user",
    "NATS",
    "aiohttp-sse",
)


def table(folder: Path, rounds: int, seconds: float) -> str:
    parts = []
    for subscribers in (100, 1000, 5000):
        place = folder / str(subscribers)
        parts.append(_saturated(place / "max", subscribers, rounds, seconds))
        if subscribers >= 1000:
            parts.append(_paced(place / "paced", subscribers, rounds, seconds))
    return "\n".join(parts)


def _saturated(folder: Path, subscribers: int, rounds: int, seconds: float) -> str:
    contenders = [
        Contender(C, _run(_c_server(subscribers, 0), subscribers), native.missing()),
        Contender(OURS, _run(_ours(subscribers, 0), subscribers), native.missing()),
        Contender(ONE, _run(_ours(subscribers, 0, 1), subscribers), native.missing()),
        Contender(NATS, _nats(subscribers, 0), native.missing() or _no_nats()),
        Contender(PEER, _run(_aiohttp_sse(subscribers, 0), subscribers, "/"), _no_peer()),
    ]
    goals = []
    if subscribers == 1000:
        goals = [
            Goal(OURS, at_least=4, of=(C,), words="C"),
            Goal(OURS, at_least=20, of=(PEER,), words="aiohttp-sse"),
            Goal(OURS, at_least=0.5, of=(NATS,), words="NATS"),
            Goal(OURS, figure="kib", at_most=16, unit="KiB"),
        ]
    elif subscribers == 5000:
        goals = [Goal(OURS, at_least=1, of=(NATS,), words="NATS")]
    columns: list[Column | Ratio] = [
        Column("1000 deliveries/s", "rate", scale=0.001, spread=True),
        Column("got nothing", "failed"),
        Column("MB/s", "mb_s"),
        Column("CPU us each", "cpu_us", digits=2),
        Column("KiB a subscriber", "kib", digits=1),
        Ratio("÷ C", (C,)),
    ]
    results = measure(contenders, folder, rounds=rounds, seconds=seconds)
    title = f"Fan-out, {subscribers} subscribers, as fast as it goes"
    return render(title, [c.name for c in contenders], columns, goals, results)


def _paced(folder: Path, subscribers: int, rounds: int, seconds: float) -> str:
    rate = PACED_DELIVERIES / subscribers
    contenders = [
        Contender(C, _run(_c_server(subscribers, rate), subscribers), native.missing()),
        Contender(OURS, _run(_ours(subscribers, rate), subscribers), native.missing()),
        Contender(NATS, _nats(subscribers, rate), native.missing() or _no_nats()),
        Contender(PEER, _run(_aiohttp_sse(subscribers, rate), subscribers, "/"), _no_peer()),
    ]
    goals = []
    if subscribers == 1000:
        goals = [Goal(OURS, figure="p99_ms", at_most=1.5, of=(C,), words="C")]
    columns: list[Column | Ratio] = [
        Column("got nothing", "failed"),
        Column("p50 ms", "p50_ms", digits=1),
        Column("p99 ms", "p99_ms", digits=1, spread=True),
        Column("CPU %", "cpu_percent"),
        Ratio("p99 ÷ C", (C,), "p99_ms"),
    ]
    results = measure(contenders, folder, rounds=rounds, seconds=seconds)
    title = f"Delivery at {PACED_DELIVERIES:,} deliveries/s, {subscribers} subscribers"
    return render(title, [c.name for c in contenders], columns, goals, results)


def _c_server(subscribers: int, rate: float) -> Callable[[], list[str]]:
    return lambda: [str(native.program("fanout")), str(subscribers), str(EVENT_BYTES), str(rate)]


def _ours(subscribers: int, rate: float, principals: int | None = None) -> Callable[[], list[str]]:
    """As many users as the contract's streams a user ask for, or `principals` of them."""
    users = principals or max(1, subscribers // PRINCIPAL_STREAMS)
    module = "tests.benchmarks.fanout_ours"
    return lambda: [sys.executable, "-m", module, str(subscribers), str(rate), str(users)]


def _aiohttp_sse(subscribers: int, rate: float) -> Callable[[], list[str]]:
    module = "tests.benchmarks.fanout_aiohttp_sse"
    return lambda: [sys.executable, "-m", module, str(subscribers), str(rate), str(EVENT_BYTES)]


def _run(
    server: Callable[[], list[str]], subscribers: int, path: str = "/api/v1/events?start=now"
) -> Callable[[Path, float], Figures]:
    """A server that prints its port, and the reader in another process."""

    def run(folder: Path, seconds: float) -> Figures:
        with (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(server(), cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr)
        try:
            assert process.stdout is not None
            port = process.stdout.readline().decode().strip()
            if not port:
                raise Failed((folder / "stderr").read_text().strip().splitlines()[-1])
            return _read(port, subscribers, seconds, path, process.pid)
        finally:
            process.kill()
            process.communicate()

    return run


def _nats(subscribers: int, rate: float) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        argv = ["nats-server", "-a", "127.0.0.1", "-p", port, "-l", str(folder / "log")]
        if shutil.which("taskset"):
            argv = ["taskset", "-c", "0", *argv]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(int(port))
            more = (str(EVENT_BYTES), str(rate))
            return _read(port, subscribers, seconds, "-", process.pid, *more)
        finally:
            process.kill()
            process.wait()

    return run


def _read(port: str, subscribers: int, seconds: float, path: str, pid: int, *more: str) -> Figures:
    args = (port, str(subscribers), str(seconds), path, str(pid), *more)
    return child(native.program("reader"), *args, seconds=seconds)


def _wait_for(port: int) -> None:
    """Something listens there; raises `Failed` after five seconds."""
    for _ in range(50):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return
    raise Failed("no server listens")


def _no_nats() -> str | None:
    return None if shutil.which("nats-server") else "nats-server is not installed"


def _no_peer() -> str | None:
    found = importlib.util.find_spec("aiohttp_sse")
    return native.missing() or (None if found else "aiohttp-sse is not installed")
