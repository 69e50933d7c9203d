"""`[health]` of job.toml, from the file to every place where people look, and to a restart.

Whether a program is well is a file on the board: the test puts it there and takes it away.
"""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser import chromium
from tests.jobs import Apps
from tests.service import (
    ROOT,
    Http,
    Service,
    children_of,
    eventually,
    eventually_answered,
    is_alive,
    kill,
    read_json,
    running_service,
)
from tests.shifted_clock import DAY_S, shifted_service

STAYS = 'until [ -e "$BOARD/never" ]; do sleep 0.1; done'
SERVER = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        ill = os.path.exists(os.environ["BOARD"] + "/ill")
        self.send_response(503 if ill else 200)
        self.end_headers()
server = HTTPServer(("127.0.0.1", 0), Handler)
open(os.environ["BOARD"] + "/port", "w").write(str(server.server_port))
server.serve_forever()
"""
CHECK = """
echo "checked by $JOBBUS_JOB_ID in $(basename "$PWD") with $WORD and $JOBBUS_VAR_Name, $1"
[ -z "$NOTIFY_SOCKET$WATCHDOG_USEC$JOBBUS_PROGRESS" ] || exit 9
[ ! -e "$BOARD/$2" ]
"""
NAME = {"Name": {"type": "string", "default": "me"}}
QUICK = {"every_s": 0.1, "failures": 2}
SOON = {"delay_s": 0.02, "jitter": 0.0}


def checked(apps: Apps, job_id: str, script: str, *arguments: str, **settings: Any) -> None:
    """A job that stays, and is checked by a script beside its definition."""
    health = {"command": ["sh", "check.sh", *arguments], **QUICK, **settings.pop("health", {})}
    apps.shell(job_id, settings.pop("program", STAYS), health=health, **settings)
    (apps.folder(job_id) / "check.sh").write_text(script, encoding="utf-8")


def define(apps: Apps) -> None:
    env = {"BOARD": str(apps.board), "WORD": "word"}
    checked(apps, "H/Command", CHECK, "{{Name}}", "ill", variables=NAME, env=env)
    checked(apps, "H/Late", "sleep 600 & sleep 600", health={"timeout_s": 0.2})
    checked(
        apps,
        "H/Strays",
        'setsid sleep 601 & echo $! >> "$BOARD/strays"\n'
        '(setsid sleep 602 & echo $! >> "$BOARD/strays")\nexit 0',
    )
    checked(apps, "H/Nothing", "", health={"command": ["./none"]})
    restart = {"limit": 1, "limit_window_s": 600}
    checked(
        apps,
        "H/Restarts",
        'echo broken; [ ! -e "$BOARD/broken" ]',
        health={"action": "restart"},
        restart=restart,
        retry=SOON,
    )
    for name in ("orphaned", "slow"):
        script = f'echo $$ >> "$BOARD/{name}"; exec sleep 600'
        checked(apps, f"H/{name.title()}", script, health={"timeout_s": 600})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Shared: each test has jobs of its own."""
    with running_service(tmp_path_factory.mktemp("health"), define) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncIterator[Http]:
    async with service.http() as http:
        yield http


async def health(http: Http, execution_id: str, status: str) -> dict[str, Any]:
    """The execution's health as soon as it is in that state."""

    async def look() -> dict[str, Any] | None:
        found = (await http.execution(execution_id))["health"]
        return found if found is not None and found["status"] == status else None

    return await eventually_answered(look, f"{status} {execution_id}")


