"""The demo and its apps: real work, and what is left behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobbus.cli.examples import example_apps

ROOT = Path(__file__).parents[2]
APPS = ROOT / "examples" / "apps"
PATIENCE_S = 40.0


@contextmanager
def program(*arguments: str, folder: Path, **environ: str) -> Iterator["subprocess.Popen[str]"]:
    """A program in `folder`, killed at the end or when it takes far too long."""
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    ) as child:
        alarm = threading.Timer(PATIENCE_S, child.kill)
        alarm.start()
        try:
            yield child
        finally:
            alarm.cancel()
            child.kill()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a few files and what must not be read: a pipe, and a link to elsewhere."""
    folder = tmp_path / "files"
    (folder / "deep").mkdir(parents=True)
    (folder / "empty").write_bytes(b"")
    (folder / "deep" / "big").write_bytes(os.urandom(3_000_000))
    (folder / "odd\nname").write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/etc/passwd")
    return folder


def test_demo_once_runs_a_real_job_and_leaves_nothing(tmp_path: Path, files: Path) -> None:
    home = tmp_path / "temporary"
    home.mkdir()
    for n in range(40):
        (files / f"many{n}").write_bytes(b"x")
    demo = (sys.executable, "-W", "error", "-m", "jobbus", "demo", "--once", "--folder", str(files))
    with program(*demo, folder=tmp_path, TMPDIR=str(home)) as child:
        out, err = child.communicate()
    assert child.returncode == 0, err
    assert len(out.splitlines()) == 5, "the last lines, not all of them"
    assert "43 files, 3000041 bytes" in out.splitlines()[-1]
    assert "console: http://127.0.0.1:" in err
    assert ": succeeded" in err
    assert "try next:" in err
    assert list(home.iterdir()) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["files", "temporary"]
    with program(*demo, "--verbose", folder=tmp_path, TMPDIR=str(home)) as child:
        out, err = child.communicate()
    assert (child.returncode, len(out.splitlines())) == (0, 44), err
    assert hashlib.sha256(b"").hexdigest() + "  empty" in out


def served(child: "subprocess.Popen[str]") -> str:
    """What a demo says until it serves; then it is interrupted and has ended in order."""
    assert child.stderr is not None
    said = ""
    while "serving" not in said:
        line = child.stderr.readline()
        assert line, said
        said += line
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert (child.returncode, "# total" in out) == (0, True)
    return said + err


def test_demo_leaves_a_folder_that_is_edited_and_served_again(tmp_path: Path, files: Path) -> None:
    demo = (sys.executable, "-m", "jobbus", "demo", "--folder", str(files))
    home = tmp_path / "jobbus-demo"
    with program(*demo, folder=tmp_path, TMPDIR=str(tmp_path)) as child:
        said = served(child)
    job = home / "apps" / "Demo" / "jobs" / "Checksum" / "job.toml"
    assert f"edit {job}" in said
    assert f"export JOBBUS_DATA={home / 'data'}" in said
    assert "the folder stays: jobbus-demo" in said
    edited = job.read_text(encoding="utf-8") + "\n# mine\n"
    job.write_text(edited, encoding="utf-8")
    with program(*demo, folder=tmp_path, TMPDIR=str(tmp_path)) as child:
        served(child)
    assert job.read_text(encoding="utf-8") == edited
    assert list(tmp_path.glob("jobbus-demo-*")) == []


def test_demo_takes_no_folder_that_is_of_something_else(tmp_path: Path, files: Path) -> None:
    (tmp_path / "jobbus-demo").write_text("mine\n", encoding="utf-8")
    demo = (sys.executable, "-m", "jobbus", "demo", "--folder", str(files))
    with program(*demo, folder=tmp_path) as child:
        out, err = child.communicate()
    assert (child.returncode, out) == (1, "")
    assert "exists and is not the folder of a demo" in err


def checksum(folder: str, where: Path, **environ: str) -> tuple[int, str, str]:
    script = APPS / "Demo" / "jobs" / "Checksum" / "checksum.py"
    with program("python3", "-I", str(script), folder, folder=where, **environ) as child:
        out, err = child.communicate()
    return child.returncode, out, err


def test_checksum_is_what_sha256sum_accepts(files: Path, tmp_path: Path) -> None:
    code, out, _ = checksum(str(files), tmp_path)
    assert code == 0
    sums = tmp_path / "sums"
    sums.write_text(out, errors="surrogateescape")
    with program("sha256sum", "--strict", "--check", str(sums), folder=files) as check:
        written, _ = check.communicate()
    assert check.returncode == 0
    assert written.count(": OK") == 3


def test_checksum_reports_progress_by_bytes_up_to_all(files: Path, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    assert checksum(str(files), tmp_path, JOBBUS_PROGRESS=str(progress))[0] == 0
    written = [json.loads(line) for line in progress.read_text().splitlines()]
    percents = [line["percent"] for line in written]
    assert percents == sorted(percents)
    assert written[-1] == {"percent": 100.0, "message": "3 files", "data": {"bytes": 3_000_001}}


def test_checksum_of_nothing_says_so(tmp_path: Path) -> None:
    code, out, err = checksum(str(tmp_path / "none"), tmp_path)
    assert (code, out, "no folder" in err) == (1, "", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_checksum_goes_on_past_what_it_may_not_read(files: Path, tmp_path: Path) -> None:
    (files / "empty").chmod(0)
    code, out, err = checksum(str(files), tmp_path)
    assert (code, "empty" in err, "deep/big" in out) == (3, True, True)


def test_metrics_sample_until_stopped_and_then_succeed(tmp_path: Path) -> None:
    script = APPS / "Demo" / "jobs" / "Metrics" / "metrics.py"
    progress = tmp_path / "progress"
    with program(
        *("python3", "-I", str(script), "1"), folder=tmp_path, JOBBUS_PROGRESS=str(progress)
    ) as child:
        assert child.stdout is not None
        samples = [json.loads(child.stdout.readline()) for _ in range(2)]
        child.terminate()
        _, err = child.communicate()
    assert child.returncode == 0
    assert "stopped after" in err
    assert samples[0]["memoryBytes"] > 0
    assert 0 <= samples[1]["cpuPercent"] <= 100
    assert "memory" in json.loads(progress.read_text().splitlines()[0])["message"]


def test_example_apps_are_found_in_a_checkout() -> None:
    assert example_apps() == APPS
