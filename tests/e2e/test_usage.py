"""What an execution used, and how its program ended, as everybody is shown it."""

import os
from pathlib import Path

from jobbus import Client
from jobbus.cli.words import size_word
from tests.jobs import Apps
from tests.service import running_service

CPU_S = 0.2
MEMORY = 48 << 20

BUSY = f"""
import subprocess, sys, time
held = b"x" * {MEMORY}
child = "import time\\nwhile time.process_time() < {CPU_S}: pass"
subprocess.run([sys.executable, "-I", "-S", "-c", child], check=True)
"""
ABORT = "ulimit -c unlimited; kill -ABRT $$"


def define(apps: Apps) -> None:
    apps.python("U/Busy", BUSY)
    apps.shell("U/Abort", ABORT)
    apps.write("U/Never", ("./nowhere",))


async def test_what_an_execution_used_is_shown_to_api_and_client(tmp_path: Path) -> None:
    with running_service(tmp_path, define) as service:
        async with service.http() as http:
            ended = await http.ended(await http.start("U/Busy"))
            assert ended["usage"]["cpuS"] >= CPU_S  # its child's, too
            assert ended["usage"]["memoryBytesMax"] >= MEMORY
            assert ended["usage"]["oomKills"] == 0
            never = await http.publish(20, command="start", jobId="U/Never")
            assert (await http.execution(never["executionId"]))["usage"] is None
        async with Client(service.url, service.token) as client:
            execution = await client.execution(ended["executionId"])
            assert execution.usage is not None
            assert execution.usage.cpu_s == ended["usage"]["cpuS"]
        service.restart()
        async with service.http() as http:
            again = await http.execution(ended["executionId"])
            assert again["usage"] == ended["usage"]


async def test_core_dump_is_named_where_the_system_writes_one(tmp_path: Path) -> None:
    with running_service(tmp_path, define) as service:
        is_written = dumps_core(service.apps.folder("U/Abort"))
        async with service.http() as http:
            ended = await http.ended(await http.start("U/Abort"))
            assert ended["coreDumped"] is is_written
            assert ended["ending"].endswith(", core dumped") is is_written


def dumps_core(folder: Path) -> bool:
    """Whether the system writes one when the same program runs there."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"cd {folder}; {ABORT}"], os.environ)
    return os.WCOREDUMP(os.waitpid(pid, 0)[1])


def test_sizes_are_said_in_the_largest_unit_that_fits() -> None:
    assert [size_word(n) for n in (0, 800, 1024, 1536, 12_582_912, 1000 << 20, 3 << 40)] == [
        *("0 B", "800 B", "1 KiB", "1.5 KiB", "12 MiB"),
        *("1 GiB", "3 TiB"),
    ]
