"""The truth after a crash: whatever is killed, each program ran once and its end is known."""

import asyncio
import errno
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bus.commands import (
    ReportEnded,
    ReportLost,
    ReportProgress,
    ReportRunning,
    ReportSpawnFailed,
    ReportUnknown,
)
from bus.layout import DataLayout
from bus.model import Execution, ExecutionStatus, Reason
from handlers.shim.assignment import CLAIMED_BY_SERVICE
from handlers.shim.process_tree import all_processes, boot_id, is_alive, marks_of, process
from handlers.supervision.execution_files import (
    investigate,
    investigate_all,
    look,
    look_at_all,
    write_control,
)
from handlers.supervision.execution_inputs import Alive, Ended, NeverRan
from handlers.supervision.record import ShimState
from tests.processes import WITHOUT_GROUPS, Bench, bench, ordered_to_stop, seen, sh, starting

ROOT = Path(__file__).resolve().parents[2]
INSTANCE_BYTES = 6

TICKING = (
    "i=0; while [ ! -e {stop} ]; do i=$((i+1)); echo $i; echo $i >>$JOBBUS_PROGRESS; "
    "sleep 0.2; done"
)


@asynccontextmanager
async def another_service(
    root: Path, instance: str, jobs: list[tuple[str, str]]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A supervisor in a process of its own, with all programs running; and its spawner's pid."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.supervised_process",
        str(root),
        instance,
        json.dumps(jobs),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        word, _, pid = (await process.stdout.readline()).decode().partition(" ")
        assert word == "running"
        yield process, int(pid)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def members(execution_id: str) -> list[int]:
    return [pid for pid in all_processes() if execution_id in marks_of(pid).executions]


@pytest.mark.parametrize("spawner_too", [False, True], ids=["service", "service_and_spawner"])
async def test_killed_service_costs_no_exit_code_and_no_output(
    spawner_too: bool, tmp_path: Path
) -> None:
    instance, stop = os.urandom(INSTANCE_BYTES).hex(), tmp_path / "stop"
    data = tmp_path / "data"
    jobs = [(str(uuid4()), TICKING.format(stop=stop) + f"; exit {n}") for n in range(20)]
    async with another_service(data, instance, jobs) as (service, spawner):
        if spawner_too:
            os.kill(spawner, signal.SIGKILL)
        service.kill()
        await service.wait()
    async with bench(data, instance) as b:
        live = [seen(execution_id) for execution_id, _ in jobs]
        await b.supervisor.adopt([(execution, sh("")) for execution in live])
        before = {each.id: len(b.output(each)) for each in live}
        for each in live:
            await b.until(ReportProgress, each)
        await b.wait_for(lambda: all(len(b.output(each)) > before[each.id] for each in live))
        await b.wait_for(lambda: {each.id for each in live} <= set(b.grew))
        stop.touch()
        exits = [(await b.exit_of(each)).exit_code for each in live]
        assert exits == list(range(20))
        for each in live:
            lines = [int(line) for line in b.output(each).split()]
            assert lines == list(range(1, len(lines) + 1))


async def test_ends_while_no_service_ran_are_found_with_their_codes(tmp_path: Path) -> None:
    instance, go = os.urandom(INSTANCE_BYTES).hex(), tmp_path / "go"
    data = tmp_path / "data"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done; exit "
    jobs = [(str(uuid4()), script + str(n)) for n in range(5)]
    async with another_service(data, instance, jobs) as (service, _):
        service.kill()
        await service.wait()
    go.touch()
    layout = DataLayout(data)
    async with asyncio.timeout(20):
        while not all(layout.execution(i).exit.exists() for i, _ in jobs):
            await asyncio.sleep(0.02)
    async with bench(data, instance) as b:
        await b.supervisor.adopt([(seen(execution_id), sh("")) for execution_id, _ in jobs])
        exits = [(await b.exit_of(seen(i))).exit_code for i, _ in jobs]
        assert exits == [0, 1, 2, 3, 4]


async def test_order_written_while_no_service_runs_is_followed(tmp_path: Path) -> None:
    instance = os.urandom(INSTANCE_BYTES).hex()
    execution_id = str(uuid4())
    async with another_service(tmp_path, instance, [(execution_id, "exec sleep 300")]) as (
        service,
        _,
    ):
        service.kill()
        await service.wait()
    layout = DataLayout(tmp_path)
    order = ordered_to_stop(seen(execution_id)).stop
    assert order is not None
    write_control(layout, execution_id, order)  # and the shim is not woken
    async with asyncio.timeout(20):
        while not layout.execution(execution_id).exit.exists():
            await asyncio.sleep(0.02)
    async with bench(tmp_path, instance) as b:
        execution = seen(execution_id, ExecutionStatus.STOPPING)
        await b.supervisor.adopt([(execution, sh(""))])
        exit_ = await b.exit_of(execution)
        assert (exit_.signal, exit_.cause) == (15, Reason.USER)


async def test_killed_spawner_is_replaced_and_its_jobs_go_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        first, second = starting(), starting()
        b.supervisor.spawn(first, sh(f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 5"))
        await b.until(ReportRunning, first)
        killed = b.supervisor.spawner_pid
        os.kill(killed, signal.SIGKILL)
        b.supervisor.spawn(second, sh("exit 6"))
        assert (await b.exit_of(second)).exit_code == 6
        assert b.supervisor.spawner_pid != killed
        (tmp_path / "go").touch()
        assert (await b.exit_of(first)).exit_code == 5


async def test_a_spawner_that_somebody_has_stopped_holds_up_neither_starts_nor_the_end(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), bench(tmp_path) as b:
        execution = starting()
        os.kill(b.supervisor.spawner_pid, signal.SIGSTOP)
        b.supervisor.spawn(execution, sh("exit 3"))
        assert (await b.exit_of(execution)).exit_code == 3
        os.kill(b.supervisor.spawner_pid, signal.SIGSTOP)


async def test_requests_lost_with_a_killed_spawner_run_exactly_once(tmp_path: Path) -> None:
    async with bench(tmp_path / "data") as b:
        executions = [starting() for _ in range(40)]
        for n, execution in enumerate(executions):
            b.supervisor.spawn(execution, sh(f"echo {n} >> {tmp_path}/ran"))
            if n % 10 == 5:
                await b.wait_for(lambda: b.supervisor.spawner_pid != 0)
                os.kill(b.supervisor.spawner_pid, signal.SIGKILL)
        for execution in executions:
            assert (await b.exit_of(execution)).exit_code == 0
        ran = [int(line) for line in (tmp_path / "ran").read_text().split()]
        assert sorted(ran) == list(range(40))


async def test_killed_shim_leaves_an_unknown_execution_that_can_be_stopped(tmp_path: Path) -> None:
    async with bench(tmp_path, settings=WITHOUT_GROUPS) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("trap '' TERM; setsid sleep 300 & sleep 300; sleep 300"))
        await b.until(ReportRunning, execution)
        await b.wait_for(lambda: len(members(execution.id)) >= 3)
        state = look(b.layout, execution.id)
        assert state is not None
        os.kill(state.shim, signal.SIGKILL)
        await b.until(ReportUnknown, execution)
        b.supervisor.stop(ordered_to_stop(execution, grace_s=0.3))
        lost = await b.until(ReportLost, execution)
        assert lost.reason == Reason.NO_EXIT_RECORD
        assert members(execution.id) == []


async def orphaned(b: Bench, script: str) -> tuple[Execution, ShimState]:
    """A program whose shim was killed, and the last that the shim said."""
    execution = starting()
    b.supervisor.spawn(execution, sh(script))
    await b.until(ReportRunning, execution)
    state = look(b.layout, execution.id)
    assert state is not None
    os.kill(state.shim, signal.SIGKILL)
    await b.until(ReportUnknown, execution)
    return execution, state


async def test_orphan_that_outlives_the_kill_is_reported_with_its_survivors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.shim.ladder.GIVE_UP_S", 0.3)
    real_send, untouchable = signal.pidfd_send_signal, [False]

    def send(pidfd: int, number: int) -> None:
        if untouchable[0]:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        real_send(pidfd, number)

    monkeypatch.setattr(signal, "pidfd_send_signal", send)
    async with bench(tmp_path, settings=WITHOUT_GROUPS) as b:
        execution, state = await orphaned(b, "exec sleep 300")
        untouchable[0] = True  # as what another account runs, with sudo
        b.supervisor.stop(ordered_to_stop(execution, grace_s=0.1))
        record = await b.exit_of(execution)
        assert (record.contained, record.survivors) == (False, (state.pid,))
        assert len(b.of(ReportEnded, execution)) == 1
        b.kill_leftovers()


@contextmanager
def no_descriptors(monkeypatch: pytest.MonkeyPatch, where: str) -> Iterator[list[str]]:
    """Whatever has `where` in its path cannot be opened; gives what was tried."""
    real_open, tried = os.open, list[str]()

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if where not in str(path):
            return real_open(path, flags, *args, **kwargs)
        tried.append(str(path))
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        yield tried


async def test_unknown_execution_is_not_lost_while_the_system_has_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, settings=WITHOUT_GROUPS) as b:
        execution, _ = await orphaned(b, "sleep 300")
        with no_descriptors(monkeypatch, "/proc/") as tried:
            await b.wait_for(lambda: len(tried) > 0)
            many = 2 * len(all_processes()) + 2 * len(os.listdir("/proc")) + len(tried)
            await b.wait_for(lambda: len(tried) > many or bool(b.of(ReportLost, execution)))
        assert b.of(ReportLost, execution) == []
        b.supervisor.stop(ordered_to_stop(execution))
        await b.until(ReportLost, execution)
        assert members(execution.id) == []


def test_what_ended_is_found_on_a_disk_without_any_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, execution_id = DataLayout(tmp_path), str(uuid4())
    place = layout.execution(execution_id)
    place.root.mkdir(parents=True)
    place.claim.write_text("shim 1 boot\n")
    place.exit.write_text('{"version":1,"ended_ms":1,"exit_code":7}')
    real_open = os.open

    def no_new_file(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", no_new_file)
    [finding] = investigate_all(layout, [execution_id])
    assert isinstance(finding, Ended)
    assert finding.exit.exit_code == 7


@pytest.mark.parametrize("name", ["lock", "claim", "process.json"])
def test_a_file_that_cannot_be_opened_for_want_of_descriptors_says_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, execution_id = DataLayout(tmp_path), str(uuid4())
    place = layout.execution(execution_id)
    place.root.mkdir(parents=True)
    place.claim.write_text("shim 1 boot\n")
    with place.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with no_descriptors(monkeypatch, f"{execution_id}/{name}"):
            assert investigate_all(layout, [execution_id]) == [Alive(None)]
            assert look_at_all(layout, [execution_id]) == [(None, False)]


async def test_unknown_execution_is_lost_when_its_tree_ends_by_itself(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        go = tmp_path / "go"
        b.supervisor.spawn(execution, sh(f"while [ ! -e {go} ]; do sleep 0.05; done"))
        await b.until(ReportRunning, execution)
        state = look(b.layout, execution.id)
        assert state is not None
        os.kill(state.shim, signal.SIGKILL)
        await b.until(ReportUnknown, execution)
        go.touch()
        await b.until(ReportLost, execution)
        assert len(b.of(ReportUnknown, execution)) == 1


async def test_start_that_no_shim_claimed_runs_after_the_next_start(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        await b.supervisor.adopt([(execution, sh("exit 4"))])
        assert (await b.exit_of(execution)).exit_code == 4


async def test_claim_won_by_a_recovery_that_died_is_won_again(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    layout.output.mkdir()
    execution = starting()
    assert investigate(layout, execution.id) == NeverRan(1)
    assert investigate(layout, execution.id) == NeverRan(2)
    assert layout.execution(execution.id).claim.read_bytes() == CLAIMED_BY_SERVICE
    async with bench(tmp_path) as b:
        await b.supervisor.adopt([(execution, sh("exit 4"))])
        assert (await b.exit_of(execution)).exit_code == 4


async def test_lost_claim_of_a_program_seen_running_never_runs_it_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = seen(str(uuid4()))
        await b.supervisor.adopt([(execution, sh(f"touch {tmp_path}/ran"))])
        assert (await b.until(ReportLost, execution)).reason == Reason.NO_EXIT_RECORD
        assert not (tmp_path / "ran").exists()


async def test_lost_claim_of_a_program_whose_shim_was_found_never_runs_it_again(
    tmp_path: Path,
) -> None:
    """A shim writes that its program runs a moment after it was executed, so what is found at a
    start may be older than what was reported."""
    shim = await asyncio.create_subprocess_exec("sleep", "300", start_new_session=True)
    try:
        async with bench(tmp_path) as b:
            execution = seen(str(uuid4()))
            place = b.layout.execution(execution.id)
            place.root.mkdir()
            place.claim.write_text(f"shim 1 {boot_id()}\n")
            found = process(shim.pid)
            assert found is not None
            state = {"execution": execution.id, "shim": shim.pid, "shim_ticks": found.ticks}
            place.process.write_text(json.dumps({**state, "boot": boot_id()}))
            await b.supervisor.adopt([(execution, sh(f"touch {tmp_path}/ran"))])
            assert b.reports == []
            place.claim.unlink()
            place.process.unlink()
            shim.kill()
            assert (await b.until(ReportLost, execution)).reason == Reason.NO_EXIT_RECORD
            assert not (tmp_path / "ran").exists()
    finally:
        await shim.wait()


async def test_stopped_start_that_no_shim_claimed_ends_unrun(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = ordered_to_stop(starting())
        await b.supervisor.adopt([(execution, sh(f"touch {tmp_path}/ran"))])
        exit_ = await b.exit_of(execution)
        assert (exit_.cause, exit_.started_ms) == (Reason.USER, None)
        assert not (tmp_path / "ran").exists()


async def test_start_of_a_vanished_definition_fails_with_a_sentence(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        await b.supervisor.adopt([(execution, None)])
        assert "definition" in (await b.until(ReportSpawnFailed, execution)).error


async def test_execution_of_an_earlier_boot_is_lost_to_the_host(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = seen(str(uuid4()))
        place = b.layout.execution(execution.id)
        place.root.mkdir()
        place.claim.write_text("shim 1 another-boot\n")
        mine = os.getpid()
        state = {"execution": execution.id, "shim": mine, "boot": "another-boot", "pid": mine}
        place.process.write_text(json.dumps(state))
        await b.supervisor.adopt([(execution, sh(""))])
        assert (await b.until(ReportLost, execution)).reason == Reason.HOST_RESTART


async def test_reused_pid_is_neither_adopted_nor_signalled(tmp_path: Path) -> None:
    other = await asyncio.create_subprocess_exec("sleep", "300", start_new_session=True)
    try:
        async with bench(tmp_path) as b:
            execution = seen(str(uuid4()))
            place = b.layout.execution(execution.id)
            place.root.mkdir()
            place.claim.write_text(f"shim 1 {boot_id()}\n")
            state = {
                "execution": execution.id,
                "shim": other.pid,
                "shim_ticks": 1,
                "boot": boot_id(),
                "pid": other.pid,
                "session": other.pid,
                "ticks": 1,
            }
            place.process.write_text(json.dumps(state))
            await b.supervisor.adopt([(execution, sh(""))])
            b.supervisor.stop(ordered_to_stop(execution, kill=True))
            assert (await b.until(ReportLost, execution)).reason == Reason.NO_EXIT_RECORD
            assert other.returncode is None
            assert b.of(ReportUnknown, execution) == []
    finally:
        other.kill()
        await other.wait()


async def test_shim_outlives_signals_meant_for_everybody_or_for_parents(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh(f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"))
        await b.until(ReportRunning, execution)
        state = look(b.layout, execution.id)
        assert state is not None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(state.shim, number)
        assert is_alive(state.shim, state.shim_ticks)
        assert isinstance(investigate(b.layout, execution.id), Alive)
        (tmp_path / "go").touch()
        assert (await b.exit_of(execution)).exit_code == 0