def jobbus(service: Service, *arguments: str) -> str:
    called = subprocess.run(
        [sys.executable, "-m", "jobbus", *arguments, "--data", str(service.data)],
        cwd=ROOT,
        env=service.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return called.stdout


async def test_command_says_whether_a_program_is_well_in_every_place_where_people_look(
    service: Service, http: Http
) -> None:
    execution_id = await http.start("H/Command")
    well = await health(http, execution_id, "healthy")
    assert well["message"] == "checked by H/Command in Command with word and me, me"
    service.apps.put("ill")
    ill = await health(http, execution_id, "unhealthy")
    said = "the check ended with exit code 1: checked by H/Command in Command with word and me, me"
    assert ill["message"] == said
    assert ill["since"] > well["since"]
    assert (await http.execution(execution_id))["status"] == "Running"
    metrics = await http.session.get("/metrics")
    assert "jobbus_executions_unhealthy 1" in await metrics.text()
    table = jobbus(service, "ps", "--job", "H/Command")
    assert "Running (unhealthy)" in table
    assert "unhealthy since" in jobbus(service, "status", execution_id)
    status = await eventually(
        lambda: (
            found
            if (found := service.status(execution_id)) and found["Health"] == "unhealthy"
            else None
        )
    )
    assert status["HealthMessage"] == said
    async with chromium() as browser:
        page = await browser.new_page()
        await page.goto(service.url)
        await page.fill("#token", service.token)
        await page.click("#sign-in button")
        row = page.locator("tbody tr", has_text="Command").first
        await expect(row).to_contain_text(f"unhealthy: {said}")
    (service.apps.board / "ill").unlink()
    await health(http, execution_id, "healthy")
    events = await changes_of(service, execution_id)
    assert [e["data"]["health"]["status"] for e in events] == ["healthy", "unhealthy", "healthy"]
    await http.publish(20, command="stop", executionId=execution_id)
    assert "is unhealthy: the check ended" in service.log.read_text(encoding="utf-8")


async def changes_of(service: Service, execution_id: str) -> list[dict[str, Any]]:
    """The changes of its health that the stream has had."""
    async with service.http() as http:
        page = await http.call(
            "GET",
            "/events?start=earliest&limit=500&type=execution.health",
            Accept="application/json",
        )
        assert page.status == 200, page.body
        return [e for e in page.json["items"] if e["execution"] == execution_id]


async def test_url_says_it_as_well_and_nothing_that_listens_is_not_well(
    tmp_path: Path,
) -> None:
    """The program listens on a port of its own: the job is written when that is known."""
    with running_service(tmp_path, lambda apps: apps.python("U/Server", SERVER)) as service:
        async with service.http() as http:
            server = await http.start("U/Server")
            port = int(await eventually(lambda: text_of(service.apps.board / "port")))
            variables = {"Port": {"type": "integer", "default": port}}
            url = {"url": "http://localhost:{{Port}}/", **QUICK}
            service.apps.shell("U/Well", STAYS, health=url, variables=variables)
            await eventually_answered(lambda: is_defined(http, "U/Well"))
            execution_id = await http.start("U/Well")
            well = await health(http, execution_id, "healthy")
            assert well["message"] == f"localhost:{port}/ answered 200 OK"
            service.apps.put("ill")
            ill = await health(http, execution_id, "unhealthy")
            assert ill["message"] == f"localhost:{port}/ answered 503 Service Unavailable"
            (service.apps.board / "ill").unlink()
            await health(http, execution_id, "healthy")
            await http.publish(20, command="stop", executionId=server)
            gone = await health(http, execution_id, "unhealthy")
            assert gone["message"] == f"nothing listens on localhost port {port}"


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


async def is_defined(http: Http, job_id: str) -> bool:
    return (await http.call("GET", f"/jobs/{job_id}")).status == 200


async def test_check_that_is_late_or_cannot_run_is_a_bad_one(http: Http) -> None:
    late, nothing = await http.start("H/Late"), await http.start("H/Nothing")
    found = await health(http, late, "unhealthy")
    assert found["message"] == "the check was not over within 0.2 s"
    found = await health(http, nothing, "unhealthy")
    assert found["message"].startswith("the program './none' was not found in")
    for execution_id in (late, nothing):
        await http.publish(20, command="stop", executionId=execution_id)
        assert (await http.ended(execution_id))["contained"]


async def test_nothing_is_left_of_what_a_check_has_started(service: Service, http: Http) -> None:
    execution_id = await http.start("H/Strays")
    await health(http, execution_id, "healthy")
    strays = await eventually(lambda: strays_of(service))
    await eventually(lambda: not any(map(is_alive, strays)))
    assert (await http.execution(execution_id))["status"] == "Running"
    await http.publish(20, command="stop", executionId=execution_id)


def strays_of(service: Service) -> list[int]:
    """The first processes that checks have left behind."""
    found = [int(pid) for pid in service.apps.lines("strays")]
    return found[:4] if len(found) >= 4 else []


async def test_unhealthy_program_is_started_again_up_to_the_limit(
    service: Service, http: Http
) -> None:
    first = await http.start("H/Restarts")
    await health(http, first, "healthy")
    service.apps.put("broken")
    ended = await http.ended(first)
    assert (ended["status"], ended["reason"]) == ("Failed", "unhealthy")
    assert ended["ending"] == ("failed: it was not well: the check ended with exit code 1: broken")
    assert (ended["stop"]["by"], ended["contained"]) == ("system:health", True)
    second = await eventually_answered(lambda: after(http, first))
    assert (second["cause"], second["attempt"]) == ("policy:restart", 2)
    assert (await http.ended(second["executionId"]))["reason"] == "unhealthy"
    job = await eventually_answered(lambda: gave_up(http))
    assert job["gaveUpAt"] is not None
    assert len(await http.executions("H/Restarts")) == 2
    (service.apps.board / "broken").unlink()
    third = await http.start("H/Restarts")
    await health(http, third, "healthy")
    await http.publish(20, command="stop", executionId=third)
    assert (await http.get("/jobs/H/Restarts"))["gaveUpAt"] is None
    assert len(await http.executions("H/Restarts")) == 3


async def after(http: Http, execution_id: str) -> dict[str, Any] | None:
    found = [e for e in await http.executions("H/Restarts") if e["previous"] == execution_id]
    return found[0] if found else None


async def gave_up(http: Http) -> dict[str, Any] | None:
    job: dict[str, Any] = await http.get("/jobs/H/Restarts")
    return job if job["gaveUpAt"] is not None else None


async def test_stop_ends_a_check_that_runs_and_no_stop_waits_for_one(
    service: Service, http: Http
) -> None:
    execution_id = await http.start("H/Slow")
    [check] = await eventually(lambda: service.apps.lines("slow"))
    await http.publish(20, command="stop", executionId=execution_id)
    ended = await http.ended(execution_id)
    assert (ended["status"], ended["contained"]) == ("Stopped", True)
    assert not is_alive(int(check))


async def test_check_ends_with_its_shim(service: Service, http: Http) -> None:
    """Nothing looks after it any more; what is left of the execution can be stopped."""
    execution_id = await http.start("H/Orphaned")
    [check] = await eventually(lambda: service.apps.lines("orphaned"))
    [shim] = [pid for pid in shims_of(service, execution_id) if int(check) in children_of(pid)]
    kill(shim, signal.SIGKILL)
    await eventually(lambda: not is_alive(int(check)))
    await eventually_answered(lambda: is_unknown(http, execution_id))
    await http.publish(20, command="stop", executionId=execution_id)
    assert (await http.ended(execution_id))["status"] == "Stopped"


def shims_of(service: Service, execution_id: str) -> list[int]:
    state = read_json(service.data / "JobOutput" / execution_id / "process.json")
    return [int(state["shim"])] if state is not None else []


async def is_unknown(http: Http, execution_id: str) -> bool:
    return bool((await http.execution(execution_id))["status"] == "Unknown")


async def test_checks_go_on_and_leave_nothing_behind_when_the_service_is_killed(
    tmp_path: Path,
) -> None:
    def jobs(apps: Apps) -> None:
        script = 'echo $$ >> "$BOARD/checks"; echo "$BOARD"; [ ! -e "$BOARD/hold" ] || sleep 600'
        checked(apps, "K/Hold", script, health={"timeout_s": 1.0, "failures": 1})

    with running_service(tmp_path, jobs) as service:
        async with service.http() as http:
            execution_id = await http.start("K/Hold")
            well = await health(http, execution_id, "healthy")
        service.apps.put("hold")
        known = len(service.apps.lines("checks"))
        await eventually(lambda: len(service.apps.lines("checks")) > known)
        last = int(service.apps.lines("checks")[-1])
        service.kill9(spawner=True)
        await eventually(lambda: not is_alive(last))  # its time is kept without the service
        (service.apps.board / "hold").unlink()
        service.start()
        async with service.http() as http:
            known = len(service.apps.lines("checks"))
            await eventually(lambda: len(service.apps.lines("checks")) > known + 1)
            assert (await http.execution(execution_id))["health"]["since"] == well["since"]
            service.apps.put("hold")
            await health(http, execution_id, "unhealthy")


async def test_checks_go_on_when_the_clock_was_set_back_between_two_services(
    tmp_path: Path,
) -> None:
    with shifted_service(tmp_path, define) as service:
        async with service.http() as http:
            execution_id = await http.start("H/Command")
            await health(http, execution_id, "healthy")
        service.kill9()
        service.set_clock(-DAY_S)
        service.start()
        service.apps.put("ill")
        async with service.http() as http:
            await health(http, execution_id, "unhealthy")
