"""The start of a service: what is wired touches nothing, and nothing is tied by a lambda."""

import ast
import asyncio
from pathlib import Path

from bus.clock import SystemClock
from bus.tasks import started, stopped
from jobbus.service import wiring
from jobbus.service.directory_hold import held_data_directory
from jobbus.service.last_service import identify, recover_past
from jobbus.service.settings_reading import load_settings
from jobbus.service.wiring import Parts


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all that is there."""
    found = {path: path.lstat() for path in (root, *root.rglob("*"))}
    return {str(path): (stat.st_size, stat.st_ctime_ns) for path, stat in found.items()}


async def test_wiring_changes_nothing_on_disk(tmp_path: Path) -> None:
    settings = load_settings(flags={"serve.data": tmp_path / "data", "serve.apps": tmp_path})
    clock = SystemClock()
    with held_data_directory(settings.serve.data) as hold:
        identity = identify(settings, hold.layout, clock)
        past = recover_past(hold.layout, identity, clock)
        before = tree(tmp_path)
        parts = Parts(settings, hold, identity, past, clock)
        assert tree(tmp_path) == before
        # What holds a socket or a thread ends by its own way of ending.
        async with asyncio.TaskGroup() as group:
            await stopped(await started(group, parts.supervisor.run, "supervisor"))
        parts.owner.close()
        await parts.audit.aclose()


def test_no_part_is_tied_to_another_by_a_lambda() -> None:
    module = ast.parse(Path(wiring.__file__).read_text())
    assert [node.lineno for node in ast.walk(module) if isinstance(node, ast.Lambda)] == []
