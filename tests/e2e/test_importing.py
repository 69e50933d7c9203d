"""`jobbus import` as its users call it, and what it writes as the service takes and runs it."""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.importing import FOLDER
from tests.jobs import Apps
from tests.service import ROOT, Service, eventually_answered

PWSH = """#!/bin/sh
# A stand-in for PowerShell: it only shows how it was called, and with which variables.
printf '%s\\n' "$@"
echo "Interval=$JOBBUS_VAR_Interval in $(pwd)"
"""


class Hosting(Service):
    """A service whose PATH begins with a folder of the test."""

    def environment(self) -> dict[str, str]:
        inherited = super().environment()
        return inherited | {"PATH": f"{self.root / 'bin'}:{inherited['PATH']}"}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In the place of pytest's own, which only root may pass: jobs run as others, too."""
    with tempfile.TemporaryDirectory(prefix="jobbus-import-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A running service without any jobs yet."""
    running = Hosting(tmp_path, Apps(tmp_path))
    (tmp_path / "bin").mkdir()
    try:
        running.start()
        yield running
        assert not running.complaints()
    finally:
        running.clear_away()


def jobbus(place: Path, *arguments: str, piped: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "jobbus", "import", *arguments],
        umask=0o022,
        cwd=place,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(place)},
        input=piped,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def output_of(service: Service, job_id: str, **variables: object) -> tuple[str, str]:
    """The final state and the output of one run of a job that was just written."""

    async def is_there() -> bool:
        async with service.http() as http:
            return (await http.call("GET", f"/jobs/{job_id}")).status == 200

    await eventually_answered(is_there, job_id)
    async with service.http() as http:
        execution = await http.ended(await http.start(job_id, **variables))
        return execution["status"], (await http.output(execution["executionId"])).decode()


async def test_a_line_of_a_crontab_is_checked_written_once_and_runs(
    service: Service, tmp_path: Path
) -> None:
    crontab = tmp_path / "crontab"
    crontab.write_text(
        'GREETING="good day"\nMAILTO=root\n0 3 * * * echo "$GREETING, \\%s" | tr a-z A-Z; pwd\n',
        encoding="utf-8",
    )
    checked = jobbus(tmp_path, "crontab", "crontab", "--check")
    assert checked.returncode == 1  # MAILTO has no equal
    assert "crontab:2" in checked.stdout
    assert "would be written  Cron/echo" in checked.stdout
    assert list(service.apps.root.iterdir()) == []

    written = jobbus(tmp_path, "crontab", "crontab")
    assert "1 written" in written.stderr
    assert await output_of(service, "Cron/echo") == ("Succeeded", f"GOOD DAY, %S\n{tmp_path}\n")

    async with service.http() as http:
        assert (await http.get("/jobs/Cron/echo"))["nextAt"] is not None

    again = jobbus(tmp_path, "crontab", "crontab", "--json")
    report = json.loads(again.stdout)
    assert [job["outcome"] for job in report["jobs"]] == ["is there already"]
    definition = service.apps.definition("Cron/echo")
    mine = definition.read_text(encoding="utf-8") + "# mine\n"
    definition.write_text(mine, encoding="utf-8")
    refused = json.loads(jobbus(tmp_path, "crontab", "crontab", "--json").stdout)
    assert [job["outcome"] for job in refused["jobs"]] == ["not written"]
    assert refused["leftOut"] == report["leftOut"] + 1
    assert any("nothing is overwritten" in note["reason"] for note in refused["notes"])
    assert definition.read_text(encoding="utf-8") == mine


@pytest.mark.skipif(os.geteuid() != 0, reason="another account takes a service that runs as root")
async def test_a_line_of_the_system_runs_as_its_account_and_reads_what_follows_percent(
    service: Service, tmp_path: Path
) -> None:
    system = tmp_path / "cron.d"
    system.mkdir()
    line = "HOME=/\n*/5 * * * * nobody id -un; pwd; cat%first%second\n"
    (system / "who").write_text(line, encoding="utf-8")
    done = jobbus(tmp_path, "crontab", "cron.d")
    assert done.returncode == 0, done.stdout
    folder = service.apps.folder("Cron/id")
    assert {each.name: each.stat().st_mode & 0o777 for each in folder.iterdir()} == {
        "job.toml": 0o644,
        "stdin.txt": 0o644,
    }
    assert (await output_of(service, "Cron/id"))[1] == "nobody\n/\nfirst\nsecond\n"


def test_an_import_that_was_interrupted_is_gone_on_with(tmp_path: Path) -> None:
    line = "0 3 * * * cat%input\n"
    first = jobbus(tmp_path, "crontab", "-", piped=line)
    definition = tmp_path / "apps" / "Cron" / "jobs" / "cat" / "job.toml"
    content = definition.read_bytes()
    definition.unlink()  # as if it had been killed between the two files
    second = jobbus(tmp_path, "crontab", "-", piped=line)
    assert "1 written" in second.stderr
    assert (second.returncode, definition.read_bytes()) == (first.returncode, content)
    (definition.parent / "stdin.txt").write_text("mine", encoding="utf-8")
    definition.unlink()
    assert "1 not written" in jobbus(tmp_path, "crontab", "-", piped=line).stderr
    assert not definition.exists()


