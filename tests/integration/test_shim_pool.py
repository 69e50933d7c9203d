"""Shims that serve again: one execution at a time, nothing carried over, none left behind."""

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from bus.commands import ReportRunning
from bus.job_definition import JobSpec
from bus.model import Execution, SecretRef
from bus.secret_sources import SecretSource
from handlers.shim.process_tree import all_processes, process
from handlers.supervision.execution_files import look
from handlers.supervision.secrets import SecretValues
from tests.processes import Bench, bench, ordered_to_stop, sh, starting

HELLO = JobSpec(command=("echo", "hello"), directory="/")


async def run(b: Bench, spec: JobSpec) -> int:
    """The pid of the shim that saw the execution through, which ended well."""
    execution = starting()
    b.supervisor.spawn(execution, spec)
    exit_ = await b.exit_of(execution)
    assert exit_.exit_code == 0, exit_
    return shim_of(b, execution)


def shim_of(b: Bench, execution: Execution) -> int:
    state = look(b.layout, execution.id)
    assert state is not None
    return state.shim


def shims(b: Bench) -> set[int]:
    """All shims of this spawner, those that wait included."""
    spawner = b.supervisor.spawner_pid
    return {each.pid for each in all_processes().values() if each.parent == spawner}


def is_up(pid: int) -> bool:
    found = process(pid)
    return found is not None and found.state not in "TZX"


def descriptors(pid: int) -> list[str]:
    """What the shim holds, by kind; without what it lets go of while this looks."""
    held = []
    with suppress(FileNotFoundError):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                held.append(str(each.readlink()).split(":")[0])
    return sorted(held)


async def until_free(b: Bench, pid: int) -> None:
    """The shim waits for work: it holds no file of an execution any more."""
    root = str(b.layout.output)
    await b.wait_for(lambda: not any(held.startswith(root) for held in descriptors(pid)))


async def test_a_shim_serves_again_and_keeps_nothing_of_the_execution_before(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as b:
        served, held = [], []
        for _ in range(6):
            served.append(await run(b, HELLO))
            await until_free(b, served[-1])
            held.append(descriptors(served[-1]))
        assert len(set(served)) < len(served)
        assert all(each == held[0] for each in held)


async def test_each_of_two_at_once_has_a_shim_of_its_own(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        both = [starting(), starting()]
        for execution in both:
            b.supervisor.spawn(execution, sh("exec sleep 60"))
        for execution in both:
            await b.until(ReportRunning, execution)
        assert len({shim_of(b, execution) for execution in both}) == 2
        for execution in both:
            b.supervisor.stop(ordered_to_stop(execution))
            assert (await b.exit_of(execution)).signal == signal.SIGTERM


async def test_no_program_holds_what_who_started_the_service_left_open(tmp_path: Path) -> None:
    ends = os.pipe()
    for end in ends:
        os.set_inheritable(end, True)
    try:
        async with bench(tmp_path) as b:
            execution = starting()
            b.supervisor.spawn(execution, sh(f"test ! -e /proc/self/fd/{ends[1]}"))
            assert (await b.exit_of(execution)).exit_code == 0
    finally:
        for end in ends:
            os.close(end)


async def test_a_shim_that_was_given_a_secret_ends_with_its_execution(tmp_path: Path) -> None:
    secrets = SecretValues({"KEY": SecretSource(env="KEY")}, {"KEY": "open sesame"})
    async with bench(tmp_path, secrets=secrets) as b:
        variables = {"key": SecretRef(secret="KEY")}
        execution = msgspec.structs.replace(starting(), variables=variables)
        b.supervisor.spawn(execution, HELLO)
        assert (await b.exit_of(execution)).exit_code == 0
        given = shim_of(b, execution)
        await b.wait_for(lambda: given not in shims(b))


async def test_a_shim_that_could_not_write_its_record_ends_with_its_execution(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "go")
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh(f"read x <{tmp_path}/go; exit 3"))
        await b.until(ReportRunning, execution)
        served = shim_of(b, execution)
        shutil.rmtree(b.layout.execution(execution.id).root)
        (tmp_path / "go").write_text("x\n")
        assert (await b.exit_of(execution)).exit_code == 3
        await b.wait_for(lambda: served not in shims(b))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_waiting_shims_are_replaced_that_were(number: signal.Signals, tmp_path: Path) -> None:
    """They are replaced, and no start is lost or held up."""
    async with bench(tmp_path) as b:
        await until_free(b, await run(b, HELLO))
        for _ in range(3):
            struck = shims(b)
            for pid in struck:
                os.kill(pid, number)
            await b.wait_for(lambda them=struck: not any(map(is_up, them)))  # type: ignore[misc]
            served = await run(b, HELLO)
            assert served not in struck
            await until_free(b, served)


async def test_after_a_burst_one_spare_is_left_and_none_after_the_spawner(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        burst = [starting() for _ in range(10)]
        for execution in burst:
            b.supervisor.spawn(execution, HELLO)
        for execution in burst:
            await b.exit_of(execution)
        used = {shim_of(b, execution) for execution in burst}
        await b.wait_for(lambda: len(shims(b)) == 1)
        used |= shims(b)
        os.kill(b.supervisor.spawner_pid, signal.SIGKILL)
        await b.wait_for(lambda: not used & all_processes().keys())
