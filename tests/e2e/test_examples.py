"""The jobs of examples/catalog, copied as they are, run by a real service and with their effect."""

import gzip
import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.jobs import Apps
from tests.service import ROOT, Http, Service, eventually, eventually_answered

CATALOG = ROOT / "examples" / "catalog"
SECRET = "a-token-that-is-long-enough"

PWSH = """#!/bin/sh
# A stand-in for PowerShell, which is rarely here: it shows how it is called.
echo "called with: $*"
echo "100% 0 full" >> "$JOBBUS_PROGRESS"
"""


class Prepared(Service):
    """A service whose PATH ends with stand-ins for programs that are not installed."""

    def environment(self) -> dict[str, str]:
        inherited = super().environment()
        return inherited | {"PATH": f"{inherited['PATH']}:{self.root / 'bin'}"}


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """Unlike pytest's own folders others may pass it: jobs run as other accounts, too."""
    with tempfile.TemporaryDirectory(prefix="jobbus-examples-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Service]:
    running = Prepared(root, Apps(root))
    shutil.copytree(
        CATALOG, running.apps.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    stand_in = root / "bin" / "pwsh"
    stand_in.parent.mkdir()
    stand_in.write_text(PWSH, encoding="utf-8")
    stand_in.chmod(0o755)
    token = root / "shop.token"
    token.write_text(SECRET + "\n", encoding="utf-8")
    token.chmod(0o600)
    config = root / "jobbus.toml"
    shutil.copy(CATALOG.parent / "jobbus.toml", config)
    try:
        running.start("--config", str(config))
        yield running
        assert not running.complaints()
    finally:
        running.clear_away()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[Http]:
    async with service.http() as session:
        yield session


async def ran(http: Http, job_id: str, **variables: object) -> tuple[dict[str, Any], str]:
    """One execution to its end, and its output."""
    execution = await http.ended(await http.start(job_id, **variables))
    return execution, (await http.output(execution["executionId"])).decode()


async def succeeded(http: Http, job_id: str, **variables: object) -> str:
    execution, output = await ran(http, job_id, **variables)
    assert execution["status"] == "Succeeded", output
    return output


def test_each_example_is_right_and_has_its_line_and_its_test() -> None:
    jobs = {f"{p.parts[-4]}/{p.parts[-2]}" for p in CATALOG.glob("*/jobs/*/job.toml")}
    assert len(jobs) >= 13
    readme = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((catalog/[\w/]+)\)", readme)
    assert {f"{link.split('/')[1]}/{link.split('/')[3]}" for link in links} == jobs
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [job for job in jobs if f'"{job}"' not in tested] == []


async def test_examples_with_a_time_table_are_due(http: Http) -> None:
    jobs = {job["jobId"]: job for job in (await http.get("/jobs"))["items"]}
    due = {job_id for job_id, job in jobs.items() if job.get("nextAt")}
    assert due == {"Finance/Billing", "Files/Backup", "Files/RotateLogs", "Nightly/Export"}


async def test_folder_that_is_not_there_is_named_in_a_sentence(http: Http) -> None:
    for job_id, variables in (
        ("Nightly/Export", {"Folder": "/nowhere"}),
        ("Finance/Billing", {"Orders": "/nowhere", "Invoices": "/nowhere"}),
    ):
        failed, output = await ran(http, job_id, **variables)
        assert (failed["status"], output.strip()) == ("Failed", "there is no folder /nowhere")


async def test_backup_keeps_the_newest_archives(http: Http, tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "archives"
    source.mkdir()
    made = []
    for number in range(3):
        (source / "file").write_text(f"content {number}", encoding="utf-8")
        where = {"Source": str(source), "Target": str(target), "Keep": 2}
        made.append(await succeeded(http, "Files/Backup", **where))
    assert "removed backup-" in made[2]
    kept = sorted(target.iterdir())
    assert len(kept) == 2
    with tarfile.open(kept[-1]) as archive:
        member = archive.extractfile("./file")
        assert member is not None
        assert member.read() == b"content 2"
    failed, output = await ran(http, "Files/Backup", Source="/nowhere", Target=str(target))
    assert failed["status"] == "Failed"
    assert "there is no folder /nowhere" in output


async def test_logs_are_packed_and_the_oldest_go(http: Http, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with log.open("a", encoding="utf-8") as writer:
        for number in range(3):
            writer.write(f"lines of {number}\n" * 50)
            writer.flush()
            await succeeded(http, "Files/RotateLogs", Folder=str(tmp_path), Bytes=100, Keep=2)
        assert log.stat().st_size == 0
    packed = sorted(each.name for each in tmp_path.iterdir())
    assert packed == ["app.log", "app.log.1.gz", "app.log.2.gz"]
    assert b"lines of 2" in gzip.decompress((tmp_path / "app.log.1.gz").read_bytes())


class Page(BaseHTTPRequestHandler):
    """Answers as the tests want it, and keeps what it was sent; files are sent when released."""

    received: list[tuple[str, bytes]]
    released: threading.Semaphore

    def do_GET(self) -> None:
        if self.path == "/file":
            Page.released.acquire()
            self._answer(200, b"x" * 200_000)
            return
        self._answer(200 if self.path == "/well" else 503, b"all is well")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Page.received.append((self.headers["Authorization"], body))
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    Page.received = []
    Page.released = threading.Semaphore(0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


async def test_a_page_is_checked_and_a_wrong_answer_fails(http: Http, page: str) -> None:
    assert "status 200" in await succeeded(http, "Web/Check", Url=f"{page}/well", Words="well")
    wrong, output = await ran(http, "Web/Check", Url=f"{page}/ill")
    assert wrong["status"] == "Failed"
    assert "answers with status 503" in output
    waiting = next(e for e in await http.executions("Web/Check") if e["status"] == "Queued")
    assert waiting["attempt"] == 2
    await http.publish(20, command="stop", executionId=waiting["executionId"])


async def test_downloads_share_slots_and_the_urgent_one_goes_first(
    http: Http, page: str, tmp_path: Path
) -> None:
    async def asked(job: str, name: str) -> str:
        where = {"Url": f"{page}/file", "Target": str(tmp_path / name)}
        command = await http.publish(command="start", jobId=job, variables=where)

        async def execution_id() -> str | None:
            found = await http.get(f"/commands/{command['commandId']}")
            return str(found["executionId"]) if found["executionId"] else None

        return await eventually_answered(execution_id)

    async def status(execution_id: str) -> str:
        return str((await http.execution(execution_id))["status"])

    first, second, third = [await asked("Downloads/Later", name) for name in ("a", "b", "c")]
    urgent = await asked("Downloads/Now", "d")
    waiting = await http.execution(urgent)
    assert waiting["status"] == "Queued"
    assert "group downloads: 2 of 2 running" in waiting["waitingFor"]
    Page.released.release()

    async def is_running() -> bool:
        return await status(urgent) == "Running"

    await eventually_answered(is_running, "the urgent one")
    assert await status(third) == "Queued"
    for _ in range(3):
        Page.released.release()
    for execution_id in (first, second, third, urgent):
        assert (await http.ended(execution_id))["status"] == "Succeeded"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c", "d"]
    assert (tmp_path / "d").stat().st_size == 200_000


async def test_a_secret_goes_where_it_is_wanted_and_nowhere_else(http: Http, page: str) -> None:
    output = await succeeded(
        http, "Web/Publish", Url=f"{page}/items", Token={"secret": "SHOP_TOKEN"}
    )
    assert Page.received[0][0] == f"Bearer {SECRET}"
    assert json.loads(Page.received[0][1])["items"]
    assert SECRET not in output
    assert "***" in output


async def test_a_worker_is_ready_works_and_ends_in_order(http: Http, tmp_path: Path) -> None:
    execution_id = await http.start("Services/Worker", Inbox=str(tmp_path))
    (tmp_path / "one.txt").write_text("hello", encoding="utf-8")
    done = tmp_path / "one.done"
    await eventually(lambda: done.exists() and not (tmp_path / "one.txt").exists(), "work")
    assert done.read_text(encoding="utf-8") == "HELLO"
    await http.publish(20, command="stop", executionId=execution_id)
    ended = await http.ended(execution_id)
    assert (ended["status"], ended["exitCode"]) == ("Stopped", 0)


async def test_a_chain_of_three_hands_on_what_it_found(http: Http, tmp_path: Path) -> None:
    await succeeded(http, "Nightly/Export", Folder=str(tmp_path), Day="Friday")
    summary = tmp_path / "summary.txt"
    await eventually(lambda: summary.exists() and summary.stat().st_size, "summary")
    assert summary.read_text(encoding="utf-8") == "in all: 150\n"

    async def report() -> dict[str, Any] | None:
        found = await http.executions("Nightly/Report")
        return found[0] if found and found[0]["status"] == "Succeeded" else None

    last = await eventually_answered(report, "the last of the chain")
    middle = (await http.executions("Nightly/Summarize"))[0]
    assert last["causedBy"] == middle["executionId"]
    assert middle["variables"]["Rows"] == 5


async def test_a_billing_run_keeps_to_working_days_and_bills_nothing_twice(
    http: Http, tmp_path: Path
) -> None:
    [schedule] = (await http.get("/jobs/Finance/Billing"))["schedules"]
    for instant in schedule["next"]:
        is_weekend = datetime.fromisoformat(instant["at"]).weekday() >= 5
        assert ("starts nothing: except" in instant["note"]) or not is_weekend, instant
    assert any("Weekend" in instant["note"] for instant in schedule["next"])

    (tmp_path / "a.order").write_text("name=Ann\namount=7.5\n", encoding="utf-8")
    where = {"Orders": str(tmp_path), "Invoices": str(tmp_path / "invoices")}
    first, _ = await ran(http, "Finance/Billing", **where)
    (tmp_path / "b.order").write_text("name=Bob\namount=1\n", encoding="utf-8")
    second, output = await ran(http, "Finance/Billing", **where)
    assert [each["result"] for each in (first, second)] == [{"invoices": 1}, {"invoices": 1}]
    assert output == "wrote b.invoice\n"
    assert (tmp_path / "invoices" / "a.invoice").read_text("utf-8") == "Ann owes 7.50\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="another account takes a service that runs as root")
async def test_files_are_looked_into_with_the_rights_of_nobody(http: Http, root: Path) -> None:
    public, private = root / "public", root / "private"
    for each, mode in ((public, 0o644), (private, 0o600)):
        each.write_text("what it begins with", encoding="utf-8")
        each.chmod(mode)
    assert await succeeded(http, "Guarded/Inspect", Path=str(public)) == "what it begins with"
    refused, output = await ran(http, "Guarded/Inspect", Path=str(private))
    assert refused["status"] == "Failed"
    assert "Permission denied" in output


async def artifact(http: Http, execution: dict[str, Any], name: str) -> bytes:
    answer = await http.call("GET", f"/executions/{execution['executionId']}/artifacts/{name}")
    assert answer.status == 200, answer.body
    return answer.body


async def test_a_dump_of_a_database_can_be_read_back(http: Http, tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("create table items (name text)")
        database.executemany("insert into items values (?)", [("pen",), ("ink's",)])
        database.commit()
    execution, output = await ran(http, "Database/Dump", File=str(file))
    assert execution["status"] == "Succeeded", output
    packed = await artifact(http, execution, "shop.sql.gz")
    assert execution["result"]["bytes"] == len(packed)
    with closing(sqlite3.connect(":memory:")) as again:
        again.executescript(gzip.decompress(packed).decode())
        assert again.execute("select name from items").fetchall() == [("pen",), ("ink's",)]


async def test_a_report_leaves_a_chart_and_a_table(http: Http, tmp_path: Path) -> None:
    table = tmp_path / "sales.csv"
    table.write_text("Pens & ink,20\nPaper,40.5\n", encoding="utf-8")
    execution, output = await ran(http, "Reports/Sales", File=str(table), Title="May")
    assert execution["status"] == "Succeeded", output
    assert execution["result"] == {"rows": 2, "total": 60.5}
    chart = ElementTree.fromstring(await artifact(http, execution, "sales.svg"))
    bars = [float(each.attrib["width"]) for each in chart.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars == [197.5, 400.0]
    assert b"- Paper: 40.5" in await artifact(http, execution, "sales.md")


async def test_a_reminder_waits_for_its_moment(http: Http) -> None:
    command = await http.publish(
        command="start",
        jobId="Once/Reminder",
        variables={"Text": "call the bank"},
        notBefore="2100-01-01T18:00:00Z",
    )

    async def waiting() -> dict[str, Any] | None:
        found = await http.executions("Once/Reminder")
        return found[0] if found else None

    execution = await eventually_answered(waiting, command["commandId"])
    assert (execution["status"], execution["notBefore"]) == ("Queued", "2100-01-01T18:00:00.000Z")
    await http.publish(20, command="cancel", targetId=command["commandId"])
    assert (await http.ended(execution["executionId"]))["status"] == "Cancelled"
    assert "soon" in await succeeded(http, "Once/Reminder", Text="soon")


@pytest.mark.parametrize(
    ("job_id", "program", "words"),
    [
        ("Languages/PowerShell", "sh", ""),
        ("Languages/Node", "node", "Node: 49"),
        ("Languages/Java", "java", "Java: 49"),
        ("Languages/Php", "php", "PHP: 49"),
        ("Languages/Go", "go", "Go: 49"),
    ],
)
async def test_programs_of_other_languages_run(
    http: Http, job_id: str, program: str, words: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    output = await succeeded(http, job_id)
    assert words in output
    if job_id == "Languages/PowerShell" and shutil.which("pwsh") is None:
        assert "-File Report.ps1 -Warn 90" in output  # the stand-in, see above
