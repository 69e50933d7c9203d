"""One service a data directory, whatever becomes of the lock or of the directory meanwhile."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from tests.jobs import Apps
from tests.service import PATIENCE_S, ROOT, Service, eventually, running_service

COUNTS = 'echo "$JOBBUS_EXECUTION_ID" >> "$BOARD/ran"'


def define(apps: Apps) -> None:
    apps.shell("H/Count", COUNTS, max_running=40)
    apps.shell("H/Long", 'echo up >> "$BOARD/up"; exec sleep 1000')


def remove_lock(data: Path) -> None:
    (data / "lock").unlink()


def another_lock(data: Path) -> None:
    (data / "lock.new").write_text("1\n")
    (data / "lock.new").replace(data / "lock")


def moved_away(data: Path) -> None:
    data.rename(data.with_name("moved"))


def replaced(data: Path) -> None:
    """As a restore does it: the old one goes aside, and another one has its name."""
    shutil.copytree(data, data.with_name("restored"), symlinks=True, ignore=_sockets)
    data.rename(data.with_name("moved"))
    data.with_name("restored").rename(data)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_socket()]


def journal_removed(data: Path) -> None:
    shutil.rmtree(data / "Journal")


LOSSES: dict[str, tuple[Callable[[Path], None], str]] = {
    "lock_removed": (remove_lock, "lock was removed or replaced"),
    "lock_replaced": (another_lock, "lock was removed or replaced"),
    "moved": (moved_away, "was moved, removed or replaced"),
    "replaced": (replaced, "was moved, removed or replaced"),
    "journal_removed": (journal_removed, "Journal was removed or replaced"),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_service_that_lost_its_directory_ends_at_once_and_says_why(
    loss: str, tmp_path: Path
) -> None:
    lose, sentence = LOSSES[loss]
    service = Service(tmp_path)
    define(service.apps)
    try:
        service.start()
        lose(service.data)
        assert service.wait() == 1
        said = service.log.read_text(encoding="utf-8").splitlines()
        assert [line for line in said if line.startswith("jobbus: ") and sentence in line], said
        assert not service.complaints()
    finally:
        if (tmp_path / "moved").exists():
            shutil.rmtree(service.data, ignore_errors=True)
            (tmp_path / "moved").rename(service.data)
        service.clear_away()


async def test_commands_run_once_when_another_service_comes_to_a_directory_without_its_lock(
    tmp_path: Path,
) -> None:
    """It is refused while the first one lives, and the first one ends before it handles more."""
    service = Service(tmp_path)
    define(service.apps)
    second = None
    try:
        service.start()
        ids = [str(uuid4()) for _ in range(20)]
        remove_lock(service.data)
        second = service.spawn("--listen", "127.0.0.1:0")
        for each in ids:
            drop(service, each)
        assert service.wait() == 1
        for each in ids:
            if second.poll() is not None and not service.is_started:
                service.start()
            found = partial(service.result, each)
            assert (await eventually(found, "each has its result"))["Status"] == "Completed"
        await eventually(lambda: len(service.apps.lines("ran")) == len(ids), "each has run")
        assert len(set(service.apps.lines("ran"))) == len(ids)
        assert not service.complaints()
    finally:
        if second is not None:
            second.kill()
            second.communicate()
        service.clear_away()


def drop(service: Service, command_id: str) -> None:
    text = f'{{"CommandID":"{command_id}","Command":"start","JobID":"H/Count","Roles":["admin"]}}'
    text = text.replace("admin", "operator")
    path = service.data / "JobCommandQueue" / f"{command_id}.json"
    path.with_suffix(".part").write_text(text, encoding="utf-8")
    path.with_suffix(".part").rename(path)


def jobbus(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "jobbus", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


async def test_what_needs_the_directory_alone_sees_the_service_without_its_lock_file(
    tmp_path: Path,
) -> None:
    """With the service stopped in its tracks, so that it cannot look: only its locks speak."""
    with running_service(tmp_path, define) as service:
        os.kill(service.pid, signal.SIGSTOP)
        try:
            remove_lock(service.data)
            data = ("--data", str(service.data))
            for arguments in (
                ("doctor", *data, "--repair"),
                ("serve", *data, "--apps", str(service.apps.root), "--listen", "127.0.0.1:0"),
            ):
                done = jobbus(*arguments)
                assert done.returncode == 1, done
                assert "service" in done.stderr, done
        finally:
            os.kill(service.pid, signal.SIGCONT)
        assert service.wait() == 1
        service.start()


async def test_neither_spawner_nor_shim_nor_program_holds_the_directory(tmp_path: Path) -> None:
    with running_service(tmp_path, define) as service:
        async with service.http() as http:
            await http.start("H/Long")
        service.kill9()
        for path in (service.data, service.data / "lock"):
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
        service.start()
