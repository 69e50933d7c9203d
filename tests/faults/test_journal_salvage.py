"""A journal damaged before its end: what can be read behind it is known, and nothing runs twice."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.commands import StartJob
from bus.model import ExecutionStatus
from handlers.ambiguity import are_files_doubted
from handlers.journal.format import Record
from handlers.journal.journal import Journal
from handlers.journal.recovery import RecoveredTable, recover
from tests.decision_fixture import Decider
from tests.fakes import ManualClock
from tests.fault_points import count_calls, killed_at
from tests.jobs import Apps
from tests.journal_fixture import content_of, log_files, patch
from tests.service import Service, eventually, eventually_answered, running_service

STEPS = [
    pytest.param(13, id="some"),
    pytest.param(1, id="each", marks=pytest.mark.exhaustive),
]


def damaged(directory: Path) -> tuple[Decider, Path]:
    """The history of five executions, and its journal; the line that accepts the third of their
    starts is spoilt, and another segment follows."""
    decider = Decider()
    decider.define()
    for _ in range(5):
        started = decider.send(StartJob(job_id="Demo/Job"))
        decider.runs(started.execution_id or "")
        decider.ends(started.execution_id or "", 3)
    directory.mkdir()
    found = Journal.open(directory, now_ms=0, segment_bytes=1500, ballast_bytes=4096)
    for published in decider.log:
        record = Record(published.seq, published.at_ms, (published.event,))
        found.journal.append([record])
    third = [c.id for c in decider.table.commands()][::-1][2]
    path = next(path for path in log_files(directory) if third.encode() in path.read_bytes())
    assert path != log_files(directory)[-1]
    patch(path, content_of(path).index(third.encode()), b"#")
    return decider, directory


def recovered(directory: Path) -> RecoveredTable:
    return recover(directory, "test", ManualClock())


def statuses(found: RecoveredTable) -> dict[str, tuple[ExecutionStatus, int | None]]:
    return {e.id: (e.status, e.exit_code) for e in found.table.executions()}


def test_what_stands_behind_the_damage_is_in_the_table_and_in_the_journal(tmp_path: Path) -> None:
    decider, directory = damaged(tmp_path / "journal")
    assert len(log_files(directory)) > 1
    found = recovered(directory)
    assert statuses(found) == {
        e.id: (ExecutionStatus.FAILED, 3) for e in decider.table.executions()
    }
    assert not found.continuous
    assert all(found.table.command(c.id) for c in decider.table.commands())
    assert any("were replayed" in note for note in found.notes)
    again = recovered(directory)
    assert (again.continuous, again.epoch) == (True, found.epoch)
    assert again.next_seq == found.next_seq
    assert again.table.freeze() == found.table.freeze()
    assert [p.name for p in directory.glob("*.salvage*")] == []
    assert len(list(directory.glob("*.damaged*"))) > 1


@pytest.mark.parametrize("step", STEPS)
def test_killed_while_it_replays_salvage_it_replays_the_same(tmp_path: Path, step: int) -> None:
    _, whole = damaged(tmp_path / "whole")
    expected = statuses(recovered(whole))
    _, counted = damaged(tmp_path / "counted")
    calls = count_calls(lambda: recovered(counted))
    for number in range(1, calls + 2, step):
        decider, directory = damaged(tmp_path / str(number))
        was_killed = killed_at(number, lambda d=directory: recovered(d))  # type: ignore[misc]
        assert was_killed is (number <= calls)
        found = recovered(directory)
        assert list(statuses(found).values()) == list(expected.values()), number
        assert all(found.table.command(c.id) for c in decider.table.commands())
        assert are_files_doubted(directory)
        assert recovered(directory).table.freeze() == found.table.freeze()


HOLD = """
echo "$JOBBUS_EXECUTION_ID" >> "$BOARD/starts"
until [ -e "$BOARD/go" ]; do sleep 0.1; done
exit 4
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    def define(apps: Apps) -> None:
        apps.shell("T/Hold", HOLD, max_running=3, overlap="queue")
        apps.shell("T/Brief", "exit 0")

    with running_service(tmp_path, define) as running:
        yield running


def spoil(service: Service, word: str) -> None:
    """The first line of the journal that holds `word` cannot be read any more."""
    for path in sorted((service.data / "Journal").glob("*.log")):
        at = path.read_bytes().find(word.encode())
        if at >= 0:
            patch(path, at, b"#")
            return
    raise AssertionError(f"{word} stands nowhere")


async def test_running_and_waiting_executions_behind_the_damage_go_on_and_run_once(
    service: Service,
) -> None:
    key = {"Idempotency_Key": "behind-the-damage"}
    body = {"command": "start", "jobId": "T/Hold"}
    async with service.http() as http:
        brief = await http.start("T/Brief")
        await http.ended(brief)
        ids = [await http.start("T/Hold") for _ in range(3)]
        keyed = await http.call("POST", "/commands", body, **key)

        async def all_four() -> list[str] | None:
            found = [e["executionId"] for e in await http.executions("T/Hold")]
            return found if len(found) == 4 else None

        waiting = set(await eventually_answered(all_four, "the one that waits")) - set(ids)
    before = service.status(brief)
    service.kill9()
    for lost in (brief, ids[1]):  # of these the journal has nothing that could be placed
        spoil(service, lost)
    service.start()
    async with service.http() as http:
        assert (await http.execution(brief))["status"] == "Succeeded"
        assert service.status(brief) == before
        entries = (await http.get("/audit?limit=500"))["items"]
        commands = [entry["command"] for entry in entries if entry["kind"] == "command"]
        assert len(commands) == len(set(commands)) > 0, "what was replayed is there twice"
        found = {e["executionId"]: e["status"] for e in await http.executions("T/Hold")}
        assert found == dict.fromkeys(ids, "Running") | dict.fromkeys(waiting, "Queued")
        again = await http.call("POST", "/commands", body, **key)
        assert again.json["commandId"] == keyed.json["commandId"]
        assert again.headers["Idempotency-Replayed"] == "true"
        service.apps.put("go")
        for execution_id in (*ids, *waiting):
            assert (await http.ended(execution_id))["exitCode"] == 4
        assert len(await http.executions("T/Hold")) == 4
        assert sorted(service.apps.lines("starts")) == sorted((*ids, *waiting))
    await eventually(lambda: not service.queue_files(), "an empty queue")
    status = service.data / "JobStatus"
    assert all(json.loads((status / f"{i}.json").read_bytes())["Status"] == "Failed" for i in ids)