async def test_programs_of_supervisord_and_its_included_files_run(
    service: Service, tmp_path: Path
) -> None:
    old = tmp_path / "supervisor"
    (old / "conf.d").mkdir(parents=True)
    (old / "supervisord.conf").write_text(
        "[supervisord]\nenvironment=STAGE=live\n[include]\nfiles=conf.d/*.conf\n  more/*.ini\n",
        encoding="utf-8",
    )
    (old / "conf.d" / "one.conf").write_text(
        "[program:hello]\ncommand=sh -c 'echo %(program_name)s-%(process_num)d $STAGE $WHO; pwd'\n"
        "numprocs=2\nprocess_name=%(program_name)s_%(process_num)d\nautorestart=false\nstartsecs=0\n"
        'autostart=false\ndirectory=%(here)s\nenvironment=WHO="a b"\n',
        encoding="utf-8",
    )
    done = jobbus(tmp_path, "supervisord", str(old))
    assert (done.returncode, "lines left out: 1" in done.stderr) == (1, True), done.stdout
    assert "supervisord.conf:5  no file matches more/*.ini" in done.stdout
    expected = f"hello-1 live a b\n{old}\n"
    assert await output_of(service, "Supervisor/hello_1") == ("Succeeded", expected)


async def test_an_app_of_pm2_runs_in_its_folder(service: Service, tmp_path: Path) -> None:
    old = tmp_path / "web"
    old.mkdir()
    (old / "work.sh").write_text('echo "$1 $MODE $(pwd)"\n', encoding="utf-8")
    (old / "ecosystem.config.js").write_text(
        "module.exports = { apps: [{ name: 'work', script: './work.sh', args: ['a b'],\n"
        "  autorestart: false, autostart: false, env: { MODE: 'live' } }] }\n",
        encoding="utf-8",
    )
    done = jobbus(tmp_path, "pm2", "web", "--app", "Web")
    assert done.returncode == 0, done.stdout
    assert await output_of(service, "Web/work") == ("Succeeded", f"a b live {old}\n")


async def test_a_job_of_pswebhost_is_called_as_its_host_calls_it(
    service: Service, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "pwsh"
    program.write_text(PWSH, encoding="utf-8")
    program.chmod(0o755)
    folder = tmp_path / "host" / "apps" / "Shop" / "jobs" / "Collect"
    folder.mkdir(parents=True)
    content = (FOLDER / "host/apps/Shop/jobs/Collect/job.json").read_bytes()
    (folder / "job.json").write_bytes(content)
    (folder / "init-job.ps1").write_text("param($Variables)\n", encoding="utf-8")
    jobbus(tmp_path, "pswebhost", "host")
    status, output = await output_of(service, "Shop/Collect", Interval="-5", Region="x")
    assert status == "Succeeded"
    assert ". ./init-job.ps1 -Variables $v; & ./Collect.ps1 -Variables $v" in output
    assert f"Interval=-5 in {folder}\n" in output
    definition = tomllib.loads(service.apps.definition("Shop/Collect").read_text("utf-8"))
    assert definition["roles"]["start"] == ["admin", "metrics_viewer"]
    assert (folder / "job.json").read_bytes() == content


def test_accounts_are_a_column_where_cron_reads_them_so(tmp_path: Path) -> None:
    system = tmp_path / "cron.d"
    system.mkdir()
    line = "0 3 * * * backup /usr/bin/dump\n"
    for name in ("dump", "dump.bak"):
        (system / name).write_text(line, encoding="utf-8")
    (system / "script").write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    (tmp_path / "mine").write_text(line, encoding="utf-8")

    def jobs(*arguments: str) -> tuple[list[str], list[str]]:
        report = json.loads(jobbus(tmp_path, "crontab", *arguments, "--check", "--json").stdout)
        return [job["jobId"] for job in report["jobs"]], [n["reason"] for n in report["notes"]]

    found, reasons = jobs("cron.d")
    assert found == ["Cron/dump"]
    assert "cron passes over files with such a name" in reasons
    assert any("it is a script and no crontab" in reason for reason in reasons)
    assert jobs("mine")[0] == ["Cron/backup"]  # there is an account of that name, and a program
    assert jobs("mine", "--system")[0] == ["Cron/dump"]
    with (tmp_path / "mine").open("a", encoding="utf-8") as file:
        file.write("@daily root /usr/bin/clean\n")
    piped = jobbus(tmp_path, "crontab", "-", "--check", piped="@daily /usr/bin/clean --all\n")
    assert "Cron/clean" in piped.stdout
    assert "from stdin:1" in piped.stdout
    found, reasons = jobs("mine")
    assert found == ["Cron/dump", "Cron/clean"]
    assert any("each line names an account" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("crontab", "nowhere"), 3, "there is no such file or folder"),
        (("pm2", "."), 1, "there is no ecosystem.json"),
        (("pswebhost", "."), 1, "there is no apps/<App>/jobs/<Job>/job.json"),
        (("supervisord", "pipe"), 1, "pipe: is no file"),
        (("pm2", "app.json", "--app", "a b"), 2, "--app a b: letters, digits"),
        (("cron", "."), 2, 'must be one of pswebhost, crontab, supervisord, pm2, not "cron"'),
        (("crontab", "--check"), 2, "PATH is missing"),
        (("pm2", "app.json", "--user", "me"), 2, "--user and --system are for crontabs alone"),
    ],
)
def test_what_cannot_be_imported_is_said(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "app.json").write_text("{}", encoding="utf-8")
    done = jobbus(tmp_path, *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
