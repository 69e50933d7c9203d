"""When a start counts as done: by a port, a URL, a line of output, or words on `NOTIFY_SOCKET`.

Programs become ready when the test puts a file on the board, so that nothing depends on time.
"""

import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.counterparts import needs
from tests.jobs import Apps
from tests.service import (
    Http,
    Service,
    eventually,
    eventually_answered,
    jobs_of,
    running_service,
)

WAIT = """
import os, socket, sys, time
def wait(name):
    while not os.path.exists(os.environ["BOARD"] + "/" + name):
        time.sleep(0.02)
"""
PORT = {"Port": {"type": "integer", "required": True, "min": 1, "max": 65_535}}
TCP = (
    WAIT
    + """
wait("tcp")
link = socket.create_server(("127.0.0.1", int(os.environ["JOBBUS_VAR_Port"])))
while True:
    link.accept()[0].close()
"""
)
HTTP = (
    WAIT
    + """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        is_good = self.path == "/health?of=all" and os.path.exists(os.environ["BOARD"] + "/http")
        open(os.environ["BOARD"] + "/asked", "a").close()
        self.send_response(204 if is_good else 503)
        self.end_headers()
HTTPServer(("127.0.0.1", int(os.environ["JOBBUS_VAR_Port"])), Handler).serve_forever()
"""
)
OUTPUT = (
    WAIT
    + """
print("not yet: it listens on nothing", "x" * 100_000, flush=True)
wait("output")
print("it listens on 8080\\r", flush=True)
wait("never")
"""
)
WAYS = {"Tcp": "tcp", "Http": "http", "Output": "output"}


