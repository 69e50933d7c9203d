"""Child: a whole node in process, kept busy with starts of one short job. FOLDER SECONDS LIVE"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bus.commands import StartJob
from bus.envelope import Envelope, seal
from bus.events import ExecutionEnded, Published
from bus.model import ExecutionStatus, Principal
from jobbus.service.logs import configure_logs
from jobbus.service.settings import ServeSettings, Settings
from jobbus.service.start import Node, running_node
from tests.benchmarks.closed_loop import print_figures

ALICE = Principal(user_id="alice", roles=("operator",), via="http")
WAITING = 32
WARM_UP = 5
"""Programs a slot that end before anything is counted."""

JOB = 'command = ["/bin/true"]\nmax_running = {live}\noverlap = "queue"\n'


async def main(folder: Path, seconds: float, live: int) -> None:
    place = folder / "apps/Bench/jobs/True"
    place.mkdir(parents=True)
    (place / "job.toml").write_text(JOB.format(live=live))
    settings = Settings(
        serve=ServeSettings(data=folder / "data", apps=folder / "apps", listen="127.0.0.1:0")
    )
    ends = Ends()
    async with running_node(settings) as node, asyncio.TaskGroup() as group:
        node.owner.listen(ends)
        feeder = group.create_task(_keep_waiting(node, live), name="feeder")
        # A start takes longer while shims are made that later ones are served by.
        while ends.good < WARM_UP * live:
            await asyncio.sleep(0.01)
        good, bad, began_s = ends.good, ends.bad, time.monotonic()
        await asyncio.sleep(seconds)
        count, lasted_s = ends.good - good, time.monotonic() - began_s
        failed = ends.bad - bad
        feeder.cancel()
        print_figures(
            {"rate": count / lasted_s, "count": float(ends.good + ends.bad), "failed": failed}
        )


class Ends:
    """Counts ends as they are published: what is kept of them gets less by itself."""

    def __init__(self) -> None:
        self.good = 0
        self.bad = 0

    def __call__(self, batch: Sequence[Published]) -> None:
        for published in batch:
            match published.event:
                case ExecutionEnded(status=ExecutionStatus.SUCCEEDED):
                    self.good += 1
                case ExecutionEnded():
                    self.bad += 1
                case _:
                    continue


async def _keep_waiting(node: Node, live: int) -> None:
    """So many executions run and wait that a free slot is always taken at once."""
    table = node.owner.published
    while True:
        lacking = WAITING + live - sum(1 for _ in table.live_executions())
        async with asyncio.TaskGroup() as group:
            for _ in range(lacking):
                now_ms = time.time_ns() // 1_000_000
                envelope = seal(StartJob(job_id="Bench/True"), ALICE, now_ms=now_ms)
                group.create_task(_publish(node, envelope), name="publish")
        await asyncio.sleep(0.005)


async def _publish(node: Node, envelope: Envelope) -> None:
    await node.publisher.publish(envelope)


if __name__ == "__main__":
    configure_logs("warning")
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
