"""`jobbus new`: a starter that runs as it is, and a script that becomes a job."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import Cli, in_this_process
from tests.jobs import Apps
from tests.service import Service, eventually_answered, running_service


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_this_process(monkeypatch, capsys)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    def define(apps: Apps) -> None:
        apps.shell("T/Any", "true")

    with running_service(tmp_path, define) as running:
        yield running


async def test_starters_run_as_they_are_with_their_variables(
    service: Service, cli: Cli, tmp_path: Path
) -> None:
    languages = {"Shell": (), "Python": ("--from", "run.py")}
    if shutil.which("node"):
        languages["Node"] = ("--from", "run.js")
    if shutil.which("pwsh"):
        languages["PowerShell"] = ("--from", "run.ps1")
    async with service.http() as http:
        for name, flags in languages.items():
            ended = cli(tmp_path, "new", f"New/{name}", *flags)
            assert ended.code == 0, ended.err
            assert ended.out == f"apps/New/jobs/{name}/job.toml\n"
            assert ("there is no file" in ended.err) is bool(flags)  # a starter took its name
            assert cli(tmp_path, "check", f"apps/New/jobs/{name}").code == 0

            async def look(job: str = f"/jobs/New/{name}") -> bool | None:
                return (await http.call("GET", job)).status == 200 or None

            await eventually_answered(look, name)
            for variables, word in ({}, "World"), ({"Name": "you"}, "you"):
                execution = await http.start(f"New/{name}", **variables)
                assert (await http.ended(execution))["status"] == "Succeeded"
                assert await http.output(execution) == f"Hello, {word}\ndone\n".encode()


def test_script_is_copied_with_its_mode_and_its_arguments_are_variables(
    cli: Cli, tmp_path: Path
) -> None:
    script = tmp_path / "elsewhere" / "report.py"
    script.parent.mkdir()
    script.write_text(
        "#!/usr/bin/env python3\nimport argparse\np = argparse.ArgumentParser()\n"
        "p.add_argument('--day', required=True)\np.add_argument('--loud', action='store_true')\n"
    )
    script.chmod(0o750)
    ended = cli(tmp_path, "new", "App/Report", "--from", str(script))
    assert ended.code == 0
    folder = tmp_path / "apps" / "App" / "jobs" / "Report"
    assert (folder / "report.py").read_bytes() == script.read_bytes()
    assert (folder / "report.py").stat().st_mode & 0o777 == 0o750
    text = (folder / "job.toml").read_text()
    assert 'command = ["./report.py", "--day={{day}}"]' in text
    assert "# - p.add_argument('--loud', action='store_true'): store_true" in text
    assert "left to you: p.add_argument('--loud'" in ended.err


def test_script_that_lies_in_the_folder_is_taken_where_it_is(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "apps" / "App" / "jobs" / "Here"
    folder.mkdir(parents=True)
    (folder / "run.sh").write_text("echo here\n")
    assert cli(tmp_path, "new", "App/Here", "--from", "apps/App/jobs/Here/run.sh").code == 0
    assert 'command = ["sh", "run.sh"]' in (folder / "job.toml").read_text()


def test_nothing_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    assert cli(tmp_path, "new", "App/Job").code == 0
    folder = tmp_path / "apps" / "App" / "jobs" / "Job"
    (folder / "job.toml").write_text("mine")
    (folder / "run.sh").write_text("mine")
    assert cli(tmp_path, "new", "App/Job").code == 6
    (folder / "job.toml").unlink()
    ended = cli(tmp_path, "new", "App/Job")
    assert (ended.code, ended.out) == (6, "")
    assert "run.sh is there already; nothing was changed" in ended.err
    assert [(each.name, each.read_text()) for each in folder.iterdir()] == [("run.sh", "mine")]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("Job",), 2, '"Job" is no id of a job'),
        (("App/two words",), 2, "is no id of a job"),
        (("App/../Job",), 2, "is no id of a job"),
        (("App/Job", "--from", "nowhere.txt"), 3, "there is no nowhere.txt"),
        (("App/Job", "--from", "away/run.py"), 3, "there is no away/run.py"),
        (("App/Job", "--from", "notes.txt"), 2, "does not say what runs it"),
        (("App/Job", "--from", "folder.py"), 1, "cannot be read"),
    ],
)
def test_what_cannot_become_a_job_is_refused_in_a_sentence_and_leaves_nothing(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "folder.py").mkdir()
    ended = cli(tmp_path, "new", *words)
    assert (ended.code, ended.out) == (code, "")
    assert sentence in ended.err
    assert not (tmp_path / "apps").exists()


def test_apps_are_those_of_the_settings_or_of_the_flag(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "jobbus.toml").write_text('[serve]\napps = "mine"\n')
    assert cli(tmp_path, "new", "App/One").code == 0
    assert (tmp_path / "mine/App/jobs/One/job.toml").is_file()
    assert cli(tmp_path, "new", "App/Two", "--apps", "others").code == 0
    assert (tmp_path / "others/App/jobs/Two/job.toml").is_file()
