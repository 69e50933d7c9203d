"""When a start counts as done: by a port, a URL, a line of output, or words on `NOTIFY_SOCKET`.

Programs become ready when the test puts a file on the board, so that nothing depends on time.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.counterparts import needs
from tests.jobs import Apps
from tests.service import Http, Service, eventually_answered, jobs_of, running_service

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
    output = service.data / "JobOutput" / execution_id / "output.log"
    if name == "Http":
        await eventually_answered(lambda: asyncio.to_thread((service.apps.board / "asked").exists))
    if name == "Output":
        await eventually_answered(lambda: asyncio.to_thread(lambda: output.stat().st_size > 1e5))
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
    found = await http.ended(command["executionId"])
    assert (found["status"], found["reason"]) == ("TimedOut", "start_timeout")
    assert found["contained"], found


async def test_program_that_ends_before_it_is_ready_has_failed(http: Http) -> None:
    variables = {"Port": free_port()}
    command = await http.publish(20, command="start", jobId="R/Ends", variables=variables)
    assert (command["status"], command["errorCode"]) == ("Failed", "not_ready")
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
            await eventually_answered(lambda: asyncio.to_thread(lambda: jobs_of(service.data)))
        service.kill9(spawner=True)
        service.apps.put(WAYS[name])
        service.start()
        async with service.http() as http:
            assert await eventually_answered(lambda: is_running(http, execution_id))
            assert len(await http.executions(f"R/{name}")) == 1


# -- clients of sd_notify(3) that exist

CLIENTS = {
    "systemd-notify": (
        "sh",
        "-c",
        "until [ -e $BOARD/go ]; do sleep 0.05; done; systemd-notify --status=up --ready; "
        "exec sleep 600",
    ),
    "sdnotify": (
        sys.executable,
        "-c",
        WAIT + "import sdnotify\nwait('go')\nn = sdnotify.SystemdNotifier(debug=True)\n"
        "n.notify('STATUS=up')\nn.notify('READY=1')\nwait('never')",
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_words_of_existing_clients_make_a_program_ready(client: str, tmp_path: Path) -> None:
    if client == "systemd-notify":
        needs("systemd-notify")

    def clients(apps: Apps) -> None:
        watchdog = {"watchdog_s": 60}
        apps.write("C/Client", CLIENTS[client], ready="notify", **watchdog)

    with running_service(tmp_path, clients) as service:
        async with service.http() as http:
            command = await http.publish(command="start", jobId="C/Client")
            found = await eventually_answered(lambda: execution_of(http, command["commandId"]))
            execution_id = found["executionId"]
            assert (await http.execution(execution_id))["status"] == "Starting"
            service.apps.put("go")
            assert await eventually_answered(lambda: is_running(http, execution_id))

            async def is_up() -> bool:
                progress = (await http.execution(execution_id))["progress"]
                return bool(progress) and progress["message"] == "up"

            await eventually_answered(is_up)
