"""A process that runs a supervisor and spawns what it is asked for, to be killed by a test.

Arguments: the data folder, the instance, then a JSON list of `[execution id, script]`. Prints
`running` when all programs run; then waits to be killed.
"""

import asyncio
import json
import sys
from pathlib import Path

from bus.commands import ReportRunning
from tests.processes import bench, sh, starting


async def main() -> None:
    root, instance, jobs = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    async with bench(root, instance) as b:
        for execution_id, script in jobs:
            b.supervisor.spawn(starting(execution_id), sh(script))
        await b.wait_for(lambda: sum(isinstance(r, ReportRunning) for r in b.reports) == len(jobs))
        print("running", b.supervisor.spawner_pid, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
