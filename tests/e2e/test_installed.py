"""An installed wheel, in an environment of its own, among packages that are called like ours."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.counterparts import missing
from tests.jobs import Apps
from tests.preforked_service import is_readable
from tests.service import READY_S, ROOT

RIVALS = ("bus", "handlers", "transports")
USES_RIVALS = """
import asyncio, sys
from jobbus import Client
import bus, handlers.things, transports
async def main():
    async with Client(sys.argv[1], sys.argv[2]) as client:
        execution = await client.run("T/Job")
    print(bus.WHOSE, handlers.things.WHOSE, transports.WHOSE, execution.ending)
asyncio.run(main())
"""


@dataclass(frozen=True)
class Installed:
    """A fresh environment with nothing of the sources; `rivals` is a project's folder."""

    root: Path
    wheel: Path

    @property
    def bin(self) -> Path:
        return self.root / "env" / "bin"

    @property
    def rivals(self) -> Path:
        return self.root / "rivals"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    if find_spec("hatchling") is None:
        missing("hatchling is not installed")
    root = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    building = (*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", root)
    run(*building, ROOT)
    (wheel,) = root.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", root / "env")
    python = root / "env" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    # What it depends on is what is installed here; an editable install of ours is not followed.
    (packages,) = (root / "env" / "lib").glob("python*/site-packages")
    (packages / "depends.pth").write_text(sysconfig.get_path("purelib") + "\n")
    make_rivals(root / "rivals")
    return Installed(root, wheel)


def make_rivals(folder: Path) -> None:
    """Packages of a project: what imports them by mistake gets nothing of ours from them."""
    for name in RIVALS:
        (folder / name).mkdir(parents=True)
        for module in ("__init__", "things"):
            (folder / name / f"{module}.py").write_text(f"WHOSE = 'the project: {name}'\n")


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean(**environment)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean(**more: str) -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | more


@dataclass
class Place:
    """A service of the installed program, as started by somebody who works in `folder`."""

    program: tuple[str, ...]
    folder: Path
    environment: dict[str, str]
    data: Path

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            (*self.program, *arguments, "--data", str(self.data)),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def serving(place: Place, apps: Apps) -> Iterator[str]:
    """The URL of a service that is ready."""
    words = ("serve", "--apps", str(apps.root), "--listen", "127.0.0.1:0", "--data")
    log = place.data.with_suffix(".log")
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            (*place.program, *words, str(place.data)),
            cwd=place.folder,
            env=place.environment,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as service,
    ):
        try:
            assert service.stdout is not None
            assert is_readable(service.stdout.fileno(), READY_S)
            line = service.stdout.readline().decode()
            assert line.startswith("jobbus ready "), log.read_text()
            yield line.split()[-1]
        finally:
            service.send_signal(signal.SIGTERM)
            assert service.wait(READY_S) == 0, log.read_text()


def test_a_wheel_brings_one_name(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = wheel.namelist()
    roots = {name.partition("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"jobbus"}
    assert {"jobbus/py.typed", "jobbus/examples/apps/Demo/jobs/Checksum/job.toml"} <= set(names)
    assert [name for name in names if "__pycache__" in name] == []


def test_schemas_have_their_words_in_an_installation(installed: Installed) -> None:
    schema = json.loads(run(installed.bin / "jobbus", "schema"))
    assert schema["properties"]["command"]["description"].startswith("The program and its")


@pytest.mark.parametrize("how", ["script", "module", "sources"])
def test_service_and_command_line_run_their_own_packages_among_others(
    installed: Installed, tmp_path: Path, how: str
) -> None:
    apps = Apps(tmp_path)
    apps.shell("T/Job", "echo ran")
    rivals = str(installed.rivals)
    both = os.pathsep.join((rivals, str(ROOT)))
    python = str(installed.bin / "python")
    program, folder, environment = {
        "script": ((str(installed.bin / "jobbus"),), tmp_path, clean(PYTHONPATH=rivals)),
        "module": ((python, "-m", "jobbus"), installed.rivals, clean()),
        "sources": ((sys.executable, "-m", "jobbus"), installed.rivals, clean(PYTHONPATH=both)),
    }[how]
    place = Place(program, folder, environment, tmp_path / "data")
    with serving(place, apps) as url:
        ran = place("run", "T/Job")
        assert (ran.returncode, ran.stdout) == (0, "ran\n"), ran.stderr
        assert place("doctor").returncode == 0
        token = (place.data / "admin.token").read_text().strip()
        program_of_theirs = [python, "-c", USES_RIVALS, url, token]
        theirs = subprocess.run(
            program_of_theirs,
            cwd=installed.rivals,
            env=clean(),
            capture_output=True,
            text=True,
            check=False,
        )
    said = "the project: bus the project: handlers the project: transports succeeded\n"
    assert (theirs.stdout, theirs.stderr) == (said, "")


def test_packages_that_were_imported_before_the_program_are_not_taken_for_ours(
    installed: Installed, tmp_path: Path
) -> None:
    """As a sitecustomize of the machine may do."""
    (tmp_path / "sitecustomize.py").write_text("import bus, handlers.things, transports\n")
    paths = os.pathsep.join((str(tmp_path), str(installed.rivals)))
    version = run(installed.bin / "jobbus", "--version", PYTHONPATH=paths)
    listed = subprocess.run(
        [installed.bin / "jobbus", "jobs", "--data", tmp_path / "none"],
        env=clean(PYTHONPATH=paths),
        capture_output=True,
        text=True,
        check=False,
    )
    assert version.strip()
    assert listed.returncode == 5
    assert "there is no data directory" in listed.stderr
