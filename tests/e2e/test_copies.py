"""A copy of a data directory beside its original: it becomes itself, and leaves the other alone."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bus.clock import SystemClock
from bus.layout import DataLayout
from handlers.shim.process_tree import all_marks, all_processes
from tests.counterparts import missing
from tests.jobs import Apps
from tests.service import Service, eventually, eventually_answered, is_alive, read_json
from transports.directory import disk
from transports.directory.poison import READING, InHandNote
from transports.directory.rejects import Rejects
from transports.directory.settings import DirectorySettings

TICKS = "trap 'exit 5' TERM; echo $$ >> \"$BOARD/pids\"; while :; do sleep 0.1; done"
NO_LOCK = "rm ${JOBBUS_PROGRESS%/*}/lock; " + TICKS
NO_FOLDER = "rm -r ${JOBBUS_PROGRESS%/*}; " + TICKS


def define(apps: Apps) -> None:
    apps.shell("C/Long", TICKS, max_running=4)
    apps.shell("C/Queued", TICKS, overlap="queue")
    apps.shell("C/NoLock", NO_LOCK)
    apps.shell("C/NoFolder", NO_FOLDER)
    apps.shell("C/Short", 'echo ran >> "$BOARD/ran"')


def copied(original: Path, copy: Path) -> None:
    subprocess.run(["cp", "-a", str(original), str(copy)], check=True)


def without_modes_and_times(original: Path, copy: Path) -> None:
    # A queue file may go while the original is copied.
    subprocess.run(["cp", "-r", str(original), str(copy)], check=False)
    subprocess.run(["chmod", "-R", "go=", str(copy)], check=True)


def restored(original: Path, copy: Path) -> None:
    copy.mkdir(0o700)
    subprocess.run(["tar", "-C", original, "-cf", f"{copy}.tar", "."], check=True)
    subprocess.run(["tar", "-C", copy, "-xpf", f"{copy}.tar"], check=True)


def overlaid(original: Path, copy: Path) -> None:
    for name in ("upper", "work"):
        (copy.parent / name).mkdir()
    copy.mkdir()
    places = f"lowerdir={original},upperdir={copy.parent}/upper,workdir={copy.parent}/work"
    done = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", places, str(copy)],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        missing("no overlay can be mounted here")


COPIES: dict[str, Callable[[Path, Path], None]] = {
    "copied": copied,
    "without_modes": without_modes_and_times,
    "restored": restored,
    "overlaid": overlaid,
}


@contextmanager
def original(root: Path) -> Iterator[Service]:
    service = Service(root / "original")
    define(service.apps)
    try:
        service.start()
        yield service
    finally:
        service.clear_away()


@contextmanager
def copy_of(service: Service, how: Callable[[Path, Path], None], root: Path) -> Iterator[Service]:
    """A service on the copy, with the jobs of the original."""
    copy = Service(root / "copy")
    shutil.rmtree(copy.apps.root)
    copy.apps = service.apps
    how(service.data, copy.data)
    try:
        copy.start()
        yield copy
    finally:
        copy.clear_away()
        if os.path.ismount(copy.data):
            subprocess.run(["umount", "-l", str(copy.data)], check=True)


def identity_of(service: Service) -> tuple[str, str]:
    found = read_json(service.data / "instance.json")
    assert found is not None
    return found["instance"], found["epoch"]


@pytest.mark.parametrize("how", COPIES)
async def test_copy_is_another_instance_and_leaves_the_jobs_of_the_original_alone(
    how: str, tmp_path: Path
) -> None:
    with original(tmp_path) as service:
        async with service.http() as http:
            jobs = ("C/Long", "C/Long", "C/NoLock", "C/NoFolder")
            ids = [await http.start(job) for job in jobs]
            await eventually(lambda: len(service.apps.lines("pids")) == len(ids), "all run")
            pids = [int(line) for line in service.apps.lines("pids")]
            with copy_of(service, COPIES[how], tmp_path) as copy:
                async with copy.http() as there:
                    ended = [await there.ended(each) for each in ids]
                    for each in ids:
                        await there.call("POST", f"/executions/{each}/stop", {"kill": True})
                    copy.kill9()
                    copy.start()  # what was settled stays so
                assert {(each["status"], each["reason"]) for each in ended} == {
                    ("Lost", "no_exit_record")
                }
                mine, others = identity_of(service), identity_of(copy)
                assert not set(mine) & set(others)
                assert all(is_alive(pid) for pid in pids)
            assert [(await http.execution(each))["status"] for each in ids] == ["Running"] * 4
            for each, pid in zip(ids[:3], pids, strict=False):
                await http.publish(20, command="stop", executionId=each)
                found = await http.execution(each)
                assert (found["status"], found["exitCode"]) == ("Stopped", 5), (found, pid)
        assert not service.complaints()


async def test_copy_that_dies_before_it_is_ready_is_a_copy_at_its_next_start(
    tmp_path: Path,
) -> None:
    with original(tmp_path) as service:
        async with service.http() as http:
            execution_id = await http.start("C/NoFolder")
            await eventually(lambda: len(service.apps.lines("pids")) == 1, "it runs")
            pid = int(service.apps.lines("pids")[0])
            copy = Service(tmp_path / "copy")
            copied(service.data, copy.data)
            instance = copy.data / "instance.json"
            before = instance.read_bytes()
            first = copy.spawn("--listen", "127.0.0.1:0")
            await eventually(lambda: instance.read_bytes() != before, "the copy has an identity")
            first.kill()
            first.communicate()
            try:
                copy.start()
                async with copy.http() as there:
                    assert (await there.ended(execution_id))["status"] == "Lost"
                assert is_alive(pid)
                assert not set(identity_of(service)) & set(identity_of(copy))
            finally:
                copy.clear_away()


AGAIN = 'echo $$ >> "$BOARD/again"; exec sleep 300'
DEAF = 'trap \'echo >> "$BOARD/asked"\' TERM; echo >> "$BOARD/deaf"; while :; do sleep 0.1; done'


async def test_nothing_follows_in_a_copy_from_what_may_run_in_the_original(tmp_path: Path) -> None:
    """No restart, no retry, and no word that a stop was carried out there."""
    with original(tmp_path) as service:
        again = {"retry": {"attempts": 3, "delay_s": 0.0, "on": ["Failed", "Lost"]}}
        service.apps.shell("C/Retried", AGAIN, **again)
        service.apps.shell("C/Up", AGAIN, restart={"policy": "always"}, retry={"delay_s": 0.0})
        service.apps.shell("C/Deaf", DEAF, stop_grace_s=300)
        service.restart()
        async with service.http() as http:
            ids = [await http.start(job) for job in ("C/Retried", "C/Up", "C/Deaf")]
            await eventually(lambda: len(service.apps.lines("again")) == 2, "both run")
            await eventually(lambda: service.apps.lines("deaf"), "the third runs")
            await http.publish(command="stop", executionId=ids[2])
            await eventually(lambda: service.apps.lines("asked"), "the order is at its program")
            with copy_of(service, copied, tmp_path) as copy:
                async with copy.http() as there:
                    ended = [await there.ended(each) for each in ids]
                    assert [each["status"] for each in ended] == ["Lost"] * 3
                    made = [await there.executions(each["jobId"]) for each in ended]
                    assert [len(each) for each in made] == [1, 1, 1]
            for execution_id in ids[:2]:
                assert (await http.execution(execution_id))["status"] == "Running"


async def test_what_both_start_under_one_id_is_stopped_by_its_own_service_only(
    tmp_path: Path,
) -> None:
    """Waiting executions run here and there: the ids are the same, the marks are not."""
    with original(tmp_path) as service:
        async with service.http() as http:
            first = await http.start("C/Queued")
            waits = await http.publish(command="start", jobId="C/Queued")
            await eventually(lambda: len(service.apps.lines("pids")) == 1, "the first one runs")

            async def waiting() -> str | None:
                record = await http.get(f"/commands/{waits['commandId']}")
                found: str | None = record.get("executionId")
                return found

            execution_id = await eventually_answered(waiting, "it waits for its turn")
        service.kill9()
        with copy_of(service, copied, tmp_path) as copy:
            await eventually(lambda: len(service.apps.lines("pids")) == 2, "the copy starts it")
            service.start()
            async with service.http() as http:
                await http.publish(20, command="stop", executionId=first)
                await eventually(lambda: len(service.apps.lines("pids")) == 3, "so does this")
                here, there = (
                    partial(alive_of, execution_id, identity_of(each)[0])
                    for each in (service, copy)
                )
                assert len(here()) >= 1
                assert len(there()) >= 1
                await http.publish(20, command="stop", executionId=execution_id, kill=True)
                assert here() == []
                assert len(there()) >= 1


def alive_of(execution_id: str, instance: str) -> list[int]:
    marks = all_marks(all_processes())
    return [pid for pid, each in marks.items() if each.are_of(execution_id, instance)]


async def test_directory_that_was_moved_keeps_its_identity_and_its_jobs(tmp_path: Path) -> None:
    with original(tmp_path) as service:
        async with service.http() as http:
            execution_id = await http.start("C/Long")
            before = identity_of(service)
            assert service.end() == 0
            service.data.rename(tmp_path / "moved")
            service.data = tmp_path / "moved"
            service.start()
            assert identity_of(service) == before
            assert (await http.execution(execution_id))["status"] == "Running"
            await http.publish(20, command="stop", executionId=execution_id)
            found = await http.execution(execution_id)
            assert (found["status"], found["exitCode"]) == ("Stopped", 5)


REJECTED: dict[str, Any] = {
    "CommandID": str(uuid4()), "Command": "start", "JobID": "C/Short", "Roles": ["operator"],
}  # fmt: skip


@pytest.mark.parametrize("how", ["copied", "without_modes", "restored"])
async def test_what_was_rejected_stays_so_in_a_copy(how: str, tmp_path: Path) -> None:
    """A poison command is one that would run: only what was changed since comes back."""
    with original(tmp_path) as service:
        assert service.end() == 0
        poison = json.dumps(REJECTED)
        set_aside(service, poison)
        with copy_of(service, COPIES[how], tmp_path) as copy:
            rejects = copy.data / "JobCommandRejects"
            copy.restart()
            async with copy.http() as there:
                sign = await there.publish(20, command="status", jobId="C/Short")
            assert sign["status"] == "Completed"
            assert len(list(rejects.glob("*.reason.json"))) == 1
            assert copy.apps.lines("ran") == []
            repaired = next(each for each in rejects.glob("*.json") if each.read_text() == poison)
            repaired.write_text(poison + " ", encoding="utf-8")
            await eventually(lambda: copy.apps.lines("ran") == ["ran"], "what was repaired runs")


def set_aside(service: Service, content: str) -> None:
    """As a service does with what killed it twice."""
    layout = DataLayout(service.data)
    name = f"{REJECTED['CommandID']}.json"
    (layout.queue / name).write_text(content, encoding="utf-8")
    note = InHandNote(layout, READING)
    rejects = Rejects(layout, DirectorySettings(), SystemClock(), lambda *_: None, note)
    with disk.open_directory(layout.queue) as queue_fd:
        rejects.take(name, queue_fd, "poison: it killed the service twice")
