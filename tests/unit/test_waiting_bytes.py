"""What waits in memory is bounded by its bytes, and not only by its number."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from bus.commands import PassTime, StartJob, StopJob
from bus.dispatch import INBOX_BYTES_MAX, Inbox
from bus.envelope import Envelope, seal, weight_of
from bus.errors import TransportBusy
from bus.model import Principal
from tests.directory_fixture import QUICK, received, running
from tests.fakes import ManualClock
from transports.directory.pending import TAKEN_BYTES_MAX, Entry, Pending

OLGA = Principal(user_id="olga", roles=("operator",), via="http")
PAUL = Principal(user_id="paul", roles=("operator",), via="http")


def start(size: int, principal: Principal = OLGA) -> Envelope:
    command = StartJob(job_id="Demo/Job", variables={"Text": "x" * size})
    return seal(command, principal, now_ms=ManualClock().now_ms())


async def test_inbox_takes_no_more_when_few_commands_hold_all_its_bytes() -> None:
    inbox = Inbox(ManualClock())
    inbox.put([start(INBOX_BYTES_MAX // 4) for _ in range(4)])
    waiting = asyncio.ensure_future(inbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.report(PassTime())
    assert len(await inbox.take(2)) == 2
    assert await asyncio.wait_for(waiting, 5) > 1
    while len(inbox):
        await inbox.take()
    assert inbox._bytes == 0


def test_what_is_received_at_a_time_has_a_bound_in_bytes() -> None:
    pending = Pending()
    for number in range(10):
        entry = Entry(str(number), f"{number}.json", number, size=TAKEN_BYTES_MAX // 2)
        pending.add(entry)
        pending.enqueue(entry)
    assert len(pending.take(10)) == 2


async def test_publishers_whose_commands_hold_all_bytes_are_refused_for_now(
    tmp_path: Path,
) -> None:
    settings = msgspec.structs.replace(QUICK, inbox_bytes_max=100_000)
    (tmp_path / "data" / "JobCommandQueue").mkdir(parents=True)
    async with running(tmp_path / "data", settings=settings) as transport:
        for _ in range(4):  # who has few commands there may have twice the bytes
            await transport.publish(start(40_000))
        with pytest.raises(TransportBusy) as busy:
            await transport.publish(start(40_000))
        assert "MiB wait already" in str(busy.value)
        stop = seal(StopJob(job_id="Demo/Job"), OLGA, now_ms=0)
        await transport.publish(stop)
        taken = await received(transport, 3)
        assert weight_of(taken[-1]) > 40_000
        await transport.publish(start(40_000))
