"""The task that keeps deadlines: which of them it waits for, in real time."""

import asyncio
from itertools import count

from bus.clock import SystemClock
from bus.commands import PassTime, Report
from bus.events import (
    AnyEvent,
    ExecutionEnded,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionStopping,
    JobDefined,
    Published,
)
from bus.job_definition import JobSpec
from bus.model import ExecutionStatus, Reason, StopRequest
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


async def test_end_of_another_execution_wakes_it_for_a_delayed_start_that_is_due() -> None:
    """Two are due behind one that is being stopped: when that has ended the first has the slot,
    and the second is to be decided about, though no moment comes any more."""
    clock, table, reports = SystemClock(), JobTable(), asyncio.Queue[Report]()

    def take(report: Report) -> None:
        reports.put_nowait(report)

    timekeeper = Timekeeper(table, clock, take)
    seqs = count(1)

    def happens(*events: AnyEvent) -> None:
        # What is due was queued before its moment.
        batch = [Published(next(seqs), clock.now_ms() - 5000, event) for event in events]
        for published in batch:
            table.apply(published)
        timekeeper(batch)

    def waits(id_: str, due_ms: int | None) -> ExecutionQueued:
        return ExecutionQueued(
            execution_id=id_,
            job_id="Demo/A",
            command_id="c",
            user_id="olga",
            revision="r1",
            not_before_ms=due_ms,
        )

    now_ms = clock.now_ms()
    stop = StopRequest(reason=Reason.USER, by="olga", at_ms=now_ms, grace_s=10)
    happens(
        JobDefined(job_id="Demo/A", revision="r1", spec=JobSpec(command=("true",))),
        waits("old", None),
        ExecutionStarted(execution_id="old"),
        ExecutionStopping(execution_id="old", stop=stop),
        *(waits(name, now_ms - 1000) for name in ("first", "second")),
    )
    task = asyncio.create_task(timekeeper.run())
    try:
        await asyncio.sleep(0)
        assert reports.empty()
        ended = ExecutionEnded(
            execution_id="old",
            status=ExecutionStatus.STOPPED,
            reason=Reason.USER,
            ended_ms=clock.now_ms(),
        )
        happens(ended, ExecutionStarted(execution_id="first"))
        async with asyncio.timeout(FAR_S / 4):
            assert await reports.get() == PassTime()
    finally:
        task.cancel()
        await asyncio.wait([task])
