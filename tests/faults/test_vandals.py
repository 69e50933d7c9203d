"""Programs that spoil the files of their own shims: they are settled all the same."""

import asyncio
import os
from pathlib import Path
from uuid import uuid4

import pytest

from handlers.supervision.record import decode_exit
from tests.faults.test_adoption import INSTANCE_BYTES, another_service, seen
from tests.processes import bench, sh, starting

FOLDER = "cd ${JOBBUS_PROGRESS%/*}; "
PUT = {
    "folder": ("exit.json", "mkdir -p NAME/full/of/things"),
    "huge_file": ("exit.json", "truncate -s 1T NAME"),
    "folder_on_the_way": (".exit.json.$PPID", "mkdir -p NAME/full/of/things"),
    "pipe_on_the_way": (".exit.json.$PPID", "mkfifo NAME; setsid cat NAME >/dev/null &"),
    "link_on_the_way": (".exit.json.$PPID", "ln -s /dev/full NAME"),
}
"""Which name a program takes from its shim, and how."""


@pytest.mark.parametrize("what", PUT)
async def test_program_that_occupies_the_place_of_its_exit_record_has_its_exact_code(
    what: str, tmp_path: Path
) -> None:
    name, command = PUT[what]
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh(FOLDER + command.replace("NAME", name) + "\nexit 7"))
        assert (await b.exit_of(execution)).exit_code == 7
        record = decode_exit(b.layout.execution(execution.id).exit.read_bytes())
        assert record is not None
        assert record.exit_code == 7


async def test_program_that_removes_its_whole_folder_ends_nevertheless(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("rm -r ${JOBBUS_PROGRESS%/*}; exit 7"))
        assert (await b.exit_of(execution)).exit_code == 7


async def test_program_that_removes_its_lock_is_adopted_and_has_its_exact_code(
    tmp_path: Path,
) -> None:
    instance, go, gone = os.urandom(INSTANCE_BYTES).hex(), tmp_path / "go", tmp_path / "gone"
    execution_id = str(uuid4())
    script = FOLDER + f"rm lock; touch {gone}; while [ ! -e {go} ]; do sleep 0.05; done; exit 5"
    async with another_service(tmp_path / "data", instance, [(execution_id, script)]) as (
        service,
        _,
    ):
        async with asyncio.timeout(20):
            while not gone.exists():
                await asyncio.sleep(0.02)
        service.kill()
        await service.wait()
    async with bench(tmp_path / "data", instance) as b:
        await b.supervisor.adopt([(seen(execution_id), sh(""))])
        go.touch()
        assert (await b.exit_of(seen(execution_id))).exit_code == 5
