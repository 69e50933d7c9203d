"""What people see of our processes in `ps`, `top` and `systemd-cgls`."""

import shutil
import subprocess
from pathlib import Path

from handlers.shim.process_tree import process
from tests.e2e.test_inherited_environment import odd_service
from tests.jobs import Apps
from tests.service import Service, children_of, eventually

STAYS = "while [ ! -e {go} ]; do sleep 0.05; done"
LONGEST = f"{'A' * 64}/{'B' * 64}"


def shown(pid: int) -> str:
    """The command line as `ps` shows it."""
    return ps("args", pid)


def ps(column: str, pid: int) -> str:
    found = subprocess.run(
        ("ps", "-ww", "-o", f"{column}=", "-p", str(pid)),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return found.stdout.strip()


def parent_of(pid: int) -> int:
    found = process(pid)
    assert found is not None
    return found.parent


async def running(service: Service, job_id: str) -> tuple[str, int]:
    """An execution of the job, and the pid of its shim."""
    async with service.http() as http:
        execution_id = await http.start(job_id)
        pid: int = (await http.execution(execution_id))["pid"]
        return execution_id, parent_of(pid)


async def test_ps_and_the_like_name_service_spawner_and_the_shim_of_each_execution(
    tmp_path: Path,
) -> None:
    apps, go = Apps(tmp_path), tmp_path / "go"
    apps.shell("Reports/Nightly", STAYS.format(go=go))
    apps.shell(LONGEST, STAYS.format(go=go))
    with odd_service(tmp_path, apps) as service:
        first, shim = await running(service, "Reports/Nightly")
        second, other = await running(service, LONGEST)
        spawner = parent_of(shim)
        node = parent_of(spawner)
        assert shown(node) == f"jobbus: service {service.data}"
        assert shown(spawner) == "jobbus: spawner"
        assert shown(shim) == f"jobbus: shim Reports/Nightly {first[:8]}"
        assert shown(other) == f"jobbus: shim {LONGEST} {second[:8]}"
        names = [ps("comm", pid) for pid in (node, spawner, shim)]
        assert names == ["jobbus: service", "jobbus: spawner", "jobbus: shim"]
        if tree := control_groups():
            for title in ("jobbus: spawner", f"jobbus: shim Reports/Nightly {first[:8]}"):
                assert title in tree
        go.touch()
        await eventually(
            lambda: {shown(pid) for pid in children_of(spawner)} == {"jobbus: shim (waiting)"},
            "shims show that they are free",
        )


def control_groups() -> str:
    if shutil.which("systemd-cgls") is None:
        return ""
    command = ("systemd-cgls", "--no-pager", "--full", "--all")
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
