"""What shims, service and programs say to one another reaches no other, whichever is away.

Another account of this machine waits under the names that could be taken.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import Apps
from tests.service import Service, eventually, eventually_answered, kill, read_json, running_service

ROLELESS = 54_324
SECRET = "patient Miller at 42"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other accounts")

TALKER = f"""
import os, socket, time
board = os.environ["BOARD"]
address = os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1)
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
number = 0
while not os.path.exists(board + "/end"):
    number += 1
    with open(os.environ["JOBBUS_PROGRESS"], "a") as file:
        file.write(f"{{number % 100}}% {SECRET}\\n")
    try:
        link.sendto(f"STATUS={SECRET} {{number}}".encode(), address)
        os.write(1, b"{SECRET}\\n")
    except OSError:
        pass  # its shim is dead
    with open(board + "/said", "w") as file:
        file.write(str(number))
    time.sleep(0.02)
"""

LISTENER = """
import os, select, socket, sys, time
names, held = sys.argv[1:], []
os.setgroups([]); os.setgid(%(uid)d); os.setuid(%(uid)d)
for name in names:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        link.bind(chr(0) + name[1:] if name.startswith("@") else name)
    except OSError as error:
        print("refused", name, error.strerror, flush=True)
        continue
    held.append(link)
    print("bound", name, flush=True)
print("listening", flush=True)
while True:
    for link in select.select([*held, sys.stdin], [], [])[0]:
        if link is sys.stdin:
            sys.exit()
        print("received", link.recv(65536)[:40], flush=True)
"""


WATCHED = """
import os, socket, time
board = os.environ["BOARD"]
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while not os.path.exists(board + "/end"):
    try:
        link.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
        with open(board + "/fed", "a") as file:
            file.write("x")
    except OSError:
        pass  # its name was removed
    time.sleep(0.05)
"""


def define(apps: Apps) -> None:
    apps.python("N/Talks", TALKER)
    apps.python("N/Watched", WATCHED, watchdog_s=2)


@pytest.fixture
def service() -> Iterator[Service]:
    # pytest's own folders cannot be entered by others: what keeps them out must be ours.
    root = Path(tempfile.mkdtemp(prefix="jobbus-sockets-"))
    root.chmod(0o711)
    try:
        with running_service(root, define) as running:
            yield running
    finally:
        shutil.rmtree(root)


@contextmanager
def listener(names: list[str]) -> Iterator[list[str]]:
    """Another account has what it could take of the names; gives what it has said when it ends."""
    said: list[str] = []
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LISTENER % {"uid": ROLELESS}, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said.append(line)
            if line.startswith("listening"):
                break
        yield said
    finally:
        said += process.communicate()[0].splitlines(keepends=True)


async def goes_on(service: Service) -> None:
    """The program has said more since."""
    before = said_by(service)
    await eventually(lambda: said_by(service) > before + 20, "it says more")


def said_by(service: Service) -> int:
    """How often the program has said something."""
    board = service.apps.board / "said"
    return int(board.read_text() or 0) if board.exists() else 0


def names_of(service: Service, execution_id: str, address: str) -> list[str]:
    """Every name under which somebody could be meant, now or in earlier versions."""
    identity = read_json(service.data / "instance.json") or {}
    sockets = service.data / "Sockets"
    return [
        f"@jobbus-{identity['instance']}-bell",
        f"@jobbus-{identity['instance']}-{execution_id}",
        address,
        f"{sockets}/bell2",
        f"{sockets}/{execution_id}",
    ]


@pytest.mark.parametrize("who", ["service", "service_and_shim", "none"])
async def test_another_account_receives_nothing_of_a_job_whichever_process_is_away(
    who: str, service: Service
) -> None:
    async with service.http() as http:
        execution_id = await http.start("N/Talks")
        state = await eventually(
            lambda: with_socket(state_of(service, execution_id)), "the shim says where it listens"
        )
    if who != "none":
        service.kill9(spawner=True)
    if who == "service_and_shim":
        kill(state["shim"], signal.SIGKILL)
    with listener(names_of(service, execution_id, state["socket"])) as said:
        await goes_on(service)
        if who != "none":
            service.start()
        async with service.http() as http:
            await http.publish(20, command="stop", executionId=execution_id)
            assert (await http.ended(execution_id))["status"] == "Stopped"
    received = [line for line in said if line.startswith("received")]
    assert received == []
    # Only abstract names could be taken at all.
    assert all(line.split()[1].startswith("@") for line in said if line.startswith("bound"))


def with_socket(state: dict[str, Any]) -> dict[str, Any] | None:
    return state if state.get("socket") else None


def state_of(service: Service, execution_id: str) -> dict[str, Any]:
    return read_json(service.data / "JobOutput" / execution_id / "process.json") or {}


async def test_neither_service_nor_shim_has_a_name_that_others_can_take_or_reach(
    service: Service,
) -> None:
    async with service.http() as http:
        execution_id = await http.start("N/Talks")
        sockets = service.data / "Sockets"
        await eventually((sockets / execution_id).is_socket, "the shim listens")
        abstract = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace")
        identity = read_json(service.data / "instance.json") or {}
        assert f"@jobbus-{identity['instance']}" not in abstract
        assert not sends_as(ROLELESS, sockets / "bell")
        assert not sends_as(ROLELESS, sockets / execution_id)
        assert sends_as(0, sockets / execution_id)
        service.apps.put("end")
        await http.ended(execution_id)
    await eventually(lambda: not (sockets / execution_id).exists(), "its name is gone")


def sends_as(uid: int, path: Path) -> bool:
    """Whether a process of that account may send there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
                link.sendto(b"X=1", str(path))
            code = 0
        except OSError:
            pass
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


