"""A shim that was killed: what is left of its tree is found, and what it was ended for is known."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from handlers.shim.process_tree import all_processes, marks_of, members
from tests.jobs import Apps
from tests.service import (
    Http,
    Service,
    eventually,
    eventually_answered,
    is_alive,
    kill,
    read_json,
    running_service,
)

SURVIVOR = """
%s setsid sh -c 'echo $$ >> "$BOARD/%s"; exec sleep 1000' > /dev/null 2>&1 < /dev/null &
echo up; exec sleep 1000
"""
"""The program, and one that has left its session and its pipes: only its environment knows it."""

TWICE = """
import os, sys
board = os.environ["BOARD"]
if os.fork() == 0:
    os.setsid()
    with open(board + "/twice", "a") as file:
        file.write(f"{os.getpid()}\\n")
    import ctypes
    libc = ctypes.CDLL(None)
    entries = [b"JOBBUS_EXECUTION_ID=another"]
    entries += [f"{name}={value}".encode() for name, value in os.environ.items()]
    argv = (ctypes.c_char_p * 3)(b"sleep", b"1000", None)
    envp = (ctypes.c_char_p * (len(entries) + 1))(*entries, None)
    libc.execve(b"/bin/sleep", argv, envp)
os.execv("/bin/sleep", ["sleep", "1000"])
"""

UNMARKED = """
env -i sh -c 'trap "" TERM; echo $$ >> "'"$BOARD"'/unmarked"; while :; do sleep 0.2; done' &
echo up; exec sleep 1000
"""
"""Its child is of the tree by its session alone, and ignores what ends the session's leader."""

DEAF = "trap '' TERM; echo $$ >> \"$BOARD/%s\"; while :; do sleep 0.2; done"

VALUES = {
    "another's": "JOBBUS_EXECUTION_ID=00000000-0000-4000-8000-000000000000",
    "line": "a\nJOBBUS_EXECUTION_ID=x",
    "inside": "x JOBBUS_EXECUTION_ID=",
    "instance": "JOBBUS_INSTANCE=other",
}


def define(apps: Apps) -> None:
    text = {"text": {"pattern": "(?s).*"}}
    apps.shell("K/Marked", SURVIVOR % ("", "marked"), max_running=8, variables=text)
    first = 'A="JOBBUS_EXECUTION_ID=another" env -u JOBBUS_VAR_x A="$A"'
    apps.shell("K/First", SURVIVOR % (first, "first"))
    apps.python("K/Twice", TWICE)
    apps.shell("K/Unmarked", UNMARKED, stop_grace_s=0.5)
    apps.shell("K/Deaf", DEAF % "deaf", stop_grace_s=600, max_running=4)
    apps.shell("K/Limited", DEAF % "limited", stop_grace_s=600, timeout_s=0.5)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("killed"), define) as running:
        yield running


async def shim_of(service: Service, execution_id: str) -> int:
    place = service.data / "JobOutput" / execution_id / "process.json"
    state = await eventually(lambda: read_json(place), "the shim says who it is")
    return int(state["shim"])


