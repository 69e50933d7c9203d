"""Time limits, readiness, the watchdog, and what a program says about itself."""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from bus.commands import ReportProgress, ReportRunning, ReportSpawnFailed, ReportStopping
from bus.job_definition import JobSpec, LimitsSpec
from bus.model import Progress, Reason
from handlers.shim.assignment import ORDER
from handlers.shim.cgroup import delegation
from handlers.shim.notify_socket import NotifySocket
from handlers.supervision.execution_files import look
from handlers.supervision.supervisor import SupervisorSettings
from tests.processes import bench, ordered_to_stop, sh, starting

NOTIFY = """
import os, socket, time
address = os.environ["NOTIFY_SOCKET"]
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
link.connect(address.replace("@", chr(0), 1))
"""


def python(script: str, **changes: object) -> JobSpec:
    return changed(sh("", **changes), command=(sys.executable, "-c", NOTIFY + script))


def changed(spec: JobSpec, **changes: object) -> JobSpec:
    return msgspec.structs.replace(spec, **changes)


async def test_run_limit_ends_the_program_and_is_named(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("exec sleep 60", timeout_s=0.2))
        exit_ = await b.exit_of(execution)
        stopping = b.of(ReportStopping, execution)
        assert exit_.cause is Reason.RUN_TIMEOUT
        assert exit_.signal == 15
        assert [report.stop.reason for report in stopping] == [Reason.RUN_TIMEOUT]


async def test_program_that_never_says_ready_hits_the_start_limit(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("exec sleep 60", ready="notify", start_timeout_s=0.2))
        exit_ = await b.exit_of(execution)
        assert exit_.cause is Reason.START_TIMEOUT
        assert b.of(ReportRunning, execution) == []


async def test_program_runs_from_when_it_says_ready(tmp_path: Path) -> None:
    script = "link.send(b'READY=1\\nSTATUS=up\\nX_PROGRESS=42'); time.sleep(60)"
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, python(script, ready="notify", timeout_s=1))
        await b.until(ReportRunning, execution)
        report = await b.until(ReportProgress, execution)
        assert report.progress == Progress(percent=42.0, message="up")
        await b.exit_of(execution)


async def test_silent_program_is_ended_by_its_watchdog(tmp_path: Path) -> None:
    script = "link.send(b'WATCHDOG=1'); time.sleep(60)"
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, python(script, watchdog_s=0.4))
        assert (await b.exit_of(execution)).cause is Reason.WATCHDOG


async def test_words_of_another_process_are_not_believed(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("echo $NOTIFY_SOCKET; sleep 0.3; exit 0", ready="notify"))
        await b.wait_for(
            lambda: b.layout.execution(execution.id).output.exists() and bool(b.output(execution))
        )
        address = b.output(execution).strip().replace("@", "\0", 1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(b"READY=1\nX_PROGRESS=99", address)
        exit_ = await b.exit_of(execution)
        assert exit_.progress is None
        assert b.of(ReportRunning, execution) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another account")
@pytest.mark.parametrize(("uid", "received"), [(0, {"CONTROL", ORDER}), (54_321, {"CONTROL"})])
def test_order_beside_a_wake_up_is_believed_of_our_account_alone(
    uid: int, received: set[str], tmp_path: Path
) -> None:
    notify_socket = NotifySocket(
        str(tmp_path), -1, "there"
    )  # without a folder the kernel gives a name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        child = os.fork()
        if child == 0:
            os.setuid(uid)
            link.sendto(b"CONTROL=1\nORDER={}", notify_socket.address.replace("@", "\0", 1))
            os._exit(0)
        os.waitpid(child, 0)
    try:
        [words] = notify_socket.received(lambda _: False)
        assert set(words) == received
    finally:
        notify_socket.close()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("42", Progress(percent=42.0)),
        ("42% copying files", Progress(percent=42.0, message="copying files")),
        (
            json.dumps({"percent": 7.5, "message": "m", "data": {"k": [1]}}),
            Progress(percent=7.5, message="m", data={"k": [1]}),
        ),
    ],
)
async def test_line_in_the_progress_file_is_reported(
    line: str, expected: Progress, tmp_path: Path
) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh(f"echo '{line}' >> \"$JOBBUS_PROGRESS\"; sleep 0.4"))
        assert (await b.until(ReportProgress, execution)).progress == expected
        assert (await b.exit_of(execution)).progress == expected


async def test_long_progress_file_is_cut(tmp_path: Path) -> None:
    script = "yes '1% x' | head -c 3000000 >> $JOBBUS_PROGRESS; echo 99 >> $JOBBUS_PROGRESS"
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh(script))
        exit_ = await b.exit_of(execution)
        assert exit_.progress == Progress(percent=99.0)
        assert b.layout.execution(execution.id).progress.stat().st_size < 1 << 20