def define(apps: Apps) -> None:
    apps.python("R/Tcp", TCP, ready="tcp:{{Port}}", variables=PORT)
    url = "http:http://127.0.0.1:{{Port}}/health?of=all"
    apps.python("R/Http", HTTP, ready=url, variables=PORT)
    apps.python("R/Output", OUTPUT, ready="output:listens on [0-9]+$", variables=PORT)
    silent = WAIT + "wait('never')"
    for name, ready in (
        ("LateTcp", "tcp:{{Port}}"),
        ("LateHttp", "http://localhost:{{Port}}/"),
        ("LateOutput", "output:ready"),
        ("LateNotify", "notify"),
    ):
        apps.python(f"R/{name}", silent, ready=ready, start_timeout_s=0.4, variables=PORT)
    apps.python(
        "R/MoreTime",
        WAIT + "link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "link.sendto(b'EXTEND_TIMEOUT_USEC=60000000', os.environ['NOTIFY_SOCKET'])\n"
        "wait('extended')\nprint('ready', flush=True)\nwait('never')",
        ready="output:^ready$",
        start_timeout_s=1,
        variables=PORT,
    )
    apps.shell("R/Ends", "exit 0", ready="tcp:{{Port}}", variables=PORT)
    apps.python(
        "R/Says",
        WAIT + "link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "link.sendto(b'READY=1\\nSTATUS=said', os.environ['NOTIFY_SOCKET'])\nwait('never')",
        ready="tcp:{{Port}}",
        variables=PORT,
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Shared: each test has jobs of its own."""
    with running_service(tmp_path_factory.mktemp("ready"), define) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncIterator[Http]:
    async with service.http() as http:
        yield http


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as link:
        port: int = link.getsockname()[1]
    return port


async def begun(http: Http, job_id: str, port: int) -> str:
    """The id of an execution of the job whose program has a process."""
    command = await http.publish(command="start", jobId=job_id, variables={"Port": port})
    found = await eventually_answered(lambda: execution_of(http, command["commandId"]))
    return str(found["executionId"])


async def execution_of(http: Http, command_id: str) -> dict[str, Any] | None:
    command = await http.get(f"/commands/{command_id}")
    return command if command["executionId"] else None


async def is_running(http: Http, execution_id: str) -> dict[str, Any] | None:
    found = await http.execution(execution_id)
    assert found["status"] in ("Starting", "Running"), found
    return found if found["status"] == "Running" else None


@pytest.mark.parametrize("name", WAYS)
async def test_start_is_done_when_the_program_answers_or_prints_as_its_definition_says(
    name: str, service: Service, http: Http
) -> None:
    execution_id = await begun(http, f"R/{name}", free_port())
    if name == "Http":
        await eventually((service.apps.board / "asked").exists)
    if name == "Output":
        output = service.data / "JobOutput" / execution_id / "output.log"
        await eventually(lambda: output.exists() and output.stat().st_size > 100_000)
    assert (await http.execution(execution_id))["status"] == "Starting"
    command_id = (await http.execution(execution_id))["commandId"]
    assert (await http.get(f"/commands/{command_id}"))["status"] == "Running"
    service.apps.put(WAYS[name])
    assert await eventually_answered(lambda: is_running(http, execution_id))
    assert (await http.get(f"/commands/{command_id}"))["outcome"] == "done"
    await http.publish(20, command="stop", executionId=execution_id)
    assert (await http.execution(execution_id))["status"] == "Stopped"


@pytest.mark.parametrize("name", ["Tcp", "Http", "Output", "Notify"])
async def test_program_that_is_not_ready_in_time_is_stopped_and_the_start_has_failed(
    name: str, service: Service, http: Http
) -> None:
    variables = {"Port": free_port()}
    command = await http.publish(20, command="start", jobId=f"R/Late{name}", variables=variables)
    assert (command["status"], command["errorCode"]) == ("Failed", "not_ready")
    assert "not ready within start_timeout_s, and was stopped" in command["error"]
    found = await http.ended(command["executionId"])
    assert (found["status"], found["reason"]) == ("TimedOut", "start_timeout")
    assert found["contained"], found


async def test_program_that_asks_for_more_time_gets_it_until_it_is_ready(
    service: Service, http: Http
) -> None:
    execution_id = await begun(http, "R/MoreTime", 1)
    variables = {"Port": free_port()}
    for _ in range(3):  # each is ended after 0.4 s: then the limit of the first has passed, too
        late = await http.publish(20, command="start", jobId="R/LateTcp", variables=variables)
        assert late["errorCode"] == "not_ready"
    service.apps.put("extended")
    assert await eventually_answered(lambda: is_running(http, execution_id))
    await http.publish(20, command="stop", executionId=execution_id, kill=True)


async def test_program_that_ends_before_it_is_ready_has_failed(http: Http) -> None:
    variables = {"Port": free_port()}
    command = await http.publish(20, command="start", jobId="R/Ends", variables=variables)
    assert (command["status"], command["errorCode"]) == ("Failed", "not_ready")
    assert "with exit code 0 before it was ready" in command["error"]
    found = await http.ended(command["executionId"])
    assert (found["status"], found["reason"]) == ("Failed", "not_ready")


async def test_word_of_the_program_makes_none_ready_that_is_probed(http: Http) -> None:
    execution_id = await begun(http, "R/Says", free_port())

    async def has_spoken() -> bool:
        progress = (await http.execution(execution_id))["progress"]
        return bool(progress) and progress["message"] == "said"

    await eventually_answered(has_spoken)
    assert (await http.execution(execution_id))["status"] == "Starting"
    await http.publish(20, command="stop", executionId=execution_id, kill=True)


@pytest.mark.parametrize("name", WAYS)
async def test_readiness_is_found_out_by_the_next_service_after_a_kill(
    name: str, tmp_path: Path
) -> None:
    with running_service(tmp_path, define) as service:
        async with service.http() as http:
            execution_id = await begun(http, f"R/{name}", free_port())
            await eventually(lambda: jobs_of(service.data))
        service.kill9(spawner=True)
        service.apps.put(WAYS[name])
        service.start()
        async with service.http() as http:
            assert await eventually_answered(lambda: is_running(http, execution_id))
            assert len(await http.executions(f"R/{name}")) == 1


# -- clients of sd_notify(3) that exist

CLIENTS = {
    "systemd-notify": (
        "bash",
        "-c",
        "wait() { until [ -e $BOARD/$1 ]; do sleep 0.02; done; }; wait ready; "
        "systemd-notify --status=up --ready; wait reload; systemd-notify RELOADING=1; "
        "wait again; systemd-notify --ready; wait more; "
        "systemd-notify EXTEND_TIMEOUT_USEC=60000000 STATUS=more; "
        "until [ -e $BOARD/silent ]; do systemd-notify WATCHDOG=1; sleep 0.2; done; "
        "exec sleep 600",
    ),
    "sdnotify": (
        sys.executable,
        "-c",
        WAIT
        + """
import sdnotify
notify = sdnotify.SystemdNotifier(debug=True).notify
wait("ready"); notify("STATUS=up"); notify("READY=1")
wait("reload"); notify("RELOADING=1")
wait("again"); notify("READY=1")
wait("more"); notify("EXTEND_TIMEOUT_USEC=60000000"); notify("STATUS=more")
while not os.path.exists(os.environ["BOARD"] + "/silent"):
    notify("WATCHDOG=1"); time.sleep(0.2)
wait("never")
""",
    ),
    "node": ("node", "notify.cjs"),
}
NODE = """
// Node has no datagram sockets of its own for paths: as its packages do, it has the words sent.
const { execFileSync } = require("node:child_process"), { existsSync } = require("node:fs");
const pause = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
const there = (name) => existsSync(`${process.env.BOARD}/${name}`);
const wait = (name) => { while (!there(name)) pause(20); };
const notify = (...words) => execFileSync("systemd-notify", words);
wait("ready"); notify("--status=up", "--ready");
wait("reload"); notify("RELOADING=1");
wait("again"); notify("READY=1");
wait("more"); notify("EXTEND_TIMEOUT_USEC=60000000", "STATUS=more");
while (!there("silent")) { notify("WATCHDOG=1"); pause(200); }
wait("never");
"""


@pytest.mark.parametrize("client", CLIENTS)
async def test_words_of_existing_clients_say_ready_reloading_alive_and_more_time(
    client: str, tmp_path: Path
) -> None:
    """The watchdog begins with readiness, and ends the program when its words end."""
    for program in {"systemd-notify", CLIENTS[client][0]} - {sys.executable}:
        needs(program)

    def clients(apps: Apps) -> None:
        apps.write("C/Client", CLIENTS[client], ready="notify", watchdog_s=2)
        (apps.folder("C/Client") / "notify.cjs").write_text(NODE, encoding="utf-8")

    with running_service(tmp_path, clients) as service:
        async with service.http() as http:
            command = await http.publish(command="start", jobId="C/Client")
            found = await eventually_answered(lambda: execution_of(http, command["commandId"]))
            execution_id = found["executionId"]

            async def says(message: str, *, reloading: bool) -> bool:
                progress = (await http.execution(execution_id))["progress"]
                expected = (message, reloading)
                return bool(progress) and (progress["message"], progress["reloading"]) == expected

            assert (await http.execution(execution_id))["status"] == "Starting"
            service.apps.put("ready")
            assert await eventually_answered(lambda: is_running(http, execution_id))
            await eventually_answered(lambda: says("up", reloading=False))
            service.apps.put("reload")
            await eventually_answered(lambda: says("up", reloading=True))
            service.apps.put("again")
            await eventually_answered(lambda: says("up", reloading=False))
            service.apps.put("more")
            await eventually_answered(lambda: says("more", reloading=False))
            service.apps.put("silent")
            ended = await http.ended(execution_id)
            assert (ended["status"], ended["reason"]) == ("Failed", "watchdog"), ended
