"""A stop reaches the whole tree, however it tries to hide, with and without control groups."""

import asyncio
import os
import secrets
import sys
from pathlib import Path

import pytest

from bus.commands import ReportEnded, ReportRunning
from bus.job_definition import JobSpec, Leftover, StopTarget
from bus.model import Reason
from handlers.shim.process_tree import all_processes, marks_of
from handlers.supervision.execution_files import write_control
from handlers.supervision.supervisor import SupervisorSettings
from tests.processes import QUICK, WITHOUT_GROUPS, bench, ordered_to_stop, sh, starting

HOSTILE = {
    "fork": "sleep 300 & sleep 300 & echo up; wait",
    "double_fork": "(sleep 300 & (sleep 300 &) ) ; echo up; exec sleep 300",
    "setsid": "setsid sleep 300 & setsid setsid sleep 300 & echo up; exec sleep 300",
    "term_ignored": "trap '' TERM; sleep 300 & echo up; while :; do sleep 300; done",
    "stopped": "sleep 300 & c=$!; sleep 0.2; kill -STOP $c; echo up; kill -STOP $$; sleep 300",
    "exec": "echo up; exec env -i sleep 300",
    "clean_session": "setsid env -i sleep 300 & echo up; exec sleep 300",
    "pipe_kept_open": "trap '' TERM; setsid sleep 300 & echo up; exec sleep 300",
    "main_ends_children_ignore": "(trap '' TERM; sleep 300 & sleep 300) & echo up; exec sleep 300",
}

BOMB = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
for _ in range(60):
    if os.fork() == 0:
        os.setsid()
        time.sleep(0.01)
        if os.fork():
            os._exit(0)
        time.sleep(300)
while True:
    if os.fork() == 0:
        time.sleep(0.05)
        os._exit(0)
    time.sleep(0.002)
