"""A whole service on a disk that another program keeps full to the last byte or inode: what runs
can be stopped, ends are on record, the service can die and start again, and recovers by itself.
"""

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from bus.commands import StopJob
from bus.envelope import seal
from bus.layout import DataLayout
from bus.model import Principal
from bus.reserve import Ballast
from bus.reserve_spares import SPARES
from jobbus.service.instance import secret_key
from tests.faults.load import LONG, PATIENCE_S, STARTED, Content, Load, SeamService, define, verify
from tests.faults.seam import Plan
from tests.small_disk import Filler, mounted, mounted_ext4
from transports.directory.offline_publisher import publish_offline

T = TypeVar("T")

OPERATOR = Principal(user_id="olga", roles=("operator",), via="http")
SIZE_MIB = 160
INODES = 6000

WRITING = ("open", "write", "pwrite", "link", "rename", "mkdir", "posix_fallocate")

NOISY = STARTED + "yes"
FILLS = (
    STARTED
    + 'printf \'{"percent": 50, "data": {"text": "%s"}}\\n\' '
    + "$(head -c 12000 /dev/zero | tr '\\0' a) > $JOBBUS_PROGRESS; "
    + 'cat /dev/zero > "${JOBBUS_PROGRESS%/*}/zeros"; echo full; touch "$BOARD/full"; '
    + 'until [ -e "$BOARD/release" ]; do sleep 0.05; done; yes | head -c 100000; exit 7'
)


class Node:
    """A service whose data directory, or a folder of it, is a small file system of its own."""

    def __init__(self, root: Path, *, small: str = "") -> None:
        self.service = SeamService(root)
        self.service.plan = Plan(root=str(root), pause_s=0.1)
        self.service.data.mkdir(mode=0o700)
        self.place = self.service.data / small
        self.place.mkdir(mode=0o700, exist_ok=True)
        self.layout = DataLayout(self.service.data)
        self.load = Load(self.service)
        define(self.service.apps)

    @contextmanager
    def full(self, *, inodes: bool) -> Iterator[None]:
        """Inside the block the disk is full, and whatever comes free is taken at once."""
        filler, is_over = Filler(self.place / "others"), threading.Event()

        def go_on() -> None:
            while not is_over.wait(0.001):
                filler.go_on()

        filler.fill(inodes=inodes)
        greedy = threading.Thread(target=go_on)
        greedy.start()
        try:
            yield
        finally:
            is_over.set()
            greedy.join()
            filler.let_go()

    def ask(self, name: str, command: str, job_id: str, wait_s: int = 20) -> tuple[int, Content]:
        command_id = self.load.id_of(name)
        body = {"command": command, "jobId": job_id, "commandId": command_id}
        status, found = self.load.call("POST", "/commands", body, wait_s)
        if status in (200, 202):
            self.load.tried[command_id] = f"{command} {job_id}"
            self.load.acknowledged.add(command_id)
        return status, found

    def state_of(self, job_id: str) -> tuple[str, int | None]:
        found = self.execution(job_id)
        return found["status"], found["exitCode"]

    def execution(self, job_id: str) -> Content:
        [found] = [e for e in self.load.items("/executions") if e["jobId"] == job_id]
        return found

    def start_again(self, *, spawner: bool = False) -> None:
        """After a SIGKILL."""
        self.service.kill9(spawner=spawner)
        assert self.service.try_start(), self.service.log.read_text(encoding="utf-8")[-2000:]

    def acts(self, action: str) -> int:
        """How many entries of the audit record a command that came to its aim."""
        _, page = self.load.call("GET", "/audit?limit=100")
        found = [(e["action"], e.get("status")) for e in page["items"]]
        return found.count((action, "Completed"))

    def is_low(self) -> bool:
        low: bool = self.load.call("GET", "/system")[1]["space"]["low"]
        return low

    def delete(self, name: str, execution_id: str) -> None:
        """The execution that the command `name` started is gone."""
        status, found = self.load.call("DELETE", f"/executions/{execution_id}")
        assert status == 202, found
        self.load.tried[found["commandId"]] = "delete"
        self.load.acknowledged.discard(self.load.id_of(name))

    def recovers(self) -> None:
        """By itself: it holds its reserve again, starts what is asked for, and all is true."""
        waited_for(lambda: not self.is_low() and self.holds_reserve())
        assert self.ask("after", "start", "S/Reports")[0] == 200
        self.load.settle()
        wrong = list(verify(self.load, exact_ends=False))
        assert not wrong, "\n".join(wrong)

    def holds_reserve(self) -> bool:
        spares = len(list((self.layout.root / ".reserve").glob("spare-*")))
        return spares == SPARES and Ballast(self.layout.journal).is_held


def waited_for(look: Callable[[], T | None]) -> T:
    deadline_s = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline_s, f"never came: {look}"
        time.sleep(0.02)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "node"
    root.mkdir()
    return root


