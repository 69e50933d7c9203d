"""From publishing a command to the first instruction of its job, on an idle service."""

import http.client
import json
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks import native
from tests.benchmarks.closed_loop import percentiles_ms
from tests.benchmarks.contenders import Contender, Failed, Figures, measure
from tests.benchmarks.node import RunningNode, call_on, running_node
from tests.benchmarks.tables import Column, Goal, Ratio, render

SAMPLES = 50
_REST_S = 0.12
"""Between two commands: the service is idle again, and the one before has ended."""

HTTP, FILE = "over HTTP", "by a dropped file"


def table(folder: Path, rounds: int, seconds: float) -> str:
    rounds = max(2, rounds)
    contenders = [
        Contender(HTTP, partial(_measure, _over_http), native.missing()),
        Contender(FILE, partial(_measure, _by_file), native.missing()),
    ]
    results = measure(contenders, folder, rounds=rounds, seconds=seconds)
    goals = [
        Goal(HTTP, figure="p50_ms", at_most=10, unit="ms p50"),
        Goal(HTTP, figure="p99_ms", at_most=25, unit="ms p99"),
        Goal(FILE, figure="p50_ms", at_most=12, unit="ms p50"),
        Goal(FILE, figure="p99_ms", at_most=27, unit="ms p99"),
    ]
    columns: list[Column | Ratio] = [
        Column("p50 ms", "p50_ms", digits=2, spread=True),
        Column("p99 ms", "p99_ms", digits=2, spread=True),
    ]
    title = f"Publish to the job's first instruction, {rounds} x {SAMPLES} commands, idle"
    return render(title, [HTTP, FILE], columns, goals, results)


Publish = Callable[[RunningNode, http.client.HTTPConnection], tuple[str, int]]
"""Publishes a start; returns the command's id and the nanoseconds at which that began."""


def _measure(publish: Publish, folder: Path, seconds: float) -> Figures:
    stamps = folder / "stamps"
    command = json.dumps([str(native.program("stamp")), str(stamps)])
    job = f"command = {command}\nmax_running = 8\n"
    asked: dict[str, int] = {}
    with running_node(folder, {"Bench/Stamp": job}) as node:
        connection = node.connection()
        for number in range(SAMPLES + 3):
            command_id, began_ns = publish(node, connection)
            if number >= 3:  # the first ones warm the service up
                asked[command_id] = began_ns
            time.sleep(_REST_S)
        time.sleep(1)
        connection.close()
    came = dict(line.split() for line in stamps.read_text().splitlines())
    missing = asked.keys() - came.keys()
    if missing:
        raise Failed(f"{len(missing)} of {SAMPLES} jobs never ran")
    return percentiles_ms([(int(came[id]) - began) / 1e9 for id, began in asked.items()])


def _over_http(node: RunningNode, connection: http.client.HTTPConnection) -> tuple[str, int]:
    began_ns = time.monotonic_ns()
    body = {"command": "start", "jobId": "Bench/Stamp"}
    answer = call_on(connection, node.token, "POST", "/commands", body)
    return str(answer["commandId"]), began_ns


def _by_file(node: RunningNode, connection: http.client.HTTPConnection) -> tuple[str, int]:
    command_id = str(uuid.uuid4())
    began_ns = time.monotonic_ns()
    command = {
        "CommandID": command_id,
        "Command": "start",
        "JobID": "Bench/Stamp",
        "UserID": "alice",
        "SessionID": "s-1",
        "Variables": {},
        "SubmittedAt": time.strftime("%Y-%m-%dT%H:%M:%S.0000000Z", time.gmtime()),
        "Status": "Pending",
    }
    path = node.data / "JobCommandQueue" / f"{command_id}.json"
    path.write_text(json.dumps(command))
    return command_id, began_ns