async def test_progress_file_turned_into_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("7\n")
    script = f"rm $JOBBUS_PROGRESS; ln -s {victim} $JOBBUS_PROGRESS; exit 0"
    async with bench(tmp_path / "data") as b:
        execution = starting()
        b.supervisor.spawn(execution, sh(script))
        progress = (await b.exit_of(execution)).progress
        assert progress is not None
        assert (progress.percent, "replaced by a link" in progress.note) == (None, True)
        assert victim.read_text() == "7\n"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"command": ("./missing",)}, "was not found in"),
        ({"command": ("./plain",)}, "is not executable: chmod +x it"),
        ({"command": ("./text",)}, "is no program"),
        ({"command": ("./orphan",)}, "names an interpreter that was not found"),
        ({"command": ("true",), "cwd": "nowhere"}, "its folder"),
        ({"command": ("true",), "ready": "tcp:{{Port}}"}, "ready needs a port from 1 to 65535"),
        ({"command": ("a\0b",)}, "Invalid argument"),
    ],
)
async def test_program_that_cannot_run_is_explained(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "orphan").write_text("#!/no/such/interpreter\n")
    for name in ("text", "orphan"):
        os.chmod(tmp_path / name, 0o755)  # noqa: PTH101
    async with bench(tmp_path / "data") as b:
        execution = starting()
        spec = changed(sh(""), **{"directory": str(tmp_path), **changes})
        b.supervisor.spawn(execution, spec)
        failed = await b.until(ReportSpawnFailed, execution)
        assert sentence in failed.error


async def test_progress_of_a_quiet_program_is_reported_without_waiting_for_a_look(
    tmp_path: Path,
) -> None:
    settings = SupervisorSettings(look_s=1000, shim_look_s=1000)
    async with bench(tmp_path, settings=settings) as b:
        execution = starting()
        go = tmp_path / "go"
        script = f"mkfifo {go}; echo 1 >>$JOBBUS_PROGRESS; read x <{go}; "
        b.supervisor.spawn(execution, sh(script + "echo 2 >>$JOBBUS_PROGRESS; exec sleep 60"))
        await b.until(ReportProgress, execution)
        go.write_text("x\n")
        await b.wait_for(
            lambda: [r.progress.percent for r in b.of(ReportProgress, execution)] == [1.0, 2.0]
        )
        b.supervisor.stop(ordered_to_stop(execution, kill=True))
        await b.exit_of(execution)


async def test_a_stop_reaches_a_shim_that_its_program_has_stopped_and_flooded(
    tmp_path: Path,
) -> None:
    settings = SupervisorSettings(look_s=1000, shim_look_s=1000)
    async with bench(tmp_path, settings=settings) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("exec sleep 60"))
        await b.until(ReportRunning, execution)
        state = look(b.layout, execution.id)
        assert state is not None
        os.kill(state.shim, signal.SIGSTOP)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as flood:
            with suppress(BlockingIOError):
                while True:
                    flood.sendto(b"STATUS=busy", state.socket)
            b.supervisor.stop(ordered_to_stop(execution))
            assert (await b.exit_of(execution)).signal == signal.SIGTERM


async def test_progress_keeps_its_percent_but_not_data_of_hundreds_of_levels(
    tmp_path: Path,
) -> None:
    line = tmp_path / "line"
    for levels in (600, 30):
        line.write_text(f'{{"percent": 5, "data": {{"a": {"[" * levels}{"]" * levels}}}}}\n')
        async with bench(tmp_path / str(levels)) as b:
            execution = starting()
            b.supervisor.spawn(execution, sh(f"cat {line} >>$JOBBUS_PROGRESS"))
            exit_ = await b.exit_of(execution)
            assert exit_.progress is not None
            assert exit_.progress.percent == 5
            assert (exit_.progress.data is None) == (levels == 600)


@pytest.mark.parametrize(
    ("limits", "controller", "words"),
    [
        (LimitsSpec(pids=5), "pids", "its control group cannot keep pids.max"),
        (LimitsSpec(cpu_weight=5), "cpu", "its control group cannot keep cpu.weight"),
        (LimitsSpec(open_files=2**30), "", "its limits could not be set"),
    ],
)
async def test_limit_that_went_missing_since_it_was_checked_fails_the_start(
    tmp_path: Path, limits: LimitsSpec, controller: str, words: str
) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("true", limits=limits))
        if controller in delegation().controllers:
            assert (await b.exit_of(execution)).exit_code == 0
        else:
            assert words in (await b.until(ReportSpawnFailed, execution)).error
