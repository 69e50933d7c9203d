"""The command line as its users call it: in a process of its own, on a terminal, or in this one,
against a real service."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from jobbus.cli.main import run

ROOT = Path(__file__).parents[1]
PATIENCE_S = 30.0

JOBS = {
    "Talk": ('for n in 1 2 3; do echo "line $n"; sleep 0.1; done; echo bad >&2; exit "$1"', 10),
    "Stay": ("echo here; exec sleep 60", 10),
    "Late": ("trap '' TERM; while :; do sleep 0.5; done", 30),
    "Deaf": ("trap '' TERM; echo armed; while :; do sleep 0.5; done", 30),
}


ENDINGS = {
    "Slow": """command = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
timeout_s = 1
""",
    "Gone": 'command = ["./nowhere"]\n',
    "Fault": 'command = ["/bin/sh", "-c", "kill -SEGV $$"]\n',
    "Picky": 'command = ["true"]\nsuccess_codes = [3]\n',
    "Queue": 'command = ["sleep", "600"]\noverlap = "queue"\n',
    "Wrong": """command = ["/bin/sh", "-c", "seq 30; echo why >&2; sleep 0.1; seq 30; exit 3"]
""",
    "Choice": """command = ["true"]
[variables.Day]
type = "choice"
choices = ["Fri", "Mon"]
description = "when"
""",
}


class Ended:
    """What one run of the CLI left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def plain(self) -> str:
        """What a terminal shows, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.out).replace("\r\n", "\n")

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ended]


def made(place: Path) -> Path:
    """A folder with an app `T` and room for a data directory."""
    for name, (script, grace_s) in JOBS.items():
        folder = place / "apps" / "T" / "jobs" / name
        folder.mkdir(parents=True)
        (folder / "job.toml").write_text(
            f'command = ["/bin/sh", "-c", """{script}""", "sh", "{{{{Code}}}}"]\n'
            f"stop_grace_s = {grace_s}\n"
            '[variables.Code]\ntype = "integer"\ndefault = 0\nmax = 9\n',
            encoding="utf-8",
        )
    for name, text in ENDINGS.items():
        folder = place / "apps" / "T" / "jobs" / name
        folder.mkdir(parents=True)
        (folder / "job.toml").write_text(text, encoding="utf-8")
    return place


def environment(place: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "JOBBUS_DATA": str(place / "data")}


def spawned(place: Path, *arguments: str, stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """The CLI as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "jobbus", *arguments],
        cwd=place,
        env=environment(place),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


@contextmanager
def process(place: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """One call of the CLI; killed at the end or when it takes far too long."""
    with spawned(place, *arguments, stderr=subprocess.PIPE) as child:
        alarm = threading.Timer(PATIENCE_S, child.kill)
        alarm.start()
        try:
            yield child
        finally:
            alarm.cancel()
            child.kill()


@contextmanager
def service(place: Path) -> Iterator[str]:
    """A running service of `place`; its URL. Afterwards it has ended in order and with 0."""
    arguments = ("serve", "--apps", str(place / "apps"), "--listen", "127.0.0.1:0")
    with (place / "service.log").open("ab") as log, spawned(place, *arguments, stderr=log) as child:
        try:
            line = out_of(child).readline().decode()
            assert line.startswith("jobbus ready http://127.0.0.1:"), line
            yield line.split()[-1]
            child.terminate()
            assert child.wait(PATIENCE_S) == 0
        finally:
            child.kill()


def out_of(child: subprocess.Popen[bytes]) -> IO[bytes]:
    assert child.stdout is not None
    return child.stdout


def in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the CLI in this process, which is what its users get but for the start-up time."""

    def call(place: Path, *arguments: str, token: str = "") -> Ended:
        monkeypatch.chdir(place)
        monkeypatch.setenv("JOBBUS_DATA", str(place / "data"))
        monkeypatch.setenv("JOBBUS_TOKEN", token)
        code = run(arguments)
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return call


def on_terminal(place: Path, *arguments: str, until: bytes = b"", columns: int = 80) -> Ended:
    """The CLI on a terminal of its own; with `until`, interrupted once it has shown that."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "jobbus", *arguments],
        cwd=place,
        env=environment(place) | {"TERM": "xterm-256color", "LANG": "C.UTF-8"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as child:
        os.close(theirs)
        alarm = threading.Timer(PATIENCE_S, child.kill)
        alarm.start()
        shown = b""
        try:
            while data := _read(ours):
                shown += data
                if until and until in shown:
                    child.send_signal(signal.SIGINT)
                    until = b""
        finally:
            alarm.cancel()
            os.close(ours)
            child.kill()
    return Ended(child.returncode, shown.decode(), "")


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65_536)
    except OSError:
        return b""  # all that had the terminal open are gone
