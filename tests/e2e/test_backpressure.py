"""A flood of files: worked off steadily, in bounded memory, while others are served at once."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.directory_fixture import origins_fields
from tests.jobs import WAITING, Apps
from tests.service import Service, running_service

BYTES_A_FILE_MAX = 4096
"""Memory that one waiting or handled command may take: its entry in the queue and its record."""


def define(apps: Apps) -> None:
    apps.shell("T/Wait", WAITING.format(name="go"))
    apps.shell("T/Brief", "exit 0")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


def flood(service: Service, count: int) -> list[str]:
    """So many commands of another writer lie in the queue; their ids."""
    ids = []
    for _ in range(count):
        fields = origins_fields(Command="status", JobID="T/Brief", Variables=None)
        path = service.data / "JobCommandQueue" / f"{fields['CommandID']}.json"
        handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(handle, json.dumps(fields).encode())
        os.close(handle)
        ids.append(fields["CommandID"])
    return ids


def rss(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def is_worked_off(service: Service, count: int) -> None:
    async with service.http() as http:
        running = await http.start("T/Wait")
        base = rss(service.pid)
        assert service.end() == 0
        ids = await asyncio.to_thread(flood, service, count)
        service.start()
    async with service.http() as http:
        # The flood waits in front of them, and still they are served first.
        await http.start("T/Brief")
        stopped = await http.publish(20, command="stop", executionId=running, kill=True)
        assert stopped["status"] == "Completed"
        assert len(service.queue_files()) > count // 4
        grown = rss(service.pid) - base
        while waiting := len(service.queue_files()):
            grown = max(grown, rss(service.pid) - base)
            left = waiting
            for _ in range(600):
                await asyncio.sleep(0.05)
                left = len(service.queue_files())
                if left < waiting:
                    break
            assert left < waiting, "nothing is worked off any more"
        assert all(service.result(one) is not None for one in ids)
        assert grown < 64 * 1024 * 1024 + count * BYTES_A_FILE_MAX
        print({"files": count, "grown_mb": grown / 1e6})


async def test_files_dropped_at_once_hold_up_neither_http_nor_stops(service: Service) -> None:
    await is_worked_off(service, 1500)


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
async def test_a_hundred_thousand_files_hold_up_neither_http_nor_stops(service: Service) -> None:
    await is_worked_off(service, 100_000)
