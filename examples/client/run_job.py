"""Starts a job, waits for its end and says how it ended: run_job.py URL App/Job [NAME=VALUE ...]

The token is in JOBBUS_TOKEN.
"""

import asyncio
import os
import sys

from jobbus import Client, CommandFailed, JobbusError


async def main(url: str, job_id: str, variables: dict[str, str]) -> int:
    async with Client(url, os.environ.get("JOBBUS_TOKEN")) as client:
        try:
            execution = await client.run(job_id, variables)
        except CommandFailed as refused:
            print(f"{job_id} was not started: {refused}")
            return 1
        async for piece in client.output(execution.execution_id):
            sys.stdout.buffer.write(piece)
        print(f"{job_id} {execution.ending}", flush=True)
        return 0 if execution.status == "Succeeded" else 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    given = dict(word.split("=", 1) for word in sys.argv[3:])
    try:
        sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2], given)))
    except JobbusError as error:
        sys.exit(str(error))
