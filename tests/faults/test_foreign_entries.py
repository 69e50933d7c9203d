"""Entries that are no commands, in every folder that is looked at, very many of them: they cost
something once, and keep no command waiting.
"""

import asyncio
import json
import os
import socket
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs import Apps
from tests.service import Service, eventually, running_service
from tests.tally import Kind, Tally

QUICK = "Foreign/Quick"
MANY = 60_000
SOME = 3_000

IDLE_S = 10.0
"""Two slow looks, and two times the patience with a file that is no command."""

CPU_SHARE_MAX = 0.10
"""Of one processor. Before, 60 000 folders took 0.8 for good."""

LINES_MAX = 12


def define(apps: Apps) -> None:
    apps.shell(QUICK, "echo done", max_running=50)


def folders(place: Path, count: int) -> None:
    for number in range(count):
        (place / f"d{number}").mkdir()


def folders_like_commands(place: Path, count: int) -> None:
    for number in range(count):
        (place / f"{number}.json").mkdir()


def strays(place: Path, count: int) -> None:
    for number in range(count):
        (place / f"s{number}.txt").touch()


def hidden(place: Path, count: int) -> None:
    for number in range(count):
        (place / f".h{number}.json").touch()


def links(place: Path, count: int) -> None:
    for number in range(count):
        (place / f"l{number}").symlink_to("/etc/passwd")


def pipes_and_sockets(place: Path, count: int) -> None:
    for number in range(count // 2):
        os.mkfifo(place / f"p{number}")
        os.mknod(place / f"s{number}", 0o140600)
    here = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{here}/bound")
    finally:
        os.close(here)


Fill = Callable[[Path, int], None]
KINDS: tuple[Fill, ...] = (folders, folders_like_commands, strays, hidden, links, pipes_and_sockets)


def queue(service: Service) -> Path:
    return service.data / "JobCommandQueue"


def rejects(service: Service) -> Path:
    return service.data / "JobCommandRejects"


def status(service: Service) -> Path:
    return service.data / "JobStatus"


def results(service: Service) -> Path:
    return service.data / "JobCommandResults"


def output(service: Service) -> Path:
    return service.data / "JobOutput"


def half_written(service: Service) -> Path:
    return service.data / "JobCommandQueue" / ".tmp"


def apps(service: Service) -> Path:
    return service.apps.root


Where = Callable[[Service], Path]
PLACES: tuple[Where, ...] = (queue, rejects, status, results, output, half_written, apps)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fill", KINDS)
@pytest.mark.parametrize("where", PLACES)
async def test_very_many_entries_cost_nothing_once_they_were_seen(
    tmp_path: Path, tally: Tally, where: Where, fill: Fill
) -> None:
    with tally.trial(Kind.EXHAUSTED, f"entries in {where.__name__}"):
        await are_passed_over(tmp_path, where, fill, MANY)


@pytest.mark.parametrize(("where", "fill"), [(queue, folders_like_commands), (queue, strays)])
async def test_many_entries_in_the_queue_keep_no_command_and_fill_no_log(
    tmp_path: Path, tally: Tally, where: Where, fill: Fill
) -> None:
    with (
        tally.trial(Kind.EXHAUSTED, f"entries in {where.__name__}"),
        running_service(tmp_path, define) as service,
    ):
        fill(where(service), SOME)
        await a_file_is_noticed(service)
        assert len(lines(service)) <= LINES_MAX


async def test_commands_between_many_bad_ones_are_noticed_and_the_log_stays_short(
    tmp_path: Path, tally: Tally
) -> None:
    with (
        tally.trial(Kind.EXHAUSTED, "bad commands in the queue"),
        running_service(tmp_path, define) as service,
    ):
        for number in range(SOME):
            (queue(service) / f"{number:05}.json").write_text("no command")
        await a_file_is_noticed(service)
        await eventually(lambda: list(rejects(service).glob("*.reason.json")), "a reject")
        await a_file_is_noticed(service)
        assert len(lines(service)) <= LINES_MAX


async def are_passed_over(root: Path, where: Where, fill: Fill, count: int) -> None:
    with running_service(root, define) as service:
        await asyncio.to_thread(fill, where(service), count)
        await asyncio.sleep(IDLE_S)  # they are seen, which takes what it takes
        before_s = cpu_s(service.pid)
        await asyncio.sleep(IDLE_S)
        share = (cpu_s(service.pid) - before_s) / IDLE_S
        print(f"{where.__name__} {fill.__name__}: {100 * share:.1f} % of a processor")
        assert share <= CPU_SHARE_MAX
        await a_file_is_noticed(service)
        assert len(lines(service)) <= LINES_MAX


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def a_file_is_noticed(service: Service) -> None:
    command_id = str(uuid.uuid4())
    fields = {
        "CommandID": command_id,
        "Command": "start",
        "JobID": QUICK,
        "UserID": "alice",
        "Roles": ["operator"],
        "Variables": {},
    }
    draft = service.root / "draft"
    draft.write_text(json.dumps(fields), encoding="utf-8")
    draft.rename(queue(service) / f"{command_id}.json")
    result = await eventually(lambda: service.result(command_id), "the result")
    assert result["Status"] == "Completed", result


def lines(service: Service) -> list[str]:
    text = service.log.read_text(encoding="utf-8").splitlines()
    return [line for line in text if not line.startswith(("sign in once", '{"method"'))]