LONG = "a-folder-with-a-long-name-" * 3


@pytest.mark.parametrize("folder", ["data", LONG], ids=["short", "long"])
async def test_words_progress_and_orders_arrive_however_long_the_path_is(
    folder: str, tmp_path: Path
) -> None:
    """Also after a restart: the shim finds the new service under the same name."""
    service = Service(tmp_path)
    service.data = tmp_path / folder
    service.data.parent.mkdir(exist_ok=True)
    define(service.apps)
    try:
        service.start()
        async with service.http() as http:
            execution_id = await http.start("N/Talks")
            for again in (False, True):
                if again:
                    service.kill9(spawner=True)
                    service.start()
                arrived_text = await eventually_answered(
                    progress_of(service, execution_id), "it arrives"
                )
                assert arrived_text.startswith(SECRET)
        async with service.http() as http:
            await http.publish(20, command="stop", executionId=execution_id)
            assert (await http.ended(execution_id))["status"] == "Stopped"
        left = [path.name for path in (service.data / "Sockets").iterdir()]
        assert left == ["bell"]
        assert not service.complaints()
    finally:
        service.clear_away()


def progress_of(service: Service, execution_id: str) -> Callable[[], Any]:
    async def look() -> str | None:
        async with service.http() as http:
            progress = (await http.execution(execution_id)).get("progress") or {}
            message: str | None = progress.get("message")
            return message

    return look


async def test_names_of_killed_shims_are_free_after_the_next_start(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("N/Talks")
    sockets = service.data / "Sockets"
    await eventually((sockets / execution_id).is_socket, "the shim listens")
    shim = state_of(service, execution_id)["shim"]
    service.kill9()
    kill(shim, signal.SIGKILL)
    service.apps.put("end")
    service.start()
    assert sorted(path.name for path in sockets.iterdir()) == ["bell"]
    async with service.http() as http:
        await http.ended(execution_id)


@pytest.mark.parametrize("damage", ["removed", "emptied", "moved away", "removed while down"])
async def test_sockets_that_were_removed_are_made_again_and_words_and_orders_arrive(
    damage: str, service: Service
) -> None:
    sockets = service.data / "Sockets"
    async with service.http() as http:
        execution_id = await http.start("N/Talks")
        await eventually((sockets / execution_id).is_socket, "the shim listens")
    if damage == "removed while down":
        service.kill9(spawner=True)
    before = socket_files(sockets)
    if damage == "moved away":
        sockets.rename(service.data / "Elsewhere")
    else:
        shutil.rmtree(sockets)
    if damage == "emptied":
        sockets.mkdir(mode=0o700)
    if damage == "removed while down":
        service.start()
    await eventually((sockets / "bell").is_socket, "the service listens again")
    await eventually((sockets / execution_id).is_socket, "the shim listens again")
    assert not socket_files(sockets) & before
    assert sockets.stat().st_mode & 0o777 == 0o700
    since = said_by(service)

    async def arrived() -> bool:
        message = await progress_of(service, execution_id)()
        return int((message or "0").rpartition(" ")[2]) > since

    await eventually_answered(arrived, "what the program says arrives")
    async with service.http() as http:
        another = await http.start("N/Watched")
        assert (sockets / another).is_socket()
        for each in (execution_id, another):
            await http.publish(20, command="stop", executionId=each)
            assert (await http.ended(each))["status"] == "Stopped"
    if damage == "moved away":
        shutil.rmtree(service.data / "Elsewhere")


async def test_watchdog_does_not_strike_a_program_whose_words_had_no_way(
    service: Service,
) -> None:
    async with service.http() as http:
        execution_id = await http.start("N/Watched")
        fed = service.apps.board / "fed"
        await eventually(lambda: fed.exists() and fed.stat().st_size > 5, "it is fed")
        for _ in range(2):
            shutil.rmtree(service.data / "Sockets")
            size = fed.stat().st_size
            await eventually(lambda size=size: fed.stat().st_size > size + 5, "it is fed again")  # type: ignore[misc]
        service.apps.put("end")
        assert (await http.ended(execution_id))["status"] == "Succeeded"


def socket_files(folder: Path) -> set[tuple[str, int]]:
    """The sockets that lie there: names, and which file each is."""
    return {(path.name, path.stat().st_ctime_ns) for path in folder.iterdir()}
