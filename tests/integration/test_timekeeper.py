"""The task that keeps deadlines: which of them it waits for, in real time."""

import asyncio

from bus.clock import SystemClock
from bus.commands import PassTime, Report
from bus.events import ExecutionQueued, Published
from handlers.decisions.table import JobTable
from handlers.timekeeper import Timekeeper

FAR_S, NEAR_S = 40.0, 0.2


async def test_a_deadline_that_comes_later_and_is_nearer_is_kept() -> None:
    clock, table, reports = SystemClock(), JobTable(), asyncio.Queue[Report]()

    def take(report: Report) -> None:
        reports.put_nowait(report)

    timekeeper = Timekeeper(table, clock, take)

    def wait_for(seq: int, seconds: float) -> None:
        event = ExecutionQueued(
            execution_id=f"e{seq}",
            job_id="Demo/A",
            command_id="c",
            user_id="olga",
            revision="r1",
            not_before_ms=clock.now_ms() + int(seconds * 1000),
        )
        published = Published(seq, clock.now_ms(), event)
        table.apply(published)
        timekeeper([published])

    wait_for(1, FAR_S)
    task = asyncio.create_task(timekeeper.run())
    try:
        await asyncio.sleep(0)  # it waits for the far one by now
        wait_for(2, NEAR_S)
        async with asyncio.timeout(FAR_S / 4):
            assert await reports.get() == PassTime()
    finally:
        task.cancel()
        await asyncio.wait([task])
