"""The demo and its apps: real work, told truly, and nothing left behind."""

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
    demo = (sys.executable, "-W", "error", "-m", "jobbus", "demo", "--once", "--folder", str(files))
    with program(*demo, folder=tmp_path, TMPDIR=str(home)) as child:
        out, err = child.communicate()
    assert child.returncode == 0, err
    assert hashlib.sha256(b"").hexdigest() + "  empty" in out
    assert "3 files, 3000001 bytes" in out
    assert "console: http://127.0.0.1:" in err
    assert ": succeeded" in err
    assert list(home.iterdir()) == []


def test_demo_serves_until_it_is_interrupted(tmp_path: Path, files: Path) -> None:
    demo = (sys.executable, "-m", "jobbus", "demo", "--folder", str(files))
    with program(*demo, folder=tmp_path, TMPDIR=str(tmp_path)) as child:
        assert child.stderr is not None
        while "serving" not in (line := child.stderr.readline()):
            assert line, "it ended too early"
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate()
    assert child.returncode == 0
    assert "# total" in out
    assert list(tmp_path.glob("jobbus-demo-*")) == []


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
        told, _ = check.communicate()
    assert check.returncode == 0
    assert told.count(": OK") == 3


def test_checksum_tells_progress_by_bytes_up_to_all(files: Path, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    assert checksum(str(files), tmp_path, JOBBUS_PROGRESS=str(progress))[0] == 0
    told = [json.loads(line) for line in progress.read_text().splitlines()]
    percents = [line["percent"] for line in told]
    assert percents == sorted(percents)
    assert told[-1] == {"percent": 100.0, "message": "3 files", "data": {"bytes": 3_000_001}}


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
