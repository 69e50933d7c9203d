"""Programs that spoil the files of their own shims: they are settled all the same."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from bus.commands import ReportLost, ReportUnknown
from bus.model import Reason
from handlers.supervision.execution_files import look_at_all
from handlers.supervision.record import decode_exit
from tests.faults.test_adoption import INSTANCE_BYTES, another_service, members
from tests.processes import bench, ordered_to_stop, seen, sh, starting

FOLDER = "cd ${JOBBUS_PROGRESS%/*}; "
PUT = {
    "folder": ("exit.json", "mkdir -p NAME/full/of/things"),
    "huge_file": ("exit.json", "truncate -s 1T NAME"),
    "folder_on_the_way": (".exit.json.$PPID", "mkdir -p NAME/full/of/things"),
    "pipe_on_the_way": (".exit.json.$PPID", "mkfifo NAME; setsid cat NAME >/dev/null &"),
    "link_on_the_way": (".exit.json.$PPID", "ln -s /dev/full NAME"),
}
"""Which name a program takes from its shim, and how."""


@contextmanager
def minding_modes() -> Iterator[None]:
    """Root minds the modes of files inside the block, as any other account does (capset(2))."""
    libc, override = ctypes.CDLL(None, use_errno=True), 1 << 1 | 1 << 2  # CAP_DAC_…
    head, before = (ctypes.c_uint32 * 2)(0x2008_0522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, before) == 0
    without = (ctypes.c_uint32 * 6)(before[0] & ~override, *before[1:])
    assert libc.capset(head, without) == 0
    try:
        yield
    finally:
        assert libc.capset(head, before) == 0


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


async def killed_after(service: asyncio.subprocess.Process, sign: Path) -> None:
    """The service is dead, and was so only after the program had given its sign."""
    async with asyncio.timeout(20):
        while not sign.exists():
            await asyncio.sleep(0.02)
    service.kill()
    await service.wait()


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
        await killed_after(service, gone)
    async with bench(tmp_path / "data", instance) as b:
        await b.supervisor.adopt([(seen(execution_id), sh(""))])
        go.touch()
        assert (await b.exit_of(seen(execution_id))).exit_code == 5


async def test_program_that_has_removed_its_folder_is_not_lost_with_its_service(
    tmp_path: Path,
) -> None:
    instance, gone = os.urandom(INSTANCE_BYTES).hex(), tmp_path / "gone"
    execution_id = str(uuid4())
    script = f"rm -r ${{JOBBUS_PROGRESS%/*}}; touch {gone}; exec sleep 600"
    async with another_service(tmp_path / "data", instance, [(execution_id, script)]) as (
        service,
        _,
    ):
        await killed_after(service, gone)
    async with bench(tmp_path / "data", instance) as b:
        execution = seen(execution_id)
        await b.supervisor.adopt([(execution, sh(""))])
        await b.until(ReportUnknown, execution)
        b.supervisor.stop(ordered_to_stop(execution))
        await b.until(ReportLost, execution)
        assert members(execution_id) == []


async def test_program_that_has_removed_its_folder_is_stopped(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    async with bench(tmp_path / "data") as b:
        execution = starting()
        script = f"rm -r ${{JOBBUS_PROGRESS%/*}}; touch {gone}; exec sleep 600"
        b.supervisor.spawn(execution, sh(script))
        await b.wait_for(gone.exists)
        b.supervisor.stop(ordered_to_stop(execution))
        record = await b.exit_of(execution)
        assert (record.cause, record.signal) == (Reason.USER, signal.SIGTERM)


async def test_program_that_has_closed_its_folder_does_no_harm_and_is_stopped(
    tmp_path: Path,
) -> None:
    closed = tmp_path / "closed"
    with minding_modes():
        async with bench(tmp_path / "data") as b:
            vandal, other = starting(), starting()
            b.supervisor.spawn(other, sh("exec sleep 600"))
            script = f"chmod 0 ${{JOBBUS_PROGRESS%/*}}; touch {closed}; exec sleep 600"
            b.supervisor.spawn(vandal, sh(script))
            await b.wait_for(closed.exists)
            looked = [each.id for each in (vandal, other)]
            assert len(await asyncio.to_thread(look_at_all, b.layout, looked)) == 2
            for execution in (vandal, other):
                b.supervisor.stop(ordered_to_stop(execution))
                assert (await b.exit_of(execution)).signal == signal.SIGTERM
