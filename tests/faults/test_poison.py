"""A command that kills the service: after some deaths it is set aside, alone or not, for good."""

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.load import STARTED, Content, Dead, Load, SeamService, define, verify
from tests.faults.seam import POISON_JOB, Plan
from tests.service import PATIENCE_S

DEATHS = {"look": 2, "read": 2, "decide": 2, "spawn": 3}
"""By the stage at which the service dies: once it is on record a command has one more."""


class Node:
    """A service that dies of each command of one job."""

    def __init__(self, root: Path, where: str) -> None:
        self.service = SeamService(root)
        self.service.plan = Plan(root=str(root), poison=where)
        define(self.service.apps)
        self.service.apps.shell(POISON_JOB, STARTED)
        self.load = Load(self.service)
        self.id = Load.id_of("poison")
        self.queue = self.service.data / "JobCommandQueue"
        self.rejects = self.service.data / "JobCommandRejects"

    def drop(self, name: str, job_id: str) -> Path:
        """A whole file in the queue."""
        self.load._drop(name, job_id)
        return self.queue / f"{Load.id_of(name)}.json"

    def deaths(self) -> int:
        """How often the service died, and was started again, until it lived on with an answer."""
        for count in range(10):
            if self._lives():
                return count
            self.service.bury()
            self.service.try_start()
        raise AssertionError("it dies again and again")

    def _lives(self) -> bool:
        """Whether the poison has its answer; False if the service died before."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.service.is_up:
            if self.is_answered():
                return True
            assert time.monotonic() < deadline_s, self.service.log.read_text()[-3000:]
            time.sleep(0.02)
        return False

    def is_answered(self) -> bool:
        result = self.service.result(self.id)
        return result is not None and result["Status"] not in ("Pending", "Running")

    def reasons(self) -> list[str]:
        files = self.rejects.glob("*.reason.json")
        return [json.loads(path.read_bytes())["Reason"] for path in files]

    def command(self) -> Content:
        status, found = self.load.call("GET", f"/commands/{self.id}")
        return found if status == 200 else {"status": status}

    def settle(self) -> None:
        """All but the poison has come to its end, and everything is true."""
        self.load.acknowledged.discard(self.id)
        self.load.settle()

    def assert_true(self) -> None:
        wrong = [line for line in verify(self.load, exact_ends=False) if POISON_JOB not in line]
        assert not wrong, "\n".join(wrong)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "node"
    place.mkdir()
    return place


def started(node: Node) -> Node:
    node.service.start()
    return node


@pytest.mark.parametrize("others", [0, 5], ids=["alone", "among others"])
@pytest.mark.parametrize("where", ["look", "read", "decide", "spawn"])
def test_what_starts_die_of_again_and_again_is_set_aside_alone_or_not(
    root: Path, where: str, others: int
) -> None:
    node = started(Node(root, where))
    try:
        for number in range(others):
            node.drop(f"other {number}", "S/Queued")
        node.drop("poison", POISON_JOB)
        assert node.deaths() == DEATHS[where]
        if where == "spawn":
            assert node.command()["errorCode"] == "spawn_error"
            assert node.reasons() == []
        else:
            result = node.service.result(node.id)
            assert result is not None
            assert (result["Status"], result["ErrorCode"]) == ("Rejected", "poison")
            assert [reason.startswith("poison: ") for reason in node.reasons()] == [True]
        node.settle()
        assert len(node.service.apps.lines("starts")) == others
    finally:
        node.service.clear_away()


@pytest.mark.parametrize("where", ["decide", "spawn"])
def test_a_command_that_came_over_http_is_set_aside_too_and_its_id_is_known(
    root: Path, where: str
) -> None:
    node = started(Node(root, where))
    try:
        with suppress(Dead):  # the answer died with the service; the command is durable
            node.load.publish("poison", "start", POISON_JOB)
        assert node.deaths() == DEATHS[where]
        code = "poison" if where == "decide" else "spawn_error"
        assert node.command()["errorCode"] == code
        body = {"command": "start", "jobId": POISON_JOB, "commandId": node.id}
        status, found = node.load.call("POST", "/commands", body, 20)
        assert (status, found["errorCode"]) == (200, code)
        node.load.publish("quick", "start", "S/Quick")
        node.settle()
        node.assert_true()
    finally:
        node.service.clear_away()


def test_execution_on_record_that_two_deaths_met_in_hand_still_runs(root: Path) -> None:
    """Two kills from outside look the same: one in its batch, one in the start after it."""
    node = started(Node(root, "spawn"))
    try:
        with suppress(Dead):
            node.load.publish("poison", "start", POISON_JOB)
        node.service.wait_for_end()
        assert not node.service.try_start()
        node.service.plan = Plan(root=str(root))
        node.service.start()
        node.load.settle()
        assert node.command()["outcome"] == "done"
        assert len(node.service.apps.lines("starts")) == 1
        node.assert_true()
    finally:
        node.service.clear_away()


@pytest.mark.parametrize("where", ["look", "decide"])
def test_what_was_set_aside_never_comes_back_by_itself(root: Path, where: str) -> None:
    node = started(Node(root, where))
    try:
        lying = node.drop("poison", POISON_JOB)
        backup = root / "backup.json"
        shutil.copy2(lying, backup)
        assert node.deaths() == DEATHS[where]
        [rejected] = [p for p in node.rejects.glob("*.json") if ".reason." not in p.name]
        os.utime(rejected)
        node.service.restart()
        shutil.copy2(rejected, root / "copy")
        rejected.unlink()
        shutil.copy2(root / "copy", rejected)  # as a restore does it: another inode
        node.service.kill9()
        node.service.start()
        shutil.copy2(backup, lying)  # an older backup of the queue
        node.drop("other", "S/Quick")
        node.settle()
        assert node.service.is_up
        node.service.kill9()
        shutil.copy2(backup, lying)
        node.service.start()
        node.load.publish("last", "start", "S/Quick")
        node.settle()
        assert node.service.is_up
        assert POISON_JOB not in str(node.load.items("/executions"))
    finally:
        node.service.clear_away()


def test_a_rejected_file_that_was_changed_into_poison_stays_where_it_is(root: Path) -> None:
    node = started(Node(root, "repaired"))
    try:
        whole = node.drop("poison", "S/Quick").read_bytes()
        node.settle()
        broken = node.queue / f"{Load.id_of('broken')}.json"
        broken.write_bytes(b"{")
        deadline_s = time.monotonic() + PATIENCE_S
        while not (found := [p for p in node.rejects.glob("*.json") if ".reason." not in p.name]):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        [rejected] = found
        id_ = Load.id_of("broken").encode()
        text = whole.replace(Load.id_of("poison").encode(), id_)
        rejected.write_bytes(text.replace(b"S/Quick", POISON_JOB.encode()))
        deaths = 0
        while not any(reason.startswith("poison: ") for reason in node.reasons()):
            assert time.monotonic() < deadline_s + PATIENCE_S
            if not node.service.is_up:
                deaths += 1
                node.service.bury()
                node.service.try_start()
            time.sleep(0.02)
        assert deaths == DEATHS["read"]
        node.service.restart()
        node.load.publish("quick", "start", "S/Quick", wait_s=20)
        assert rejected.exists()
    finally:
        node.service.clear_away()


def test_kills_from_outside_blame_nothing_that_was_not_in_hand(root: Path) -> None:
    node = Node(root, "")
    service, load = node.service, node.load
    try:
        service.start()
        for round_ in range(4):
            load.publish(f"start {round_}", "start", "S/Quick", wait_s=20)
            node.drop(f"dropped {round_}", "S/Queued")
            service.kill9()
            service.start()
        load.settle()
        assert node.reasons() == []
        node.assert_true()
    finally:
        service.clear_away()
