"""A service that keeps little: records, files and answers of what is forgotten, across restarts."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.envelope import new_uuid
from tests.jobs import Apps
from tests.service import Service, eventually, eventually_answered, running_service

KEPT = 5
AT_ONCE = 20
"""Executions a job that the service here keeps."""


def define(apps: Apps) -> None:
    apps.shell("T/Brief", 'echo "$JOBBUS_COMMAND_ID" >> "$BOARD/starts"')
    apps.shell("T/Many", "exit 0", max_running=30)
    apps.shell("T/More", "exit 0", keep={"executions": KEPT * 2})


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    environment = Service.environment

    def with_keep(self: Service) -> dict[str, str]:
        return environment(self) | {"JOBBUS_KEEP_EXECUTIONS": str(KEPT)}

    monkeypatch.setattr(Service, "environment", with_keep)
    with running_service(tmp_path, define) as running:
        yield running


def names(folder: Path) -> set[str]:
    return {path.name.removesuffix(".json") for path in folder.iterdir()}


async def run(service: Service, job_id: str, count: int) -> list[str]:
    """So many executions have ended; the oldest first."""
    async with service.http() as http:
        ids = []
        for _ in range(count):
            execution_id = await http.start(job_id)
            await http.ended(execution_id)
            ids.append(execution_id)
    return ids


async def test_a_start_finds_more_than_is_kept_and_lets_it_go(service: Service) -> None:
    brief, more = await run(service, "T/Brief", KEPT + 3), await run(service, "T/More", KEPT + 3)
    service.restart()
    gone = set(brief[:3])
    async with service.http() as http:

        async def few() -> bool:
            return len(await http.executions("T/Brief")) == KEPT

        await eventually_answered(few, "forgotten")
        assert [e["executionId"] for e in await http.executions("T/Brief")] == brief[:2:-1]
        assert (await http.call("GET", f"/executions/{brief[0]}")).status == 404
        assert len(await http.executions("T/More")) == len(more)
    outputs, statuses = service.data / "JobOutput", service.data / "JobStatus"
    await eventually(lambda: not names(outputs) & gone, "outputs removed")
    await eventually(lambda: not names(statuses) & gone, "status files removed")
    assert names(outputs) == names(statuses) == {*brief[3:], *more}
    service.kill9()
    service.start()
    async with service.http() as http:
        assert len(await http.executions("T/Brief")) == KEPT


async def test_what_a_crash_left_over_is_removed_but_not_what_is_not_ours(service: Service) -> None:
    [kept] = await run(service, "T/Brief", 1)
    stray = new_uuid(time.time_ns() // 1_000_000)
    assert service.end() == 0
    (service.data / "JobOutput" / stray).mkdir()
    (service.data / "JobOutput" / stray / "output.log").write_text("left over")
    (service.data / "JobOutput" / "mine").mkdir()
    for folder in ("JobStatus", "JobCommandResults"):
        (service.data / folder / f"{stray}.json").write_text("{}")
        (service.data / folder / "notes.json").write_text("{}")
    service.start()
    await eventually(lambda: names(service.data / "JobOutput") == {kept, "mine"}, "outputs")
    await eventually(lambda: names(service.data / "JobStatus") == {kept, "notes"}, "status files")
    # Refused files have results without a record: theirs are kept for their days.
    assert {stray, "notes"} < names(service.data / "JobCommandResults")


async def test_after_the_journal_is_lost_the_past_comes_from_files_and_nothing_is_swept(
    service: Service,
) -> None:
    executions = await run(service, "T/Brief", 2)
    assert service.end() == 0
    for path in (service.data / "Journal").iterdir():
        if path.is_file():
            path.unlink()
    (service.data / "JobStatus" / f"{executions[0]}.json").unlink()  # and with it the last witness
    for _ in range(2):  # the second time the journal is continuous again
        service.start()
        async with service.http() as http:
            [execution] = await http.executions("T/Brief")
            assert (execution["executionId"], execution["status"]) == (executions[1], "Succeeded")
            await run(service, "T/More", 1)
        assert service.end() == 0
        assert set(executions) < names(service.data / "JobOutput")
        assert not (service.data / "Journal" / "files-doubted").exists()


async def test_after_a_crash_only_files_that_may_not_be_synced_are_written_again(
    service: Service,
) -> None:
    [old] = await run(service, "T/Brief", 1)
    service.restart()  # its end in order is a watermark: what it covers is on the disk
    [young] = await run(service, "T/Brief", 1)
    service.kill9()
    for execution_id in (old, young):
        (service.data / "JobStatus" / f"{execution_id}.json").unlink()
    service.start()
    assert names(service.data / "JobStatus") == {young}


async def many(service: Service, count: int) -> None:
    """So many real programs have run, as many at a time as one principal may follow."""
    left = iter(range(count))

    async def worker() -> None:
        async with service.http() as http:
            for _ in left:
                execution_id = await http.start("T/Many")
                answer = await http.call("GET", f"/executions/{execution_id}/stream")
                # Of so many at a time and so few kept, one may be forgotten before it is looked at.
                assert answer.status in (200, 404), answer.body

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


async def leaves_little(service: Service, count: int) -> None:
    await many(service, count)
    service.restart()
    outputs, statuses = service.data / "JobOutput", service.data / "JobStatus"
    await eventually(lambda: len(names(outputs)) <= KEPT, "outputs removed")
    await eventually(lambda: len(names(statuses)) <= KEPT, "status files removed")
    async with service.http() as http:
        assert len(await http.executions("T/Many")) == KEPT
    files = sum(1 for path in outputs.rglob("*"))
    print({"executions": count, "kept": KEPT, "files": files})
    assert files <= KEPT * 12


async def test_real_executions_leave_no_more_files_than_is_kept(service: Service) -> None:
    await leaves_little(service, 60)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
async def test_twenty_thousand_real_executions_leave_no_more_than_is_kept(
    service: Service,
) -> None:
    await leaves_little(service, 20_000)
