"""What the log says about jobs in a rush: some lines, a count of the others, then lines again."""

import asyncio
from collections.abc import Iterator

import pytest
import structlog

from bus.events import (
    ExecutionEnded,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStarted,
    Published,
)
from bus.model import ExecutionStatus, Reason
from handlers.decisions.table import JobTable
from jobbus.service import job_log
from jobbus.service.job_log import LINES_BURST, LINES_PER_S, JobLog
from tests.fakes import ManualClock


@pytest.fixture
def entries() -> Iterator[list[dict[str, object]]]:
    with structlog.testing.capture_logs() as captured:
        yield captured  # type: ignore[misc]


class Jobs:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = JobTable()
        self.log = JobLog(self.table, self.clock)
        self.seq = 0

    def run_one(self) -> None:
        """One execution is queued, starts, runs and fails."""
        id_ = f"e-{self.seq}"
        for event in (
            ExecutionQueued(
                execution_id=id_, job_id="A/B", command_id="c", user_id="u", revision="r"
            ),
            ExecutionStarted(execution_id=id_),
            ExecutionRunning(execution_id=id_, started_ms=1, pid=2),
            ExecutionEnded(
                execution_id=id_, status=ExecutionStatus.FAILED, reason=Reason.EXIT_CODE, ended_ms=3
            ),
        ):
            self.seq += 1
            published = Published(self.seq, 0, event)
            self.table.apply(published)
            self.log([published])


async def test_in_a_rush_lines_are_counted_and_the_count_is_logged(
    entries: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "SUMMARY_S", 0.01)
    jobs = Jobs()
    for _ in range(LINES_BURST):
        jobs.run_one()
    assert len(entries) == LINES_BURST
    summaries = asyncio.create_task(jobs.log.run())
    async with asyncio.timeout(10):
        while len(entries) == LINES_BURST:
            await asyncio.sleep(0.01)
    summaries.cancel()
    await asyncio.wait([summaries])
    assert entries[-1]["event"] == "more happened than is logged one by one"
    assert (entries[-1]["started"], entries[-1]["ended"]) == (LINES_BURST // 2, LINES_BURST // 2)


async def test_after_a_rush_lines_come_again(entries: list[dict[str, object]]) -> None:
    jobs = Jobs()
    for _ in range(LINES_BURST):
        jobs.run_one()
    jobs.clock.advance_s(2 / LINES_PER_S)
    jobs.run_one()
    assert [entry["event"] for entry in entries[LINES_BURST:]] == [
        "A/B started",
        "A/B failed: no exit code, after 0 s",
    ]
