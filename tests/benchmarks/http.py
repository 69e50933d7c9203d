"""Durable commands over HTTP, one a request beside a handler that does nothing, and in batches."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks import native
from tests.benchmarks.contenders import ROOT, Contender, Failed, Figures, child, measure
from tests.benchmarks.node import running_node
from tests.benchmarks.tables import FAILED, Column, Goal, Ratio, render

JOB = 'command = ["/bin/true"]\n'
BODY = b'{"command":"status","jobId":"Bench/True"}'
BATCH = 100
BATCH_CONNECTIONS = 8
BARE, GATEWAY, NODE = "bare aiohttp handler", "gateway + directory, without an owner", "jobbus"
GATEWAY_BATCH, NODE_BATCH = (f"{name}, batches of {BATCH}" for name in (GATEWAY, NODE))


def table(folder: Path, rounds: int, seconds: float) -> str:
    parts = []
    for connections in (64, 1):
        contenders = [
            Contender(BARE, _simple("http_bare", connections), native.missing()),
            Contender(GATEWAY, _simple("http_gateway", connections), native.missing()),
            Contender(NODE, _node(connections), native.missing()),
        ]
        goals: list[Goal] = []
        if connections > 1:
            few = BATCH_CONNECTIONS
            contenders += [
                Contender(GATEWAY_BATCH, _simple("http_gateway", few, BATCH), native.missing()),
                Contender(NODE_BATCH, _node(few, BATCH), native.missing()),
            ]
            goals = [
                Goal(GATEWAY, at_least=0.3, of=(BARE,), words="bare"),
                Goal(NODE, at_least=0.3, of=(BARE,), words="bare"),
                Goal(GATEWAY_BATCH, at_least=3, of=(GATEWAY,), words="one a request"),
                Goal(NODE_BATCH, at_least=3, of=(NODE,), words="one a request"),
            ]
        place = folder / str(connections)
        results = measure(contenders, place, rounds=rounds, seconds=seconds)
        columns: list[Column | Ratio] = [
            Column("commands/s", "rate", spread=True),
            FAILED,
            Column("p50 ms", "p50_ms", digits=2),
            Column("p99 ms", "p99_ms", digits=2),
            Column("server CPU us each", "cpu_us"),
            Ratio("÷ bare", (BARE,)),
        ]
        title = (
            f"POST /commands, durable, {connections} connections ({BATCH_CONNECTIONS} of batches)"
        )
        rows = [contender.name for contender in contenders]
        parts.append(render(title, rows, columns, goals, results))
    return "\n".join(parts)


def _simple(module: str, connections: int, batch: int = 1) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        argv = [sys.executable, "-m", f"tests.benchmarks.{module}", str(folder / "data")]
        with (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr)
        try:
            assert process.stdout is not None
            words = process.stdout.readline().decode().split()
            if not words:
                raise Failed((folder / "stderr").read_text().strip().splitlines()[-1])
            return _load(words, process.pid, connections, folder, seconds, batch)
        finally:
            process.kill()
            process.communicate()

    return run


def _node(connections: int, batch: int = 1) -> Callable[[Path, float], Figures]:
    def run(folder: Path, seconds: float) -> Figures:
        with running_node(folder, {"Bench/True": JOB}) as node:
            words = [str(node.port), node.token]
            return _load(words, node.pid, connections, folder, seconds, batch)

    return run


def _load(
    words: Sequence[str], pid: int, connections: int, folder: Path, seconds: float, batch: int
) -> Figures:
    """`words`: the port and a token, if one is needed. The times are those of requests."""
    port, token = words[0], words[1] if len(words) > 1 else "none"
    kind, body = ("json", BODY) if batch == 1 else ("x-ndjson", b"\n".join([BODY] * batch))
    request = folder / "request"
    request.write_bytes(
        b"POST /api/v1/commands HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n"
        b"Content-Type: application/%s\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
        % (port.encode(), kind.encode(), token.encode(), len(body), body)
    )
    args = (port, str(connections), str(seconds), request, str(pid))
    figures = child(native.program("load"), *args, seconds=seconds)
    # Of a batch, the answer is a success; each line that was refused in it is none.
    refused = figures["refused"] if batch > 1 else 0
    return dict(figures) | {
        "rate": figures["rate"] * batch - refused / seconds,
        "failed": figures["bad"] * batch + refused,
        "cpu_us": figures["cpu_us"] / batch,
    }
