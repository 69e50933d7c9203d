"""Child: durable publish through the directory transport, in process. FOLDER SECONDS PUBLISHERS"""

import asyncio
import sys
from pathlib import Path

from bus.clock import SystemClock
from bus.commands import StartJob
from bus.envelope import seal
from bus.layout import DataLayout
from bus.model import CommandRecord, Principal
from tests.benchmarks.closed_loop import closed_loop, print_figures
from transports.directory.transport import DirectoryTransport

ALICE = Principal(user_id="alice", roles=("operator",), via="http")


async def main(folder: Path, seconds: float, publishers: int) -> None:
    clock = SystemClock()
    transport = DirectoryTransport(
        DataLayout(folder), clock=clock, known=_nothing, secret=b"s" * 32
    )
    ready = asyncio.Event()
    command = StartJob(job_id="WebHostMetrics/CollectMetrics", variables={"Interval": 30})

    async def publish() -> None:
        await transport.publish(seal(command, ALICE, now_ms=clock.now_ms()))

    async def receive() -> None:
        while True:
            await transport.receive(256)

    async with asyncio.TaskGroup() as group:
        group.create_task(transport.run(ready), name="transport")
        await ready.wait()
        receiver = group.create_task(receive(), name="receiver")
        print_figures(await closed_loop(publish, publishers, seconds))
        receiver.cancel()
        await transport.aclose()


def _nothing(command_id: str) -> CommandRecord | None:
    return None


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