"""


def marked_with(execution_id: str) -> list[int]:
    return [pid for pid in all_processes() if execution_id in marks_of(pid).executions]


def sleepers(seconds: str) -> list[int]:
    """The living processes `sleep SECONDS`, wherever they hang."""
    wanted = f"sleep\0{seconds}\0".encode()
    return [pid for pid in all_processes() if command_line(pid).endswith(wanted)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture(params=[QUICK, WITHOUT_GROUPS], ids=["groups", "subreaper"])
def settings(request: pytest.FixtureRequest) -> SupervisorSettings:
    chosen: SupervisorSettings = request.param
    return chosen


@pytest.mark.parametrize("name", HOSTILE)
async def test_stop_leaves_no_member_of_a_hostile_tree(
    name: str, settings: SupervisorSettings, tmp_path: Path
) -> None:
    async with bench(tmp_path, settings=settings) as b:
        execution = starting()
        seconds = str(secrets.randbelow(10**9) + 1000)
        b.supervisor.spawn(execution, sh(HOSTILE[name].replace("300", seconds)))
        await b.until(ReportRunning, execution)
        await b.wait_for(lambda: "up" in b.output(execution))
        await b.wait_for(lambda: bool(sleepers(seconds)))
        b.supervisor.stop(ordered_to_stop(execution, grace_s=0.3))
        exit_ = await b.exit_of(execution)
        assert exit_.contained
        assert exit_.survivors == ()
        assert exit_.cause is Reason.USER
        assert sleepers(seconds) == []


async def test_kill_ends_a_tree_that_keeps_forking(
    settings: SupervisorSettings, tmp_path: Path
) -> None:
    async with bench(tmp_path, settings=settings) as b:
        execution = starting()
        spec = JobSpec(command=(sys.executable, "-c", BOMB), directory="/")
        b.supervisor.spawn(execution, spec)
        await b.until(ReportRunning, execution)
        await b.wait_for(lambda: "up" in b.output(execution))
        b.supervisor.stop(ordered_to_stop(execution, kill=True))
        exit_ = await b.exit_of(execution)
        assert exit_.contained
        assert exit_.signal == 9
        assert marked_with(execution.id) == []


async def test_group_gets_the_stop_signal_when_the_job_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        python = (
            "import os, signal, time\n"
            "child = os.fork()\n"
            "signal.signal(signal.SIGINT, lambda *_: (print('got', flush=True), os._exit(0)))\n"
            "print('up', flush=True)\n"
            "time.sleep(300)\n"
        )
        job = JobSpec(
            command=(sys.executable, "-c", python),
            directory="/",
            stop_to=StopTarget.GROUP,
            stop_signal="INT",
            stop_grace_s=20.0,
        )
        b.supervisor.spawn(execution, job)
        await b.wait_for(lambda: bool(b.of(ReportRunning, execution)))
        await b.wait_for(lambda: b.output(execution).count("up") == 2)
        b.supervisor.stop(ordered_to_stop(execution, grace_s=20.0))
        exit_ = await b.exit_of(execution)
        assert exit_.exit_code == 0
        assert b.output(execution).count("got") == 2


async def test_children_left_behind_are_stopped_and_the_programs_own_code_counts(
    settings: SupervisorSettings, tmp_path: Path
) -> None:
    async with bench(tmp_path, settings=settings) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("setsid sleep 300 & exit 3"))
        exit_ = await b.exit_of(execution)
        assert (exit_.exit_code, exit_.cause) == (3, None)
        assert marked_with(execution.id) == []


async def test_children_left_behind_are_waited_for_when_the_job_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("(sleep 0.5; echo late) & exit 3", leftover=Leftover.WAIT))
        exit_ = await b.exit_of(execution)
        assert exit_.exit_code == 3
        assert b.output(execution) == "late\n"


async def test_sharper_order_cuts_a_long_grace_short(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh(HOSTILE["term_ignored"]))
        await b.wait_for(lambda: bool(b.of(ReportRunning, execution)))
        await b.wait_for(lambda: "up" in b.output(execution))
        stopping = ordered_to_stop(execution, grace_s=600)
        b.supervisor.stop(stopping)
        b.supervisor.stop(ordered_to_stop(execution, kill=True))
        exit_ = await b.exit_of(execution)
        assert exit_.signal == 9


async def test_long_graces_hold_up_no_other_stop(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        stubborn = [starting() for _ in range(30)]
        for each in stubborn:
            b.supervisor.spawn(each, sh("trap '' TERM; echo up; while :; do sleep 300; done"))
        for each in stubborn:
            await b.until(ReportRunning, each)
            await b.wait_for(lambda it=each: b.output(it) == "up\n")  # type: ignore[misc]
            b.supervisor.stop(ordered_to_stop(each, grace_s=600))
        quick = starting()
        b.supervisor.spawn(quick, sh("exit 0"))
        assert (await b.exit_of(quick)).exit_code == 0
        assert not any(b.of(ReportEnded, each) for each in stubborn)
        for each in stubborn:
            b.supervisor.stop(ordered_to_stop(each, kill=True))
        for each in stubborn:
            assert (await b.exit_of(each)).contained


async def test_stop_before_the_program_ran_leaves_it_unrun(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        order = ordered_to_stop(execution)
        assert order.stop is not None
        write_control(b.layout, execution.id, order.stop)
        b.supervisor.spawn(execution, sh("echo ran"))
        exit_ = await b.exit_of(execution)
        assert exit_.started_ms is None
        assert exit_.cause is Reason.USER
        assert b.output(execution) == ""


async def test_stop_also_ends_a_stray_that_left_the_tree_with_the_marker(
    tmp_path: Path, settings: SupervisorSettings
) -> None:
    async with bench(tmp_path, settings=settings) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("exec sleep 300"))
        await b.until(ReportRunning, execution)
        # As `at` or a daemon would start it: a child of ours, with the environment of the job.
        stray = await asyncio.create_subprocess_exec(
            "sleep", "300", env={**os.environ, "JOBBUS_EXECUTION_ID": execution.id}
        )
        b.supervisor.stop(ordered_to_stop(execution))
        exit_ = await b.exit_of(execution)
        assert exit_.contained
        assert await stray.wait() == -9