@contextmanager
def on_small_disk(node: Node, kind: str) -> Iterator[Node]:
    """The node's own place is a file system of that kind; nothing of the node runs after it."""
    image = node.service.root / "image"
    disk = (
        mounted_ext4(node.place, image, SIZE_MIB, INODES)
        if kind == "ext4"
        else mounted(node.place, f"size={SIZE_MIB}m,nr_inodes={INODES},mode=0700")
    )
    with disk:
        try:
            yield node
        finally:
            node.service.clear_away()


@pytest.mark.parametrize("inodes", [False, True], ids=["bytes", "inodes"])
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_full_disk_lets_stops_ends_and_starts_of_the_service_through(
    root: Path, kind: str, inodes: bool
) -> None:
    with on_small_disk(Node(root), kind) as node:
        load, service = node.load, node.service
        service.apps.shell("S/Noisy", NOISY, output={"max_bytes": 1 << 20})
        service.start()
        assert node.holds_reserve()
        for name, job_id in (("long", "S/Long"), ("noisy", "S/Noisy")):
            assert node.ask(name, "start", job_id)[0] == 200
        with node.full(inodes=inodes):
            waited_for(node.is_low)
            assert node.ask("quick", "start", "S/Quick")[0] == 507
            assert node.ask("stop", "stop", "S/Long")[1]["status"] == "Completed"
            assert node.state_of("S/Long")[0] == "Stopped"
            result = waited_for(lambda: service.result(load.id_of("stop")))
            assert result["Status"] == "Completed"
            node.start_again()
            assert node.state_of("S/Long")[0] == "Stopped"
            assert node.state_of("S/Noisy")[0] == "Running"
            assert node.ask("refused", "start", "S/Quick")[0] == 507
            assert node.ask("stop noisy", "stop", "S/Noisy")[1]["status"] == "Completed"
            assert node.acts("stop") == 2
            node.start_again(spawner=True)
            assert node.acts("stop") == 2
            assert service.end() == 0
            assert service.try_start(), "not even after an end in order"
        node.recovers()


@pytest.mark.parametrize("small", ["", "JobOutput"], ids=["one disk", "output elsewhere"])
def test_program_that_fills_the_disk_itself_ends_as_it_ends(root: Path, small: str) -> None:
    with on_small_disk(Node(root, small=small), "tmpfs") as node:
        service = node.service
        service.apps.shell("S/Fills", FILLS)
        service.start()
        assert node.ask("long", "start", "S/Long")[0] == 200
        assert node.ask("fills", "start", "S/Fills")[0] == 200
        waited_for(lambda: (service.apps.board / "full").exists())
        node.start_again()
        assert node.state_of("S/Fills")[0] == "Running"
        assert node.ask("stop", "stop", "S/Long")[1]["status"] == "Completed"
        service.apps.put("release")
        waited_for(lambda: node.state_of("S/Fills") == ("Failed", 7))
        execution_id = node.execution("S/Fills")["executionId"]
        text = (node.layout.execution(execution_id).output).read_bytes()
        assert text.startswith(b"full\n") or b"dropped" in text or not text
        node.delete("fills", execution_id)
        service.apps.board.joinpath("starts").unlink()
        node.recovers()


def test_stops_that_change_nothing_leave_the_reserve_to_those_that_do(root: Path) -> None:
    with on_small_disk(Node(root), "tmpfs") as node:
        node.service.start()
        assert node.ask("long", "start", "S/Long")[0] == 200
        with node.full(inodes=False):
            waited_for(node.is_low)
            answers = (node.ask(f"idle {n}", "stop", "S/Quick") for n in range(SPARES))
            status, found = next(answer for answer in answers if answer[0] != 200)
            assert (status, found["code"]) == (507, "no_space")
            assert node.ask("stop", "stop", "S/Long")[1]["status"] == "Completed"
            node.start_again()
            assert node.state_of("S/Long")[0] == "Stopped"
        node.recovers()


def test_more_stops_than_there_are_spares_come_through(root: Path) -> None:
    """What waits is cancelled, ninety times twice: each takes a spare and gives it back."""
    with on_small_disk(Node(root), "tmpfs") as node:
        load, jobs = node.load, ("S/First", "S/Second")
        for job_id in jobs:
            node.service.apps.shell(job_id, LONG, overlap="queue")
        node.service.start()
        for job_id in jobs:
            assert node.ask(f"{job_id} runs", "start", job_id)[0] == 200
        waiting = [f"{job_id} {n}" for job_id in jobs for n in range(90)]
        for name in waiting:
            assert node.ask(name, "start", name.partition(" ")[0], 0)[0] == 202
        waited_for(lambda: len(load.items("/executions")) == len(waiting) + len(jobs))
        with node.full(inodes=False):
            waited_for(node.is_low)
            for name in waiting:
                body = {"command": "cancel", "targetId": load.id_of(name)}
                status, found = load.call("POST", "/commands", body, 20)
                assert (status, found.get("status")) == (200, "Completed"), found
            for job_id in jobs:
                assert node.ask(f"{job_id} stops", "stop", job_id)[1]["status"] == "Completed"
            node.start_again()
            assert {e["status"] for e in load.items("/executions")} == {"Cancelled", "Stopped"}