async def with_status(http: Http, execution_id: str, status: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = await http.execution(execution_id)
        return found if found["status"] == status else None

    return await eventually_answered(look, f"{execution_id} is {status}")


async def left_alone(service: Service, http: Http, execution_id: str) -> None:
    """Its shim and its program are killed; what has left the session lives on."""
    pid = (await http.execution(execution_id))["pid"]
    kill(await shim_of(service, execution_id), signal.SIGKILL)
    kill(pid, signal.SIGKILL)
    await with_status(http, execution_id, "Unknown")


async def assert_stop_reaches(
    service: Service, http: Http, execution_id: str, pids: list[int]
) -> None:
    assert all(is_alive(pid) for pid in pids)
    done = await http.publish(20, command="stop", executionId=execution_id)
    assert (done["status"], done["outcome"]) == ("Completed", "done")
    assert not any(is_alive(pid) for pid in pids)
    found = await http.execution(execution_id)
    assert (found["status"], found["reason"], found["stop"]["by"]) == ("Stopped", "user", "admin")


async def pids_on(service: Service, name: str, count: int = 1) -> list[int]:
    await eventually(lambda: len(service.apps.lines(name)) == count, f"{name} is up")
    return [int(line) for line in service.apps.lines(name)]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_value_of_a_caller_hides_no_survivor(value: str, service: Service) -> None:
    (service.apps.board / "marked").unlink(missing_ok=True)
    async with service.http() as http:
        execution_id = await http.start("K/Marked", text=value)
        pids = await pids_on(service, "marked")
        await left_alone(service, http, execution_id)
        await assert_stop_reaches(service, http, execution_id, pids)


@pytest.mark.parametrize(("job", "name"), [("K/First", "first"), ("K/Twice", "twice")])
async def test_marker_counts_wherever_it_stands_in_the_environment(
    job: str, name: str, service: Service
) -> None:
    async with service.http() as http:
        execution_id = await http.start(job)
        pids = await pids_on(service, name)
        await left_alone(service, http, execution_id)
        await assert_stop_reaches(service, http, execution_id, pids)


async def test_member_known_by_its_session_is_stopped_after_the_leader_of_that(
    service: Service,
) -> None:
    async with service.http() as http:
        execution_id = await http.start("K/Unmarked")
        pids = await pids_on(service, "unmarked")
        kill(await shim_of(service, execution_id), signal.SIGKILL)
        await with_status(http, execution_id, "Unknown")
        await assert_stop_reaches(service, http, execution_id, pids)


async def test_stop_of_one_spares_what_only_names_it_in_a_value(service: Service) -> None:
    (service.apps.board / "marked").unlink(missing_ok=True)
    async with service.http() as http:
        victim = await http.start("K/Marked", text="")
        await pids_on(service, "marked")
        other = await http.start("K/Marked", text=f"JOBBUS_EXECUTION_ID={victim}")
        pids = await pids_on(service, "marked", 2)
        await left_alone(service, http, victim)
        await assert_stop_reaches(service, http, victim, pids[:1])
        assert is_alive(pids[1])
        await http.publish(20, command="stop", executionId=other)


@pytest.mark.parametrize("order", ["process", "service"])
async def test_shim_killed_in_the_middle_of_an_ordered_stop_is_a_stop(
    order: str, service: Service
) -> None:
    """The tree dies with the shim, or is stopped by the service when its shim is dead."""
    (service.apps.board / "deaf").unlink(missing_ok=True)
    async with service.http() as http:
        execution_id = await http.start("K/Deaf")
        [pid] = await pids_on(service, "deaf")
        await http.publish(command="stop", executionId=execution_id)
        await with_status(http, execution_id, "Stopping")
        shim = await shim_of(service, execution_id)
        await eventually(lambda: ordered(service, execution_id), "the order has come to the shim")
        kill(shim, signal.SIGKILL)
        if order == "process":
            kill(pid, signal.SIGKILL)
        else:
            await with_status(http, execution_id, "Unknown")
            await http.publish(20, command="stop", executionId=execution_id, kill=True)
        found = await http.ended(execution_id)
    assert (found["status"], found["reason"], found["stop"]["by"]) == ("Stopped", "user", "admin")


def ordered(service: Service, execution_id: str) -> bool:
    return '"by":"admin"' in (service.data / "JobOutput" / execution_id / "process.json").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("away", [False, True], ids=["service_up", "service_away"])
async def test_shim_killed_after_a_time_limit_struck_is_a_timeout(
    away: bool, service: Service
) -> None:
    (service.apps.board / "limited").unlink(missing_ok=True)
    async with service.http() as http:
        execution_id = await http.start("K/Limited")
        [pid] = await pids_on(service, "limited")
        shim = await shim_of(service, execution_id)
        if away:
            service.kill9()
        state = service.data / "JobOutput" / execution_id / "process.json"
        await eventually(lambda: "run_timeout" in state.read_text(), "the limit struck")
        kill(shim, signal.SIGKILL)
        kill(pid, signal.SIGKILL)
        if away:
            service.start()
        found = await http.ended(execution_id)
    assert (found["status"], found["reason"]) == ("TimedOut", "run_timeout")


async def test_stop_ordered_before_service_and_shim_died_is_a_stop(service: Service) -> None:
    (service.apps.board / "deaf").unlink(missing_ok=True)
    async with service.http() as http:
        execution_id = await http.start("K/Deaf")
        [pid] = await pids_on(service, "deaf")
        await http.publish(command="stop", executionId=execution_id)
        await with_status(http, execution_id, "Stopping")
        shim = await shim_of(service, execution_id)
        service.kill9()
        kill(shim, signal.SIGKILL)
        kill(pid, signal.SIGKILL)
        service.start()
        found = await http.ended(execution_id)
    assert (found["status"], found["reason"], found["stop"]["by"]) == ("Stopped", "user", "admin")


def test_marks_are_read_to_the_end_of_the_longest_environment() -> None:
    """Five megabytes of other variables stand before the marker."""
    many = {f"A{n}": "x" * 130_000 for n in range(40)}
    program = "import sys; print(1, flush=True); sys.stdin.read()"
    before = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (32 << 20, before[1]))
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program],
            env={**many, "JOBBUS_EXECUTION_ID": "e-1", "JOBBUS_INSTANCE": "i-1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, before)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        marks = marks_of(process.pid)
        table = all_processes()
        later = (os.getpid(), table[process.pid].ticks + 1)
        found = members(table, leader=later, strays=[process.pid])
        process.communicate()
    assert marks.are_of("e-1", "i-1")
    assert marks.are_of("e-1", "")
    assert not marks.are_of("e-1", "i-2")
    assert process.pid not in found