@pytest.mark.parametrize("inodes", [False, True], ids=["bytes", "inodes"])
def test_service_starts_without_any_reserve_left(root: Path, inodes: bool) -> None:
    with on_small_disk(Node(root), "tmpfs") as node:
        node.service.start()
        assert node.ask("long", "start", "S/Long")[0] == 200
        with node.full(inodes=inodes):
            waited_for(node.is_low)
            for spare in (node.layout.root / ".reserve").iterdir():
                spare.unlink()
            node.start_again()
            assert node.state_of("S/Long")[0] == "Running"
        node.recovers()


def test_who_comes_to_make_room_gets_in_and_who_was_locked_out_stays_out(root: Path) -> None:
    with on_small_disk(Node(root), "tmpfs") as node:
        load, service = node.load, node.service
        service.start()
        body = {"userId": "eve", "roles": ["viewer"]}
        status, made = load.call("POST", "/tokens", body)
        assert status == 201, made
        with node.full(inodes=False):
            assert load.call("POST", "/session", {"token": service.token})[0] == 204
            assert load.call("DELETE", f"/tokens/{made['id']}")[0] == 204
            node.start_again()
            _, listed = load.call("GET", "/tokens")
            assert made["id"] not in json.dumps(listed)


def test_a_stop_without_a_service_finds_room_too(root: Path) -> None:
    with on_small_disk(Node(root), "tmpfs") as node:
        load, service = node.load, node.service
        service.start()
        assert node.ask("long", "start", "S/Long")[0] == 200
        with node.full(inodes=False):
            service.kill9()
            stop = seal(StopJob(job_id="S/Long"), OPERATOR, now_ms=int(time.time() * 1000))
            publish_offline(node.layout, stop, secret_key(node.layout))
            load.acknowledged.add(stop.id)
            load.tried[stop.id] = "stop S/Long"
            assert service.try_start()
            waited_for(lambda: node.state_of("S/Long")[0] == "Stopped")
        node.recovers()


def test_what_is_queued_waits_for_room_and_starts_then_by_itself(root: Path) -> None:
    with on_small_disk(Node(root), "tmpfs") as node:
        load, service = node.load, node.service
        service.apps.shell("S/Line", LONG, overlap="queue")
        service.start()
        assert node.ask("first", "start", "S/Line")[0] == 200
        assert node.ask("second", "start", "S/Line", wait_s=0)[0] == 202
        [first] = [e["executionId"] for e in load.items("/executions") if e["startTime"]]
        with node.full(inodes=True):
            waited_for(node.is_low)
            assert load.call("POST", f"/executions/{first}/stop", {})[0] == 202
            node.start_again()
            waited_for(lambda: [e for e in load.items("/executions") if e["status"] == "Stopped"])
            states = sorted(e["status"] for e in load.items("/executions"))
            assert states == ["Queued", "Stopped"]
        waited_for(lambda: [e for e in load.items("/executions") if e["status"] == "Running"])


def test_start_whose_files_find_no_room_fails_and_says_so(root: Path) -> None:
    node = Node(root)
    plan = Plan(root=str(root), role="shim", at=1, action="fail", number=errno.ENOSPC)
    node.service.plan = plan._replace(calls=WRITING, hold=True, mark=str(root / "mark"))
    try:
        node.service.start()
        status, found = node.ask("one", "start", "S/Quick")
        assert (status, found["status"], found["errorCode"]) == (200, "Failed", "spawn_error")
        assert "no room on the disk" in found["error"]
        assert node.state_of("S/Quick") == ("Failed", None)
        assert node.service.apps.lines("starts") == []
    finally:
        node.service.clear_away()


def test_stop_under_way_outlives_the_service_that_took_it(root: Path) -> None:
    with on_small_disk(Node(root), "tmpfs") as node:
        service = node.service
        slow = 'trap "until [ -e $BOARD/go ]; do sleep 0.05; done; exit 0" TERM; '
        service.apps.shell("S/Slow", STARTED + slow + "while :; do sleep 0.05; done")
        service.start()
        assert node.ask("slow", "start", "S/Slow")[0] == 200
        with node.full(inodes=False):
            assert node.ask("stop", "stop", "S/Slow", wait_s=0)[0] == 202
            waited_for(lambda: node.state_of("S/Slow")[0] == "Stopping")
            service.kill9(spawner=True)
            service.apps.put("go")
            assert service.try_start()
            waited_for(lambda: node.state_of("S/Slow") == ("Stopped", 0))
        node.recovers()
